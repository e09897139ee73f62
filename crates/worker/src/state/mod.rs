//! What the tasks of a worker share and remember.
//!
//! In: what the tasks took, held, let go, and which of their requests failed.
//! Out: how much room is left, how large a transaction may be, whether the worker is ready.
//! Imported by every task; imports none of them.

pub(crate) mod added_letters;
pub(crate) mod held;
pub(crate) mod ops_limit;
pub(crate) mod outages;
pub(crate) mod parts_queue;
pub(crate) mod servers;
pub(crate) mod work;
