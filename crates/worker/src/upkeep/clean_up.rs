//! Applies opt-outs, and removes the rows of deleted accounts, old tombstones and surplus dead letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::causes::chain;
use penstock_core::dead_letter::Bounds;
use penstock_core::servers::{Circumstances, Failing};
use penstock_core::stream::StreamId;

use crate::action::Action;
use crate::consumer::Retention;
use crate::state::servers::is_unanswered;
use crate::state::work::Work;
use crate::store::StoreError;

/// How long rows of deleted accounts wait for a worker that did not see the deletion itself.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many tombstones one transaction removes at most.
const PRUNE_BATCH: u32 = 5000;

/// The least and the greatest pause between two looks for old tombstones; a tenth of their retention lies between.
const PRUNE_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How often it is looked whether PostgreSQL holds too many dead letters, where this process added few.
const BOUND_INTERVAL: Duration = Duration::from_secs(3600);

/// Applies opt-outs at their interval. If they cannot be read, those that are known stay in force.
pub(crate) async fn obey_opt_outs(work: Arc<Work>) {
    let mut trouble = Failing::default();
    loop {
        match obey(&work).await {
            Ok(()) => drop(trouble.over(Instant::now())),
            Err(error) => {
                let server = &work.servers.postgres;
                let how = Circumstances { is_away: server.is_away(), is_unanswered: is_unanswered(&error) };
                if let Some(failures) = trouble.failed(Instant::now(), how) {
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

/// Removes the rows of deleted accounts, a bounded batch at a time: each in its turn.
pub(crate) async fn sweep(work: Arc<Work>) {
    loop {
        let swept = work.store.sweep_deleted(work.consumer.name(), work.settings.worker.delete_batch).await;
        let swept = work.record(Action::Sweep, swept).unwrap_or_default();
        if swept.rows > 0 {
            work.events.swept(swept.rows);
        }
        if let Some(failed) = &swept.failed {
            work.events.sweep_failed(failed);
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

/// Prunes tombstones that can no longer be needed.
pub(crate) async fn prune(work: Arc<Work>) {
    let worker = &work.settings.worker;
    let keep = Retention { tombstones: worker.tombstone_retention, letters: worker.letter_hold };
    let (least, greatest) = PRUNE_INTERVAL;
    while work.rest((keep.tombstones / 10).clamp(least, greatest)).await {
        let Some(before) = work.record(Action::Oldest, work.consumer.tombstones_needed_from(keep).await) else {
            continue;
        };
        let removed = prune_tombstones(&work, before).await;
        if removed > 0 {
            work.events.pruned(removed);
        }
    }
}

/// Keeps the dead letters in PostgreSQL within their bounds.
pub(crate) async fn bound_letters(work: Arc<Work>) {
    let bounds = Bounds::in_postgres(&work.settings);
    loop {
        let mut removed = 0;
        let failed = loop {
            match work.record(Action::Prune, work.store.bound_dead_letters(bounds).await) {
                None => break true,
                Some(0) => break false,
                Some(some) => removed += some,
            }
            if work.stop.is_cancelled() {
                return;
            }
        };
        if removed > 0 {
            work.events.letters_pushed_out(removed);
        }
        tokio::select! {
            () = work.stop.cancelled() => return,
            () = work.added_letters.due() => {}
            () = tokio::time::sleep(if failed { SWEEP_INTERVAL } else { BOUND_INTERVAL }) => {}
        }
    }
}

async fn prune_tombstones(work: &Work, before: StreamId) -> u64 {
    let mut total = 0;
    while !work.stop.is_cancelled() {
        match work.record(Action::Prune, work.store.prune_tombstones(before, PRUNE_BATCH).await) {
            None | Some(0) => break,
            Some(removed) => total += removed,
        }
    }
    total
}
