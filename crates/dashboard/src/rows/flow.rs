//! What follows from one look after the other: rates, and where they lead. Pure: the clock is handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use penstock_autoscale::Acked;
use penstock_core::settings::Settings;
use penstock_core::units::tenths;

use super::age::Lateness;
use super::ask::Seen;
use super::roster::Roster;
use super::{FlowFigures, Rows, Writes};
use crate::database::Database;

/// Over how long rates are taken.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Over how long the growth of the streams is looked at: they are trimmed only now and then.
const GROWTH_WINDOW: Duration = Duration::from_secs(30);

/// Looks further apart than this say nothing of the time between.
const HOLE: Duration = Duration::from_secs(30);

/// What waits for no longer than this is on its way, and no backlog.
const ON_ITS_WAY: f64 = 2.0;

/// The least growth of the streams that is growth, in entries a second.
const LEAST_GROWTH: f64 = 1.0;

/// Follows the rows from look to look.
#[derive(Debug)]
pub(crate) struct Flow {
    interval: Duration,
    /// Where ingest pauses.
    full: u64,
    lateness: Lateness,
    roster: Roster,
    looks: VecDeque<Look>,
    /// Since when nothing was settled although entries wait.
    still_since: Option<Instant>,
    /// When entries were settled last.
    settled_at: Option<Instant>,
    /// Until when PostgreSQL had all that came, as an instant of this process.
    complete_until: Option<Instant>,
}

/// The counts of one look.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    length: u64,
    added: Option<u64>,
    settled: Option<Acked>,
}

// === impl Flow ===

