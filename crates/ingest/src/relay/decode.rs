//! Decodes frames into items, off the socket's task and in order.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use penstock_core::filter::Rules;
use penstock_wire::{Event, Frame, FrameError, Limits};
use tokio::sync::OwnedSemaphorePermit;

use crate::relay::item::{AROUND, Failure, Item, set_aside};
use crate::relay::signatures::Signatures;

/// A larger frame that is set aside stays in the buffer it arrived in; a smaller one is copied, to free its neighbours.
const COPIED: usize = 64 * 1024;

/// Frames that came off the socket together.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The frames, in order.
    pub(crate) frames: Vec<Received>,
    /// When the first of them was received.
    pub(crate) received: Instant,
    /// What of them is carried.
    pub(crate) rules: Arc<Rules>,
    /// The share of the buffer that they may take once decoded.
    pub(crate) share: OwnedSemaphorePermit,
}

/// One message from the socket.
#[derive(Debug)]
pub(crate) enum Received {
    /// A frame.
    Frame(Bytes),
    /// A frame that was too large, emptied; its size in bytes.
    Oversized(u64),
}

/// A decoded chunk.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// What each frame holds, in order.
    pub(crate) items: Vec<Item>,
    /// When the first of them was received.
    pub(crate) received: Instant,
    /// What of it is carried.
    pub(crate) rules: Arc<Rules>,
    /// When it was decoded.
    pub(crate) decoding: Decoding,
    /// The share of the buffer it takes until it is written.
    pub(crate) share: Arc<OwnedSemaphorePermit>,
}

/// When a chunk was decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoding {
    /// When the first frame was started.
    pub(crate) began: Instant,
    /// When the last frame was done.
    pub(crate) ended: Instant,
    /// The number of frames.
    pub(crate) frames: usize,
}

/// How chunks are decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    /// The limits of a frame, and whether commits are proved.
    pub(crate) limits: Limits,
    /// Whether what proves wrong is refused: then nobody asks who signed it.
    pub(crate) is_enforced: bool,
    /// What checks signatures, where they are checked.
    pub(crate) signatures: Option<Signatures>,
}

// === impl Decoder ===

impl Decoder {
    /// Returns what is wrong with a commit, as far as that is known without waiting.
    fn failure(&self, event: &Event, now: Timestamp) -> Option<Failure> {
        let proof = Failure::of(event, now);
        if proof.is_some() && self.is_enforced {
            return proof;
        }
        self.signatures.as_ref().and_then(|signatures| signatures.check(event)).or(proof)
    }
}

// === impl Received ===

impl Received {
    /// Returns the bytes it holds.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Oversized(_) => 0,
        }
    }

    /// Returns the most bytes it may take until it is written.
    pub(crate) fn most_held(&self, limits: &Limits) -> usize {
        match self {
            Self::Frame(frame) => AROUND + set_aside(frame.len()) + 2 * penstock_wire::most_data(frame, limits),
            Self::Oversized(_) => AROUND,
        }
    }
}

// === impl Chunk ===

impl Chunk {
    /// Decodes every frame, and releases the bytes they turn out not to need.
    pub(crate) fn decode(self, decoder: &Decoder) -> Decoded {
        let Self { frames, received, rules, mut share } = self;
        let (began, count) = (Instant::now(), frames.len());
        let now = Timestamp::now();
        let items: Vec<Item> = frames.into_iter().map(|received| item(received, decoder, &rules, now)).collect();
        let held: usize = items.iter().map(Item::held).sum();
        if let Some(rest) = share.num_permits().checked_sub(held) {
            drop(share.split(rest));
        }
        let decoding = Decoding { began, ended: Instant::now(), frames: count };
        Decoded { items, received, rules, decoding, share: Arc::new(share) }
    }
}

fn item(received: Received, decoder: &Decoder, rules: &Rules, now: Timestamp) -> Item {
    let frame = match received {
        Received::Frame(frame) => frame,
        Received::Oversized(size) => return Item::Oversized(size),
    };
    match penstock_wire::decode_filtered(&frame, &decoder.limits, rules) {
        Ok(Frame::Event(event)) => match decoder.failure(&event, now) {
            Some(failure) => Item::Failed(event, failure, alone(frame)),
            None => Item::Event(event),
        },
        Ok(Frame::Sync(sync)) => Item::Sync(sync),
        Ok(Frame::Info(info)) => Item::Info(info),
        Ok(Frame::Error(error)) => Item::Error(error),
        Ok(Frame::Ignored(ignored)) => Item::Ignored(ignored.seq),
        Err(FrameError::Bad(bad)) => Item::Refused(Box::new(bad), alone(frame)),
        Err(error @ FrameError::Unreadable { .. }) => Item::Unreadable(error, alone(frame)),
    }
}

/// Copies a small frame out of the buffer that it shares with its neighbours.
fn alone(frame: Bytes) -> Bytes {
    if frame.len() > COPIED { frame } else { Bytes::copy_from_slice(&frame) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    const BUDGET: usize = 1 << 28;

    /// Decodes frames as a chunk; returns what they may have held before and what they do after.
    fn held(frames: &[&[u8]]) -> (usize, usize) {
        let limits = Limits::default();
        let frames: Vec<_> = frames.iter().map(|frame| Received::Frame(Bytes::copy_from_slice(frame))).collect();
        let most = frames.iter().map(|frame| frame.most_held(&limits)).sum();
        let budget = Arc::new(Semaphore::new(BUDGET));
        let share = Arc::clone(&budget).try_acquire_many_owned(u32::try_from(most).unwrap()).unwrap();
        let decoded = Chunk { frames, received: Instant::now(), rules: Arc::default(), share }
            .decode(&Decoder { limits, ..Decoder::default() });
        let left = BUDGET - budget.available_permits();
        assert_eq!(left, decoded.items.iter().map(Item::held).sum::<usize>());
        drop(decoded);
        assert_eq!(budget.available_permits(), BUDGET);
        (most, left)
    }

    #[test]
    fn a_chunk_holds_what_it_became_and_never_more_than_was_reserved() {
        let settings = penstock_replay::Settings { total: Some(500), ..Default::default() };
        let frames: Vec<_> = penstock_replay::frames(&settings).unwrap().collect();
        for chunk in frames.chunks(50) {
            let chunk: Vec<&[u8]> = chunk.iter().map(|frame| &frame[..]).collect();
            let (most, left) = held(&chunk);
            let received: usize = chunk.iter().map(|frame| frame.len()).sum();
            assert!(left <= most && left < 3 * received + chunk.len() * 4_096, "{left} of {most}");
            assert!(most < 16 * received + chunk.len() * 8_192, "usual frames reserve little: {most}");
        }
    }

    #[test]
    fn a_frame_set_aside_is_held_as_base64_too() {
        for len in [1, 1_000, 100_000] {
            let (most, left) = held(&[&vec![0xFF; len]]);
            assert!(left > len * 11 / 3 && left <= most, "{left} of {most}");
        }
    }
}
