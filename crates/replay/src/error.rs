//! What can go wrong before and while a relay runs.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Names the step that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A setting is out of its range.
    #[error("{field} is {value}; allowed: {allowed}")]
    Setting {
        /// The field of [`Settings`](crate::Settings).
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The recording's file could not be read.
    #[error("could not read the recording {}", path.display())]
    ReadRecording {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The recording holds no frame.
    #[error("the recording is empty")]
    EmptyRecording,
    /// A frame of the recording cannot be served and rewritten.
    #[error("could not parse frame {frame} of the recording")]
    ParseFrame {
        /// The frame's number, from 0.
        frame: usize,
        /// Why.
        source: Malformed,
    },
    /// The address could not be listened on.
    #[error("could not listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The task that prepares frames ended before its time.
    #[error("could not prepare the frames")]
    Prepare {
        /// Why.
        source: tokio::task::JoinError,
    },
}

/// Says what is wrong with a recorded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The file ends inside a frame.
    #[error("the file ends inside it")]
    CutOff,
    /// The frame is not DAG-CBOR.
    #[error("it is not DAG-CBOR at byte {at}")]
    Cbor {
        /// Offset in the frame.
        at: usize,
    },
    /// The frame has no seq, so that no cursor could name it.
    #[error("it has no seq")]
    NoSeq,
    /// The seq does not exceed the one before.
    #[error("its seq {seq} does not exceed the one before")]
    SeqOrder {
        /// The frame's seq.
        seq: u64,
    },
    /// The frame's blocks are not a CAR of CIDv1 with SHA-256.
    #[error("its blocks are not a CAR at byte {at}")]
    Car {
        /// Offset in the frame.
        at: usize,
    },
    /// A block does not hash to its CID.
    #[error("the block at byte {at} does not hash to its CID")]
    Hash {
        /// Offset in the frame.
        at: usize,
    },
    /// The repo's DID has too few characters that a rewriting may change (8 are needed).
    #[error("its repo's DID is too short to be renamed")]
    ShortDid,
    /// The recording exceeds 4 GiB.
    #[error("the recording is larger than 4 GiB up to here")]
    TooLarge,
}
