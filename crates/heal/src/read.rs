//! One repo: read from its host, then written, or compared and written where it differs, range by range.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::backoff::Backoff;
use penstock_core::filter::Rules;
use penstock_core::stream::StreamId;
use penstock_repo::{Repo, RepoError, RepoRecord, Repos};
use penstock_worker::store::{ApplyError, Difference, Finished, SnapshotRange, SnapshotRecord, Store, StoreError};
use thiserror::Error;

use crate::events::Events;
use crate::hosts::Hosts;
use crate::queue::{Queue, Written};

/// How many records a range has at most: live events of the repo wait for no more.
const RECORDS: usize = 500;

/// How many bytes of records a range has, about.
const BYTES: usize = 2_000_000;

/// How many times during a lease it is remembered how far a repo is.
const REMEMBERED: u32 = 60;

/// The pauses between tries to write.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// What is done with a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// It is written.
    Write,
    /// It is compared.
    Compare,
}

/// What came of a repo.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The rev that was read.
    pub rev: String,
    /// How many records the repo has.
    pub records: u64,
    /// Whether the account's key signed it.
    pub is_signed: bool,
    /// How what is stored differed, if that was asked.
    pub differences: Vec<Difference>,
    /// How many records no event could carry, and no table takes.
    pub unfit: u64,
    /// Whether the root of what is stored is the one that was signed: no record was compared then.
    pub by_root: bool,
    /// Whether something came between, so that it has to be read again.
    pub is_incomplete: bool,
}

/// Why a repo was not read or written to its end.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It could not be read.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// PostgreSQL refused something, or did not answer.
    #[error("could not use the database")]
    Database(#[source] sqlx::Error),
    /// As above.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else has the repo now.
    #[error("the lease of the repo is lost")]
    Lost,
}

/// What a repo is read with.
pub(crate) struct Reader<'a> {
    /// What the filter carries; the rest is as if the repo did not have it.
    pub(crate) rules: Arc<Rules>,
    pub(crate) store: &'a Store,
    pub(crate) repos: &'a Repos,
    pub(crate) queue: &'a Queue,
    pub(crate) events: &'a Events,
    /// Whether what no signature proves is refused.
    pub(crate) must_be_signed: bool,
    /// How long a repo is reserved without a word.
    pub(crate) lease: Duration,
    /// The host that is asked, for its answer to be recorded.
    pub(crate) host: Option<(&'a Mutex<Hosts>, &'a str)>,
    /// Whose totals the counts are added to.
    pub(crate) worker: &'a str,
}

/// A range that was read.
struct Range {
    after: Option<Box<str>>,
    through: Option<Box<str>>,
    records: Vec<SnapshotRecord>,
}

// === impl Reader ===

