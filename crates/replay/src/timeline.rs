//! Where an event lies: position in the stream, loop and place in the recording, seq, and when it is live.

use std::time::Duration;

use crate::settings::{FutureCursor, Rate};

/// Maps positions (the nth event ever, from 0) to seqs and back.
///
/// Gaps between recorded seqs stay, in every loop.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    first: u64,
    /// Seq of each recorded frame above that of the first.
    offsets: Vec<u64>,
    /// How far the seqs of one loop are from the next one's.
    span: u64,
}

impl Timeline {
    /// Takes strictly increasing seqs, at least one; the first event gets `start`, or its recorded seq.
    pub(crate) fn new(recorded: &[u64], start: Option<u64>) -> Self {
        let base = recorded.first().copied().unwrap_or(1);
        let offsets: Vec<u64> = recorded.iter().map(|seq| seq - base).collect();
        let span = offsets.last().map_or(1, |last| last + 1);
        Self { first: start.unwrap_or(base), offsets, span }
    }

    /// The number of events in one loop.
    pub(crate) fn length(&self) -> u64 {
        self.offsets.len() as u64
    }

    /// The seq of the event at `place` of loop `round`.
    pub(crate) fn seq_in(&self, round: u64, place: usize) -> u64 {
        self.first + round * self.span + self.offsets[place]
    }

    /// The seq of the newest of the first `count` events; one below the first event's where there is none.
    pub(crate) fn newest(&self, count: u64) -> u64 {
        match count.checked_sub(1) {
            Some(last) => self.seq_in(last / self.length(), (last % self.length()) as usize),
            None => self.first.saturating_sub(1),
        }
    }

    /// The position of the first event whose seq exceeds `cursor`.
    pub(crate) fn after(&self, cursor: u64) -> u64 {
        let Some(above) = cursor.checked_sub(self.first) else { return 0 };
        let passed = self.offsets.partition_point(|&offset| offset <= above % self.span);
        above / self.span * self.length() + passed as u64
    }
}

/// Tells how many events are live after a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    rate: Rate,
    backlog: u64,
    total: Option<u64>,
}

impl Clock {
    pub(crate) fn new(rate: Rate, backlog: u64, total: Option<u64>) -> Self {
        let backlog = if rate == Rate::Unlimited { total.unwrap_or(backlog) } else { backlog };
        Self { rate, backlog: backlog.min(total.unwrap_or(u64::MAX)), total }
    }

