//! What a frame can be.

use std::fmt;

use jiff::Timestamp;
use penstock_core::data::{Action, EventKind};

/// One message of the stream, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// An event that makes a stream entry.
    Event(Event),
    /// A repo's new state without its changes: moves the cursor, makes no entry.
    Sync(Sync),
    /// A word from the host, such as `OutdatedCursor`.
    Info(Info),
    /// The host's last word before it closes, such as `FutureCursor`.
    Error(ErrorFrame),
    /// A frame of a kind that is not known here, to be passed over.
    Ignored(Ignored),
}

/// A commit, identity or account event, ready to be written to the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The host's sequence number, in 1..2^53.
    pub seq: u64,
    /// Which of the three it is.
    pub kind: EventKind,
    /// The repo or account.
    pub did: Box<str>,
    /// The event's time; none where the host's text is no time.
    pub time: Option<Timestamp>,
    /// The entry's data, as JSON.
    pub data: Vec<u8>,
    /// The revision, a TID; commits only.
    pub rev: Option<Box<str>>,
    /// The revision before, a TID; none at first, where the host does not say, or where its text is no TID.
    pub since: Option<Box<str>>,
    /// What the live streams show of it.
    pub head: Headline,
    /// How many ops the commit has; 0 for the other kinds.
    pub ops: usize,
}

/// What the live streams show of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headline {
    /// A commit.
    Commit {
        /// The first op's action and collection; none where the commit has no ops.
        first: Option<(Action, Box<str>)>,
    },
    /// An identity event.
    Identity {
        /// The handle, where the host says it.
        handle: Option<Box<str>>,
    },
    /// An account event.
    Account {
        /// Whether the repo can be shown.
        active: bool,
    },
}

/// A repo's new state, without the changes that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The host's sequence number, in 1..2^53.
    pub seq: u64,
    /// The repo.
    pub did: Box<str>,
    /// The revision it is at now, a TID.
    pub rev: Box<str>,
    /// The event's time; none where the host's text is no time.
    pub time: Option<Timestamp>,
}

/// A word from the host; it has no sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is about, such as `OutdatedCursor`.
    pub name: Box<str>,
    /// The host's explanation.
    pub message: Option<Box<str>>,
}

/// The host's last word before it closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorFrame {
    /// What it is about, such as `FutureCursor` or `ConsumerTooSlow`.
    pub error: Box<str>,
    /// The host's explanation.
    pub message: Option<Box<str>>,
}

/// A frame of a kind that is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The header's `op`.
    pub op: i64,
    /// The header's `t`.
    pub t: Option<Box<str>>,
    /// The sequence number, where the body has a valid one.
    pub seq: Option<u64>,
}

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
