//! In: batches of entries, dead letters and a cursor.
//! Out: the Redis stream, written by one fenced script per batch, and kept within its bounds (`trim`, `requeue`).
//! `session` sends the batches; the other tasks of the lease's holder are started in `lib.rs`.

pub(crate) mod batch;
pub(crate) mod bulk;
pub(crate) mod error;
pub(crate) mod lease;
pub(crate) mod live;
pub(crate) mod pressure;
pub(crate) mod publish;
pub(crate) mod requeue;
pub(crate) mod traces;
pub(crate) mod trim;
