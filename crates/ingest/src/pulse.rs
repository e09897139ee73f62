//! Whether reading goes on: what it does not show for long, the lease does not outlast.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_telemetry::admin::{Health, Heartbeat};
use tokio::time::{Instant, timeout};

/// How often a task that only waits shows that it does.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// Shows that the task that reads has turned lately; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    heartbeat: Heartbeat,
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last: Arc<AtomicU64>,
    limit: Duration,
}

// === impl Pulse ===

impl Pulse {
    /// Begins with a beat. Past `limit` without one the lease is given up, past twice that the process is unhealthy.
    pub(crate) fn new(health: &Health, limit: Duration) -> Self {
        let heartbeat = health.heartbeat("reading", limit * 2);
        Self { heartbeat, start: Instant::now(), last: Arc::default(), limit }
    }

    /// Shows that the task turned just now.
    pub(crate) fn beat(&self) {
        self.heartbeat.beat();
        self.last.store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    /// Waits for what may rightly take long.
    pub(crate) async fn during<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        loop {
            self.beat();
            if let Ok(done) = timeout(BEAT, &mut waiting).await {
                return done;
            }
        }
    }

    /// Returns how long ago the last beat was, where that is too long.
    pub(crate) fn still(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        Some(self.start.elapsed().saturating_sub(last)).filter(|age| *age > self.limit)
    }

    /// Returns how long ago the last beat may be.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Takes the heartbeat out: nobody reads any more, as it should be.
    pub(crate) fn retire(&self) {
        self.heartbeat.retire();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_beats_and_being_stuck_does_not() {
        let health = Health::new();
        let pulse = Pulse::new(&health, Duration::from_secs(30));
        pulse.during(tokio::time::sleep(Duration::from_secs(300))).await;
        assert_eq!(pulse.still(), None);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(pulse.still().is_some() && health.is_alive());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!health.is_alive());
        pulse.retire();
        assert!(health.is_alive());
    }
}
