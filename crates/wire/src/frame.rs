//! What a frame can be.

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::data::{Action, EventKind};
use penstock_core::filter::LeftOutBy;

use crate::error::BadReason;
use crate::proof::Proof;

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
    pub data: Bytes,
    /// The revision, a TID; commits only.
    pub rev: Option<Box<str>>,
    /// The revision before, a TID; none at first, where the host does not say, or where its text is no TID.
    pub since: Option<Box<str>>,
    /// What the live streams show of it.
    pub head: Headline,
    /// How many ops the entry has; 0 for the other kinds.
    pub ops: usize,
    /// What it lacks of the host's commit, part by part.
    pub left_out: Vec<LeftOut>,
    /// How many ops the filter left out, by reason; of a commit of a repo that is left out all of them, if only none.
    pub filtered: Vec<(LeftOutBy, usize)>,
    /// How many records or ops of it are not here though the repo has them: that repo wants to be read anew.
    pub missing: usize,
    /// What it proves; commits only, and only where [`Limits::proof`](crate::Limits::proof) asks for it. None where the frame
    /// brings no signed commit, as of a `tooBig` one without blocks.
    pub proof: Option<Box<Proof>>,
}

// === impl Event ===

impl Event {
    /// Says whether its repo is left out by the filter: then nothing more is known of it, and nothing of it is checked.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.filtered.iter().any(|(by, _)| matches!(by, LeftOutBy::Repos | LeftOutBy::ExcludedRepos))
    }

    /// Says whether the filter leaves nothing of it to be carried.
    #[must_use]
    pub fn is_filtered_out(&self) -> bool {
        !self.filtered.is_empty() && self.ops == 0 && self.missing == 0
    }
}

/// A part of a commit that could not be carried; its neighbours are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The path of the op, shortened where it is none; none where it is of no single op.
    pub path: Option<Box<str>>,
    /// The CID of its record, where it has one.
    pub cid: Option<Box<str>>,
    /// What is wrong with it.
    pub reason: BadReason,
    /// The bytes of its block, where they are at hand and not those of a part before.
    pub block: Vec<u8>,
}

/// What the live streams show of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headline {
    /// A commit.
    Commit {
        /// The first op's action and path; none where the commit has no ops.
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
    /// What it proves, where [`Limits::proof`](crate::Limits::proof) asks for it.
    pub proof: Option<Box<Proof>>,
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
