//! The age of the events that arrive now, robust against single wrong times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How many events count.
const EVENTS: usize = 31;

/// How long an event counts: on a quiet host the last event alone tells the age.
const WINDOW: Duration = Duration::from_secs(10);

/// The times of the last events of one host. Hosts copy them from clients' clocks, so a single one proves little.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<(Instant, Timestamp)>);

// === impl Recent ===

impl Recent {
    /// Records an event's time; one in the future counts as now.
    pub(crate) fn record(&mut self, received: Instant, time: Timestamp, now: Timestamp) {
        while self.0.len() >= EVENTS || self.0.front().is_some_and(|(at, _)| received.duration_since(*at) > WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((received, time.min(now)));
    }

    /// Returns the median; of two events the earlier one.
    pub(crate) fn median(&self) -> Option<Timestamp> {
        let mut times: Vec<Timestamp> = self.0.iter().map(|(_, time)| *time).collect();
        let middle = times.len().checked_sub(1)? / 2;
        Some(*times.select_nth_unstable(middle).1)
    }

    /// Forgets everything: another host is read.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_few_events_from_the_future_say_nothing() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        for second in 0..100 {
            let time = if second % 3 == 0 { 9_000_000 } else { 1_000 + second };
            recent.record(start, at(time), at(5_000));
        }
        assert!((1_060..1_100).contains(&recent.median().unwrap().as_second()), "{recent:?}");
    }

    #[test]
    fn on_a_quiet_host_the_last_event_counts() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        assert_eq!(recent.median(), None);
        for minute in 0..5 {
            recent.record(start + Duration::from_secs(60) * minute, at(60 * i64::from(minute)), at(5_000));
        }
        assert_eq!(recent.median(), Some(at(240)));
    }
}
