//! The counts of rows, from PostgreSQL to the public hash.
//!
//! Each worker's totals grow in the transactions that write the rows. One script adds total minus published and stores
//! what is published now, so a crash anywhere loses and doubles nothing, whoever publishes.

use std::sync::Arc;

use crate::trouble::Action;
use crate::work::Work;

/// How many totals one script takes at most.
const SCRIPT_TOTALS: usize = 400;

/// Publishes this worker's counts, and now and then those of every worker: one may be dead.
pub(crate) async fn publish(work: Arc<Work>) {
    let interval = work.settings.worker.publish_interval;
    let everyones = work.settings.worker.claim_time.as_nanos().div_ceil(interval.as_nanos().max(1));
    let mut round = 0;
    while work.rest(interval).await {
        publish_once(&work, round % everyones == 0).await;
        round += 1;
    }
}

/// Publishes what there is; what fails is left to the next time.
pub(crate) async fn publish_once(work: &Work, everyones: bool) {
    let Some(mut totals) = work.note(Action::Count, work.store.counts().await) else { return };
    totals.retain(|total| everyones || total.worker == work.consumer.name());
    for totals in totals.chunks(SCRIPT_TOTALS) {
        match work.note(Action::Publish, work.consumer.publish(totals).await) {
            Some(0) => {}
            Some(changed) => work.events.published(changed),
            None => return,
        }
    }
}
