//! Applies batches: one transaction, then the acknowledgement. Data that PostgreSQL rejects is narrowed down and dead-lettered.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use penstock_core::causes::chain;
use penstock_core::entry::{Commit, Entry, Event};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;

use super::attempt::{Outcome, apply};
use super::bisect::Bisection;
use super::bury::{Failure, bury, bury_unread};
use super::gather::{Batch, ops};
use super::traces::{self, BatchTraces};
use crate::action::Action;
use crate::consumer::{Acknowledgement, Delivery};
use crate::state::work::{Abandoned, Work};
use crate::store::{Applied, Rejected};

/// Applies batches until there are no more, or the time for draining is over.
pub(crate) async fn write(work: Arc<Work>, batches: Arc<Mutex<Receiver<Batch>>>) {
    loop {
        let batch = batches.lock().await.recv().await;
        let Some(batch) = batch else { return };
        let turn = work.suspect_lock.read().await;
        let since_full = Instant::now();
        let traces = BatchTraces::begin(&batch, &work.settings.keys);
        let settled = match &traces {
            Some(traces) => traces.cover(Box::pin(settle(&work, batch))).await,
            None => settle(&work, batch).await,
        };
        if settled.is_err() {
            return;
        }
        let trace = traces.and_then(|traces| traces.context());
        work.events.settled(since_full.elapsed(), trace.as_ref());
        drop(turn);
    }
}

/// Applies and acknowledges a batch, whatever it takes.
pub(crate) async fn settle(work: &Work, batch: Batch) -> Result<(), Abandoned> {
    let Batch { entries, origins, unreadable, .. } = batch;
    for (delivery, error) in &unreadable {
        bury_unread(work, delivery, &chain(error)).await?;
    }
    let (mut entries, mut origins) = (&*entries, &*origins);
    while !entries.is_empty() {
        let (part, rest) = entries.split_at(within(entries, work.ops_limit.ops()));
        let (part_origins, rest_origins) = origins.split_at(part.len());
        settle_part(work, part, part_origins).await?;
        (entries, origins) = (rest, rest_origins);
    }
    Ok(())
}

/// Returns how many of the first entries have so many ops together; one at least.
fn within(entries: &[Entry], most: usize) -> usize {
    let mut sum = 0;
    let fit = entries.iter().take_while(|entry| {
        sum += ops(entry);
        sum <= most
    });
    fit.count().max(1)
}

/// Applies and acknowledges what goes into one transaction, or into more where that is refused or takes too long.
async fn settle_part(work: &Work, entries: &[Entry], origins: &[Delivery]) -> Result<(), Abandoned> {
    let mut bisection = Bisection::new(entries.len());
    while let Some(range) = bisection.next() {
        let part = entries.get(range.clone()).unwrap_or_default();
        let one = || Option::zip(part.first(), origins.get(range.start));
        match apply(work, part).await? {
            Outcome::Applied(applied) => {
                bisection.accepted();
                let origins = origins.get(range).unwrap_or_default();
                finish(work, part, origins, applied).await?;
            }
            Outcome::Refused(error) => {
                if range == (0..entries.len()) {
                    work.events.bisecting(entries.len(), &error);
                }
                if !bisection.refused()
                    && let Some((entry, origin)) = one()
                {
                    dissect(work, entry, origin, error).await?;
                }
            }
            Outcome::TooSlow => {
                if !bisection.too_slow()
                    && let Some((_, origin)) = one()
                {
                    work.parts_queue.send(origin.clone());
                }
            }
        }
    }
    Ok(())
}

/// Acknowledges what was applied, and dead-letters the ops that had no place in their tables.
pub(crate) async fn finish(
    work: &Work,
    entries: &[Entry],
    origins: &[Delivery],
    applied: Applied,
) -> Result<(), Abandoned> {
    let mut rejected = applied.rejected;
    rejected.sort_by_key(|rejected| (rejected.entry, rejected.op));
    let mut acknowledgement = Acknowledgement::default();
    acknowledgement.make_stale(applied.stale);
    let mut faulty = rejected.chunk_by(|a, b| a.entry == b.entry).peekable();
    for (index, (entry, origin)) in entries.iter().zip(origins).enumerate() {
        match faulty.next_if(|faults| faults.first().is_some_and(|fault| fault.entry == index)) {
            Some(faults) => bury(work, entry, origin, &rejection(faults)).await?,
            None => acknowledgement.add(entry.event.kind(), entry.id),
        }
    }
    acknowledge(work, &acknowledgement).await
}

