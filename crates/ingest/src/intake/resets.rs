//! Hosts that restarted their sequence: each is read from its oldest event once an hour at most, and otherwise only followed.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a host is not read from its oldest event again.
const HOUR: Duration = Duration::from_secs(3_600);

/// How often a reset is logged; each one is counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How to resume on a host that restarted its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// From its oldest event.
    FromOldest,
    /// With live events.
    Live,
}

/// Which hosts restarted their sequence lately, and how to resume on them.
#[derive(Debug, Default)]
pub(crate) struct Resets(HashMap<String, HostReset>);

#[derive(Debug, Default)]
struct HostReset {
    read_at: Option<Instant>,
    /// How to resume, until something that then arrived has been written.
    begin: Option<Reset>,
    logged_at: Option<Instant>,
    suppressed: u32,
}

// === impl Resets ===

impl Resets {
    /// Decides how to resume on a host that has just restarted its sequence.
    pub(crate) fn decide(&mut self, host: &str, now: Instant) -> Reset {
        let host_reset = self.0.entry(host.to_owned()).or_default();
        if host_reset.read_at.is_some_and(|at| now.duration_since(at) < HOUR) {
            return Reset::Live;
        }
        host_reset.read_at = Some(now);
        Reset::FromOldest
    }

    /// Returns how many resets were not logged since the last line, if this one is to be logged.
    pub(crate) fn tell(&mut self, host: &str, now: Instant) -> Option<u32> {
        let host_reset = self.0.entry(host.to_owned()).or_default();
        if host_reset.logged_at.is_some_and(|at| now.duration_since(at) < LOG_INTERVAL) {
            host_reset.suppressed += 1;
            return None;
        }
        host_reset.logged_at = Some(now);
        Some(std::mem::take(&mut host_reset.suppressed))
    }

    /// Makes the next connections to a host resume so, whatever the cursor says, until something that they bring is written.
    pub(crate) fn begin_with(&mut self, host: &str, reset: Reset) {
        self.0.entry(host.to_owned()).or_default().begin = Some(reset);
    }

    /// Returns how to resume on a host, if not at the cursor.
    pub(crate) fn begin(&self, host: &str) -> Option<Reset> {
        self.0.get(host)?.begin
    }

    /// Records that something that arrived has been written.
    pub(crate) fn begun(&mut self, host: &str) {
        if let Some(host_reset) = self.0.get_mut(host) {
            host_reset.begin = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_read_from_its_oldest_event_once_an_hour() {
        let mut resets = Resets::default();
        let decide = |resets: &mut Resets| resets.decide("a", Instant::now());
        assert_eq!(decide(&mut resets), Reset::FromOldest);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(600)).await;
            assert_eq!(decide(&mut resets), Reset::Live);
        }
        assert_eq!(resets.decide("b", Instant::now()), Reset::FromOldest, "each host has its own");
        tokio::time::advance(Duration::from_secs(601)).await;
        assert_eq!(decide(&mut resets), Reset::FromOldest);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_a_minute_and_how_often_it_was() {
        let mut resets = Resets::default();
        assert_eq!(resets.tell("a", Instant::now()), Some(0));
        for _ in 0..9 {
            assert_eq!(resets.tell("a", Instant::now()), None);
        }
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!(resets.tell("a", Instant::now()), Some(9));
    }

    #[test]
    fn how_to_begin_stays_until_something_is_written() {
        let mut resets = Resets::default();
        resets.begin_with("a", Reset::FromOldest);
        assert_eq!((resets.begin("a"), resets.begin("b")), (Some(Reset::FromOldest), None));
        resets.begun("b");
        assert_eq!(resets.begin("a"), Some(Reset::FromOldest));
        resets.begun("a");
        assert_eq!(resets.begin("a"), None);
    }
}
