//! What came in and what was applied over time, as rates with honest gaps. Pure: the clock is handed in.
//!
//! In come the counts of minutes ([`Minutes`], from Redis) and of the latest looks ([`Recent`], from memory); out go at most
//! [`MOST_POINTS`] points. Called by `GET /api/activity`.

use std::collections::{BTreeMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

/// The most points of one answer, about.
pub(crate) const MOST_POINTS: u64 = 750;

/// How long looks are remembered, in ms.
const REMEMBERED: u64 = 15 * 60_000;

/// The length of a point made of looks, in ms; looks that follow more closely are not remembered.
const FINE: u64 = 5_000;

/// Looks further apart than this have a gap between them, in ms.
const HOLE: u64 = 20_000;

/// Lengths of a point that divide an hour or a day evenly, in minutes.
const STEPS: [u64; 11] = [1, 2, 5, 10, 15, 30, 60, 120, 240, 720, 1440];

/// For how many minutes a minute may still grow.
const GROWING: u64 = 3;

/// For so many seconds of a minute it is no surprise that nobody has counted anything in it.
const NOT_YET: u64 = 15;

/// What was counted in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Entries that ingest wrote; none where no ingest of ours told.
    pub(crate) incoming: Option<u64>,
    /// Entries applied: commits, identities, accounts.
    pub(crate) applied: [u64; 3],
}

/// Events per second over a span of time. Null: nothing is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ActivityPoint")]
pub(crate) struct Point {
    /// Start of the span, in milliseconds since the epoch.
    pub(crate) timestamp: u64,
    /// Length of the span, in seconds.
    pub(crate) seconds: f64,
    /// Entries added to the streams.
    pub(crate) incoming: Option<f64>,
    /// Commits applied.
    pub(crate) commit: Option<f64>,
    /// Identity events applied.
    pub(crate) identity: Option<f64>,
    /// Account events applied.
    pub(crate) account: Option<f64>,
}

/// The minutes that are known, by their number since the epoch; `None`: nobody counted anything in it.
#[derive(Debug, Default)]
pub(crate) struct Minutes {
    known: BTreeMap<u64, Option<Counts>>,
    /// Minutes before this one were read when they could not grow any more.
    settled: u64,
}

/// The totals of the latest looks, for points that are finer than a minute.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<Look>);

#[derive(Clone, Copy, Debug)]
struct Look {
    /// In ms since the epoch.
    at: u64,
    added: Option<u64>,
    applied: [u64; 3],
}

/// Returns the length of a point in minutes, so that so many seconds have no more than [`MOST_POINTS`].
pub(crate) fn step(seconds: u64) -> u64 {
    let least = seconds.div_ceil(60).div_ceil(MOST_POINTS);
    STEPS.into_iter().find(|step| *step >= least).unwrap_or(STEPS[STEPS.len() - 1])
}

// === impl Point ===

impl Point {
    fn new(timestamp: u64, seconds: f64, incoming: Option<f64>, applied: Option<[f64; 3]>) -> Self {
        let of = |at: usize| applied.map(|applied| thousandths(applied[at]));
        Self { timestamp, seconds, incoming: incoming.map(thousandths), commit: of(0), identity: of(1), account: of(2) }
    }
}

// === impl Minutes ===

impl Minutes {
    /// Returns the minutes that are to be read, now in the minute `now`: those never read, and those that may have grown since.
    pub(crate) fn wanted(&self, first: u64, now: u64) -> Vec<u64> {
        (first..=now).filter(|minute| *minute >= self.settled || !self.known.contains_key(minute)).collect()
    }

    /// All that were wanted in the minute `now` are taken in.
    pub(crate) fn are_read(&mut self, now: u64) {
        self.settled = now.saturating_sub(GROWING);
    }

    /// Takes a minute in; one that was known already may have grown.
    pub(crate) fn take(&mut self, minute: u64, counts: Option<Counts>) {
        self.known.insert(minute, counts);
    }

    /// Drops all minutes before this one.
    pub(crate) fn forget_before(&mut self, minute: u64) {
        self.known = self.known.split_off(&minute);
    }

