//! How many API requests came within the last minute.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// How many seconds are looked back on.
const WINDOW: usize = 60;

/// Counts requests by the second.
#[derive(Debug)]
pub(crate) struct Requests {
    start: Instant,
    /// For each slot the second it counts, from `start`, and how many came in it.
    slots: Mutex<[(u64, u64); WINDOW]>,
}

// === impl Requests ===

impl Requests {
    /// Begins at `start` with none.
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, slots: Mutex::new([(0, 0); WINDOW]) }
    }

    /// Counts one request.
    pub(crate) fn count(&self, now: Instant) {
        let second = self.second(now);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut slots[second as usize % WINDOW];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += 1;
    }

    /// Returns how many came within the last 60 s, the present second included.
    pub(crate) fn last_minute(&self, now: Instant) -> u64 {
        let second = self.second(now);
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter(|(at, _)| at + WINDOW as u64 > second).map(|(_, count)| count).sum()
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_are_forgotten_after_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let requests = Requests::new(start);
        assert_eq!(requests.last_minute(start), 0);
        for second in [0, 0, 1, 30] {
            requests.count(at(second));
        }
        assert_eq!(requests.last_minute(at(59)), 4);
        assert_eq!(requests.last_minute(at(60)), 2);
        assert_eq!(requests.last_minute(at(61)), 1);
        assert_eq!(requests.last_minute(at(1000)), 0);
        requests.count(at(1000));
        assert_eq!(requests.last_minute(at(1000)), 1);
    }
}
