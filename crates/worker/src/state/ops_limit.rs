//! How many ops one transaction may have before the database runs into its timeout.
//!
//! A statement that was cancelled for its time would be cancelled again: so a transaction that took too long is tried
//! in halves, and the next ones are no larger, until they succeed.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::ApplyError;

/// The most ops that one transaction is given now.
#[derive(Debug)]
pub(crate) struct OpsLimit {
    most: usize,
    now: AtomicUsize,
}

// === impl OpsLimit ===

impl OpsLimit {
    /// Starts at the maximum.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, now: AtomicUsize::new(most) }
    }

    /// Returns how many ops a transaction may have.
    pub(crate) fn ops(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// A transaction of so many ops took too long.
    pub(crate) fn halve(&self, ops: usize) -> usize {
        let half = (ops / 2).clamp(1, self.most);
        self.now.fetch_min(half, Ordering::Relaxed);
        half
    }

    /// A transaction of so many ops was committed: twice as many may be, if that is more than now.
    pub(crate) fn grow(&self, ops: usize) {
        let now = self.ops();
        if now < self.most && ops * 2 > now {
            self.now.fetch_max((ops * 2).min(self.most), Ordering::Relaxed);
        }
    }
}

/// Returns whether a transaction failed because it took too long: cancelled by the server, or given up by the worker.
pub(crate) fn is_too_slow(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Retry { reason: "statement cancelled" | "no answer", .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_too_long_is_halved_down_to_one_and_grows_back() {
        let limit = OpsLimit::new(1_000);
        let mut ops = limit.ops();
        let mut tries = Vec::new();
        while ops > 1 {
            ops = limit.halve(ops);
            tries.push(limit.ops());
        }
        assert_eq!(tries, [500, 250, 125, 62, 31, 15, 7, 3, 1]);
        assert_eq!(limit.halve(1), 1);
        for _ in 0..10 {
            limit.grow(limit.ops());
        }
        assert_eq!(limit.ops(), 1_000);
        limit.halve(4);
        limit.grow(1);
        assert_eq!(limit.ops(), 2, "a small one says nothing of a large one");
    }
}
