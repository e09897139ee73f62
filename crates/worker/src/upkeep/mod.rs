//! What a worker does beside the stream, each task at its own interval and in turn with the other workers.
//!
//! In: nothing but the clock, Redis and PostgreSQL as they are.
//! Out: the public counts, the checkpoint, copied dead letters, tables without what is no longer needed, and metrics.
//! Started by `streams`; nobody waits for it.

pub(crate) mod announce_name;
pub(crate) mod check_handles;
pub(crate) mod clean_up;
pub(crate) mod copy_letters;
pub(crate) mod mark_repos;
pub(crate) mod measure_sizes;
pub(crate) mod publish_counts;
pub(crate) mod report_lag;
pub(crate) mod save_checkpoint;
pub(crate) mod settle_claims;
pub(crate) mod settle_counts;
pub(crate) mod show_pulse;
pub(crate) mod watch_database;
