//! For how long events may wait for hosts that accounts chose: one who runs such a host decides how slowly it answers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest that is waited in a row.
const MOST: Duration = Duration::from_secs(4);

/// Of ten seconds, one.
const PART: u32 = 10;

/// What is waited in any case: an answer that is on its way comes within that.
const LEAST: Duration = Duration::from_millis(20);

/// What may still be waited; it grows again with time.
#[derive(Debug)]
pub(crate) struct Allowance {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left: Duration,
    at: Instant,
}

// === impl Allowance ===

impl Allowance {
    /// Makes a full one.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { left: MOST, at: Instant::now() }) }
    }

    /// Returns how long may be waited now.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.grown(now, |left| *left).max(LEAST)
    }

    /// Notes that so long was waited.
    pub(crate) fn spend(&self, waited: Duration) {
        self.grown(Instant::now(), |left| *left = left.saturating_sub(waited));
    }

    fn grown<T>(&self, now: Instant, then: impl FnOnce(&mut Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.at);
        state.left = (state.left + passed / PART).min(MOST);
        state.at = state.at.max(now);
        then(&mut state.left)
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hosts_that_never_answer_cost_a_tenth_of_the_time_at_most() {
        let allowance = Allowance::new();
        let (begun, mut waited) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_secs(600) {
            // A chunk that waits as long as it may, and one that waits for nothing.
            let wait = allowance.left(Instant::now()).min(Duration::from_secs(2));
            tokio::time::advance(wait).await;
            allowance.spend(wait);
            waited += wait;
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        let most = MOST + begun.elapsed() / PART + Duration::from_secs(1);
        assert!(waited <= most && waited >= begun.elapsed() / PART / 2, "{waited:?} of {:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spent_grows_again_and_no_further_than_at_first() {
        let allowance = Allowance::new();
        assert_eq!(allowance.left(Instant::now()), MOST);
        allowance.spend(MOST * 3);
        assert_eq!(allowance.left(Instant::now()), LEAST);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(allowance.left(Instant::now()), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!(allowance.left(Instant::now()), MOST);
    }
}
