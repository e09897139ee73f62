//! A relay that serves a recording, for tests, benchmarks and a laptop.
