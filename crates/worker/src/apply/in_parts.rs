//! Entries that are written alone, one after the other and in parts: too large to be in memory beside others, or too slow
//! for one transaction.
//!
//! ```text
//! read, claimed: over the bound ──┐
//! written: took too long, alone ──┴─▶ queue ─▶ part, part, part, each a transaction ─▶ acknowledged, or a dead letter
//! ```
//!
//! An entry of 16 MB of text can be hundreds as trees; so its ops are decoded as many at once as are small together. What
//! takes too long even as a single op is not the data's fault, somebody may hold a lock: it comes last of its entry, the entry
//! goes to the end of the queue, and is tried again later, for as long as it takes.

use std::collections::VecDeque;
use std::sync::Arc;

use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::data::EventKind;
use penstock_core::dead_letter::repo_of;
use penstock_core::entry::{Entry, EntryError, Event};
use penstock_core::outline::Outline;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::attempt::{Outcome, apply};
use super::bury::{Failure, bury_commit, bury_unread};
use super::gather::field;
use super::settle::{acknowledge, group_by_record, with_ops};
use crate::consumer::weigh;
use crate::consumer::{Acknowledgement, Delivery};
use crate::state::work::{Abandoned, Work};

/// The most bytes of the trees of one part, unless a single record has more.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// After how many ops that took too long an entry makes way for the next one.
const SLOW: usize = 3;

/// The most bytes of one record's tree: a list of a million numbers passes, a million maps do not.
const RECORD_BYTES: usize = 64 * 1024 * 1024;

/// An entry that is written alone, and how far it has come.
pub(crate) struct Job {
    delivery: Delivery,
    /// The ops that are left, those on one record together; none before the first look.
    left: Option<VecDeque<Vec<usize>>>,
    /// How many of them are taken together at most: a refusal halves it.
    most: usize,
    failure: Failure,
    backoff: Backoff,
    due: Instant,
}

/// What became of an entry for now.
enum JobState {
    Done,
    /// Ops took too long: they are to be tried again when it is due.
    Later,
}

/// What became of a part.
enum PartOutcome {
    /// It is written, or known to be at fault.
    Settled,
    /// To be tried again in smaller parts.
    Divide,
    /// It cannot be divided, and took too long.
    Slow,
}

/// An entry, as much of it as is in memory.
enum EntryParts<'a> {
    Whole(Box<Entry>),
    Outline(Box<Outline<'a>>),
}

/// Writes such entries until asked to stop; those that are left are handed back with everything else that is held.
pub(crate) async fn write(work: Arc<Work>, mut coming: UnboundedReceiver<Delivery>) {
    let mut queue: VecDeque<Job> = VecDeque::new();
    while !work.stop.is_cancelled() {
        while let Ok(delivery) = coming.try_recv() {
            queue.push_back(Job::new(&work, delivery));
        }
        let now = Instant::now();
        let Some(mut job) = queue.iter().position(|job| job.due <= now).and_then(|index| queue.remove(index)) else {
            let due = queue.iter().map(|job| job.due).min();
            tokio::select! {
                () = work.stop.cancelled() => return,
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
                delivery = coming.recv() => match delivery {
                    Some(delivery) => queue.push_back(Job::new(&work, delivery)),
                    None => return,
                },
            }
            continue;
        };
        let alone = work.parts_turn.lock().await;
        let turn = work.suspect_lock.read().await;
        match job.step(&work).await {
            Ok(JobState::Done) => {}
            Ok(JobState::Later) => queue.push_back(job),
            Err(Abandoned) => return,
        }
        drop((turn, alone));
    }
}

// === impl Job ===

impl Job {
    pub(crate) fn new(work: &Work, delivery: Delivery) -> Self {
        work.events.goes_alone(delivery.raw.id, delivery.weight);
        let backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
        Self { delivery, left: None, most: usize::MAX, failure: Failure::default(), backoff, due: Instant::now() }
    }

