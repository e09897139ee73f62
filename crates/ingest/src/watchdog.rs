//! Watches that reading makes progress: the lease is given up once it has stalled.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use penstock_telemetry::admin::{Health, Heartbeat};
use tokio::time::{Instant, timeout};

/// How often a waiting task beats.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// Records when the reading task last made progress; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    heartbeat: Heartbeat,
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last: Arc<AtomicU64>,
    limit: Duration,
}

// === impl Watchdog ===

impl Watchdog {
    /// Starts with a beat. After `limit` without one the lease is given up; after twice that the process is unhealthy.
    pub(crate) fn new(health: &Health, limit: Duration) -> Self {
        let heartbeat = health.heartbeat("reading", limit * 2);
        Self { heartbeat, start: Instant::now(), last: Arc::default(), limit }
    }

    /// Records progress.
    pub(crate) fn beat(&self) {
        self.heartbeat.beat();
        self.last.store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    /// Waits for something that may legitimately take long.
    pub(crate) async fn during<T>(&self, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        loop {
            self.beat();
            if let Ok(done) = timeout(BEAT, &mut waiting).await {
                return done;
            }
        }
    }

    /// Returns how long ago the last beat was, if that exceeds the limit.
    pub(crate) fn stalled_for(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        Some(self.start.elapsed().saturating_sub(last)).filter(|age| *age > self.limit)
    }

    /// Returns the limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Removes the heartbeat: reading has ended as intended.
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
        let watchdog = Watchdog::new(&health, Duration::from_secs(30));
        watchdog.during(tokio::time::sleep(Duration::from_secs(300))).await;
        assert_eq!(watchdog.stalled_for(), None);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(watchdog.stalled_for().is_some() && health.is_alive());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!health.is_alive());
        watchdog.retire();
        assert!(health.is_alive());
    }
}
