//! How long to wait before what failed is tried again, and who says so.

use std::time::{Duration, Instant};

use rand::RngExt;

/// How often a failure that goes on is logged again.
const REMIND: Duration = Duration::from_secs(5);

/// Pauses that double from the least to the greatest, each drawn from zero to its bound (full jitter).
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

/// A failure that may go on for long: says when a line of log is due, so that an outage writes some, not thousands.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    began: Option<Instant>,
    told: Option<Instant>,
    failures: u64,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Draws the pause after one more failure.
    pub(crate) fn pause(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Draws a pause within the first bound, for a failure that says nothing about the next try.
    pub(crate) fn short_pause(&self) -> Duration {
        self.min.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

// === impl Trouble ===

impl Trouble {
    /// Notes a failure; returns how many there were so far when a line is due.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.began.get_or_insert(now);
        self.failures += 1;
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= REMIND);
        if due {
            self.told = Some(now);
        }
        due.then_some(self.failures)
    }

    /// Notes a success; returns how long the failure went on, if there was one.
    pub(crate) fn over(&mut self, now: Instant) -> Option<Duration> {
        let began = std::mem::take(self).began?;
        Some(now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_greatest() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        let bounds: Vec<_> = (0..10)
            .map(|_| {
                let bound = backoff.bound();
                assert!(backoff.pause() <= bound);
                bound.as_millis()
            })
            .collect();
        assert_eq!(bounds, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.bound(), Duration::from_secs(10));
        assert!(backoff.short_pause() <= Duration::from_millis(50));
    }

    #[test]
    fn an_outage_is_told_at_once_then_now_and_then_then_as_over() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        assert_eq!(trouble.over(start), None);
        assert_eq!(trouble.failed(start), Some(1));
        assert_eq!(trouble.failed(start + Duration::from_secs(1)), None);
        assert_eq!(trouble.failed(start + Duration::from_secs(5)), Some(3));
        assert_eq!(trouble.over(start + Duration::from_secs(6)), Some(Duration::from_secs(6)));
        assert_eq!(trouble.failed(start + Duration::from_secs(7)), Some(1));
    }
}
