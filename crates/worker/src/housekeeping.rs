//! What any worker does now and then: the rows of deleted accounts go, and the traces of old deletes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use penstock_core::dead_letter;
use penstock_core::stream::StreamId;

use crate::consumer::Answer;
use crate::retry::Trouble;
use crate::store::Swept;
use crate::work::Work;

/// How long rows of deleted accounts wait for a worker that did not see the deletion itself.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many tombstones one transaction removes at most.
const PRUNE_BATCH: u32 = 5000;

/// The least and the greatest pause between two looks for old tombstones; a tenth of their retention lies between.
const PRUNE_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How many dead letters PostgreSQL keeps: more than Redis does, since it costs no memory.
const KEPT_DEAD_LETTERS: u32 = 10 * dead_letter::MAX_COUNT;

/// Removes the rows of deleted accounts, a bounded batch at a time.
pub(crate) async fn sweep(work: Arc<Work>) {
    let mut trouble = Trouble::default();
    loop {
        let swept = match work.store.sweep_deleted(work.consumer.name(), work.settings.worker.delete_batch).await {
            Ok(swept) => {
                work.postgres_answered("remove rows of deleted accounts", &mut trouble);
                swept
            }
            Err(error) => {
                work.postgres_failed("remove rows of deleted accounts", &mut trouble, &error);
                Swept::default()
            }
        };
        if swept.rows > 0 {
            work.events.swept(swept.rows);
        }
        tokio::select! {
            biased;
            () = work.stop.cancelled() => return,
            // The next batch waits for whoever else wants the rows.
            () = tokio::task::yield_now(), if swept.more => {}
            () = work.deleted_account.notified() => {}
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
    }
}

/// Removes the traces of deletes that nothing can ask for any more.
pub(crate) async fn prune(work: Arc<Work>) {
    let retention = work.settings.worker.tombstone_retention;
    let (least, greatest) = PRUNE_INTERVAL;
    let mut troubles = (Trouble::default(), Trouble::default());
    while work.rest((retention / 10).clamp(least, greatest)).await {
        let before = match prune_before(&work, retention).await {
            Ok(before) => before,
            Err(error) => {
                work.redis_failed("look for the oldest entry", &mut troubles.0, &error);
                continue;
            }
        };
        work.redis_answered("look for the oldest entry", &mut troubles.0);
        let mut total = 0;
        loop {
            match work.store.prune_tombstones(before, PRUNE_BATCH).await {
                Ok(0) => break,
                Ok(removed) => total += removed,
                Err(error) => {
                    work.postgres_failed("remove traces of deletes", &mut troubles.1, &error);
                    break;
                }
            }
            if work.stop.is_cancelled() {
                break;
            }
        }
        if total > 0 {
            work.events.pruned(total);
        }
        if let Err(error) = work.store.prune_dead_letters(KEPT_DEAD_LETTERS).await {
            work.postgres_failed("remove old dead letters", &mut troubles.1, &error);
        }
    }
}

/// The ID below which no entry can come again: by age, not acknowledged, or a dead letter that may be replayed.
async fn prune_before(work: &Work, retention: Duration) -> Answer<StreamId> {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let retention = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    let mut before = StreamId { ms: now.saturating_sub(retention), seq: 0 };
    // Without a group nothing is known to be settled.
    before = before.min(work.consumer.oldest_unsettled().await?.unwrap_or(StreamId::MIN));
    let mut from = Some(StreamId::MIN);
    while let Some(start) = from {
        let (orders, next) = work.consumer.dead_letter_orders(start).await?;
        before = orders.into_iter().fold(before, StreamId::min);
        from = next;
    }
    Ok(before)
}
