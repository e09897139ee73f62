//! Keeps a failure that repeats from filling the log.

use std::time::Duration;

use tokio::time::Instant;

/// How long a repeated failure stays out of the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one log line through in ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Option<Instant>);

// === impl Throttle ===

impl Throttle {
    /// Returns whether to log now, and if so starts the next interval.
    pub(crate) fn permits(&mut self) -> bool {
        let permits = self.0.is_none_or(|at| at.elapsed() >= INTERVAL);
        if permits {
            self.0 = Some(Instant::now());
        }
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_repeated_line_is_logged_once_in_an_interval() {
        let mut throttle = Throttle::default();
        assert!(throttle.permits() && !throttle.permits());
        tokio::time::advance(INTERVAL).await;
        assert!(throttle.permits() && !throttle.permits());
    }
}
