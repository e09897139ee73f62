//! One transaction on some entries: tried again until it is committed, refused for its data, or too slow.

use std::time::{Duration, Instant};

use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::entry::{Entry, Event};

use super::gather::ops;
use super::traces;
use crate::action::Action;
use crate::state::ops_limit::is_too_slow;
use crate::state::work::{Abandoned, Work};
use crate::store::{Applied, ApplyError};

/// What becomes of one transaction.
pub(crate) enum Attempt {
    /// It is committed.
    Applied(Applied),
    /// The data is at fault.
    Refused(String),
    /// Something else is; whether it was committed is not known.
    Again(ApplyError),
}

/// What became of what was applied.
pub(crate) enum Outcome {
    /// It is committed.
    Applied(Applied),
    /// The data is at fault.
    Refused(String),
    /// It took too long, and would again: it is to be divided.
    TooSlow,
}

/// Runs one transaction until it is committed, refused for its data, or took too long to be tried again as it is.
pub(crate) async fn apply(work: &Work, entries: &[Entry]) -> Result<Outcome, Abandoned> {
    let mut backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
    let ops = entries.iter().map(ops).sum();
    loop {
        match attempt(work, entries).await? {
            Attempt::Applied(applied) => {
                work.ops_limit.grow(ops);
                return Ok(Outcome::Applied(applied));
            }
            Attempt::Refused(error) => return Ok(Outcome::Refused(error)),
            // A server that answers nobody has more time for smaller ones no more than for this one.
            Attempt::Again(error) if is_too_slow(&error) && !work.servers.postgres.is_away() => {
                work.events.too_slow(ops, work.ops_limit.halve(ops));
                return Ok(Outcome::TooSlow);
            }
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
            work.outages.over(Action::Apply, &work.events);
            step.done("penstock.rows", applied.rows.values().sum());
            work.events.refused_notifications(applied.refused_notifications);
            work.events.committed(
                entries.len(),
                started.elapsed(),
                applied.rows.iter().map(|(table, rows)| (*table, *rows)),
            );
            work.events.refused(applied.refused);
            work.events.claims(applied.claims);
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
                work.outages.failed(Action::Apply, &error, &work.events);
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

fn deletes_account(entry: &Entry) -> bool {
    matches!(&entry.event, Event::Account(account) if account.status.as_deref() == Some("deleted"))
}
