//! Which workers are alive, as fast as that can be told.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::ask::Seen;

/// For how long after Redis came back a missing pulse says nothing: it ran out meanwhile, and its worker has to connect
/// anew.
const GRACE: Duration = Duration::from_secs(5);

/// Looks further apart than this have an outage between them.
const OUTAGE: Duration = Duration::from_secs(6);

/// Remembers which consumers ever showed a pulse: workers of other programs, and of older versions, show none.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pulsing: HashSet<String>,
    last: Option<Instant>,
    /// Until when a missing pulse says nothing.
    grace: Option<Instant>,
}

// === impl Roster ===

impl Roster {
    /// Returns the consumers that are alive.
    pub(super) fn alive(&mut self, seen: &Seen, interval: Duration, now: Instant) -> HashSet<String> {
        if self.last.is_some_and(|last| now.duration_since(last) > OUTAGE.max(interval * 3)) {
            self.grace = Some(now + GRACE.max(interval * 2));
        }
        self.last = Some(now);
        let is_grace = self.grace.is_some_and(|until| now < until);
        self.pulsing.retain(|name| seen.consumers.iter().any(|consumer| consumer.name == *name));
        self.pulsing.extend(seen.pulses().into_iter().map(str::to_owned));
        let alive = seen.consumers.iter().filter(|consumer| {
            let showed_itself = consumer.announced || consumer.asked;
            consumer.pulse || (showed_itself && (is_grace || !self.pulsing.contains(&consumer.name)))
        });
        alive.map(|consumer| consumer.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ask::Presence;
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn consumer(name: &str, pulse: bool, announced: bool, asked: bool) -> Presence {
        Presence { name: name.to_owned(), pulse, announced, asked }
    }

    fn alive(roster: &mut Roster, consumers: &[Presence], now: Instant) -> Vec<String> {
        let seen = Seen { consumers: consumers.to_vec(), ..Seen::default() };
        let mut alive: Vec<_> = roster.alive(&seen, INTERVAL, now).into_iter().collect();
        alive.sort();
        alive
    }

    #[test]
    fn a_worker_that_showed_a_pulse_is_gone_with_it() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        assert_eq!(alive(&mut roster, &[consumer("ours", true, true, true)], start), ["ours"]);
        let dead = [consumer("ours", false, true, true)];
        assert!(alive(&mut roster, &dead, start + INTERVAL).is_empty(), "although it is announced for a minute more");
        assert_eq!(alive(&mut roster, &[consumer("ours", true, true, true)], start + INTERVAL * 2), ["ours"]);
    }

    #[test]
    fn workers_that_show_no_pulse_count_as_they_did() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let others = [
            consumer("older", false, true, false),
            consumer("another-program", false, false, true),
            consumer("gone", false, false, false),
        ];
        assert_eq!(alive(&mut roster, &others, now), ["another-program", "older"]);
    }

    #[test]
    fn after_an_outage_of_redis_nobody_is_called_dead_at_once() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        alive(&mut roster, &[consumer("ours", true, true, true)], start);
        let without = [consumer("ours", false, true, false)];
        let back = start + Duration::from_secs(30);
        assert_eq!(alive(&mut roster, &without, back), ["ours"]);
        assert_eq!(alive(&mut roster, &without, back + INTERVAL * 2), ["ours"]);
        assert!(alive(&mut roster, &without, back + INTERVAL * 3).is_empty());
    }
}
