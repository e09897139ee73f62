//! Reads new entries while there is room for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use penstock_telemetry::admin::Heartbeat;
use tokio::sync::mpsc::UnboundedSender;

use super::decode::{Decoding, decode};
use crate::action::Action;
use crate::consumer::{ANSWER_BYTES, Consumer, Delivery, is_group_gone};
use crate::state::work::Work;
use penstock_core::backoff::Backoff;

/// The most entries of one read: enough to make the round trip cheap.
const MAX_COUNT: usize = 500;

/// How long a full worker waits before it beats its heartbeat again.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reads until it is asked to stop; what was read by then is passed on.
pub(crate) async fn read(
    work: Arc<Work>,
    consumer: Consumer,
    heartbeat: Heartbeat,
    entries: UnboundedSender<Decoding>,
) {
    let mut backoff = pauses();
    while !work.stop.is_cancelled() {
        heartbeat.beat();
        let room = work.held.room(PATIENCE).await;
        if room == 0 {
            work.is_drained.store(false, Ordering::Relaxed);
            continue;
        }
        let count = MAX_COUNT.min(room);
        let answer = tokio::select! {
            biased;
            // A read under way is waited for even when asked to stop: what it brings is already ours.
            answer = consumer.read(count) => answer,
            () = work.abandon.cancelled() => break,
        };
        let Some(deliveries) = received(&work, answer, &mut backoff).await else { continue };
        let bytes: i64 = deliveries.iter().map(|delivery| delivery.size() as i64).sum();
        work.is_drained.store(deliveries.len() < count && bytes < ANSWER_BYTES, Ordering::Relaxed);
        if !pass_on(&work, deliveries, &entries) {
            break;
        }
    }
    heartbeat.retire();
    let _ = consumer.quit().await;
}

/// The pauses between tries of a Redis that fails.
pub(crate) fn pauses() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(2))
}

/// Returns what a read delivered; nothing if it is to be tried again, after a pause unless the group was gone and is there again.
pub(crate) async fn received(
    work: &Work,
    answer: Result<Vec<Delivery>, fred::error::Error>,
    backoff: &mut Backoff,
) -> Option<Vec<Delivery>> {
    if let Err(error) = &answer
        && is_group_gone(error)
        && rejoin(work).await
    {
        return None;
    }
    let deliveries = work.record(Action::Read, answer);
    if deliveries.is_some() {
        *backoff = pauses();
    } else {
        work.rest(backoff.fail()).await;
    }
    deliveries
}

/// Passes on what was delivered to be decoded; `false` if nobody takes it any more.
pub(crate) fn pass_on(work: &Arc<Work>, deliveries: Vec<Delivery>, entries: &UnboundedSender<Decoding>) -> bool {
    let deliveries = set_aside(work, take(work, deliveries));
    deliveries.is_empty() || entries.send(decode(work, deliveries)).is_ok()
}

/// Takes what was delivered, without what is held already.
pub(crate) fn take(work: &Work, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let now = Instant::now();
    deliveries.retain(|delivery| work.held.take(delivery.raw.id, delivery.held(), now));
    work.show_held();
    deliveries
}

/// Moves entries that are too large to be decoded beside others to the queue of those written in parts.
pub(crate) fn set_aside(work: &Work, deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let (large, others): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(Delivery::is_large);
    for delivery in large {
        work.parts_queue.send(delivery);
    }
    others
}

/// Creates the group again; `false` if that failed.
pub(crate) async fn rejoin(work: &Work) -> bool {
    let joined = work.record(Action::Join, work.consumer.join(&work.claim).await);
    joined.inspect(|joined| work.events.joined(work.consumer.group(), *joined, true)).is_some()
}
