//! When a run ends by itself.

use std::fmt;
use std::time::Duration;

use super::folder::shown;

/// Within what a run stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) events: Option<Events>,
    pub(super) time: Option<Duration>,
    /// The most bytes of the data folder.
    pub(super) disk: u64,
}

/// After which events a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// So many were read from a relay.
    Count(u64),
    /// The recording's event with this number was read.
    Seq { count: u64, last: u64 },
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    /// Events written to Redis since the start.
    pub(super) published: u64,
    pub(super) cursor: Option<u64>,
    pub(super) time: Duration,
    /// Bytes of the data folder; none while unknown.
    pub(super) disk: Option<u64>,
}

/// Why a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All its events are read.
    Events(u64),
    /// Its time is over.
    Time(Duration),
    /// Its folder is full.
    Disk(u64),
}

// === impl Bounds ===

impl Bounds {
    /// Says whether, and why, the run ends now.
    pub(super) fn ending(&self, reached: &Reached) -> Option<Ending> {
        let events = match self.events {
            Some(Events::Count(count)) => (reached.published >= count).then_some(Ending::Events(count)),
            Some(Events::Seq { count, last }) => {
                reached.cursor.is_some_and(|cursor| cursor >= last).then_some(Ending::Events(count))
            }
            None => None,
        };
        let time = self.time.filter(|time| reached.time >= *time).map(Ending::Time);
        let disk = reached.disk.filter(|bytes| *bytes >= self.disk).map(Ending::Disk);
        disk.or(events).or(time)
    }
}

// === impl Ending ===

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(count) => write!(f, "all {count} events read"),
            Self::Time(time) => write!(f, "{time:?} elapsed"),
            Self::Disk(bytes) => write!(f, "data folder at its limit: {}", shown(*bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_bound_that_is_reached_and_at_none_that_is_not() {
        let minute = Duration::from_secs(60);
        let none = Bounds { events: None, time: None, disk: 1_000 };
        let live = Bounds { events: Some(Events::Count(10)), time: Some(minute), ..none };
        let recorded = Bounds { events: Some(Events::Seq { count: 10, last: 110 }), ..none };
        let reached =
            |published, cursor, seconds, disk| Reached { published, cursor, time: Duration::from_secs(seconds), disk };
        let table = [
            (none, reached(u64::MAX, Some(u64::MAX), 1 << 40, Some(999)), None),
            (none, reached(0, None, 0, Some(1_000)), Some(Ending::Disk(1_000))),
            (live, reached(9, Some(500), 59, None), None),
            (live, reached(10, Some(500), 0, None), Some(Ending::Events(10))),
            (live, reached(11, None, 60, None), Some(Ending::Events(10))),
            (live, reached(9, None, 60, None), Some(Ending::Time(minute))),
            (live, reached(10, None, 60, Some(2_000)), Some(Ending::Disk(2_000))),
            // Some events of the recording write no entry.
            (recorded, reached(9, Some(110), 0, None), Some(Ending::Events(10))),
            (recorded, reached(10, Some(109), 0, None), None),
            (recorded, reached(0, None, 0, None), None),
        ];
        for (bounds, reached, ending) in table {
            assert_eq!(bounds.ending(&reached), ending, "{bounds:?} {reached:?}");
        }
    }
}
