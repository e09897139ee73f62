//! Reads the Redis stream and writes PostgreSQL.