    /// How many events a reader may take.
    pub(crate) fn available(&self, elapsed: Duration) -> u64 {
        let total = self.total.unwrap_or(u64::MAX);
        match self.rate {
            Rate::Unlimited => total,
            Rate::PerSecond(rate) => {
                let since = elapsed.as_nanos() * u128::from(rate.get()) / NANOS;
                total.min(self.backlog.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
            }
        }
    }

    /// How many events are live: those available, but no more than readers took where all that ever will be is available.
    pub(crate) fn live(&self, elapsed: Duration, taken: u64) -> u64 {
        if self.is_endless_at_once() { self.backlog.max(taken) } else { self.available(elapsed) }
    }

    /// When the event at this position becomes live; `None` where it already was or never will be.
    pub(crate) fn due(&self, position: u64) -> Option<Duration> {
        let Rate::PerSecond(rate) = self.rate else { return None };
        if position >= self.total.unwrap_or(u64::MAX) {
            return None;
        }
        let nth = u128::from((position + 1).checked_sub(self.backlog)?);
        let nanos = (nth * NANOS).div_ceil(u128::from(rate.get()));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Whether readers can fall behind: only a clock that goes on by itself leaves them behind.
    pub(crate) fn ticks(&self) -> bool {
        self.rate != Rate::Unlimited
    }

    fn is_endless_at_once(&self) -> bool {
        self.rate == Rate::Unlimited && self.total.is_none()
    }
}

const NANOS: u128 = 1_000_000_000;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// At this position.
    At(u64),
    /// At this position, the oldest, after an `#info` that older events are gone.
    Outdated(u64),
    /// Nowhere: the cursor lies beyond the head.
    Future,
}

/// Decides where a subscription begins while the first `live` events are live.
pub(crate) fn open(
    timeline: &Timeline,
    live: u64,
    window: Option<u64>,
    future: FutureCursor,
    cursor: Option<u64>,
) -> Opening {
    let oldest = window.map_or(0, |window| live.saturating_sub(window));
    match cursor {
        None => Opening::At(live),
        Some(0) => Opening::At(oldest),
        Some(cursor) if cursor > timeline.newest(live) => match future {
            FutureCursor::Error => Opening::Future,
            FutureCursor::SilentLive => Opening::At(live),
        },
        // The cursor's own event may be gone: what follows it is what counts.
        Some(cursor) if cursor < timeline.newest(oldest) => Opening::Outdated(oldest),
        Some(cursor) => Opening::At(timeline.after(cursor)),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn gapped() -> Timeline {
        Timeline::new(&[10, 11, 15], None)
    }

    #[test]
    fn seq_and_position_are_inverse_over_gaps_and_loops() {
        let timeline = gapped();
        let seqs: Vec<u64> = (1..=7).map(|count| timeline.newest(count)).collect();
        assert_eq!(seqs, [10, 11, 15, 16, 17, 21, 22]);
        for cursor in 0..30 {
            let expected = (0..).position(|p| timeline.newest(p + 1) > cursor).unwrap() as u64;
            assert_eq!(timeline.after(cursor), expected, "cursor {cursor}");
        }
        assert_eq!(timeline.newest(0), 9);
        assert_eq!(Timeline::new(&[10, 11], Some(500)).newest(3), 502);
    }

    #[test]
    fn clock_releases_events_one_at_a_time() {
        let clock = Clock::new(Rate::PerSecond(NonZeroU32::new(2000).unwrap()), 5, Some(100));
        assert_eq!(clock.available(Duration::ZERO), 5);
        for position in 5..100 {
            let due = clock.due(position).unwrap();
            assert_eq!(clock.available(due), position + 1);
            assert_eq!(clock.available(due - Duration::from_nanos(1)), position);
        }
        assert_eq!(clock.due(100), None, "no event will follow the last");
        assert_eq!(clock.available(Duration::from_secs(3600)), 100);
    }

    #[test]
    fn unlimited_clock_has_everything_at_once() {
        let bounded = Clock::new(Rate::Unlimited, 0, Some(7));
        assert_eq!((bounded.available(Duration::ZERO), bounded.live(Duration::ZERO, 0)), (7, 7));
        let endless = Clock::new(Rate::Unlimited, 3, None);
        assert_eq!((endless.live(Duration::ZERO, 0), endless.live(Duration::ZERO, 9)), (3, 9));
        assert_eq!(endless.available(Duration::ZERO), u64::MAX);
    }

    #[test]
    fn cursor_rules_hold() {
        let timeline = Timeline::new(&[1, 2, 3, 4, 5], None);
        let at = |window, cursor| open(&timeline, 20, window, FutureCursor::Error, cursor);
        assert_eq!(at(None, None), Opening::At(20));
        assert_eq!(at(None, Some(0)), Opening::At(0));
        assert_eq!(at(None, Some(7)), Opening::At(7));
        assert_eq!(at(None, Some(20)), Opening::At(20));
        assert_eq!(at(None, Some(21)), Opening::Future);
        assert_eq!(at(Some(6), Some(0)), Opening::At(14));
        assert_eq!(at(Some(6), Some(13)), Opening::Outdated(14));
        assert_eq!(at(Some(6), Some(14)), Opening::At(14), "nothing after this cursor is gone");
        assert_eq!(open(&timeline, 20, None, FutureCursor::SilentLive, Some(99)), Opening::At(20));
        assert_eq!(open(&timeline, 0, None, FutureCursor::Error, Some(1)), Opening::Future);
    }
}
