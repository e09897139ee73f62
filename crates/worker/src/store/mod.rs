//! The PostgreSQL half of the worker: entries become rows, and the database converges.
//!
//! In: batches of decoded entries, from `apply`; messages; what `upkeep` asks for.
//! Out: committed rows, what had no place in its table, and which keys of the AppView's cache are stale.
//! Way: `parsed → existing → decide → write → post_counts → derived`, all in `transact`.
//!
//! A batch is one transaction. It locks the repos that it touches, reads what exists where it wants to write, decides
//! in memory, and writes one statement per table and kind of change. Under the locks only writers outside Penstock can change
//! those repos. Their rows are locked while they are read; a row that they insert meanwhile causes a unique violation, and
//! the batch starts over.
//!
//! The final state of a record depends on versions alone, never on the order of arrival: see `version` for which of two states is
//! the later one, `decide` for records that want the same place, `post_counts` for how posts are counted.

mod account_claims;
mod accounts;
mod chain;
mod check;
mod checkpoint;
mod cids;
mod claim_rules;
mod connection;
mod count_rows;
mod dead_letters;
mod decide;
pub(crate) mod derived;
mod error;
mod existing;
mod floor;
mod handle_checks;
mod head;
mod kept;
mod marks;
mod message_rows;
mod micros;
mod opt_outs;
mod parsed;
mod post_counts;
mod prepared;
mod project;
mod prune;
mod queue;
mod repairs;
mod reserve;
mod row;
pub mod schema;
mod snapshot;
mod snapshot_sql;
mod sql;
mod sweep;
pub(crate) mod table;
mod table_sizes;
mod tally;
mod totals;
mod transact;
mod users;
mod version;
mod waiting_counts;
mod write;

pub(crate) use account_claims::{Answer as HostAnswer, Claim, ClaimedAccounts, Settled};
pub use checkpoint::Checkpoint;
pub(crate) use claim_rules::Claims;
pub use connection::{Store, StoreSettings};
pub use count_rows::{Counted, Turn};
pub use dead_letters::DeadLetter;
pub(crate) use error::Answer;
pub use error::{ApplyError, StoreError};
pub(crate) use handle_checks::{Checked, HandleCheck};
pub use marks::Desynchronized;
pub(crate) use message_rows::MessageRow;
pub(crate) use micros::Micros;
pub use parsed::Rejected;
pub use prepared::check as check_statements;
pub use prune::{Outside, OutsideSearch};
pub use snapshot::{
    DatabaseRoot, Difference, DifferenceKind, Finished, SnapshotRange, SnapshotRecord, SnapshotWritten,
};
pub use sweep::{Swept, Unswept};
pub(crate) use table_sizes::TableSize;
pub use totals::CountTotal;
pub use transact::Applied;

#[cfg(test)]
mod tests;
