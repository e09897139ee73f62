//! Whole repos as of one rev: written beside live events, compared with what is stored, and proven by their root.
//!
//! In: ranges of a repo's records, in byte order of their paths, as its host has them at one rev.
//! Out: rows as if a commit of that rev had put each record of the range and deleted whatever else stands there.
//! Called by the healer and by audits.
//!
//! A range is written the way entries are: locked, compared, decided and written, all in one transaction; only what is too many
//! goes in transactions of its own where there is much of it. What stands at a later rev stays. What is equal is left alone, so
//! the repo's row keeps up to where the snapshot covers it: events at or below its rev that come later change nothing there.
//!
//! Commits of ranges, and that of the end, do not wait for the disk. A crash of the server may take the last of them back, always along
//! with all that came after them: whoever says that a repo is done, in a transaction that does wait, says it of rows that stay.

mod absent;
mod compare;
mod content;
mod counts;
mod finish;
mod inspect;
mod profile;
mod root;
mod write;

use penstock_core::stream::StreamId;
use serde_json::value::RawValue;

use super::connection::Store;
use super::error::{ApplyError, StoreError};

#[cfg(test)]
pub(super) use write::{path_of, stored};

/// A record of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRecord {
    /// Its path within the repo: `collection/rkey`.
    pub path: Box<str>,
    /// Its CID, as text.
    pub cid: Box<str>,
    /// Its JSON, as the stream carries it.
    pub record: Box<RawValue>,
}

/// A range of a repo's paths in byte order: what comes after `after` (none: from the start) up to and with `through` (none: to
/// the end).
#[derive(Clone, Copy, Debug)]
pub struct SnapshotRange<'a> {
    /// The repo.
    pub did: &'a str,
    /// Its rev as of which the records are.
    pub rev: &'a str,
    /// What [`Store::start_snapshot`] returned before reading the repo began: what an event up to there did is in the snapshot.
    pub started: StreamId,
    /// The path after which the range begins.
    pub after: Option<&'a str>,
    /// Its last path.
    pub through: Option<&'a str>,
    /// Every record of the range, in byte order of the paths.
    pub records: &'a [SnapshotRecord],
}

/// What writing a range did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotWritten {
    /// Records that were missing and are there now.
    pub added: u64,
    /// Records that were there, but not like this.
    pub changed: u64,
    /// Records that were there and are not in the snapshot.
    pub removed: u64,
    /// Records that were as they are to be.
    pub kept: u64,
    /// Records of which something newer stands: a later event explains it.
    pub newer: u64,
    /// Records that no table takes, with the reason: as entries they would be dead letters.
    pub rejected: Vec<(String, String)>,
    /// Keys of the AppView's cache that are stale by it.
    pub stale: std::collections::BTreeSet<String>,
}

/// How what is stored differs from a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    /// The repo has a record that is not stored.
    Missing,
    /// A record is stored that the repo does not have.
    Extra,
    /// A record is stored with another content.
    Different,
    /// The counts of a post are not those of the rows that there are.
    Count,
}

/// One difference between what is stored and a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The record's path within the repo.
    pub path: String,
    /// What is wrong with it.
    pub kind: DifferenceKind,
    /// In which table and columns.
    pub detail: String,
}

/// The root of a repo's tree as the database holds its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseRoot {
    /// The digest of the tree, and how many records are in it.
    Known {
        /// SHA-256 of the root node.
        root: [u8; 32],
        /// Records in the tree.
        records: u64,
        /// The last rev that was written of the repo.
        rev: Option<String>,
    },
    /// Some records are stored without their CID.
    Lacking {
        /// How many.
        without: u64,
        /// One of them.
        example: String,
    },
    /// Nothing of the repo is stored.
    Empty,
}

/// What became of a repo when its snapshot was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// All of its ranges are written: it is synchronized as of the snapshot's rev.
    Whole,
    /// A range is not written, or another snapshot came between: read the repo again.
    Incomplete,
}

/// By PostgreSQL's clock, which marks of desynchronized repos go by, too.
const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

// === impl DifferenceKind ===

impl DifferenceKind {
    /// Returns a word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::Count => "count",
        }
    }
}

// === impl Store ===

impl Store {
    /// Returns what a snapshot is dated by; to be asked before the repo is read.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn start_snapshot(&self) -> Result<StreamId, StoreError> {
        let now = sqlx::query_scalar(NOW);
        let ms: i64 = self.in_transaction(async |tx| now.fetch_one(tx).await).await.map_err(StoreError::Snapshot)?;
        Ok(StreamId { ms: u64::try_from(ms).unwrap_or_default(), seq: 0 })
    }

    /// Writes a range of a snapshot: puts its records where nothing newer than its rev stands, and removes what stands at or below
    /// that rev and is not in it. Ranges come in order; one may be written again.
    ///
    /// `worker` names whose totals the counts are added to.
    ///
    /// # Errors
    /// As [`Store::apply`]. The range is to be written again then; what is written of it already is found equal.
    pub async fn write_snapshot(&self, worker: &str, range: &SnapshotRange<'_>) -> Result<SnapshotWritten, ApplyError> {
        self.write_range(worker, range).await
    }

    /// Compares a range of a snapshot with what is stored, and writes nothing. What a newer event explains is no difference.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn compare_snapshot(&self, range: &SnapshotRange<'_>) -> Result<Vec<Difference>, StoreError> {
        self.compare_range(range).await.map_err(StoreError::Snapshot)
    }

    /// Closes a snapshot whose ranges are all written: the repo is as of its rev, its chain continues from there, and it is no longer
    /// desynchronized unless it was marked after `started`. A root of zeros is not known. A crash of the server may take it back until
    /// something later is known to be on its disk.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn finish_snapshot(
        &self,
        did: &str,
        rev: &str,
        root: &[u8; 32],
        started: StreamId,
    ) -> Result<Finished, StoreError> {
        self.finish(did, rev, root, started).await.map_err(StoreError::Snapshot)
    }

    /// Computes the root of a repo's tree from what is stored, where CIDs are recorded.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn root_of(&self, did: &str) -> Result<DatabaseRoot, StoreError> {
        self.root(did).await.map_err(StoreError::Snapshot)
    }
}
