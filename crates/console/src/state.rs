//! What is known of a pipeline, since when, and how fast it moves. Time is handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::{DeadLetters, Event, Ingest, Metrics, Ready, Worker};

/// Figures are stale once they are older than this; the dashboard sends new ones every 2 s where nobody changed that.
pub(crate) const STALE: Duration = Duration::from_secs(6);

/// What is asked for beside the figures may be this old.
const FRESH: Duration = Duration::from_secs(10);

/// Over how long rates are taken.
const WINDOW: Duration = Duration::from_secs(10);

/// How many live events are kept.
const EVENTS: usize = 2_000;

/// How the live stream, or the last question, stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing came yet, and nothing is wrong.
    #[default]
    Connecting,
    /// It answers.
    Open,
    /// It does not answer, and why.
    Lost(String),
    /// It wants a token.
    Refused(String),
}

/// One thing that is asked for now and then.
#[derive(Clone, Debug)]
pub(crate) struct Known<T> {
    value: Option<T>,
    at: Option<Instant>,
    /// Why the last question was not answered.
    pub(crate) problem: Option<String>,
}

/// What came.
#[derive(Clone, Debug)]
pub(crate) enum Update {
    Link(Link),
    Metrics(Box<Metrics>),
    Ingest(Result<Ingest, String>),
    Workers(Result<Vec<Worker>, String>),
    Ready(Result<Ready, String>),
    Letters(Result<DeadLetters, String>),
    Event(Event),
    /// So many events did not reach us.
    Missed(u64),
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) link: Link,
    pub(crate) ingest: Known<Ingest>,
    pub(crate) workers: Known<Vec<Worker>>,
    pub(crate) ready: Known<Ready>,
    pub(crate) letters: Known<DeadLetters>,
    /// The newest last.
    pub(crate) events: VecDeque<Event>,
    /// Events that came, kept or not.
    pub(crate) events_seen: u64,
    pub(crate) missed: u64,
    metrics: Known<Metrics>,
    samples: VecDeque<Sample>,
    /// Since when something waits and nothing moves.
    stalled_since: Option<Instant>,
}

/// The figures that rates are made of.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// When it came.
    at: Instant,
    /// When the dashboard read it, where it says so: the way here takes now this long, now that.
    read: Option<Timestamp>,
    processed: u64,
    rows: u64,
    tables: [u64; 6],
    stream: u64,
    cursor: Option<u64>,
}

// === impl Known ===

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { value: None, at: None, problem: None }
    }
}

impl<T> Known<T> {
    /// Returns it where it is not too old.
    pub(crate) fn fresh(&self, now: Instant) -> Option<&T> {
        self.value.as_ref().filter(|_| self.age(now).is_some_and(|age| age <= FRESH))
    }

    /// Returns it however old it is.
    pub(crate) fn last(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Returns how old it is.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.at.map(|at| now.saturating_duration_since(at))
    }

    fn take(&mut self, answer: Result<T, String>, now: Instant) {
        match answer {
            Ok(value) => *self = Self { value: Some(value), at: Some(now), problem: None },
            Err(problem) => self.problem = Some(problem),
        }
    }
}

// === impl State ===

impl State {
    /// Takes in what came.
    pub(crate) fn apply(&mut self, update: Update, now: Instant) {
        match update {
            Update::Link(link) => self.link = link,
            Update::Metrics(metrics) => self.take_metrics(*metrics, now),
            Update::Ingest(answer) => self.ingest.take(answer, now),
            Update::Workers(answer) => self.workers.take(answer, now),
            Update::Ready(answer) => self.ready.take(answer, now),
            Update::Letters(answer) => self.letters.take(answer, now),
            Update::Event(event) => {
                self.events_seen += 1;
                if self.events.len() == EVENTS {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
            Update::Missed(count) => self.missed += count,
        }
    }

    /// Returns the figures where they are not stale.
    pub(crate) fn figures(&self, now: Instant) -> Option<&Metrics> {
        self.metrics.last().filter(|_| !self.is_stale(now))
    }

    /// Returns the last figures, however old they are.
    pub(crate) fn last_figures(&self) -> Option<&Metrics> {
        self.metrics.last()
    }

    /// Returns how old the last figures are.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.metrics.age(now)
    }

    /// Says whether there are figures that are too old.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.age(now).is_some_and(|age| age > STALE)
    }

