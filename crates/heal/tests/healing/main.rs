//! The healer against a real PostgreSQL and hosts of the tests' own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod audits;
mod backfills;
mod hosts;
mod kills;
mod queue;
mod rig;
mod widened;
