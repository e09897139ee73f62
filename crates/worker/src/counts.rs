//! The counts of rows, from PostgreSQL to the public hash.
//!
//! Each worker's totals grow in the transactions that write the rows. One script adds total minus published and stores
//! what is published now, so a crash anywhere loses and doubles nothing, whoever publishes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::trouble::Action;
use crate::work::Work;

/// How many totals one script takes at most.
const SCRIPT_TOTALS: usize = 400;

/// How long what a dead worker counted waits at most, to be published by another.
const EVERYONES: Duration = Duration::from_secs(30);

/// Publishes this worker's counts, and at the start and now and then those of every worker: one may be dead.
pub(crate) async fn publish(work: Arc<Work>) {
    let everyones = work.settings.worker.claim_time.min(EVERYONES);
    let mut due = Instant::now();
    while work.rest(work.settings.worker.publish_interval).await {
        let is_due = Instant::now() >= due;
        if is_due {
            due = Instant::now() + everyones;
        }
        publish_once(&work, is_due).await;
    }
}

/// Publishes what there is; what fails is left to the next time.
pub(crate) async fn publish_once(work: &Work, everyones: bool) {
    let store = &work.store;
    let totals = if everyones { store.counts().await } else { store.counts_of(work.consumer.name()).await };
    let Some(totals) = work.note(Action::Count, totals) else { return };
    for totals in totals.chunks(SCRIPT_TOTALS) {
        match work.note(Action::Publish, work.consumer.publish(totals).await) {
            Some(0) => {}
            Some(changed) => work.events.published(changed),
            None => return,
        }
    }
}
