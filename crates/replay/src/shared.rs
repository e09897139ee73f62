//! What all clients of a relay share.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::faults::Desk;
use crate::host::Host;

/// Holds what all clients of a relay share.
#[derive(Debug)]
pub(crate) struct Shared {
    desk: Mutex<Desk>,
    /// Events handed to clients.
    pub(crate) served: AtomicU64,
    /// Open connections.
    pub(crate) clients: AtomicUsize,
}

/// A client that counts as connected until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicUsize);

// === impl Shared ===

impl Shared {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { desk: Mutex::new(Desk::new(host)), served: AtomicU64::new(0), clients: AtomicUsize::new(0) }
    }

    /// The desk; not to be held for long.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a client for as long as it is connected.
    pub(crate) fn count_client(&self) -> Counted<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Counted(&self.clients)
    }
}

// === impl Counted ===

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