    /// Goes on until everything is settled.
    pub(crate) async fn finish(mut self, work: &Work) -> Result<(), Abandoned> {
        while let JobState::Later = self.step(work).await? {
            work.pause(self.due.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }

    /// Writes part after part, until all are settled, or only those are left that take too long.
    async fn step(&mut self, work: &Work) -> Result<JobState, Abandoned> {
        let delivery = self.delivery.clone();
        let parts = match EntryParts::read(&delivery) {
            Ok(parts) => parts,
            Err(error) => return bury_unread(work, &delivery, &chain(&error)).await.map(|()| JobState::Done),
        };
        let mut left = self.left.take().unwrap_or_else(|| parts.groups().into());
        let mut slow = Vec::new();
        while !left.is_empty() && slow.len() < SLOW {
            let fit = self.fit(work, &parts, &left);
            let mut taken: Vec<_> = left.drain(..fit).collect();
            match self.write(work, &parts, &taken).await? {
                PartOutcome::Settled => {}
                PartOutcome::Divide => taken.into_iter().rev().for_each(|group| left.push_front(group)),
                PartOutcome::Slow => slow.append(&mut taken),
            }
        }
        if !slow.is_empty() {
            left.extend(slow);
            self.left = Some(left);
            self.due = Instant::now() + self.backoff.fail();
            return Ok(JobState::Later);
        }
        let mut done = Acknowledgement::default();
        if self.failure.is_empty() {
            done.add(parts.kind(), delivery.raw.id);
            acknowledge(work, &done).await?;
        } else {
            let repo = repo_of(field(&delivery.raw.data)).unwrap_or_default();
            bury_commit(work, &delivery, repo, parts.ops(), &self.failure).await?;
        }
        Ok(JobState::Done)
    }

    /// Returns how many of the remaining groups go into the next transaction; at least one.
    fn fit(&self, work: &Work, parts: &EntryParts<'_>, left: &VecDeque<Vec<usize>>) -> usize {
        let (mut ops, mut weight) = (0, 0);
        let fit = left.iter().take(self.most).take_while(|group| {
            ops += group.len();
            weight += parts.weight(group);
            ops <= work.ops_limit.ops() && weight <= PART_BYTES
        });
        fit.count().max(1)
    }

    async fn write(
        &mut self,
        work: &Work,
        parts: &EntryParts<'_>,
        taken: &[Vec<usize>],
    ) -> Result<PartOutcome, Abandoned> {
        let mut ops = taken.concat();
        ops.sort_unstable();
        let weight = parts.weight(&ops);
        if weight > RECORD_BYTES {
            self.failure.add(&ops, &format!("its record would take {weight} bytes of memory, over {RECORD_BYTES}"));
            return Ok(PartOutcome::Settled);
        }
        let entry = match parts.entry(&ops) {
            Ok(entry) => entry,
            Err(error) => return Ok(self.refused(taken.len(), &ops, &chain(&error))),
        };
        let outcome = apply(work, std::slice::from_ref(&entry)).await?;
        drop(entry);
        match outcome {
            Outcome::Applied(applied) => {
                self.most = self.most.saturating_mul(2);
                self.backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
                for rejected in applied.rejected {
                    match rejected.op.and_then(|op| ops.get(op)) {
                        Some(op) => self.failure.add(&[*op], &rejected.reason),
                        None => self.failure.add(&ops, &rejected.reason),
                    }
                }
                let mut stale = Acknowledgement::default();
                stale.make_stale(applied.stale);
                acknowledge(work, &stale).await?;
                Ok(PartOutcome::Settled)
            }
            Outcome::Refused(error) => Ok(self.refused(taken.len(), &ops, &error)),
            Outcome::TooSlow if taken.len() < 2 => Ok(PartOutcome::Slow),
            Outcome::TooSlow => Ok(PartOutcome::Divide),
        }
    }

    /// A part was refused for its data.
    fn refused(&mut self, groups: usize, ops: &[usize], error: &str) -> PartOutcome {
        if groups < 2 {
            self.failure.add(ops, error);
            return PartOutcome::Settled;
        }
        self.most = groups / 2;
        PartOutcome::Divide
    }
}

// === impl EntryParts ===

impl<'a> EntryParts<'a> {
    fn read(delivery: &'a Delivery) -> Result<Self, EntryError> {
        if delivery.is_large()
            && let Some(outline) = Outline::read(&delivery.raw)?
        {
            return Ok(Self::Outline(Box::new(outline)));
        }
        Ok(Self::Whole(Box::new(delivery.raw.decode()?)))
    }

    /// Groups the ops by their record; an entry without ops is one group.
    fn groups(&self) -> Vec<Vec<usize>> {
        let groups = match self {
            Self::Whole(entry) => match &entry.event {
                Event::Commit(commit) => group_by_record(commit.ops.iter().map(|op| (&*op.collection, &*op.rkey))),
                Event::Identity(_) | Event::Account(_) => Vec::new(),
            },
            Self::Outline(outline) => group_by_record(outline.paths()),
        };
        if groups.is_empty() { vec![Vec::new()] } else { groups }
    }

    /// Returns how many bytes the records of these ops take, decoded.
    fn weight(&self, ops: &[usize]) -> usize {
        match self {
            // It stands in memory already.
            Self::Whole(_) => 0,
            Self::Outline(outline) => {
                ops.iter().filter_map(|op| outline.record(*op)).map(|record| weigh(record.as_bytes())).sum()
            }
        }
    }

    fn entry(&self, ops: &[usize]) -> Result<Entry, EntryError> {
        match self {
            Self::Whole(entry) => Ok(with_ops(entry, ops)),
            Self::Outline(outline) => outline.entry(ops),
        }
    }

    fn kind(&self) -> EventKind {
        match self {
            Self::Whole(entry) => entry.event.kind(),
            Self::Outline(_) => EventKind::Commit,
        }
    }

    fn ops(&self) -> usize {
        match self {
            Self::Whole(entry) => match &entry.event {
                Event::Commit(commit) => commit.ops.len(),
                Event::Identity(_) | Event::Account(_) => 0,
            },
            Self::Outline(outline) => outline.paths().len(),
        }
    }
}
