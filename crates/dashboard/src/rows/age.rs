//! How old the oldest event is that is not in PostgreSQL.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use penstock_core::stream::StreamId;

use super::ask::Seen;

/// How many looks are remembered; past that, every other one of the older half goes.
const REMEMBERED: usize = 2048;

/// Remembers how late events were when they were written to the stream, for as long as one of them waits.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The newest entry at a look, and how late its event was when it was written; oldest first.
    known: VecDeque<(StreamId, Duration)>,
}

// === impl Lateness ===

impl Lateness {
    /// Takes a look in, and tells how far PostgreSQL is behind the relay; none where that is not known.
    ///
    /// Where entries wait: how long the oldest has stood in the stream, by the clock of Redis, and how late its event was when
    /// it got there. Else the age of the newest event.
    pub(super) fn age(&mut self, seen: &Seen) -> Option<Duration> {
        let event_time = seen.ingest.event_time.and_then(unix_millis);
        if let (Some(newest), Some(event_time)) = (seen.newest, event_time)
            && self.known.back().is_none_or(|(known, _)| *known < newest)
        {
            self.known.push_back((newest, Duration::from_millis(newest.ms.saturating_sub(event_time))));
        }
        let from = seen.oldest.or(seen.newest).unwrap_or(StreamId::MIN);
        // The newest is kept in any case: what is written next is about as late.
        while self.known.len() > 1 && self.known.front().is_some_and(|(newest, _)| *newest < from) {
            self.known.pop_front();
        }
        if self.known.len() > REMEMBERED {
            let older = REMEMBERED / 2;
            let mut at = 0;
            self.known.retain(|_| {
                at += 1;
                at > older || at % 2 == 1
            });
        }
        match seen.oldest {
            Some(oldest) => {
                let late = self.known.iter().find(|(newest, _)| *newest >= oldest).or(self.known.back());
                let late = late.map_or(Duration::ZERO, |(_, late)| *late);
                Some(Duration::from_millis(seen.now.saturating_sub(oldest.ms)) + late)
            }
            None => event_time.map(|event| Duration::from_millis(seen.now.saturating_sub(event))),
        }
    }
}

fn unix_millis(time: Timestamp) -> Option<u64> {
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use penstock_autoscale::Ingest;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn id(ago: u64) -> StreamId {
        StreamId { ms: NOW - ago, seq: 0 }
    }

    /// The newest entry and the oldest that waits, by how long ago each was written, and the age of the newest event, in ms.
    fn seen(newest: Option<u64>, oldest: Option<u64>, event: Option<u64>) -> Seen {
        let event_time = event.map(|ago| Timestamp::from_millisecond((NOW - ago) as i64).unwrap());
        let ingest = Ingest { paused: false, event_time };
        Seen { now: NOW, newest: newest.map(id), oldest: oldest.map(id), ingest, ..Seen::default() }
    }

    fn age(seen: &Seen) -> Option<u64> {
        Lateness::default().age(seen).map(|age| age.as_millis() as u64)
    }

    #[test]
    fn rows_are_as_old_as_the_oldest_event_that_waits() {
        for (newest, oldest, event, expected) in [
            (None, None, None, None),
            // Nothing waits: as old as the newest event.
            (Some(100), None, Some(900), Some(900)),
            (Some(40_000), None, Some(40_800), Some(40_800)),
            // The ingest is current, and what it wrote waits.
            (Some(100), Some(200_000), Some(900), Some(200_800)),
            // The ingest itself is an hour late.
            (Some(100), Some(200), Some(3_600_000), Some(3_600_100)),
            // Another program's entries: nobody says when the events were.
            (Some(100), Some(5_000), None, Some(5_000)),
            (Some(100), None, None, None),
            // A clock ahead of ours.
            (Some(100), Some(5_000), Some(0), Some(5_000)),
        ] {
            assert_eq!(age(&seen(newest, oldest, event)), expected, "{newest:?} {oldest:?} {event:?}");
        }
    }

    #[test]
    fn events_that_came_late_stay_late_when_ingest_has_caught_up() {
        let mut lateness = Lateness::default();
        // The relay was away for ten minutes: what came then was that late.
        lateness.age(&seen(Some(60_000), Some(61_000), Some(600_000 + 60_000)));
        // By now ingest is current; the workers are not.
        let age = lateness.age(&seen(Some(100), Some(60_500), Some(600)));
        assert_eq!(age, Some(Duration::from_millis(60_500 + 600_000)));
        // They have come to what was written since.
        assert_eq!(lateness.age(&seen(Some(100), Some(2_000), Some(600))), Some(Duration::from_millis(2_500)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_spans_all_that_waits() {
        let mut lateness = Lateness::default();
        let looks = 10 * REMEMBERED as u64;
        for at in 0..looks {
            lateness.age(&seen(Some(looks - at), Some(looks), Some(looks - at + 7_000)));
            assert!(lateness.known.len() <= REMEMBERED);
        }
        assert!(lateness.known.front().unwrap().0 < id(looks / 2), "the older half is still there");
        assert_eq!(lateness.age(&seen(Some(1), Some(looks), Some(1))), Some(Duration::from_millis(looks + 7_000)));
    }
}
