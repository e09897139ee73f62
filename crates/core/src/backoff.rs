//! How long to wait before what failed is tried again.

use std::time::Duration;

use rand::RngExt;

/// Pauses that double from the least to the greatest, each drawn from zero to its bound (full jitter).
///
/// The jitter spreads the tries of many processes that failed at one moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// Starts with no failure behind it.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Notes a failure and draws the pause after it.
    pub fn fail(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        draw(bound)
    }

    /// Notes a failure and draws the pause after it, from zero to the lesser of its bound and `most`.
    pub fn fail_within(&mut self, most: Duration) -> Duration {
        let bound = self.bound().min(most);
        self.failures = self.failures.saturating_add(1);
        draw(bound)
    }

    /// Draws a pause within the first bound, for a failure that says nothing about the next try.
    #[must_use]
    pub fn short_pause(&self) -> Duration {
        draw(self.min)
    }

    /// Forgets the failures.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// Returns how many failures came in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

fn draw(bound: Duration) -> Duration {
    bound.mul_f64(rand::rng().random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_greatest() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        let mut bounds = Vec::new();
        for _ in 0..10 {
            let bound = backoff.bound();
            assert!(backoff.fail() <= bound);
            bounds.push(bound.as_millis());
        }
        assert_eq!(bounds, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.failures(), 10);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.bound(), Duration::from_secs(10));
        assert!(backoff.short_pause() <= Duration::from_millis(50));
        assert!((0..100).all(|_| backoff.fail_within(Duration::from_secs(4)) <= Duration::from_secs(4)));
        backoff.succeed();
        assert_eq!(backoff.bound(), Duration::from_millis(50));
    }

    #[test]
    fn pauses_are_spread_over_the_whole_bound() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let low = (0..1000).filter(|_| backoff.short_pause() < Duration::from_millis(500)).count();
        assert!((400..600).contains(&low), "{low} of 1000 below half");
    }
}