impl Flow {
    /// Begins with nothing seen.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::with(
            settings.dashboard.metrics_interval,
            settings.ingest.high_watermark.of(settings.redis.max_stream_len),
        )
    }

    fn with(interval: Duration, full: u64) -> Self {
        Self {
            interval,
            full,
            lateness: Lateness::default(),
            roster: Roster::default(),
            looks: VecDeque::new(),
            still_since: None,
            settled_at: None,
            complete_until: None,
        }
    }

    /// Takes a look in, and tells what follows from it.
    pub(crate) fn look(&mut self, seen: Option<&Seen>, database: Database, now: Instant) -> Rows {
        let Some(seen) = seen else {
            self.looks.clear();
            let shown =
                FlowFigures { stream_cap: self.full, database: self.writes(database, now), ..Default::default() };
            return Rows { shown, ..Rows::default() };
        };
        let settled_now = self.note(seen, now);
        let age = self.lateness.age(seen);
        if let Some(complete) = age.and_then(|age| now.checked_sub(age)) {
            self.complete_until = Some(complete);
        }
        let alive = self.roster.alive(seen, self.interval, now);
        let incoming = self.rate(|look, first| look.added?.checked_sub(first.added?));
        let written = self.rate(|look, first| look.settled?.since(first.settled?));
        let quiet = seen.newest.map(|newest| seconds(Duration::from_millis(seen.now.saturating_sub(newest.ms))));
        let waits = seen.waiting.is_some_and(|waiting| waiting > 0);
        let still = self.still_since.filter(|_| waits).map_or(Duration::ZERO, |since| now.duration_since(since));
        let database = match database {
            // What was settled just now was committed, whatever the way from here to there.
            Database::Away if settled_now => Writes::Writing,
            database => self.writes(database, now),
        };
        let shown = FlowFigures {
            waiting: seen.waiting,
            waiting_exact: seen.waiting.is_some() && seen.waiting_exact,
            quiet_seconds: quiet,
            stalled_seconds: seconds(still),
            entries_added: seen.added,
            incoming_per_second: incoming.map(tenths),
            written_per_second: written.map(tenths),
            drain_seconds: drain(seen.waiting.filter(|_| seen.waiting_exact), incoming, written),
            stream_full_seconds: self.growth().map(|growth| {
                let room = self.full.saturating_sub(seen.length);
                (room as f64 / growth).round()
            }),
            stream_cap: self.full,
            workers_alive: Some(alive.len() as u64),
            database,
        };
        let gone = seen.consumers.iter().map(|consumer| &consumer.name).filter(|name| !alive.contains(*name));
        Rows { age: age.map(seconds), shown, gone: gone.cloned().collect() }
    }

    /// Returns how old the rows are at this moment, in seconds, also while Redis is away: without it no worker writes. None
    /// where it was never known.
    pub(crate) fn age_by_now(&self, now: Instant) -> Option<f64> {
        self.complete_until.map(|until| seconds(now.duration_since(until)))
    }

    /// Remembers the counts; says whether anything was settled since the last look.
    fn note(&mut self, seen: &Seen, now: Instant) -> bool {
        let last = self.looks.back().copied();
        let before = last.and_then(|last| last.settled);
        let settled = seen.settled.zip(before).map(|(settled, before)| settled.since(before));
        // Counts that do not compare say nothing, so nothing is held against anybody.
        let moved = settled.flatten().is_none_or(|count| count > 0);
        if moved || seen.waiting == Some(0) || self.still_since.is_none() {
            self.still_since = Some(now);
        }
        let settled_now = settled.flatten().is_some_and(|count| count > 0);
        if settled_now {
            self.settled_at = Some(now);
        }
        let is_hole = last.is_some_and(|last| now.duration_since(last.at) > HOLE.max(self.interval * 3));
        // A count that fell is another one.
        let fell = last.and_then(|last| last.added).zip(seen.added).is_some_and(|(before, added)| added < before);
        if is_hole || fell {
            self.looks.clear();
        }
        self.looks.push_back(Look { at: now, length: seen.length, added: seen.added, settled: seen.settled });
        while self.looks.len() > 2 && self.looks.get(1).is_some_and(|next| now.duration_since(next.at) >= GROWTH_WINDOW)
        {
            self.looks.pop_front();
        }
        settled_now
    }

    /// Returns by how much something grew a second; none where that is not known.
    fn rate(&self, grown: impl Fn(&Look, &Look) -> Option<u64>) -> Option<f64> {
        let last = self.looks.back()?;
        let begin = self.looks.iter().rposition(|look| last.at.duration_since(look.at) >= RATE_WINDOW).unwrap_or(0);
        // The first look may have seen no count yet, or another one.
        self.looks.range(begin..).find_map(|first| {
            let span = last.at.duration_since(first.at).as_secs_f64();
            Some(grown(last, first)? as f64 / span).filter(|_| span > 0.0)
        })
    }

    /// Returns how fast the streams grow, in entries a second; none where they do not, or that is not known. Trimming has them go
    /// up and down like a saw: what grows has ever higher valleys.
    fn growth(&self) -> Option<f64> {
        let (first, last) = (self.looks.front()?, self.looks.back()?);
        let span = last.at.duration_since(first.at);
        if span < GROWTH_WINDOW / 3 || self.looks.len() < 4 {
            return None;
        }
        let middle = first.at + span / 2;
        let valley = |later: bool| {
            let half = self.looks.iter().filter(|look| (look.at > middle) == later);
            half.min_by_key(|look| (look.length, look.at)).map(|look| (look.at, look.length))
        };
        let ((from, low), (to, high)) = (valley(false)?, valley(true)?);
        let apart = to.duration_since(from).as_secs_f64();
        let growth = high.checked_sub(low)? as f64 / apart.max(1.0);
        Some(growth).filter(|growth| *growth >= LEAST_GROWTH)
    }

    fn writes(&self, database: Database, now: Instant) -> Writes {
        let lately = self.settled_at.is_some_and(|at| now.duration_since(at) <= RATE_WINDOW);
        match database {
            Database::Away => Writes::Unreachable,
            _ if lately => Writes::Writing,
            Database::Fit => Writes::Reachable,
            Database::NotUsed | Database::Unknown => Writes::Unknown,
        }
    }
}

