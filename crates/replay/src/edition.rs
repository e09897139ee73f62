//! One loop of the recording: its values, and its frames as they go over the wire.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::cbor::put_head;
use crate::parse::Hole;
use crate::template::{Patch, Templates};
use crate::timeline::Timeline;
use crate::value::{Digest, Value, cid_text, did_renamed, second_text, tid_moved, tid_text};
use crate::websocket::{BINARY, put_header};

/// Holds what a loop puts in the places that differ from loop to loop.
#[derive(Debug)]
pub(crate) struct Edition {
    round: u64,
    values: Vec<u8>,
}

impl Edition {
    /// Makes the values of loop `round`, its times moved by `seconds`: loop 0 keeps its DIDs and handles.
    pub(crate) fn new(templates: &Templates, round: u64, seconds: i64) -> Self {
        let mut values = templates.values.clone();
        let salt = templates.bytes.len() as u64;
        for (place, value) in &templates.places {
            match value {
                Value::Did(did) if round > 0 => put(&mut values, *place, &did_renamed(did, round, salt)),
                Value::Tid(tid) => put(&mut values, *place, &tid_text(tid_moved(*tid, seconds))),
                Value::Second(second) => put(&mut values, *place, &second_text(second.saturating_add(seconds))),
                Value::Did(_) | Value::Digest(_) | Value::CidText(_) => {}
            }
        }
        let mut scratch = Vec::new();
        for block in &templates.blocks {
            scratch.clear();
            scratch.extend_from_slice(&templates.bytes[block.bytes.clone()]);
            apply(&templates.patches[block.patches.clone()], block.bytes.start, &mut scratch, &values);
            let digest: Digest = Sha256::digest(&scratch).into();
            put(&mut values, block.digest, &digest);
            if let Some(text) = block.text {
                put(&mut values, text, &cid_text(&digest));
            }
        }
        Self { round, values }
    }

    /// Writes the frames at `places` one after the other, each as a WebSocket message.
    pub(crate) fn print(&self, templates: &Templates, timeline: &Timeline, places: Range<usize>) -> Chunk {
        let first = self.round * timeline.length() + places.start as u64;
        let run = templates.frames[places.clone()].iter().map(|segments| &templates.segments[segments.clone()]);
        let size: usize = run.clone().flatten().map(|segment| segment.bytes.len()).sum();
        let mut out = Vec::with_capacity(size + places.len() * ROOM);
        let mut frames = Vec::with_capacity(places.len());
        let mut holes = Vec::with_capacity(ROOM);
        for (place, segments) in places.zip(run) {
            holes.clear();
            let filled: Vec<Range<usize>> = segments
                .iter()
                .map(|segment| {
                    let start = holes.len();
                    match &segment.then {
                        Some(Hole::Seq) => put_head(&mut holes, 0, timeline.seq_in(self.round, place)),
                        Some(Hole::Handle(handle)) => put_handle(&mut holes, handle, self.round),
                        None => {}
                    }
                    start..holes.len()
                })
                .collect();
            let length = segments.iter().map(|segment| segment.bytes.len()).sum::<usize>() + holes.len();
            let start = out.len();
            put_header(&mut out, BINARY, length);
            frames.push(Frame { start, payload: out.len() });
            for (segment, filled) in segments.iter().zip(filled) {
                let at = out.len();
                out.extend_from_slice(&templates.bytes[segment.bytes.clone()]);
                apply(&templates.patches[segment.patches.clone()], segment.bytes.start, &mut out[at..], &self.values);
                out.extend_from_slice(&holes[filled]);
            }
        }
        Chunk { first, bytes: Bytes::from(out), frames }
    }
}

/// Bytes reserved a frame for its header and the items of free width.
const ROOM: usize = 32;

fn put(values: &mut [u8], place: usize, bytes: &[u8]) {
    values[place..place + bytes.len()].copy_from_slice(bytes);
}

/// Patches `out`, a copy of the templates' bytes from `start` on.
fn apply(patches: &[Patch], start: usize, out: &mut [u8], values: &[u8]) {
    for patch in patches {
        let (at, from, length) = (patch.at as usize - start, patch.from as usize, patch.length as usize);
        out[at..at + length].copy_from_slice(&values[from..from + length]);
    }
}

/// Writes a handle as CBOR text; from loop 1 on under a label of the loop's own.
fn put_handle(out: &mut Vec<u8>, handle: &str, round: u64) {
    let label = if round > 0 { format!("l{round}.") } else { String::new() };
    put_head(out, 3, (label.len() + handle.len()) as u64);
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(handle.as_bytes());
}

/// Holds a run of frames as they go over the wire.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The position of the first frame.
    pub(crate) first: u64,
    /// WebSocket messages, one after the other.
    pub(crate) bytes: Bytes,
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    /// Where its WebSocket header begins.
    start: usize,
    /// Where the frame itself begins.
    payload: usize,
}

impl Chunk {
    /// The position after the last frame.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Where the frame at `position` begins, or the bytes end.
    pub(crate) fn offset(&self, position: u64) -> usize {
        let nth = position.saturating_sub(self.first) as usize;
        self.frames.get(nth).map_or(self.bytes.len(), |frame| frame.start)
    }

    /// The position of the first frame that begins at or after this byte.
    pub(crate) fn position(&self, byte: usize) -> u64 {
        self.first + self.frames.partition_point(|frame| frame.start < byte) as u64
    }

    /// The frame at `position`, without its WebSocket header.
    pub(crate) fn frame(&self, position: u64) -> Option<Bytes> {
        let nth = usize::try_from(position.checked_sub(self.first)?).ok()?;
        let payload = self.frames.get(nth)?.payload;
        Some(self.bytes.slice(payload..self.offset(position + 1)))
    }
}
