//! What any worker does now and then: opt-outs are obeyed, and the rows of deleted accounts and the traces of old
//! deletes go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_core::dead_letter;
use penstock_core::stream::StreamId;

use crate::consumer::Answer;
use crate::events::chain;
use crate::store::StoreError;
use crate::trouble::{Action, Trouble};
use crate::work::Work;

/// How long rows of deleted accounts wait for a worker that did not see the deletion itself.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many tombstones one transaction removes at most.
const PRUNE_BATCH: u32 = 5000;

/// The least and the greatest pause between two looks for old tombstones; a tenth of their retention lies between.
const PRUNE_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How many dead letters PostgreSQL keeps: more than Redis does, since it costs no memory.
const KEPT_DEAD_LETTERS: u32 = 10 * dead_letter::MAX_COUNT;

/// Obeys what accounts say about their data, again and again. Where that cannot be read, what is known stays in force.
pub(crate) async fn obey_opt_outs(work: Arc<Work>) {
    let mut trouble = Trouble::default();
    loop {
        match obey(&work).await {
            Ok(()) => drop(trouble.over(Instant::now())),
            Err(error) => {
                if let Some(failures) = trouble.failed(Instant::now()) {
                    work.events.opt_outs_unread(failures, &chain(&error));
                }
            }
        }
        if !work.rest(work.settings.worker.opt_out_interval).await {
            return;
        }
    }
}

async fn obey(work: &Work) -> Result<(), StoreError> {
    let (mut gone, mut back) = (0, 0);
    loop {
        let mut changed = false;
        for did in work.store.opt_outs_to_obey().await? {
            if work.stop.is_cancelled() {
                break;
            }
            // Redis tells of its troubles elsewhere: without an answer the account waits for the next time.
            let last = async || work.consumer.last_entry().await.ok();
            match work.store.obey_opt_out(&did, last).await? {
                Some(true) => gone += 1,
                Some(false) => back += 1,
                None => continue,
            }
            changed = true;
        }
        if !changed {
            break;
        }
        work.deleted_account.notify_one();
    }
    work.events.opt_outs(gone, back);
    Ok(())
}

/// Removes the rows of deleted accounts, a bounded batch at a time.
pub(crate) async fn sweep(work: Arc<Work>) {
    loop {
        let swept = work.store.sweep_deleted(work.consumer.name(), work.settings.worker.delete_batch).await;
        let swept = work.note(Action::Sweep, swept).unwrap_or_default();
        if swept.rows > 0 {
            work.events.swept(swept.rows);
        }
        if !swept.stale.is_empty() {
            // Whoever ends before leaves it to the keys' expiry.
            let _ = work.insist(Action::Acknowledge, || work.consumer.delete_stale(&swept.stale)).await;
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
    // A dead letter that is replayed leaves the dead letters before it is applied: each holds for one round more.
    let mut letter_before = StreamId::MIN;
    while work.rest((retention / 10).clamp(least, greatest)).await {
        let Some((entry, letter)) = work.note(Action::Oldest, oldest(&work).await) else { continue };
        let before = begin_of(retention).min(entry).min(letter).min(letter_before);
        letter_before = letter;
        let removed = prune_tombstones(&work, before).await;
        if removed > 0 {
            work.events.pruned(removed);
        }
        work.note(Action::Prune, work.store.prune_dead_letters(KEPT_DEAD_LETTERS).await);
    }
}

async fn prune_tombstones(work: &Work, before: StreamId) -> u64 {
    let mut total = 0;
    while !work.stop.is_cancelled() {
        match work.note(Action::Prune, work.store.prune_tombstones(before, PRUNE_BATCH).await) {
            None | Some(0) => break,
            Some(removed) => total += removed,
        }
    }
    total
}

/// The oldest entry that may not be settled yet, and the one from which the oldest dead letter came.
async fn oldest(work: &Work) -> Answer<(StreamId, StreamId)> {
    // Without a group nothing is known to be settled.
    let entry = work.consumer.settled_below().await?.unwrap_or(StreamId::MIN);
    let mut letter = StreamId { ms: u64::MAX, seq: u64::MAX };
    let mut from = Some(StreamId::MIN);
    while let Some(start) = from {
        let (orders, next) = work.consumer.dead_letter_orders(start).await?;
        letter = orders.into_iter().fold(letter, StreamId::min);
        from = next;
    }
    Ok((entry, letter))
}

fn begin_of(retention: Duration) -> StreamId {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let retention = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
    StreamId { ms: now.saturating_sub(retention), seq: 0 }
}
