//! Takes over entries whose consumer is silent, and renews those that are held here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::stream::StreamId;
use tokio::sync::mpsc::UnboundedSender;

use super::decode::{Decoding, decode};
use super::first_stream::{set_aside, take};
use crate::action::Action;
use crate::consumer::{Answer, Claimed, Delivery, unless_group_gone};
use crate::state::work::Work;

/// From how many deliveries on an entry is a suspect: two processes left it pending.
const SUSPECT_DELIVERIES: u64 = 3;

/// After how many silent claim times a consumer without pending entries is removed.
const REAP_AFTER: u32 = 5;

/// How many entries one script claims at most: it looks up each of them.
const CLAIM_COUNT: usize = 100;

/// How long a full worker waits before it checks again whether to stop.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where claimed entries go.
pub(crate) struct Outlets {
    /// To the others.
    pub(crate) entries: UnboundedSender<Decoding>,
    /// To be tried alone.
    pub(crate) suspects: UnboundedSender<Delivery>,
}

/// Takes over idle entries and removes idle consumers, three times per claim time.
pub(crate) async fn claim(work: Arc<Work>, outlets: Outlets) {
    let claim_time = work.settings.worker.claim_time;
    loop {
        let claimed = claim_all(&work, &outlets, claim_time).await;
        work.record(Action::Claim, unless_group_gone(claimed));
        if !work.rest(claim_time / 3).await {
            return;
        }
    }
}

/// Renews what is held here three times per claim time, until everything is settled.
pub(crate) async fn refresh(work: Arc<Work>) {
    let period = work.settings.worker.claim_time / 3;
    while work.pause(period).await.is_ok() {
        // What was read just now shows by itself that it is held.
        let held = work.held.older_than(period / 2, Instant::now());
        let refreshed = work.consumer.refresh(&held).await;
        work.record(Action::Refresh, unless_group_gone(refreshed));
    }
}

async fn claim_all(work: &Arc<Work>, outlets: &Outlets, claim_time: Duration) -> Answer<()> {
    let mut from = Some(StreamId::MIN);
    let mut total = 0;
    while let Some(start) = from.filter(|_| !work.stop.is_cancelled()) {
        let room = work.held.room(PATIENCE).await;
        if room == 0 {
            continue;
        }
        let Claimed { next, entries, deleted } = work.consumer.claim(claim_time, start, CLAIM_COUNT.min(room)).await?;
        from = next;
        if !deleted.is_empty() {
            work.events.lost(&deleted);
        }
        let entries = take(work, entries);
        total += entries.len();
        let (suspects, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|delivery| delivery.times >= SUSPECT_DELIVERIES);
        let others = set_aside(work, others);
        if !others.is_empty() {
            // Whoever receives outlives this task, or the process ends anyway.
            let _ = outlets.entries.send(decode(work, others));
        }
        for suspect in suspects {
            let _ = outlets.suspects.send(suspect);
        }
    }
    if total > 0 {
        work.events.claimed(total);
    }
    let reaped = work.consumer.reap(claim_time * REAP_AFTER).await?;
    if !reaped.is_empty() {
        work.events.reaped(&reaped);
    }
    Ok(())
}
