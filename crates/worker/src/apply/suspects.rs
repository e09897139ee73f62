//! Entries that were held when processes died, tried one by one while nothing else runs.
//!
//! How often an entry was delivered says little: whoever was read along with a poison is delivered as often. So a
//! suspect is tried alone, and the try is recorded in Redis before and erased after. The record says how often a
//! process did not live to erase it; at `worker.crashLimit` the entry is given up.

use std::sync::Arc;

use penstock_core::causes::chain;
use tokio::sync::mpsc::UnboundedReceiver;

use super::attempt::{Attempt, attempt, pause_after};
use super::bury::bury_unread;
use super::in_parts::Job;
use super::settle::{dissect, finish};
use crate::action::Action;
use crate::consumer::Delivery;
use crate::state::work::{Abandoned, Work};
use crate::store::ApplyError;
use penstock_core::backoff::Backoff;

/// Tries suspects until there are no more, or the time for draining is over; hands back the rest when asked to stop.
pub(crate) async fn try_alone(work: Arc<Work>, mut suspects: UnboundedReceiver<Delivery>) {
    while let Some(suspect) = suspects.recv().await {
        let id = suspect.raw.id;
        if work.stop.is_cancelled() {
            // Its deliveries are not forgotten, as they are for entries that were not tried.
            let _ = work.consumer.give_back(&[id], work.settings.worker.claim_time, false).await;
            work.held.release([id]);
        } else if settle_alone(&work, suspect).await.is_err() {
            return;
        }
    }
}

async fn settle_alone(work: &Work, suspect: Delivery) -> Result<(), Abandoned> {
    let id = suspect.raw.id;
    let crashes = work.insist(Action::RecordCrashes, || work.consumer.crashes(id)).await?;
    work.events.suspect(id, suspect.times, crashes);
    let mut backoff = Backoff::new(work.settings.worker.retry_min, work.settings.worker.retry_max);
    loop {
        let turn = tokio::select! {
            turn = work.suspect_lock.write() => turn,
            () = work.abandon.cancelled() => return Err(Abandoned),
        };
        let given_up = crashes >= work.settings.worker.crash_limit;
        if !given_up {
            work.insist(Action::RecordCrashes, || work.consumer.record_crashes(id, crashes + 1)).await?;
        }
        if given_up {
            bury_unread(work, &suspect, &format!("crashed its worker {crashes} times when tried alone")).await?;
        } else if let Some(error) = try_once(work, &suspect).await? {
            work.insist(Action::RecordCrashes, || work.consumer.record_crashes(id, crashes)).await?;
            drop(turn);
            work.pause(pause_after(&error, &mut backoff)).await?;
            continue;
        }
        return work.insist(Action::RecordCrashes, || work.consumer.forget(id)).await;
    }
}

/// Settles an entry; returns the error where it is to be tried again.
async fn try_once(work: &Work, suspect: &Delivery) -> Result<Option<ApplyError>, Abandoned> {
    if suspect.is_large() {
        return Job::new(work, suspect.clone()).finish(work).await.map(|()| None);
    }
    let entry = match suspect.raw.decode() {
        Ok(entry) => entry,
        Err(error) => return bury_unread(work, suspect, &chain(&error)).await.map(|()| None),
    };
    match attempt(work, std::slice::from_ref(&entry)).await? {
        Attempt::Applied(applied) => {
            finish(work, std::slice::from_ref(&entry), std::slice::from_ref(suspect), applied).await?;
        }
        Attempt::Refused(error) => dissect(work, &entry, suspect, error).await?,
        Attempt::Again(error) => return Ok(Some(error)),
    }
    Ok(None)
}