impl Reader<'_> {
    /// Reads a repo, and does with it what is aimed at. `resumed` is how far an earlier attempt came.
    pub(crate) async fn read(&self, did: &str, aim: Aim, resumed: Option<&Written>) -> Result<Outcome, ReadError> {
        let started = self.store.start_snapshot().await?;
        let mut repo = self.repos.fetch(did).await?;
        if let Some((hosts, name)) = self.host {
            hosts.lock().unwrap_or_else(PoisonError::into_inner).answered(name);
        }
        if self.must_be_signed && !repo.signed {
            return Err(RepoError::Unproven { host: repo.host.clone() }.into());
        }
        let mut outcome =
            Outcome { rev: repo.rev.to_string(), records: repo.records, is_signed: repo.signed, ..Outcome::default() };
        // A snapshot goes on only as the same one: with the rev and the date that it began with.
        let resumed = resumed.filter(|resumed| aim == Aim::Write && *resumed.rev == *repo.rev);
        let began = resumed.and_then(|resumed| resumed.started.parse().ok());
        let resumed = resumed.filter(|_| began.is_some());
        let started = began.unwrap_or(started);
        let mut written = resumed.cloned().unwrap_or_default();
        (written.rev, written.started) = (outcome.rev.clone(), started.to_string());
        let (mut after, mut remembered) = (resumed.map(|resumed| resumed.after.clone().into()), Instant::now());
        let mut records = self.next(&mut repo, after.as_deref()).await?;
        let mut next = if records.is_empty() { Vec::new() } else { self.next(&mut repo, None).await? };
        loop {
            let is_last = next.is_empty();
            let last = records.last().map(|record| record.path.clone());
            let through = if is_last { None } else { last };
            let range = Range { after: after.take(), through, records };
            // While one range is written the one after the next is read.
            let reading = async { if is_last { Ok(Vec::new()) } else { self.next(&mut repo, None).await } };
            let (taken, read) = tokio::join!(self.take(did, aim, started, &range, &mut outcome), reading);
            taken?;
            if is_last {
                break;
            }
            (records, next) = (next, read?);
            if let (Aim::Write, Some(through)) = (aim, &range.through) {
                written.records += range.records.len() as u64;
                written.after = through.to_string();
                if remembered.elapsed() >= self.lease / REMEMBERED {
                    let is_ours = self.queue.progress(did, &written).await.map_err(ReadError::Database)?;
                    if !is_ours {
                        return Err(ReadError::Lost);
                    }
                    remembered = Instant::now();
                }
            }
            after = range.through;
        }
        outcome.unfit = repo.unfit_count();
        if aim == Aim::Write {
            let finished = self.store.finish_snapshot(did, &repo.rev, &repo.root, started).await?;
            outcome.is_incomplete = finished == Finished::Incomplete;
        }
        Ok(outcome)
    }

    /// Returns the next records, those after a path where one is given.
    async fn next(&self, repo: &mut Repo, after: Option<&str>) -> Result<Vec<SnapshotRecord>, ReadError> {
        loop {
            let records = repo.next(RECORDS, BYTES).await?;
            let is_end = records.is_empty();
            let is_wanted = |record: &RepoRecord| {
                after.is_none_or(|after| *record.path > *after) && self.rules.keeps(&repo.did, &record.path)
            };
            let wanted: Vec<SnapshotRecord> = records.into_iter().filter(is_wanted).map(record).collect();
            if is_end || !wanted.is_empty() {
                return Ok(wanted);
            }
        }
    }

    async fn take(
        &self,
        did: &str,
        aim: Aim,
        started: StreamId,
        range: &Range,
        outcome: &mut Outcome,
    ) -> Result<(), ReadError> {
        let rev = outcome.rev.clone();
        let snapshot = range.of(did, &rev, started);
        match aim {
            Aim::Write => self.write(&snapshot).await,
            Aim::Compare => {
                // What the filter leaves out and is there all the same is for `penstock prune`.
                let differences = self.store.compare_snapshot(&snapshot).await?.into_iter();
                outcome.differences.extend(differences.filter(|one| self.rules.keeps(did, &one.path)));
            }
        }
        Ok(())
    }

    /// Writes a range for as long as it takes; what PostgreSQL will never take is found by halving.
    async fn write(&self, range: &SnapshotRange<'_>) {
        let mut parts = vec![*range];
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Some(part) = parts.last() {
            match self.store.write_snapshot(self.worker, part).await {
                Ok(written) => {
                    self.events.answered();
                    self.events.wrote(range.did, &written);
                    backoff.succeed();
                    parts.pop();
                }
                Err(error @ ApplyError::Data { .. }) => {
                    let part = *part;
                    parts.pop();
                    match halves(&part) {
                        Some((first, second)) => parts.extend([second, first]),
                        None => {
                            let path = part.records.first().map(|record| &*record.path).unwrap_or_default();
                            self.events.refused(range.did, path, &error);
                        }
                    }
                }
                Err(error) => {
                    self.events.database_failed("write a repo", &error);
                    tokio::time::sleep(backoff.fail()).await;
                }
            }
        }
    }
}

// === impl Range ===

impl Range {
    fn of<'a>(&'a self, did: &'a str, rev: &'a str, started: StreamId) -> SnapshotRange<'a> {
        let (after, through) = (self.after.as_deref(), self.through.as_deref());
        SnapshotRange { did, rev, started, after, through, records: &self.records }
    }
}

/// Cuts a range in two; none where it has one record, or none.
fn halves<'a>(range: &SnapshotRange<'a>) -> Option<(SnapshotRange<'a>, SnapshotRange<'a>)> {
    let (first, second) = range.records.split_at(range.records.len() / 2);
    let cut = Some(&*first.last()?.path);
    Some((
        SnapshotRange { through: cut, records: first, ..*range },
        SnapshotRange { after: cut, records: second, ..*range },
    ))
}

fn record(record: RepoRecord) -> SnapshotRecord {
    SnapshotRecord { path: record.path, cid: record.cid, record: record.record }
}
