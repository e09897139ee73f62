//! How long to wait after a failure, and which relay to read next.

use std::time::Duration;

use rand::RngExt;

/// Counts failures in a row; full jitter spreads the fleet's next tries.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Starts with no failure behind it.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Notes a failure and returns how long to wait, between nothing and the bound of this try.
    pub(crate) fn fail(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::rng().random_range(0.0..=1.0))
    }

    /// Forgets the failures.
    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Returns how many failures came in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn bound(&self) -> Duration {
        self.min.saturating_mul(1 << self.failures.min(20)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut bounds = Vec::new();
        for _ in 0..7 {
            bounds.push(backoff.bound().as_secs());
            assert!(backoff.fail() <= Duration::from_secs(*bounds.last().unwrap()));
        }
        assert_eq!(bounds, [1, 2, 4, 8, 16, 30, 30]);
        backoff.succeed();
        assert_eq!((backoff.bound().as_secs(), backoff.failures()), (1, 0));
    }

    #[test]
    fn waits_are_spread_over_the_whole_bound() {
        let mut low = 0;
        for _ in 0..1000 {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
            low += u32::from(backoff.fail() < Duration::from_millis(500));
        }
        assert!((400..600).contains(&low), "{low} of 1000 below half");
    }
}
