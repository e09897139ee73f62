//! What a client is to be sent next: prepared frames in long runs, and between two of them what the relay says itself.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use crate::edition::Chunk;

/// Holds what is on its way to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunk: Option<Arc<Chunk>>,
    /// Bytes of the chunk written, and to be written.
    at: usize,
    end: usize,
    /// Messages of the relay's own; they go out once the run of frames before them has ended.
    own: BytesMut,
}

impl Outbox {
    /// The bytes to write next; empty when there is nothing to do.
    pub(crate) fn pending(&self) -> &[u8] {
        match &self.chunk {
            Some(chunk) if self.at < self.end => &chunk.bytes[self.at..self.end],
            _ => &self.own,
        }
    }

    /// Takes note that so many of the pending bytes were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        if self.at < self.end {
            self.at += bytes;
        } else {
            self.own.advance(bytes);
        }
    }

    /// Starts on a run of frames: those of the chunk from `position` to before `end`. To be called when nothing is pending.
    pub(crate) fn load(&mut self, chunk: Arc<Chunk>, position: u64, end: u64) {
        self.at = chunk.offset(position);
        self.end = chunk.offset(end);
        self.chunk = Some(chunk);
    }

    /// Ends the run at the frame that is being written and says a message behind it. Returns the position of the first frame
    /// that was cut off, if any was.
    pub(crate) fn say(&mut self, message: &[u8]) -> Option<u64> {
        self.own.extend_from_slice(message);
        let position = self.written()?;
        let end = self.chunk.as_ref()?.offset(position);
        (end < self.end).then(|| {
            self.end = end;
            position
        })
    }

    /// Ends everything in the middle of a frame: the one being written, else the next one, else one that does not exist.
    /// Returns how many of the frames loaded are not sent whole.
    pub(crate) fn tear(&mut self) -> u64 {
        let Some((next, chunk)) = self.written().zip(self.chunk.as_ref()) else {
            self.own.extend_from_slice(&TORN);
            return 0;
        };
        let torn = if chunk.offset(next) > self.at { next - 1 } else { next };
        let unsent = chunk.position(self.end) - torn;
        self.end = self.at + (chunk.offset(torn + 1) - self.at) / 2;
        self.own.clear();
        unsent
    }

    /// The chunk a run was last taken from.
    pub(crate) fn chunk(&self) -> Option<&Arc<Chunk>> {
        self.chunk.as_ref()
    }

    /// The position of the first frame of which nothing was written, while a run is on its way.
    pub(crate) fn written(&self) -> Option<u64> {
        self.chunk.as_ref().filter(|_| self.at < self.end).map(|chunk| chunk.position(self.at))
    }
}

/// The beginning of a binary message of 126 bytes.
const TORN: [u8; 6] = [0x82, 126, 0, 126, 0xa2, 0x61];
