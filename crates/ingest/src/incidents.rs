//! Gaps, resets and losses, from when they are seen until a batch counts them.

/// How many were seen since a batch last counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Incidents {
    /// Possible gaps.
    pub(crate) gaps: u32,
    /// Sequences that restarted.
    pub(crate) resets: u32,
    /// Events known to be lost.
    pub(crate) losses: u32,
}

// === impl Incidents ===

impl Incidents {
    /// Returns whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}
