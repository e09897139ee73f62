//! Why a frame was not decoded.

use jiff::Timestamp;
use thiserror::Error;

use crate::kind::BodyKind;

/// The longest stretch of a frame's own text that an error repeats, in bytes.
const QUOTED: usize = 96;

/// Why a frame was not decoded, and so what is to be done about it.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FrameError {
    /// The frame cannot be told apart from noise: drop the connection and resume from the cursor.
    #[error("could not read the frame's {part}: {detail}")]
    Unreadable {
        /// Where reading ended.
        part: Part,
        /// What the reader found.
        detail: Box<str>,
    },
    /// The frame has a sequence number, but its content is wrong: dead-letter it and move the cursor.
    #[error(transparent)]
    Bad(BadFrame),
}

/// The parts of a frame without which nothing is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The first object: `op` and `t`.
    Header,
    /// The second object, or its sequence number: absent, or no unsigned integer.
    Body,
    /// The body's sequence number: not in 1..2^53.
    Seq,
}

/// A frame whose sequence number is known and whose content is wrong.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("refused {kind} {seq}: {reason}")]
pub struct BadFrame {
    /// The host's sequence number, in 1..2^53.
    pub seq: u64,
    /// What the header says it is.
    pub kind: BodyKind,
    /// The repo or account; none where the text is no DID.
    pub did: Option<Box<str>>,
    /// The event's time; none where the text is no time.
    pub time: Option<Timestamp>,
    /// What is wrong with it.
    pub reason: BadReason,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadReason {
    /// The frame is over its bound.
    #[error("frame of {len} bytes is over {limit}")]
    FrameTooLarge {
        /// Its size, in bytes.
        len: usize,
        /// The bound, in bytes.
        limit: usize,
    },
    /// The CAR is over its bound.
    #[error("blocks of {len} bytes are over {limit}")]
    BlocksTooLarge {
        /// Its size, in bytes.
        len: usize,
        /// The bound, in bytes.
        limit: usize,
    },
    /// There are more ops than allowed.
    #[error("{count} ops are over {limit}, those behind come without their records")]
    TooManyOps {
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A record is over its bound.
    #[error("record of {len} bytes is over {limit}: {path}")]
    RecordTooLarge {
        /// Its size in the CAR, in bytes.
        len: usize,
        /// The bound, in bytes.
        limit: usize,
        /// The record's path.
        path: Box<str>,
    },
    /// A record is nested more deeply than allowed.
    #[error("record is nested over {limit} deep: {path}")]
    RecordTooDeep {
        /// How deep it may be.
        limit: usize,
        /// The record's path.
        path: Box<str>,
    },
    /// The event's JSON is over its bound.
    #[error("data is over {limit} bytes of json")]
    DataTooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A field of the body is missing or of another type.
    #[error("body is not as the lexicon says: {detail}")]
    Body {
        /// What the reader found.
        detail: Box<str>,
    },
    /// The repo or account is no DID.
    #[error("not a did: {did}")]
    Did {
        /// The text, shortened.
        did: Box<str>,
    },
    /// The revision is no TID. Rows are ordered by it for good, so nothing else is let through.
    #[error("not a rev: {rev}")]
    Rev {
        /// The text, shortened.
        rev: Box<str>,
    },
    /// An op's action is none of the three.
    #[error("not an action: {action}")]
    Action {
        /// The text, shortened.
        action: Box<str>,
    },
    /// An op's path is not `collection/rkey`.
    #[error("not a record path: {path}")]
    Path {
        /// The text, shortened.
        path: Box<str>,
    },
    /// A create or update has no CID, or one that is not of a DAG-CBOR block.
    #[error("op has no cid of a record: {path}")]
    OpCid {
        /// The record's path.
        path: Box<str>,
    },
    /// The CAR's framing is wrong.
    #[error("blocks are no car: {detail}")]
    Car {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// More parts of one commit were left out than are told one by one.
    #[error("{count} more parts are left out")]
    More {
        /// How many.
        count: usize,
    },
    /// A block's bytes are not what its CID says.
    #[error("block is not what its cid says: {cid}")]
    BlockHash {
        /// The CID it came with.
        cid: Box<str>,
    },
    /// The CAR's first root is not the commit the body names.
    #[error("first root of the car is not the commit")]
    Root,
    /// The commit block is not in the CAR.
    #[error("commit block is missing")]
    CommitMissing,
    /// The commit block is no commit, or of another repo or revision than the body says.
    #[error("commit block does not match: {detail}")]
    Commit {
        /// What differs.
        detail: Box<str>,
    },
    /// A record is not strict DAG-CBOR, or no map.
    #[error("record cannot be read: {path}: {detail}")]
    Record {
        /// The record's path.
        path: Box<str>,
        /// What the reader found.
        detail: Box<str>,
    },
}

// === impl FrameError ===

impl FrameError {
    /// Returns a name for metrics, one of a fixed set.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreadable { part: Part::Header, .. } => "unreadable_header",
            Self::Unreadable { part: Part::Body, .. } => "unreadable_body",
            Self::Unreadable { part: Part::Seq, .. } => "invalid_seq",
            Self::Bad(bad) => bad.reason.name(),
        }
    }

    pub(crate) fn unreadable(part: Part, detail: &str) -> Self {
        Self::Unreadable { part, detail: quote(detail) }
    }
}

// === impl Part ===

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Body => "body",
            Self::Seq => "seq",
        })
    }
}

// === impl BadReason ===

impl BadReason {
    /// Returns a name for metrics, one of a fixed set.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FrameTooLarge { .. } => "frame_too_large",
            Self::BlocksTooLarge { .. } => "blocks_too_large",
            Self::TooManyOps { .. } => "too_many_ops",
            Self::RecordTooLarge { .. } => "record_too_large",
            Self::RecordTooDeep { .. } => "record_too_deep",
            Self::DataTooLarge { .. } => "data_too_large",
            Self::Body { .. } => "body",
            Self::Did { .. } => "did",
            Self::Rev { .. } => "rev",
            Self::Action { .. } => "action",
            Self::Path { .. } => "path",
            Self::OpCid { .. } => "op_cid",
            Self::Car { .. } => "car",
            Self::More { .. } => "more",
            Self::BlockHash { .. } => "block_hash",
            Self::Root => "root",
            Self::CommitMissing => "commit_missing",
            Self::Commit { .. } => "commit",
            Self::Record { .. } => "record",
        }
    }
}

/// Shortens text of a frame so that an error stays small whatever was sent.
pub(crate) fn quote(text: &str) -> Box<str> {
    shorten(text, QUOTED)
}

/// Shortens text of a frame to so many bytes.
pub(crate) fn shorten(text: &str, most: usize) -> Box<str> {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    match text.get(..end) {
        Some(start) if end < text.len() => format!("{start}…").into(),
        _ => text.into(),
    }
}