/// Returns the time until nothing waits; 0 where what waits is on its way, none where it does not become less.
fn drain(waiting: Option<u64>, incoming: Option<f64>, written: Option<f64>) -> Option<f64> {
    let waiting = waiting? as f64;
    if waiting == 0.0 {
        return Some(0.0);
    }
    let (incoming, written) = (incoming?, written?);
    if written > 0.0 && waiting <= written * ON_ITS_WAY {
        return Some(0.0);
    }
    let net = written - incoming;
    // Within a hundredth the two are equal, as far as ten seconds tell.
    (net > 0.01 * written).then(|| (waiting / net).round())
}

fn seconds(time: Duration) -> f64 {
    tenths(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use penstock_core::stream::StreamId;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const FULL: u64 = 400_000;

    /// A pipeline in numbers: what comes and what is written a second.
    struct Pipe {
        flow: Flow,
        start: Instant,
        /// Seconds since then.
        at: u64,
        added: u64,
        settled: u64,
        /// Entries that stay in the stream although they are settled.
        held: u64,
    }

    impl Pipe {
        fn new() -> Self {
            let flow = Flow::with(INTERVAL, FULL);
            Self { flow, start: Instant::now(), at: 0, added: 1_000, settled: 1_000, held: 0 }
        }

        /// Goes on for so many seconds; returns the last look.
        fn run(&mut self, seconds: u64, incoming: u64, written: u64, database: Database) -> Rows {
            let mut rows = Rows::default();
            for _ in 0..seconds / 2 {
                self.at += 2;
                self.added += 2 * incoming;
                self.settled = self.added.min(self.settled + 2 * written);
                let seen = self.seen();
                rows = self.flow.look(Some(&seen), database, self.now());
            }
            rows
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_secs(self.at)
        }

        fn seen(&self) -> Seen {
            let waiting = self.added - self.settled;
            let ms = 1_800_000_000_000 + self.at * 1000;
            Seen {
                now: ms,
                newest: Some(StreamId { ms, seq: self.added }),
                oldest: (waiting > 0).then_some(StreamId { ms: ms - 1_000, seq: 0 }),
                waiting: Some(waiting),
                waiting_exact: true,
                length: waiting + self.held,
                added: Some(self.added),
                settled: Some(Acked::Read(self.settled)),
                ..Seen::default()
            }
        }
    }

    #[test]
    fn a_pipeline_that_keeps_up_neither_drains_nor_fills() {
        let shown = Pipe::new().run(60, 500, 500, Database::Fit).shown;
        assert_eq!((shown.incoming_per_second, shown.written_per_second), (Some(500.0), Some(500.0)));
        assert_eq!((shown.drain_seconds, shown.stream_full_seconds, shown.stalled_seconds), (Some(0.0), None, 0.0));
        assert_eq!((shown.database, shown.stream_cap), (Writes::Writing, FULL));
    }

    #[test]
    fn what_piles_up_is_never_level() {
        // 290 a second more than is written, from the first seconds on.
        let mut pipe = Pipe::new();
        let shown = pipe.run(60, 790, 500, Database::Fit).shown;
        assert_eq!((shown.waiting, shown.drain_seconds), (Some(290 * 60), None));
        let full = shown.stream_full_seconds.unwrap();
        let expected = (FULL - 290 * 60) as f64 / 290.0;
        assert!((full - expected).abs() < 0.05 * expected, "{full} instead of {expected}");
        // It is written faster than it comes: 1,000 a second less.
        let shown = pipe.run(12, 500, 1_500, Database::Fit).shown;
        assert_eq!(shown.drain_seconds, Some(((290.0 * 60.0 - 12_000.0) / 1_000.0f64).round()));
    }

    #[test]
    fn a_stream_that_others_hold_fills_although_ours_keep_up() {
        let mut pipe = Pipe::new();
        let mut full = None;
        for _ in 0..30 {
            pipe.held += 200;
            full = pipe.run(2, 100, 100, Database::Fit).shown.stream_full_seconds;
        }
        assert!(full.is_some_and(|full| (full - 3_940.0).abs() < 100.0), "{full:?}");
    }

    #[test]
    fn a_stream_that_is_trimmed_now_and_then_does_not_fill() {
        let mut pipe = Pipe::new();
        for at in 0..40 {
            pipe.held = at % 5 * 1_000;
            assert_eq!(pipe.run(2, 500, 500, Database::Fit).shown.stream_full_seconds, None, "at {at}");
        }
    }

    #[test]
    fn what_waits_and_does_not_move_stalls() {
        let mut pipe = Pipe::new();
        pipe.run(20, 500, 500, Database::Fit);
        let shown = pipe.run(30, 500, 0, Database::Fit).shown;
        assert_eq!((shown.stalled_seconds, shown.waiting, shown.drain_seconds), (30.0, Some(15_000), None));
        assert_eq!(shown.database, Writes::Reachable, "nothing was written for 30 s");
        // Nothing waits: nothing stalls, for however long.
        let mut quiet = Pipe::new();
        assert_eq!(quiet.run(120, 0, 0, Database::Fit).shown.stalled_seconds, 0.0);
        // It moves again.
        assert_eq!(pipe.run(2, 500, 900, Database::Fit).shown.stalled_seconds, 0.0);
    }

    #[test]
    fn whether_rows_get_in_is_judged_by_what_was_committed() {
        let of = |written, database| Pipe::new().run(20, written, written, database).shown.database;
        assert_eq!(of(500, Database::Fit), Writes::Writing);
        assert_eq!(of(500, Database::NotUsed), Writes::Writing);
        assert_eq!(of(500, Database::Away), Writes::Writing, "only the way from here is cut");
        assert_eq!(of(0, Database::Fit), Writes::Reachable);
        assert_eq!(of(0, Database::Away), Writes::Unreachable);
        assert_eq!([of(0, Database::NotUsed), of(0, Database::Unknown)], [Writes::Unknown; 2]);
        // Right after it went, although something was written some seconds ago.
        let mut pipe = Pipe::new();
        pipe.run(20, 500, 500, Database::Fit);
        assert_eq!(pipe.run(4, 500, 0, Database::Away).shown.database, Writes::Unreachable);
    }

    #[test]
    fn rows_age_while_redis_is_away() {
        let mut pipe = Pipe::new();
        assert_eq!(pipe.flow.age_by_now(pipe.now()), None, "never known is not young");
        let rows = pipe.run(10, 500, 499, Database::Fit);
        assert_eq!(rows.age, Some(1.0));
        assert_eq!(pipe.flow.age_by_now(pipe.now()), Some(1.0));
        let later = pipe.now() + Duration::from_secs(120);
        assert_eq!(pipe.flow.age_by_now(later), Some(121.0));
        // Something else stands in the place of the streams.
        assert_eq!(pipe.flow.look(None, Database::Fit, later).age, None);
        assert_eq!(pipe.flow.age_by_now(later), Some(121.0));
    }

    #[test]
    fn nothing_is_known_before_the_second_look() {
        let mut pipe = Pipe::new();
        let shown = pipe.run(2, 500, 500, Database::Unknown).shown;
        assert_eq!((shown.incoming_per_second, shown.written_per_second), (None, None));
        assert_eq!(shown.database, Writes::Unknown);
    }

    #[test]
    fn a_redis_that_was_emptied_begins_anew() {
        let mut pipe = Pipe::new();
        pipe.run(20, 500, 500, Database::Fit);
        (pipe.added, pipe.settled) = (0, 0);
        assert_eq!(pipe.run(2, 500, 500, Database::Fit).shown.incoming_per_second, None);
        assert_eq!(pipe.run(4, 500, 500, Database::Fit).shown.incoming_per_second, Some(500.0));
    }
}
