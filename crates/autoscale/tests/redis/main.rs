//! What is seen of a real Redis, and what follows for the number of workers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod lag;
mod rig;
mod servers;
mod trouble;
