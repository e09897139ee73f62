//! In: what Redis, its entries and PostgreSQL know of the last event written.
//! Out: where to resume on which relay, and the cursor that fences the next batch.
//! `session` asks before each connection; `standby` and `appview` keep positions for other relays and programs current.

pub(crate) mod appview;
pub(crate) mod checkpoint;
pub(crate) mod lookup;
pub(crate) mod position;
pub(crate) mod standby;
pub(crate) mod takeover;
pub(crate) mod unsettled;
