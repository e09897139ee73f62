//! The entries that this process holds: read or claimed, and not yet acknowledged.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::stream::StreamId;
use tokio::sync::Notify;

/// The most bytes that held entries of the first stream take, decoded; one read may exceed it.
pub(crate) const FIRST_BYTES: usize = 36 * 1024 * 1024;

/// The same of the second stream.
pub(crate) const SECOND_BYTES: usize = 12 * 1024 * 1024;

/// What is held, and how much more may be: the one bound on the memory of this process.
#[derive(Debug)]
pub(crate) struct Held {
    most: usize,
    most_bytes: usize,
    inner: Mutex<Inner>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<StreamId, HeldEntry>,
    bytes: usize,
}

#[derive(Debug)]
struct HeldEntry {
    bytes: usize,
    since: Instant,
}

// === impl Held ===

impl Held {
    /// Holds nothing yet, and later at most about `most` entries of `most_bytes` bytes together.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Self { most, most_bytes, inner: Mutex::default(), freed: Notify::new() }
    }

    /// Returns how many more entries may be held; if none, waits for at most `patience` until some are released.
    pub(crate) async fn room(&self, patience: Duration) -> usize {
        let mut freed = pin!(self.freed.notified());
        // From here on no notification is missed.
        freed.as_mut().enable();
        match self.room_now() {
            0 => {
                let _ = tokio::time::timeout(patience, freed).await;
                self.room_now()
            }
            room => room,
        }
    }

    /// Takes an entry; `false` if it is held already.
    pub(crate) fn take(&self, id: StreamId, bytes: usize, now: Instant) -> bool {
        let mut inner = self.inner();
        if inner.entries.contains_key(&id) {
            return false;
        }
        inner.entries.insert(id, HeldEntry { bytes, since: now });
        inner.bytes += bytes;
        true
    }

    /// Releases entries.
    pub(crate) fn release(&self, ids: impl IntoIterator<Item = StreamId>) {
        let mut inner = self.inner();
        for id in ids {
            if let Some(hold) = inner.entries.remove(&id) {
                inner.bytes -= hold.bytes;
            }
        }
        drop(inner);
        self.freed.notify_waiters();
    }

    /// Lists the entries held for at least `age`.
    pub(crate) fn older_than(&self, age: Duration, now: Instant) -> Vec<StreamId> {
        let inner = self.inner();
        let old = inner.entries.iter().filter(|(_, hold)| now.saturating_duration_since(hold.since) >= age);
        old.map(|(id, _)| *id).collect()
    }

    /// Returns how many entries are held.
    pub(crate) fn len(&self) -> usize {
        self.inner().entries.len()
    }

    fn room_now(&self) -> usize {
        let inner = self.inner();
        if inner.bytes < self.most_bytes { self.most.saturating_sub(inner.entries.len()) } else { 0 }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    #[test]
    fn room_ends_by_count_and_by_bytes_and_comes_back() {
        let held = Held::new(2, 1_000);
        let now = Instant::now();
        assert!(held.take(id(1), 999, now));
        assert_eq!(held.room_now(), 1);
        assert!(!held.take(id(1), 5, now), "an entry is held once");
        assert!(held.take(id(2), 1, now));
        assert_eq!(held.room_now(), 0);
        held.release([id(2), id(9)]);
        assert_eq!((held.room_now(), held.len()), (1, 1));
        held.release([id(1)]);
        assert!(held.take(id(3), 1_000, now));
        assert_eq!(held.room_now(), 0, "full by bytes");
    }

    #[test]
    fn only_what_is_held_for_long_is_listed() {
        let held = Held::new(10, 1_000);
        let start = Instant::now();
        held.take(id(1), 1, start);
        held.take(id(2), 1, start + Duration::from_secs(2));
        assert_eq!(held.older_than(Duration::from_secs(1), start + Duration::from_secs(2)), [id(1)]);
    }
}
