//! How far a worker has come, for programs that show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a worker has done so far. Clones share it, and reading it is cheap.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    applied: AtomicU64,
    rows: AtomicU64,
    dead_letters: AtomicU64,
    in_flight: AtomicU64,
    /// -1 while unknown.
    backlog: AtomicI64,
}

/// A worker's progress at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Entries applied and acknowledged since the start.
    pub applied: u64,
    /// Rows inserted, updated or deleted since the start.
    pub rows: u64,
    /// Entries put among the dead letters since the start.
    pub dead_letters: u64,
    /// Entries read and not yet acknowledged.
    pub in_flight: u64,
    /// Entries of the group that are undelivered or pending; none while unknown.
    pub lag: Option<u64>,
}

// === impl Progress ===

impl Progress {
    /// Returns how far the worker has come.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Snapshot {
            applied: of(&self.shared.applied),
            rows: of(&self.shared.rows),
            dead_letters: of(&self.shared.dead_letters),
            in_flight: of(&self.shared.in_flight),
            lag: u64::try_from(self.shared.backlog.load(Ordering::Relaxed)).ok(),
        }
    }

    pub(crate) fn applied(&self, entries: u64) {
        self.shared.applied.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, rows: u64) {
        self.shared.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn buried(&self) {
        self.shared.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self, entries: usize) {
        self.shared.in_flight.store(entries as u64, Ordering::Relaxed);
    }

    pub(crate) fn lag(&self, lag: Option<u64>) {
        let lag = lag.and_then(|lag| i64::try_from(lag).ok()).unwrap_or(-1);
        self.shared.backlog.store(lag, Ordering::Relaxed);
    }
}

// === impl Shared ===

impl Default for Shared {
    fn default() -> Self {
        Self {
            applied: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            backlog: AtomicI64::new(-1),
        }
    }
}
