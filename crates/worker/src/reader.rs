//! Reads new entries, as long as there is room for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_telemetry::admin::Heartbeat;
use tokio::sync::mpsc::UnboundedSender;

use crate::consumer::{Consumer, Delivery, is_group_gone};
use crate::decode::{Decoding, decode, size};
use crate::sizes::Sizes;
use crate::trouble::Action;
use crate::work::Work;
use penstock_core::backoff::Backoff;

/// The most entries of one read: enough to make the round trip cheap.
const MAX_COUNT: usize = 500;

/// How long a full worker waits before it shows that it still turns.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pauses between tries of a Redis that fails.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Reads until it is told to stop; what was read by then is handed on.
pub(crate) async fn read(
    work: Arc<Work>,
    consumer: Consumer,
    heartbeat: Heartbeat,
    entries: UnboundedSender<Decoding>,
) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut sizes = Sizes::new();
    while !work.stop.is_cancelled() {
        heartbeat.beat();
        let room = work.held.room(PATIENCE).await;
        if room == 0 {
            continue;
        }
        let answer = tokio::select! {
            biased;
            // A read under way is waited for even when told to stop: what it brings is already ours.
            answer = consumer.read(sizes.count(MAX_COUNT.min(room))) => answer,
            () = work.abandon.cancelled() => break,
        };
        let answer = match answer {
            Err(error) if is_group_gone(&error) && rejoin(&work).await => continue,
            answer => answer,
        };
        let Some(deliveries) = work.note(Action::Read, answer) else {
            work.rest(backoff.fail()).await;
            continue;
        };
        backoff = Backoff::new(PAUSES.0, PAUSES.1);
        sizes.see(&deliveries);
        let deliveries = take(&work, deliveries);
        if !deliveries.is_empty() && entries.send(decode(&work, deliveries)).is_err() {
            break;
        }
    }
    heartbeat.retire();
    let _ = consumer.quit().await;
}

/// Takes hold of what was delivered; leaves out what is held already.
pub(crate) fn take(work: &Work, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
    let now = Instant::now();
    deliveries.retain(|delivery| work.held.take(delivery.raw.id, size(&delivery.raw), now));
    work.events.held(work.held.len());
    deliveries
}

/// Makes the group again; `false` where that was not possible.
async fn rejoin(work: &Work) -> bool {
    let joined = work.note(Action::Join, work.consumer.join(&work.claim).await);
    joined.inspect(|joined| work.events.joined(work.consumer.group(), *joined, true)).is_some()
}
