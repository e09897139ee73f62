//! How far ingest has come, for whoever prints it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// The running totals of one ingest, for display; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    published: AtomicU64,
    cursor: AtomicU64,
    event_millis: AtomicU64,
    written_millis: AtomicU64,
    connected: AtomicBool,
}

// === impl Progress ===

impl Progress {
    /// Returns how many entries were written to the stream.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.totals.published.load(Ordering::Relaxed)
    }

    /// Returns the cursor; none before the first event.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        Some(self.totals.cursor.load(Ordering::Relaxed)).filter(|cursor| *cursor > 0)
    }

    /// Returns the age of the cursor's event; none before the first event.
    #[must_use]
    pub fn lag(&self, now: Timestamp) -> Option<Duration> {
        let millis = Some(self.totals.event_millis.load(Ordering::Relaxed)).filter(|millis| *millis > 0)?;
        let now = u64::try_from(now.as_millisecond()).ok()?;
        Some(Duration::from_millis(now.saturating_sub(millis)))
    }

    /// Returns when an entry was last written; none before the first one.
    #[must_use]
    pub fn written(&self) -> Option<Timestamp> {
        let millis = Some(self.totals.written_millis.load(Ordering::Relaxed)).filter(|millis| *millis > 0)?;
        Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()
    }

    /// Returns whether the relay's socket is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.totals.connected.load(Ordering::Relaxed)
    }

    /// Adds a batch.
    pub(crate) fn record_published(&self, entries: usize, cursor: Option<u64>, usual_time: Option<Timestamp>) {
        let totals = &self.totals;
        totals.published.fetch_add(entries as u64, Ordering::Relaxed);
        if entries > 0 {
            totals.written_millis.store(millis(Timestamp::now()), Ordering::Relaxed);
        }
        if let Some(cursor) = cursor {
            totals.cursor.store(cursor, Ordering::Relaxed);
        }
        if let Some(time) = usual_time {
            totals.event_millis.store(millis(time), Ordering::Relaxed);
        }
    }

    /// Sets the cursor found at start. Keeps the known event time if the cursor has not changed.
    pub(crate) fn record_resumed(&self, cursor: Option<u64>, event_time: Option<Timestamp>) {
        let before = self.totals.cursor.swap(cursor.unwrap_or_default(), Ordering::Relaxed);
        if before != cursor.unwrap_or_default() {
            self.totals.event_millis.store(event_time.map(millis).unwrap_or_default(), Ordering::Relaxed);
        }
    }

    /// Sets whether the relay's socket is open.
    pub(crate) fn set_connected(&self, connected: bool) {
        self.totals.connected.store(connected, Ordering::Relaxed);
    }
}

/// Milliseconds since the epoch; 0 before it.
fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or_default()
}
