//! The second stream holds what repos send above their rate. It is read whenever the first one is empty.
//!
//! What it holds goes the same way as the rest, in small batches and one transaction at a time: so a row or a repo that both
//! want is never locked for long, and a worker that has its hands full of it takes what comes on the first at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::decode::Decoding;
use super::first_stream::{pass_on, pauses, received};
use crate::state::work::Work;

/// How long a full worker waits before it looks again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The pause while the first stream has more.
const YIELD: Duration = Duration::from_millis(20);

/// The pause while there is nothing here.
const QUIET: Duration = Duration::from_millis(100);

/// Reads until it is asked to stop, while the first stream is empty.
pub(crate) async fn read(work: Arc<Work>, entries: UnboundedSender<Decoding>) {
    let mut backoff = pauses();
    while !work.stop.is_cancelled() {
        if !work.is_drained.load(Ordering::Relaxed) {
            work.rest(YIELD).await;
            continue;
        }
        let room = work.held.room(PATIENCE).await;
        if room == 0 {
            continue;
        }
        let answer = tokio::select! {
            biased;
            answer = work.consumer.poll(work.batch_size.min(room)) => answer,
            () = work.abandon.cancelled() => break,
        };
        let Some(deliveries) = received(&work, answer, &mut backoff).await else { continue };
        if deliveries.is_empty() {
            work.rest(QUIET).await;
            continue;
        }
        if !pass_on(&work, deliveries, &entries) {
            break;
        }
    }
}