    /// Returns what the last answers complained of.
    pub(crate) fn problem(&self) -> Option<&str> {
        let link = match &self.link {
            Link::Lost(why) | Link::Refused(why) => Some(why.as_str()),
            Link::Connecting | Link::Open => None,
        };
        let asked = [&self.workers.problem, &self.ingest.problem, &self.ready.problem];
        link.or_else(|| asked.into_iter().find_map(Option::as_deref))
    }

    /// Returns the events that are applied a second.
    pub(crate) fn applied(&self, now: Instant) -> Option<f64> {
        self.per_second(now, |sample| Some(sample.processed))
    }

    /// Returns the relay's numbers that ingest passes a second.
    pub(crate) fn read(&self, now: Instant) -> Option<f64> {
        self.per_second(now, |sample| sample.cursor)
    }

    /// Returns the rows that come a second.
    pub(crate) fn rows(&self, now: Instant) -> Option<f64> {
        self.per_second(now, |sample| Some(sample.rows))
    }

    /// Returns the rows that come to one table a second, by its place in [`Stats::tables`](crate::api::Stats::tables).
    pub(crate) fn rows_of(&self, table: usize, now: Instant) -> Option<f64> {
        self.per_second(now, |sample| sample.tables.get(table).copied())
    }

    /// Returns for how long something has waited and nothing moved.
    pub(crate) fn stalled(&self) -> Duration {
        match (self.stalled_since, self.samples.back()) {
            (Some(since), Some(last)) => last.at.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }

    fn take_metrics(&mut self, metrics: Metrics, now: Instant) {
        // The same figures once more are no newer for that.
        if self.metrics.last().is_some_and(|last| last.last_update == metrics.last_update) {
            return;
        }
        let status = &metrics.firehose_status;
        let sample = Sample {
            at: now,
            read: metrics.last_update.parse().ok(),
            processed: metrics.events_processed,
            rows: metrics.db_records,
            tables: metrics.stats.tables().map(|(_, rows)| rows),
            stream: status.stream_length,
            cursor: status.current_cursor.as_deref().and_then(|cursor| cursor.parse().ok()),
        };
        match self.samples.back() {
            Some(before) if before.processed == sample.processed => {
                // A long stream says nothing: other groups may hold it. That it grows does.
                let waits = status.queue_depth > 0 || sample.stream > before.stream;
                match self.stalled_since {
                    None if waits => self.stalled_since = Some(before.at),
                    // Pending entries that are gone were acknowledged.
                    Some(_) if !waits && status.queue_depth == 0 && sample.stream <= before.stream => {
                        self.stalled_since = None;
                    }
                    _ => {}
                }
            }
            // Set back by somebody, or another pipeline behind the same address.
            Some(before) if before.processed > sample.processed => {
                self.samples.clear();
                self.stalled_since = None;
            }
            _ => self.stalled_since = None,
        }
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| now.saturating_duration_since(second.at) >= WINDOW) {
            self.samples.pop_front();
        }
        self.metrics.take(Ok(metrics), now);
    }

