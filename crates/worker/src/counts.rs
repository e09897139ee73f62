//! The counts of rows, from PostgreSQL to the public hash.
//!
//! Each worker's totals grow in the transactions that write the rows. One script adds total minus published and stores
//! what is published now, so a crash anywhere loses and doubles nothing, whoever publishes.

use std::sync::Arc;

use crate::retry::Trouble;
use crate::work::Work;

/// How many totals one script takes at most.
const SCRIPT_TOTALS: usize = 400;

/// Publishes this worker's counts, and now and then those of every worker: one may be dead.
pub(crate) async fn publish(work: Arc<Work>) {
    let interval = work.settings.worker.publish_interval;
    let everyones = work.settings.worker.claim_time.as_nanos().div_ceil(interval.as_nanos().max(1));
    let mut trouble = (Trouble::default(), Trouble::default());
    let mut round = 0;
    while work.rest(interval).await {
        publish_once(&work, round % everyones == 0, &mut trouble).await;
        round += 1;
    }
}

/// Publishes what there is; what fails is left to the next time.
pub(crate) async fn publish_once(work: &Work, everyones: bool, trouble: &mut (Trouble, Trouble)) {
    let totals = match work.store.counts().await {
        Ok(mut totals) => {
            totals.retain(|total| everyones || total.worker == work.consumer.name());
            totals
        }
        Err(error) => return work.postgres_failed("read the counts", &mut trouble.0, &error),
    };
    work.postgres_answered("read the counts", &mut trouble.0);
    for totals in totals.chunks(SCRIPT_TOTALS) {
        match work.consumer.publish(totals).await {
            Ok(changed) => {
                work.redis_answered("publish the counts", &mut trouble.1);
                if changed > 0 {
                    work.events.published(changed);
                }
            }
            Err(error) => return work.redis_failed("publish the counts", &mut trouble.1, &error),
        }
    }
}
