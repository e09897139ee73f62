//! Entries on their way into PostgreSQL.
//!
//! In: decoded entries from `read`, gathered into batches.
//! Out: committed transactions, then acknowledgements; what failed for good is a dead letter in PostgreSQL and in Redis.
//! Way: `gather → settle → attempt`, and aside from it `bisect`, `in_parts`, `suspects`, `bury`.

pub(crate) mod attempt;
pub(crate) mod bisect;
pub(crate) mod bury;
pub(crate) mod gather;
pub(crate) mod in_parts;
pub(crate) mod settle;
pub(crate) mod suspects;
mod traces;
