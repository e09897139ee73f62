//! The host behind a relay: one timeline, its clock, and how far clients have got on it.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use crate::directory::Asked;
use crate::edition::Chunk;
use crate::error::Error;
use crate::settings::Settings;
use crate::skips::Skips;
use crate::stock::Stock;
use crate::timeline::Clock;

/// Holds what all clients of one timeline share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) settings: Settings,
    pub(crate) stock: Arc<Stock>,
    pub(crate) clock: Clock,
    started: OnceLock<Instant>,
    /// One past the furthest position that any client took, or that was skipped.
    taken: AtomicU64,
    /// Whether anything was ever skipped: set before the skipped events count as taken.
    skipping: AtomicBool,
    skips: Mutex<Skips>,
}

impl Host {
    /// Reads the recording: some milliseconds of work.
    ///
    /// # Errors
    /// Where a setting is out of range, or the recording cannot be read or served.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            stock: Arc::new(Stock::new(&settings)?),
            clock: Clock::new(settings.rate, settings.backlog, settings.total),
            settings,
            started: OnceLock::new(),
            taken: AtomicU64::new(0),
            skipping: AtomicBool::new(false),
            skips: Mutex::default(),
        })
    }

    /// Starts the clock, if it does not run.
    pub(crate) fn start(&self) {
        self.started.get_or_init(|| {
            let now = Instant::now();
            let since = self.settings.live_since.map(|since| Timestamp::now().duration_since(since));
            // What became live before the clock ran is late, not earlier.
            since.and_then(|since| now.checked_sub(Duration::try_from(since).ok()?)).unwrap_or(now)
        });
    }

    /// Whether the clock runs.
    pub(crate) fn has_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// How many events a client may take.
    pub(crate) fn available(&self) -> u64 {
        self.clock.available(self.elapsed())
    }

    /// How many events are live.
    pub(crate) fn live(&self) -> u64 {
        self.clock.live(self.elapsed(), self.taken.load(Ordering::Relaxed))
    }

    /// The seq of the newest live event; one below the first event's where there is none yet.
    pub(crate) fn head(&self) -> u64 {
        self.stock.timeline().newest(self.live())
    }

    /// Answers as the directory, where this host is one.
    pub(crate) fn ask_directory(&self, asked: &Asked) -> Vec<u8> {
        let directory = self.stock.directory();
        directory.map(|directory| directory.answer(asked, &self.stock, self.live())).unwrap_or_default()
    }

    /// When the event at this position will be live, if it is not and ever will be.
    pub(crate) fn due(&self, position: u64) -> Option<Instant> {
        Some(*self.started.get()? + self.clock.due(position)?)
    }

    /// Makes a chunk away from the sockets.
    pub(crate) fn make(&self, number: u64) -> JoinHandle<Arc<Chunk>> {
        let stock = Arc::clone(&self.stock);
        spawn_blocking(move || stock.make(number))
    }

    /// Takes events for a client: of those asked for, the first run of which none is skipped. Where all are, the run is
    /// empty and begins behind the skipped ones.
    pub(crate) fn take(&self, asked: Range<u64>) -> Range<u64> {
        // With `skip`: whoever counts up `taken` after a skip sees that there is one.
        self.taken.fetch_max(asked.end, Ordering::AcqRel);
        if self.skipping.load(Ordering::Relaxed) { self.skips().first_run(asked) } else { asked }
    }

    /// Lets nobody have the next `n` events that no client has taken.
    pub(crate) fn skip(&self, n: u64) {
        let mut skips = self.skips();
        self.skipping.store(true, Ordering::Relaxed);
        let total = self.settings.total.unwrap_or(u64::MAX);
        let beyond = |taken: u64| taken.saturating_add(n).min(total);
        let before = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| Some(beyond(taken)));
        let start = before.unwrap_or_else(|taken| taken);
        skips.push(start..beyond(start));
    }

    /// The position from which on `n` events lie before `position`, those skipped not counted; 0 where there are fewer.
    pub(crate) fn back(&self, position: u64, n: u64) -> u64 {
        self.skips().back(position, n)
    }

    /// The seqs that were skipped.
    pub(crate) fn skipped(&self) -> Vec<RangeInclusive<u64>> {
        let seq = |position| self.stock.timeline().newest(position + 1);
        self.skips().ranges().iter().map(|range| seq(range.start)..=seq(range.end - 1)).collect()
    }

    fn skips(&self) -> MutexGuard<'_, Skips> {
        self.skips.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}
