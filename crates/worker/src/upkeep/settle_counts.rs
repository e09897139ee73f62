//! Applies counts that wait for posts which another program made meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::state::work::Work;

/// How many counts one look goes through.
const PAGE: u32 = 5_000;

/// The pause between two looks of one round, and between two rounds.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Goes round through the waiting counts. Workers give a post its counts when they create it; other programs do not.
pub(crate) async fn settle(work: Arc<Work>) {
    let mut after = String::new();
    loop {
        let next = work.store.settle_counts(work.consumer.name(), &after, PAGE).await;
        after = work.record(Action::Settle, next).flatten().unwrap_or_default();
        if !work.rest(if after.is_empty() { PAUSES.1 } else { PAUSES.0 }).await {
            return;
        }
    }
}
