//! How far behind the group is, and the summary line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_telemetry::summary::Rate;

use crate::trouble::Action;
use crate::work::Work;

/// How often the group's backlog is asked for.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);

/// Asks for the group's backlog, again and again.
pub(crate) async fn backlog(work: Arc<Work>) {
    loop {
        if let Some(Some(backlog)) = work.note(Action::Backlog, work.consumer.backlog().await) {
            work.events.backlog(backlog);
        }
        if !work.rest(BACKLOG_INTERVAL).await {
            return;
        }
    }
}

/// Writes the summary line at its interval.
pub(crate) async fn summarise(work: Arc<Work>) {
    let interval = work.settings.telemetry.summary_interval;
    if interval.is_zero() {
        return work.stop.cancelled().await;
    }
    let mut rate = Rate::new(0, Instant::now());
    while work.rest(interval).await {
        work.events.summary(rate.look(work.events.total(), Instant::now()));
    }
}
