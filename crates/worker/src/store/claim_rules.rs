//! When events that take accounts away take effect, and how many claims a batch made of them.

use std::time::Duration;

/// When an event that takes an account away takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// How long the rows of a deleted account are kept.
    pub(super) grace: Duration,
    /// Whether the account's host is asked first.
    pub(super) asks: bool,
    /// How long after a failure it is asked again; doubled with each one.
    pub(super) retry: Duration,
}

/// What a batch did to the claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// Claims made, or made anew.
    pub(crate) made: u64,
    /// Claims withdrawn, because the account is active.
    pub(crate) withdrawn: u64,
}

// === impl Rules ===

impl Rules {
    /// Returns whether deletions wait at all.
    pub(super) fn defers(&self) -> bool {
        self.asks || !self.grace.is_zero()
    }
}
