//! How long writing took of late.

use std::collections::VecDeque;
use std::time::Duration;

/// How many batches are looked back on.
const BATCHES: usize = 100;

/// The last batches' times.
#[derive(Debug, Default)]
pub(super) struct Latencies(VecDeque<Duration>);

// === impl Latencies ===

impl Latencies {
    /// Adds the time of a batch; returns mean, 95th and 99th percentile as texts in ms.
    pub(super) fn add(&mut self, time: Duration) -> [String; 3] {
        if self.0.len() == BATCHES {
            self.0.pop_front();
        }
        self.0.push_back(time);
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        // The nearest rank: the least time that so many percent do not exceed.
        let percentile = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100) - 1).copied();
        let mean = sorted.iter().sum::<Duration>() / sorted.len() as u32;
        [Some(mean), percentile(95), percentile(99)]
            .map(|time| format!("{:.2}", time.unwrap_or_default().as_secs_f64() * 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_batches_count() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.add(Duration::from_micros(1500)), ["1.50", "1.50", "1.50"]);
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.add(Duration::from_millis(1)), ["50.50", "95.00", "99.00"]);
    }
}
