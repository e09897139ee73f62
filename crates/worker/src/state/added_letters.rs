//! How many dead letters this process added to PostgreSQL, to know when it is time to check their bounds.

use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::dead_letter::Bounds;
use tokio::sync::Notify;

/// Which part of what PostgreSQL may hold of dead letters one process adds before it looks whether they are too many.
const SLACK: u64 = 16;

/// What this process added to the dead letters in PostgreSQL since it looked last whether they are too many.
#[derive(Debug)]
pub(crate) struct AddedLetters {
    least: u64,
    slack: u64,
    weight: AtomicU64,
    due: Notify,
}

// === impl AddedLetters ===

impl AddedLetters {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { least: bounds.least(), slack: bounds.bytes / SLACK, weight: AtomicU64::new(0), due: Notify::new() }
    }

    /// A letter of so many bytes was added.
    pub(crate) fn add(&self, bytes: usize) {
        let weight = (bytes as u64).max(self.least);
        if self.weight.fetch_add(weight, Ordering::Relaxed) + weight >= self.slack {
            self.weight.store(0, Ordering::Relaxed);
            self.due.notify_one();
        }
    }

    /// Waits until so much was added that it is time to look.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }
}
