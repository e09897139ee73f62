//! A repo that was read and verified, record by record in the order of their paths.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::car::spool::Budget;
use crate::error::RepoError;
use crate::records::{Records, RepoRecord, Unfit};

/// Where the records of a repo come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The repo's own CAR, signed and whole.
    Car,
    /// A listing of its records by its host, which has no CAR: nothing of it is proven.
    Records,
}

/// A repo as its host has it at one rev.
#[derive(Debug)]
pub struct Repo {
    /// Whose it is.
    pub did: Box<str>,
    /// At which rev.
    pub rev: Box<str>,
    /// The digest of the tree's root; zeros where the records were listed.
    pub root: [u8; 32],
    /// Whether the account's key signed it.
    pub signed: bool,
    /// How many records it has, those that are unfit included.
    pub records: u64,
    /// Where its records come from.
    pub source: Source,
    /// The name of the host that it was read from.
    pub host: Box<str>,
    /// How many bytes were received.
    pub bytes: u64,
    pub(crate) content: Content,
}

/// The records that are not handed out yet.
#[derive(Debug)]
pub(crate) struct Content {
    /// None while they are read.
    pub(crate) records: Option<Records>,
    pub(crate) budget: Arc<Budget>,
}

// === impl Repo ===

impl Repo {
    /// Returns the next records in the byte order of their paths, at most so many, and not many more bytes of JSON than so many; none at
    /// the end. Records that are unfit are not among them: see [`unfit`](Self::unfit). It always gets on, so that 1 byte is one record.
    ///
    /// # Errors
    /// What was written to the disk cannot be read, or an earlier call was given up before it returned.
    pub async fn next(&mut self, most: usize, bytes: usize) -> Result<Vec<RepoRecord>, RepoError> {
        let mut records = self.content.records.take().ok_or(RepoError::Ended)?;
        // From memory or from disk: neither is anything to hold up others with.
        let reading = spawn_blocking(move || (records.next(most.max(1), bytes.max(1)), records));
        let (read, records) = reading.await.map_err(|_| RepoError::Ended)?;
        self.content.records = Some(records);
        read.map_err(|source| RepoError::spill(&self.content.budget, source))
    }

    /// Names the records before the last one handed out that no event could carry, the first 200 of them. A row for such a path is what an
    /// earlier event left, if there is one.
    #[must_use]
    pub fn unfit(&self) -> &[Unfit] {
        self.content.records.as_ref().map_or(&[], |records| &records.unfit)
    }

    /// Returns how many of them there are.
    #[must_use]
    pub fn unfit_count(&self) -> u64 {
        self.content.records.as_ref().map_or(0, |records| records.unfit_count)
    }
}