    /// Returns the rates from one second to another, at most up to `now`, in points of so many minutes.
    ///
    /// The minute that still runs is left out. A minute beside one that nobody counted in is broken: how much of it was seen is not
    /// known, so it is a gap too, and so is a point with such a minute.
    pub(crate) fn points(&self, from: u64, until: u64, now: u64, step: u64) -> Vec<Point> {
        let running = now / 60;
        let first = from / 60 / step * step;
        let end = until.div_ceil(60).min(running);
        let starts = (first..end).step_by(usize::try_from(step).unwrap_or(1));
        let point = |start: u64| {
            let end = (start + step).min(running);
            let seconds = ((end - start) * 60) as f64;
            let whole: Option<Vec<Counts>> = (start..end).map(|minute| self.whole(minute, now)).collect();
            let applied = whole.as_ref().map(|minutes| {
                std::array::from_fn(|kind| minutes.iter().map(|of| of.applied[kind]).sum::<u64>() as f64 / seconds)
            });
            let incoming: Option<u64> =
                whole.and_then(|minutes| minutes.iter().map(|minute| minute.incoming).sum::<Option<u64>>());
            Point::new(start * 60_000, seconds, incoming.map(|sum| sum as f64 / seconds), applied)
        };
        starts.map(point).collect()
    }

    /// Returns the counts of a minute that was seen from its first to its last second.
    fn whole(&self, minute: u64, now: u64) -> Option<Counts> {
        let known = |minute: u64| self.known.get(&minute).copied().flatten();
        known(minute.checked_sub(1)?)?;
        let follows = known(minute + 1).is_some() || (minute + 1 == now / 60 && now % 60 < NOT_YET);
        known(minute).filter(|_| follows)
    }
}

// === impl Recent ===

impl Recent {
    /// Takes a look in: the totals so far, at a time in ms since the epoch.
    pub(crate) fn take(&mut self, at: u64, added: Option<u64>, applied: [u64; 3]) {
        let look = Look { at, added, applied };
        if let Some(last) = self.0.back() {
            if at < last.at {
                // The clock was set back: what was known does not fit to what comes.
                self.0.clear();
            } else if at < last.at + FINE {
                return;
            }
        }
        self.0.push_back(look);
        while self.0.front().is_some_and(|first| first.at + REMEMBERED < at) {
            self.0.pop_front();
        }
    }

    /// Returns when the first remembered look was, in ms since the epoch.
    pub(crate) fn since(&self) -> Option<u64> {
        self.0.front().map(|look| look.at)
    }

    /// Returns the rates from one time to another, in ms.
    pub(crate) fn points(&self, from: u64, until: u64) -> Vec<Point> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let within = pairs.filter(|(before, after)| after.at > from && before.at < until);
        within.map(|(before, after)| between(before, after)).collect()
    }
}

