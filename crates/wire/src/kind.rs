//! The kinds of frame.

use std::fmt;

use penstock_core::data::EventKind;

/// The kinds of frame that have a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// Records of one repo changed.
    Commit,
    /// A repo's new state.
    Sync,
    /// A handle or DID document may have changed.
    Identity,
    /// An account's hosting status changed.
    Account,
}

// === impl BodyKind ===

impl BodyKind {
    /// Returns the header's `t`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => EventKind::Commit.frame_type(),
            Self::Sync => "#sync",
            Self::Identity => EventKind::Identity.frame_type(),
            Self::Account => EventKind::Account.frame_type(),
        }
    }

    pub(crate) fn of(t: &str) -> Option<Self> {
        [Self::Commit, Self::Sync, Self::Identity, Self::Account].into_iter().find(|kind| kind.as_str() == t)
    }
}

impl fmt::Display for BodyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
