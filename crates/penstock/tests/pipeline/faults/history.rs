//! What the relay can have sent: its timelines, without what it skipped and what was gone before it was read.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock, Mutex};

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use penstock_replay::{Alter, Rate, Settings};
use tokio::task::spawn_blocking;

use super::odd;
use crate::frames::{Entry, Recording};

/// Everything that the relay said, sequence by sequence.
pub(crate) struct History {
    events: u64,
    rate: Rate,
    /// Whether some of its commits are odd.
    is_odd: bool,
    timelines: Vec<Timeline>,
}

/// One sequence of the relay's.
struct Timeline {
    settings: Settings,
    /// How many events it has.
    events: u64,
    skipped: Vec<RangeInclusive<u64>>,
    /// The last entry that was read, where there was another sequence after this one.
    read: Option<u64>,
}

/// What must have come of it.
pub(crate) struct Said {
    pub(crate) entries: Vec<Entry>,
    /// How many events could be read.
    pub(crate) events: usize,
    /// The last number.
    pub(crate) last: u64,
}

/// The first number of the first sequence; each later one begins so far below the one before that they never meet.
const FIRST: u64 = 900_000_000;
pub(crate) const APART: u64 = 100_000_000;

/// Recordings of whole sequences by first number and length, and whether they are odd.
type Recordings = Mutex<HashMap<(u64, u64, bool), Arc<Recording>>>;

/// Seeds share them.
static RECORDINGS: LazyLock<Recordings> = LazyLock::new(Mutex::default);

// === impl History ===

impl History {
    pub(crate) fn new(events: u64, rate: Rate, is_odd: bool) -> Self {
        let mut history = Self { events, rate, is_odd, timelines: Vec::new() };
        history.begin(events);
        history
    }

    /// The settings of the present sequence.
    pub(crate) fn settings(&self) -> Settings {
        self.present().settings.clone()
    }

    /// Begins another sequence, of the events that the present one has left at this number.
    pub(crate) fn restart(&mut self, at: u64, skipped: Vec<RangeInclusive<u64>>) {
        let present = self.timelines.last_mut().unwrap();
        present.skipped = skipped;
        // Numbers are left out here and there, so that these are a few less; and nobody has to read the end of nothing.
        let left = present.events.saturating_sub(at.saturating_sub(present.settings.start_seq.unwrap()));
        self.begin(left.max(self.events / 4));
    }

    /// Says whether a number is of the present sequence.
    pub(crate) fn is_present(&self, seq: u64) -> bool {
        (self.first()..self.first() + APART).contains(&odd::base(seq))
    }

    /// Whether the sequence began again.
    pub(crate) fn is_restarted(&self) -> bool {
        self.timelines.len() > 1
    }

    /// Notes the last entry that was read of the sequence before the present one.
    pub(crate) fn ended_at(&mut self, read: u64) {
        let read = odd::base(read);
        let before = self.timelines.len() - 2;
        self.timelines[before].read = Some(read);
    }

    /// Puts together what must have come of it, of which the relay skipped these at last.
    pub(crate) async fn said(mut self, skipped: Vec<RangeInclusive<u64>>) -> Said {
        self.timelines.last_mut().unwrap().skipped = skipped;
        spawn_blocking(move || {
            let mut said = Said { entries: Vec::new(), events: 0, last: 0 };
            for timeline in &self.timelines {
                let recording = timeline.recording(self.events);
                let end =
                    odd::base(recording.seqs[timeline.events as usize - 1]).min(timeline.read.unwrap_or(u64::MAX));
                let read = |seq: u64| seq <= end && !timeline.skipped.iter().any(|skipped| skipped.contains(&seq));
                said.entries.extend(recording.entries.iter().filter(|entry| read(odd::base(entry.seq))).cloned());
                let seqs: Vec<u64> = recording.seqs.iter().copied().filter(|seq| read(odd::base(*seq))).collect();
                said.events += seqs.len();
                // The cursor stays where the last number is that others are near.
                said.last = seqs.iter().copied().rfind(|seq| odd::base(*seq) == *seq).unwrap();
            }
            said
        })
        .await
        .unwrap()
    }

    fn begin(&mut self, events: u64) {
        let before = self.timelines.len() as u64;
        // The times of a sequence are past, and all later than those of the one before.
        let start = civil::date(2024, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
        let start_time: Timestamp = start + (before as i64 * 30 * 24).hours();
        let alter: Option<Alter> = if self.is_odd { Some(odd::alter) } else { None };
        let settings = Settings { total: Some(events), rate: self.rate, alter, ..Settings::default() }
            .restarted(FIRST - APART * before, start_time);
        self.timelines.push(Timeline { settings, events, skipped: Vec::new(), read: None });
    }

    fn present(&self) -> &Timeline {
        self.timelines.last().unwrap()
    }

    fn first(&self) -> u64 {
        self.present().settings.start_seq.unwrap()
    }
}

// === impl Timeline ===

impl Timeline {
    /// All that a sequence of this length would say.
    fn recording(&self, events: u64) -> Arc<Recording> {
        let settings = Settings { total: Some(events), ..self.settings.clone() };
        let key = (settings.start_seq.unwrap(), events, settings.alter.is_some());
        // Whoever comes at the same time waits: making it twice would take longer.
        let mut recordings = RECORDINGS.lock().unwrap();
        Arc::clone(recordings.entry(key).or_insert_with(|| Arc::new(Recording::of(&settings))))
    }
}