pub(crate) async fn acknowledge(work: &Work, applied: &Acknowledgement) -> Result<(), Abandoned> {
    if applied.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let step = traces::acknowledgement(&work.settings.keys);
    let acknowledged = work.insist(Action::Acknowledge, || work.consumer.acknowledge(applied, now)).await?;
    step.done("messaging.batch.message_count", acknowledged);
    // What goes by the second stream may be late, and says nothing of the others.
    let newest = if work.is_bulk { None } else { applied.ids().max() };
    work.events.acknowledged(acknowledged, newest);
    work.held.release(applied.ids());
    work.show_held();
    Ok(())
}

/// Finds which ops of a refused entry are at fault, applies the others and puts the entry aside, reduced to those.
///
/// Ops on one record stay together: apart, the later would be taken for a repetition of the earlier.
pub(crate) async fn dissect(work: &Work, entry: &Entry, origin: &Delivery, error: String) -> Result<(), Abandoned> {
    let groups = match &entry.event {
        Event::Commit(commit) => group_by_record(commit.ops.iter().map(|op| (&*op.collection, &*op.rkey))),
        Event::Identity(_) | Event::Account(_) => Vec::new(),
    };
    if groups.len() < 2 {
        return bury(work, entry, origin, &Failure::whole(error)).await;
    }
    let mut failure = Failure::default();
    let mut acknowledgement = Acknowledgement::default();
    let mut bisection = Bisection::new(groups.len());
    // The whole was refused already.
    bisection.next();
    bisection.refused();
    while let Some(range) = bisection.next() {
        let ops: Vec<usize> = groups.get(range.clone()).unwrap_or_default().concat();
        let part = with_ops(entry, &ops);
        match apply(work, std::slice::from_ref(&part)).await? {
            Outcome::Applied(applied) => {
                bisection.accepted();
                acknowledgement.make_stale(applied.stale);
                for Rejected { op, reason, .. } in applied.rejected {
                    match op.and_then(|op| ops.get(op)) {
                        Some(op) => failure.add(&[*op], &reason),
                        None => failure.add(&ops, &reason),
                    }
                }
            }
            Outcome::Refused(error) => {
                if !bisection.refused() {
                    failure.add(&ops, &error);
                }
            }
            Outcome::TooSlow => {
                // There it is begun with anew, in parts: what is written already does no harm.
                work.parts_queue.send(origin.clone());
                return Ok(());
            }
        }
    }
    if failure.is_empty() {
        // What was at fault is so no longer.
        acknowledgement.add(entry.event.kind(), entry.id);
        return acknowledge(work, &acknowledgement).await;
    }
    acknowledge(work, &acknowledgement).await?;
    bury(work, entry, origin, &failure).await
}

fn rejection(faults: &[Rejected]) -> Failure {
    let mut failure = Failure::default();
    for fault in faults {
        match fault.op {
            Some(op) => failure.add(&[op], &fault.reason),
            None => return Failure::whole(fault.reason.clone()),
        }
    }
    failure
}

/// Groups the indices of ops that are on one record, in the order of their first.
pub(crate) fn group_by_record<R: Eq + std::hash::Hash>(records: impl Iterator<Item = R>) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (index, record) in records.enumerate() {
        let place = *places.entry(record).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// The entry with some of its ops.
pub(crate) fn with_ops(entry: &Entry, indices: &[usize]) -> Entry {
    let Event::Commit(commit) = &entry.event else { return entry.clone() };
    let mut kept = indices.to_vec();
    kept.sort_unstable();
    let ops = kept.iter().filter_map(|index| commit.ops.get(*index).cloned()).collect();
    let (repo, rev, since) = (commit.repo.clone(), commit.rev.clone(), commit.since.clone());
    let event = Event::Commit(Commit {
        repo,
        rev,
        since,
        commit: commit.commit.clone(),
        time: commit.time,
        ops,
        missing: commit.missing,
        proven: commit.proven.clone(),
    });
    Entry { event, ..*entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_on_one_record_stay_together() {
        let records = [("a", "1"), ("a", "2"), ("a", "1"), ("b", "1")];
        assert_eq!(group_by_record(records.into_iter()), [vec![0, 2], vec![1], vec![3]]);
    }
}
