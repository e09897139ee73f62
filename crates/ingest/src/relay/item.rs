//! What a frame turns out to hold.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use penstock_wire::{BadFrame, ErrorFrame, Event, FrameError, Info, ProofFault, SignatureFault, Sync};

/// Roughly what an event takes besides its data: its place in chunk and batch, names, the command's fields and answer.
pub(crate) const AROUND: usize = 1_024;

/// What a frame holds.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event for the stream.
    Event(Event),
    /// A commit that proves wrong, with why, and its frame.
    Failed(Event, Failure, Bytes),
    /// A `#sync`: moves the cursor.
    Sync(Sync),
    /// An `#info` message.
    Info(Info),
    /// An error frame.
    Error(ErrorFrame),
    /// An unknown kind: moves the cursor if it has a number.
    Ignored(Option<u64>),
    /// A number, but invalid content: a dead letter.
    Refused(Box<BadFrame>, Bytes),
    /// Too large to be read; its size in bytes.
    Oversized(u64),
    /// Not readable as a frame.
    Unreadable(FrameError, Bytes),
}

/// What is wrong with a commit that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its frame does not follow from what was signed.
    Proof(ProofFault),
    /// Its rev is of a time to come.
    Future,
    /// Its account's key is of another signature.
    Signature(SignatureFault),
    /// Its account has no key.
    NoKey,
    /// Its account's key cannot be had.
    Unresolved,
}

// === impl Item ===

impl Item {
    /// Returns the bytes it takes until it is written.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Failed(event, _, frame) => held(event) + set_aside(frame.len()),
            Self::Event(event) => held(event),
            Self::Refused(_, frame) | Self::Unreadable(_, frame) => AROUND + set_aside(frame.len()),
            Self::Sync(_) | Self::Info(_) | Self::Error(_) | Self::Ignored(_) | Self::Oversized(_) => AROUND,
        }
    }
}

/// Returns the bytes an event takes: as data, and once more in the command sent to Redis.
fn held(event: &Event) -> usize {
    let left_out: usize = event.left_out.iter().map(|part| set_aside(part.block.len())).sum();
    AROUND + 2 * event.data.len() + left_out
}
/// Returns the bytes a frame takes as a letter: itself, its base64, and that once more in the command.
pub(crate) fn set_aside(len: usize) -> usize {
    len + 2 * len.div_ceil(3) * 4
}

// === impl Failure ===

impl Failure {
    /// Names it for metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Proof(fault) => fault.word(),
            Self::Future => "future",
            Self::Signature(_) => "signature",
            Self::NoKey => "no_key",
            Self::Unresolved => "unresolved",
        }
    }

    /// Returns what is wrong with a commit, as far as the commit itself tells.
    pub(crate) fn of(event: &Event, now: Timestamp) -> Option<Self> {
        let proof = event.proof.as_deref()?;
        let fault = proof.fault.clone().map(Self::Proof);
        fault.or_else(|| penstock_wire::is_future(proof.rev, now).then_some(Self::Future))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proof(fault) => fault.fmt(f),
            Self::Future => f.write_str("rev is more than five minutes in the future"),
            Self::Signature(fault) => fault.fmt(f),
            Self::NoKey => f.write_str("no key of the account is known to its DID's directory or host"),
            Self::Unresolved => f.write_str("key of the account could not be resolved"),
        }
    }
}
