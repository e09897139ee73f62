//! Applies batches: one transaction, then the acknowledgement; whatever the data's fault is found and put aside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_core::entry::{Entry, Event};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;

use crate::batch::Batch;
use crate::bisect::Bisection;
use crate::consumer::{Acknowledgement, Delivery};
use crate::dead_letters::{Failure, bury, bury_unread};
use crate::events::chain;
use crate::store::{Applied, ApplyError, Rejected};
use crate::traces::{self, BatchTraces};
use crate::trouble::Action;
use crate::work::{Abandoned, Work};
use penstock_core::backoff::Backoff;

/// What becomes of one transaction.
pub(crate) enum Attempt {
    /// It is committed.
    Applied(Applied),
    /// The data is at fault.
    Refused(String),
    /// Something else is; whether it was committed is not known.
    Again(ApplyError),
}

/// Applies batches until there are no more, or it is too late.
pub(crate) async fn write(work: Arc<Work>, batches: Arc<Mutex<Receiver<Batch>>>) {
    loop {
        let batch = batches.lock().await.recv().await;
        let Some(batch) = batch else { return };
        let turn = work.floor.read().await;
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
    let mut bisection = Bisection::new(entries.len());
    while let Some(range) = bisection.next() {
        let part = entries.get(range.clone()).unwrap_or_default();
        match apply(work, part).await? {
            Ok(applied) => {
                bisection.accepted();
                let origins = origins.get(range).unwrap_or_default();
                finish(work, part, origins, applied).await?;
            }
            Err(error) => {
                if range == (0..entries.len()) {
                    work.events.bisecting(entries.len(), &error);
                }
                if !bisection.refused()
                    && let ([entry], Some(origin)) = (part, origins.get(range.start))
                {
                    dissect(work, entry, origin, error).await?;
                }
            }
        }
    }
    Ok(())
}

/// Runs one transaction until it is committed, or refused for its data.
async fn apply(work: &Work, entries: &[Entry]) -> Result<Result<Applied, String>, Abandoned> {
    let mut backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
    loop {
        match attempt(work, entries).await? {
            Attempt::Applied(applied) => return Ok(Ok(applied)),
            Attempt::Refused(error) => return Ok(Err(error)),
            Attempt::Again(error) => work.pause(pause_after(&error, &mut backoff)).await?,
        }
    }
}

/// Runs one transaction once.
pub(crate) async fn attempt(work: &Work, entries: &[Entry]) -> Result<Attempt, Abandoned> {
    let started = Instant::now();
    let step = traces::transaction(entries.len());
    let result = tokio::select! {
        biased;
        result = work.store.apply(work.consumer.name(), entries) => result,
        () = work.abandon.cancelled() => return Err(Abandoned),
    };
    Ok(match result {
        Ok(applied) => {
            work.troubles.over(Action::Apply, &work.events);
            step.done("penstock.rows", applied.rows.values().sum());
            work.events.refused_notifications(applied.refused_notifications);
            work.events.committed(
                entries.len(),
                started.elapsed(),
                applied.rows.iter().map(|(table, rows)| (*table, *rows)),
            );
            work.events.refused(applied.refused);
            if entries.iter().any(deletes_account) {
                work.deleted_account.notify_one();
            }
            Attempt::Applied(applied)
        }
        Err(error @ ApplyError::Data { .. }) => {
            let error = chain(&error);
            step.failed("data", &error);
            Attempt::Refused(error)
        }
        Err(error) => {
            if let ApplyError::Retry { reason, .. } = &error {
                work.events.retry(reason);
                step.failed(reason, &chain(&error));
            }
            if !is_conflict(&error) {
                work.troubles.failed(Action::Apply, &error, &work.events);
            }
            Attempt::Again(error)
        }
    })
}

/// Draws the pause before the next try: short where the transaction only met another one.
pub(crate) fn pause_after(error: &ApplyError, backoff: &mut Backoff) -> Duration {
    if is_conflict(error) { backoff.short_pause() } else { backoff.fail() }
}

pub(crate) fn is_conflict(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Retry { reason: "deadlock" | "serialization failure" | "race", .. })
}

/// Acknowledges what was applied, and puts aside the ops that had no place in their tables.
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

async fn acknowledge(work: &Work, applied: &Acknowledgement) -> Result<(), Abandoned> {
    if applied.is_empty() {
        return Ok(());
    }
    let now = Timestamp::now();
    let step = traces::acknowledgement(&work.settings.keys);
    let acknowledged = work.insist(Action::Acknowledge, || work.consumer.acknowledge(applied, now)).await?;
    step.done("messaging.batch.message_count", acknowledged);
    work.events.acknowledged(acknowledged, applied.ids().max());
    work.held.release(applied.ids());
    work.events.held(work.held.len());
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
            Ok(applied) => {
                bisection.accepted();
                acknowledgement.make_stale(applied.stale);
                for Rejected { op, reason, .. } in applied.rejected {
                    match op.and_then(|op| ops.get(op)) {
                        Some(op) => failure.add(&[*op], &reason),
                        None => failure.add(&ops, &reason),
                    }
                }
            }
            Err(error) => {
                if !bisection.refused() {
                    failure.add(&ops, &error);
                }
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
fn group_by_record<'a>(records: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<usize>> {
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
fn with_ops(entry: &Entry, indices: &[usize]) -> Entry {
    let mut part = entry.clone();
    if let Event::Commit(commit) = &mut part.event {
        let mut kept = indices.to_vec();
        kept.sort_unstable();
        let mut index = 0..commit.ops.len();
        commit.ops.retain(|_| index.next().is_some_and(|index| kept.binary_search(&index).is_ok()));
    }
    part
}

fn deletes_account(entry: &Entry) -> bool {
    matches!(&entry.event, Event::Account(account) if account.status.as_deref() == Some("deleted"))
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
