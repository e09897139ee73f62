//! How far behind the group is, and the summary line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock_core::lag::{Backlog, Lag};
use penstock_telemetry::summary::Rate;

use crate::action::Action;
use crate::consumer::Answer;
use crate::state::work::Work;

/// How often the group's backlog is read.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the group's backlog at a fixed interval.
pub(crate) async fn report_backlog(work: Arc<Work>) {
    loop {
        let asked = async { Answer::Ok((work.consumer.backlog().await?, work.consumer.bulk().backlog().await?)) };
        if let Some((Some(backlog), bulk)) = work.record(Action::Backlog, asked.await) {
            work.events.backlog(backlog, bulk.unwrap_or(Backlog { pending: 0, undelivered: Lag::Exact(0) }));
        }
        if !work.rest(BACKLOG_INTERVAL).await {
            return;
        }
    }
}

/// Writes the summary line at its interval.
pub(crate) async fn log_summary(work: Arc<Work>) {
    let interval = work.settings.telemetry.summary_interval;
    if interval.is_zero() {
        return work.stop.cancelled().await;
    }
    let mut rate = Rate::new(0, Instant::now());
    while work.rest(interval).await {
        work.events.summary(rate.look(work.events.total(), Instant::now()));
    }
}