    fn per_second(&self, now: Instant, of: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let time = match (first.read, last.read) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64(),
            _ => last.at.saturating_duration_since(first.at).as_secs_f64(),
        };
        if time < 0.5 || self.is_stale(now) {
            return None;
        }
        Some(of(last)?.saturating_sub(of(first)?) as f64 / time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::FirehoseStatus;

    fn metrics(update: u64, processed: u64, stream: u64, pending: u64, cursor: &str) -> Update {
        Update::Metrics(Box::new(Metrics {
            events_processed: processed,
            firehose_status: FirehoseStatus {
                stream_length: stream,
                queue_depth: pending,
                current_cursor: Some(cursor.to_owned()),
                ..Default::default()
            },
            last_update: update.to_string(),
            ..Default::default()
        }))
    }

    #[test]
    fn rates_are_those_of_the_last_seconds_and_none_of_stale_figures() {
        let (start, mut state) = (Instant::now(), State::default());
        assert_eq!(state.applied(start), None);
        let mut now = start;
        for second in 0..60 {
            now = start + Duration::from_secs(second);
            let processed = if second < 30 { second * 10 } else { 300 + (second - 30) * 100 };
            state.apply(metrics(second, processed, 0, 0, &(second * 7).to_string()), now);
        }
        assert_eq!((state.applied(now), state.read(now)), (Some(100.0), Some(7.0)));
        assert_eq!(state.applied(now + STALE), Some(100.0));
        let later = now + STALE + Duration::from_millis(1);
        assert_eq!((state.applied(later), state.is_stale(later), state.figures(later)), (None, true, None));
        assert!(state.last_figures().is_some());
    }

    #[test]
    fn a_late_answer_changes_no_rate_where_the_dashboard_says_when_it_looked() {
        let (start, mut state) = (Instant::now(), State::default());
        for (second, late) in [(0, 1900), (2, 0), (4, 0)] {
            let Update::Metrics(mut figures) = metrics(second, second * 100, 0, 0, "1") else { unreachable!() };
            figures.last_update = format!("2026-07-04T14:38:0{second}.500Z");
            let at = start + Duration::from_millis(second * 1000 + late);
            state.apply(Update::Metrics(figures), at);
        }
        assert_eq!(state.applied(start + Duration::from_secs(4)), Some(100.0));
    }

    #[test]
    fn the_same_figures_once_more_are_no_newer() {
        let (start, mut state) = (Instant::now(), State::default());
        for second in 0..10 {
            state.apply(metrics(1, 5, 0, 0, "1"), start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(10);
        assert_eq!((state.age(now), state.applied(now)), (Some(Duration::from_secs(10)), None));
    }

    #[test]
    fn a_stall_needs_something_that_waits_and_nothing_that_moves() {
        let stalled = |samples: &[(u64, u64, u64)]| {
            let (start, mut state) = (Instant::now(), State::default());
            for (second, (processed, stream, pending)) in (0..).zip(samples) {
                state.apply(metrics(second, *processed, *stream, *pending, "x"), start + Duration::from_secs(second));
            }
            state.stalled().as_secs()
        };
        type Look = (u64, u64, u64);
        let cases: [(&[Look], u64); 8] = [
            (&[(5, 0, 0), (5, 0, 0), (5, 0, 0)], 0),
            (&[(5, 9, 0), (5, 9, 0), (5, 9, 0)], 0),
            (&[(5, 9, 3), (5, 9, 3), (5, 9, 3)], 2),
            (&[(5, 9, 0), (5, 12, 0), (5, 15, 0)], 2),
            (&[(5, 9, 3), (6, 9, 3), (7, 9, 3)], 0),
            (&[(5, 9, 3), (5, 9, 3), (6, 9, 3)], 0),
            (&[(5, 9, 3), (5, 9, 3), (5, 9, 0)], 0),
            (&[(5, 9, 3), (0, 9, 3), (0, 9, 3)], 1),
        ];
        for (samples, expected) in cases {
            assert_eq!(stalled(samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn an_unanswered_question_leaves_the_last_answer_until_it_is_old() {
        let (start, mut state) = (Instant::now(), State::default());
        state.apply(Update::Workers(Ok(vec![Worker::default()])), start);
        state.apply(Update::Workers(Err("redis does not answer".into())), start + Duration::from_secs(2));
        assert_eq!(state.workers.fresh(start + FRESH).map(Vec::len), Some(1));
        assert_eq!(state.workers.fresh(start + FRESH + Duration::from_millis(1)), None);
        assert_eq!(state.problem(), Some("redis does not answer"));
    }

    #[test]
    fn kept_events_are_bounded() {
        let (now, mut state) = (Instant::now(), State::default());
        for number in 0..EVENTS + 5 {
            state.apply(Update::Event(Event { did: number.to_string(), ..Event::default() }), now);
        }
        assert_eq!((state.events.len(), state.events_seen), (EVENTS, EVENTS as u64 + 5));
        assert_eq!(state.events.front().map(|event| event.did.as_str()), Some("5"));
    }
}
