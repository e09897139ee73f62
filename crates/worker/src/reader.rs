//! Reads new entries, as long as there is room for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_telemetry::admin::Heartbeat;
use tokio::sync::mpsc::UnboundedSender;

use crate::consumer::{Answer, Consumer, Delivery, is_group_gone};
use crate::decode::{Decoding, decode, size};
use crate::trouble::Action;
use crate::work::Work;
use penstock_core::backoff::Backoff;

/// How many entries a read asks for, until their size is known.
const FIRST_COUNT: usize = 64;

/// The most entries of one read: enough to make the round trip cheap.
const MAX_COUNT: usize = 500;

/// What one read should bring, in bytes, judged by the read before.
const TARGET_BYTES: usize = 2 * 1024 * 1024;

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
    let mut count = FIRST_COUNT;
    while !work.stop.is_cancelled() {
        heartbeat.beat();
        let room = work.held.room(PATIENCE).await;
        if room == 0 {
            continue;
        }
        let answer = tokio::select! {
            biased;
            // A read under way is waited for even when told to stop: what it brings is already ours.
            answer = consumer.read(count.min(room)) => answer,
            () = work.abandon.cancelled() => break,
        };
        let answer = match answer {
            Err(error) if is_group_gone(&error) => rejoin(&work, &consumer).await,
            answer => answer,
        };
        let Some(deliveries) = work.note(Action::Read, answer) else {
            work.rest(backoff.fail()).await;
            continue;
        };
        backoff = Backoff::new(PAUSES.0, PAUSES.1);
        count = next_count(&deliveries).unwrap_or(count);
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

/// Makes the group again, which brings no entries yet.
async fn rejoin(work: &Work, consumer: &Consumer) -> Answer<Vec<Delivery>> {
    if consumer.join().await? {
        work.events.group_made(consumer.group(), true);
    }
    Ok(Vec::new())
}

/// How many entries to ask for next, judged by the size of the last ones.
fn next_count(deliveries: &[Delivery]) -> Option<usize> {
    let bytes: usize = deliveries.iter().map(|delivery| size(&delivery.raw)).sum();
    let mean = (bytes / deliveries.len().max(1)).max(1);
    (!deliveries.is_empty()).then(|| (TARGET_BYTES / mean).clamp(4, MAX_COUNT))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use penstock_core::entry::RawEntry;
    use penstock_core::stream::StreamId;

    use super::*;

    fn deliveries(bytes: usize) -> Vec<Delivery> {
        let raw = RawEntry::from_fields(StreamId::MIN, [("data", Bytes::from(vec![b'x'; bytes]))]);
        vec![Delivery { raw, times: 1 }; 3]
    }

    #[test]
    fn large_entries_are_read_few_at_a_time() {
        assert_eq!(next_count(&deliveries(500)), Some(MAX_COUNT));
        assert_eq!(next_count(&deliveries(TARGET_BYTES / 8)), Some(8));
        assert_eq!(next_count(&deliveries(TARGET_BYTES)), Some(4));
        assert_eq!(next_count(&[]), None);
    }
}