/// Returns the rates between two looks; none where they do not compare.
fn between(before: &Look, after: &Look) -> Point {
    let span = after.at - before.at;
    let seconds = span as f64 / 1000.0;
    let rate = |before: u64, after: u64| after.checked_sub(before).map(|grown| grown as f64 / seconds);
    let is_near = span <= HOLE;
    let applied: Option<Vec<f64>> =
        before.applied.iter().zip(after.applied).map(|(before, after)| rate(*before, after)).collect();
    let applied = applied.and_then(|rates| <[f64; 3]>::try_from(rates).ok()).filter(|_| is_near);
    let incoming = before.added.zip(after.added).and_then(|(before, after)| rate(before, after)).filter(|_| is_near);
    Point::new(before.at, seconds, incoming, applied)
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute's number that all steps divide.
    const DAY: u64 = 20_000 * 1_440;

    fn minutes(known: &[(u64, u64, Option<u64>)]) -> Minutes {
        let mut minutes = Minutes::default();
        for (minute, commits, incoming) in known {
            minutes.take(DAY + minute, Some(Counts { incoming: *incoming, applied: [*commits, 0, 0] }));
        }
        minutes
    }

    fn rates(minutes: &Minutes, from: u64, until: u64, now_seconds: u64, step: u64) -> Vec<(Option<f64>, Option<f64>)> {
        let points = minutes.points((DAY + from) * 60, (DAY + until) * 60, DAY * 60 + now_seconds, step);
        points.iter().map(|point| (point.incoming, point.commit)).collect()
    }

    #[test]
    fn a_whole_minute_is_a_rate_and_the_running_one_is_left_out() {
        let known = minutes(&[(0, 60, Some(60)), (1, 600, Some(1_200)), (2, 300, Some(300)), (3, 5, Some(5))]);
        assert_eq!(rates(&known, 1, 9, 3 * 60 + 20, 1), [(Some(20.0), Some(10.0)), (Some(5.0), Some(5.0))]);
    }

    #[test]
    fn missing_minutes_are_gaps_and_those_beside_them_are_broken() {
        let known = minutes(&[
            (0, 60, Some(60)),
            (1, 60, Some(60)),
            (2, 30, Some(30)),
            (5, 7, Some(7)),
            (6, 60, Some(60)),
            (7, 60, Some(60)),
        ]);
        let gap = (None, None);
        let one = (Some(1.0), Some(1.0));
        assert_eq!(rates(&known, 1, 7, 7 * 60 + 30, 1), [one, gap, gap, gap, gap, one]);
        // The first minute that was ever counted is broken: nobody knows when in it that began.
        assert_eq!(rates(&known, 0, 1, 7 * 60 + 30, 1), [gap]);
    }

    #[test]
    fn a_minute_in_which_nothing_came_is_no_gap() {
        let known = minutes(&[(0, 0, Some(0)), (1, 0, Some(0)), (2, 0, Some(0))]);
        assert_eq!(rates(&known, 1, 2, 2 * 60 + 30, 1), [(Some(0.0), Some(0.0))]);
    }

    #[test]
    fn what_comes_in_is_unknown_where_nobody_tells_it() {
        let known = minutes(&[(0, 60, None), (1, 60, None), (2, 60, None)]);
        assert_eq!(rates(&known, 1, 2, 2 * 60 + 30, 1), [(None, Some(1.0))]);
    }

    #[test]
    fn the_newest_whole_minute_shows_before_anything_is_counted_in_the_next() {
        let known = minutes(&[(0, 60, Some(60)), (1, 60, Some(60))]);
        assert_eq!(rates(&known, 1, 9, 2 * 60 + 3, 1), [(Some(1.0), Some(1.0))]);
        assert_eq!(rates(&known, 1, 9, 2 * 60 + 40, 1), [(None, None)], "nobody counts any more");
    }

    #[test]
    fn a_point_of_several_minutes_is_their_mean_and_a_gap_where_one_is_missing() {
        let all: Vec<_> =
            (0..=20).filter(|minute| *minute != 12).map(|minute| (minute, minute * 60, Some(60))).collect();
        let known = minutes(&all);
        // 0 is broken, as what was before it is not known; of the last point only what is over.
        let gap = (None, None);
        let (second, last) = ((Some(1.0), Some(7.0)), (Some(1.0), Some(16.0)));
        assert_eq!(rates(&known, 0, 21, 18 * 60 + 30, 5), [gap, second, gap, last]);
    }

    #[test]
    fn a_minute_is_read_again_until_it_was_read_when_it_could_not_grow() {
        let mut known = Minutes::default();
        let mut read = |first: u64, now: u64| {
            let wanted = known.wanted(first, now);
            wanted.iter().for_each(|minute| known.take(*minute, None));
            known.are_read(now);
            wanted
        };
        assert_eq!(read(100, 104), [100, 101, 102, 103, 104]);
        assert_eq!(read(100, 104), [101, 102, 103, 104]);
        // Nobody asked for a while: what was read when it was new is read again.
        assert_eq!(read(100, 107), [101, 102, 103, 104, 105, 106, 107]);
        assert_eq!(read(98, 107), [98, 99, 104, 105, 106, 107]);
    }

    #[test]
    fn points_are_bounded_however_long_the_range() {
        for (seconds, expected) in [(60, 1), (3_600, 1), (86_400, 2), (7 * 86_400, 15), (90 * 86_400, 240)] {
            assert_eq!(step(seconds), expected, "{seconds}");
            assert!(seconds / 60 / step(seconds) <= MOST_POINTS);
        }
    }

    #[test]
    fn looks_become_points_of_five_seconds() {
        let mut recent = Recent::default();
        for at in 0..=10 {
            recent.take(1_000_000 + at * 1_000, Some(at * 20), [at * 10, at, 0]);
        }
        let points = recent.points(0, u64::MAX);
        assert_eq!(points.len(), 2);
        assert_eq!(points[0], Point::new(1_000_000, 5.0, Some(20.0), Some([10.0, 1.0, 0.0])));
        assert_eq!(recent.since(), Some(1_000_000));
        assert_eq!(recent.points(1_005_000, u64::MAX).len(), 1);
    }

    #[test]
    fn looks_far_apart_and_totals_that_fell_are_gaps() {
        let mut recent = Recent::default();
        for (at, total) in [(0, 0), (5, 50), (40, 400), (45, 10), (50, 60)] {
            recent.take(1_000_000 + at * 1_000, Some(total), [total, 0, 0]);
        }
        let rates: Vec<_> = recent.points(0, u64::MAX).iter().map(|point| (point.incoming, point.commit)).collect();
        assert_eq!(rates, [(Some(10.0), Some(10.0)), (None, None), (None, None), (Some(10.0), Some(10.0))]);
    }

    #[test]
    fn looks_are_remembered_for_a_quarter_of_an_hour() {
        let mut recent = Recent::default();
        for at in 0..10_000 {
            recent.take(at * 2_000, None, [0; 3]);
        }
        assert!(recent.0.len() <= 181, "{}", recent.0.len());
        recent.take(5, None, [0; 3]);
        assert_eq!(recent.since(), Some(5), "a clock that was set back begins anew");
    }
}
