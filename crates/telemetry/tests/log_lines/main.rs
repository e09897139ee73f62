//! What all crates log, read from their sources: each warning and error is explained, and numbers are numbers.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]

mod form;
mod source;
mod table;
