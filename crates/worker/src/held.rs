//! The entries that this process holds: read or claimed, and not yet acknowledged.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::stream::StreamId;
use tokio::sync::Notify;

/// The most bytes of entries held at once, about: one read may go over.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What is held, and how much more may be: the one bound on this process' memory.
#[derive(Debug)]
pub(crate) struct Held {
    most: usize,
    inner: Mutex<Inner>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<StreamId, Hold>,
    bytes: usize,
}

#[derive(Debug)]
struct Hold {
    bytes: usize,
    since: Instant,
}

// === impl Held ===

impl Held {
    /// Holds nothing yet, and later at most about `most` entries.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, inner: Mutex::default(), freed: Notify::new() }
    }

    /// Says how many more entries may be held; where none, waits until some were let go, at most for `patience`.
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

    /// Takes hold of an entry; `false` where it is held already.
    pub(crate) fn take(&self, id: StreamId, bytes: usize, now: Instant) -> bool {
        let mut inner = self.inner();
        if inner.entries.contains_key(&id) {
            return false;
        }
        inner.entries.insert(id, Hold { bytes, since: now });
        inner.bytes += bytes;
        true
    }

    /// Lets entries go.
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

    /// Says how many entries are held.
    pub(crate) fn len(&self) -> usize {
        self.inner().entries.len()
    }

    fn room_now(&self) -> usize {
        let inner = self.inner();
        if inner.bytes < MAX_BYTES { self.most.saturating_sub(inner.entries.len()) } else { 0 }
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
        let held = Held::new(2);
        let now = Instant::now();
        assert!(held.take(id(1), MAX_BYTES - 1, now));
        assert_eq!(held.room_now(), 1);
        assert!(!held.take(id(1), 5, now), "an entry is held once");
        assert!(held.take(id(2), 1, now));
        assert_eq!(held.room_now(), 0);
        held.release([id(2), id(9)]);
        assert_eq!((held.room_now(), held.len()), (1, 1));
        held.release([id(1)]);
        assert!(held.take(id(3), MAX_BYTES, now));
        assert_eq!(held.room_now(), 0, "full by bytes");
    }

    #[test]
    fn only_what_is_held_for_long_is_listed() {
        let held = Held::new(10);
        let start = Instant::now();
        held.take(id(1), 1, start);
        held.take(id(2), 1, start + Duration::from_secs(2));
        assert_eq!(held.older_than(Duration::from_secs(1), start + Duration::from_secs(2)), [id(1)]);
    }
}
