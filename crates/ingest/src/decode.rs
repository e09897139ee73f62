//! Frames to items, off the socket's task and in order.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use penstock_wire::{BadFrame, ErrorFrame, Event, Frame, FrameError, Info, Limits, Sync};
use tokio::sync::OwnedSemaphorePermit;

/// Frames as they came off the socket together.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The frames, in order.
    pub(crate) frames: Vec<Received>,
    /// When the first of them was received.
    pub(crate) received: Instant,
    /// The share of the buffer's bytes they take until they are written.
    pub(crate) share: OwnedSemaphorePermit,
}

/// What came off the socket as one message.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame.
    Frame(Bytes),
    /// What is left of a frame that was too large: how many bytes it had.
    Oversized(u64),
}

/// A chunk, decoded.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// What each frame was, in order.
    pub(crate) items: Vec<Item>,
    /// When the first of them was received.
    pub(crate) received: Instant,
    /// When they were decoded.
    pub(crate) decoding: Decoding,
    /// The share of the buffer's bytes they take until they are written.
    pub(crate) share: Arc<OwnedSemaphorePermit>,
}

/// When a chunk was decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoding {
    /// When its first frame was begun with.
    pub(crate) began: Instant,
    /// When its last frame was done.
    pub(crate) ended: Instant,
    /// How many frames it has.
    pub(crate) frames: usize,
}

/// What one frame was.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event for the stream.
    Event(Event),
    /// A repo's new state: moves the cursor.
    Sync(Sync),
    /// A word from the host.
    Info(Info),
    /// The host's last word.
    Error(ErrorFrame),
    /// Of a kind not known here: moves the cursor, if it has a number.
    Ignored(Option<u64>),
    /// Has a number and wrong content: a dead letter.
    Refused(Box<BadFrame>, Bytes),
    /// Was too large to be read: how many bytes it had.
    Oversized(u64),
    /// Cannot be told from noise.
    Unreadable(FrameError, Bytes),
}

// === impl Received ===

impl Received {
    /// Returns how many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Oversized(_) => 0,
        }
    }
}

// === impl Chunk ===

impl Chunk {
    /// Decodes every frame.
    pub(crate) fn decode(self, limits: &Limits) -> Decoded {
        let (began, frames) = (Instant::now(), self.frames.len());
        let items = self.frames.into_iter().map(|received| item(received, limits)).collect();
        let decoding = Decoding { began, ended: Instant::now(), frames };
        Decoded { items, received: self.received, decoding, share: Arc::new(self.share) }
    }
}

fn item(received: Received, limits: &Limits) -> Item {
    let frame = match received {
        Received::Frame(frame) => frame,
        Received::Oversized(size) => return Item::Oversized(size),
    };
    match penstock_wire::decode(&frame, limits) {
        Ok(Frame::Event(event)) => Item::Event(event),
        Ok(Frame::Sync(sync)) => Item::Sync(sync),
        Ok(Frame::Info(info)) => Item::Info(info),
        Ok(Frame::Error(error)) => Item::Error(error),
        Ok(Frame::Ignored(ignored)) => Item::Ignored(ignored.seq),
        Err(FrameError::Bad(bad)) => Item::Refused(Box::new(bad), frame),
        Err(error @ FrameError::Unreadable { .. }) => Item::Unreadable(error, frame),
    }
}
