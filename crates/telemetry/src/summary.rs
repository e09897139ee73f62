//! What a service's periodic summary line computes from its running totals.

use std::time::Instant;

/// Turns a running total into events per second between two looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    total: u64,
    at: Instant,
}

impl Rate {
    /// Begins at `total` events, seen at `now`.
    pub fn new(total: u64, now: Instant) -> Self {
        Self { total, at: now }
    }

    /// Returns the events per second since the last look, and looks anew; 0.0 when no time passed or the total fell.
    pub fn look(&mut self, total: u64, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let grown = total.saturating_sub(self.total);
        *self = Self { total, at: now };
        if seconds > 0.0 { grown as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rate_counts_only_what_came_since_the_last_look() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        assert_eq!(rate.look(300, start + Duration::from_secs(2)), 100.0);
        assert_eq!(rate.look(350, start + Duration::from_secs(3)), 50.0);
    }

    #[test]
    fn rate_is_zero_without_time_and_when_a_total_starts_anew() {
        let start = Instant::now();
        let mut rate = Rate::new(5, start);
        assert_eq!(rate.look(9, start), 0.0);
        assert_eq!(rate.look(2, start + Duration::from_secs(1)), 0.0);
    }
}
