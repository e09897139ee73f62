//! Which hosts are being asked, and which are left alone: so that those that fail do not hold up the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What one healer knows of hosts.
#[derive(Debug)]
pub(crate) struct Hosts {
    known: HashMap<Box<str>, Host>,
    /// How many repos of one host are read at once.
    of_host: u32,
}

#[derive(Debug, Default)]
struct Host {
    running: u32,
    until: Option<Instant>,
    /// Failures of the host, not of single repos, since it last gave an answer.
    failures: u32,
}

/// Whether a repo of a host may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It may: [`Hosts::left`] is to be called afterwards.
    Open,
    /// So many are being read already.
    Full,
    /// The host is left alone for so long.
    Away {
        /// For how long.
        pause: Duration,
        /// How often it has failed.
        failures: u32,
    },
}

// === impl Hosts ===

impl Hosts {
    pub(crate) fn new(of_host: u32) -> Self {
        Self { known: HashMap::new(), of_host: of_host.max(1) }
    }

    /// Begins to read a repo of a host, if that may be.
    pub(crate) fn enter(&mut self, name: &str, now: Instant) -> Entry {
        let of_host = self.of_host;
        let host = self.known.entry(name.into()).or_default();
        if let Some(pause) = host.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
        {
            return Entry::Away { pause, failures: host.failures };
        }
        if host.running >= of_host {
            return Entry::Full;
        }
        host.running += 1;
        Entry::Open
    }

    /// Ends what [`enter`](Self::enter) began.
    pub(crate) fn left(&mut self, name: &str) {
        if let Some(host) = self.known.get_mut(name) {
            host.running = host.running.saturating_sub(1);
            if host.running == 0 && host.until.is_none() && host.failures == 0 {
                self.known.remove(name);
            }
        }
    }

    /// Records an answer of a host, whatever it said of the repo.
    pub(crate) fn answered(&mut self, name: &str) {
        if let Some(host) = self.known.get_mut(name) {
            (host.until, host.failures) = (None, 0);
        }
    }

    /// Records that a host is to be left alone; it `failed` unless it only asks for patience. Returns how often it has failed.
    pub(crate) fn rest(&mut self, name: &str, pause: Duration, failed: bool, now: Instant) -> u32 {
        let host = self.known.entry(name.into()).or_default();
        // Of repos that were read at once, one failure is the host's.
        let is_news = host.until.is_none_or(|until| until <= now);
        host.until = Some(host.until.map_or(now + pause, |until| until.max(now + pause)));
        host.failures += u32::from(failed && is_news);
        host.failures
    }

    /// Lists the hosts of which fewer repos may be read than of others, and how many.
    pub(crate) fn closed(&self, now: Instant) -> Vec<(Box<str>, u32)> {
        let busy = self.known.iter().filter_map(|(name, host)| {
            let is_away = host.until.is_some_and(|until| until > now);
            let free = if is_away { 0 } else { self.of_host.saturating_sub(host.running) };
            (free < self.of_host).then(|| (name.clone(), free))
        });
        busy.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_takes_as_many_as_it_may_and_others_are_not_concerned() {
        let (mut hosts, now) = (Hosts::new(2), Instant::now());
        assert_eq!(hosts.enter("a", now), Entry::Open);
        assert_eq!(hosts.closed(now), [("a".into(), 1)]);
        assert_eq!(hosts.enter("a", now), Entry::Open);
        assert_eq!(hosts.enter("a", now), Entry::Full);
        assert_eq!(hosts.enter("b", now), Entry::Open);
        hosts.left("a");
        assert_eq!(hosts.enter("a", now), Entry::Open);
        hosts.left("b");
        assert_eq!(hosts.closed(now), [("a".into(), 0)]);
    }

    #[test]
    fn a_host_that_fails_is_left_alone_and_its_failures_are_counted_until_it_answers() {
        let (mut hosts, now, pause) = (Hosts::new(2), Instant::now(), Duration::from_secs(10));
        assert_eq!((hosts.enter("a", now), hosts.enter("a", now)), (Entry::Open, Entry::Open));
        assert_eq!(hosts.rest("a", pause, true, now), 1);
        assert_eq!(hosts.rest("a", pause, true, now), 1, "the other repo says the same");
        hosts.left("a");
        hosts.left("a");
        assert_eq!(hosts.enter("a", now + pause / 2), Entry::Away { pause: pause / 2, failures: 1 });
        assert_eq!(hosts.closed(now), [("a".into(), 0)]);
        assert_eq!(hosts.closed(now + pause), []);
        assert_eq!(hosts.enter("a", now + pause), Entry::Open);
        assert_eq!(hosts.rest("a", pause, true, now + pause), 2);
        hosts.answered("a");
        assert_eq!(hosts.enter("a", now + pause), Entry::Open);
        assert_eq!(hosts.rest("a", pause, false, now + pause), 0, "it only asks for patience");
    }
}
