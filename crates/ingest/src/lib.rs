//! Reads a relay and writes the Redis stream.
