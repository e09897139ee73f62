//! How long to wait before what failed is tried again.

use std::time::Duration;

use rand::RngExt;

/// Pauses that double from the least to the greatest, each drawn from zero to its bound (full jitter).
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
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
}
