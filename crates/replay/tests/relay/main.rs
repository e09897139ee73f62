//! The relay as a consumer meets it: its frames, and its manners.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod checker;
mod client;
mod faults;
mod frames;
mod manners;
mod now;
mod signed;
