//! One loop of the recording: its values, and its frames as they go over the wire.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::cbor::put_head;
use crate::parse::Hole;
use crate::settings::Alter;
use crate::sign::{Key, Purpose, SIGNATURE};
use crate::template::{Patch, Placed, Templates};
use crate::timeline::Timeline;
use crate::value::{
    Digest, TID_CHARS, Value, cid_text, milli_text, second_text, tid_at, tid_moved, tid_of_text, tid_text,
};
use crate::websocket::{BINARY, put_header};

/// Holds what a loop puts in the places that differ from loop to loop.
#[derive(Debug)]
pub(crate) struct Edition {
    round: u64,
    values: Vec<u8>,
}

/// What a loop's times are.
#[derive(Debug)]
pub(crate) enum Times {
    /// The recorded ones, moved by this many seconds.
    Moved(i64),
    /// Those at which its events become live, in microseconds since 1970.
    Live(Vec<i64>),
}

impl Edition {
    /// Makes the values of loop `round`: loop 0 keeps its DIDs and handles.
    pub(crate) fn new(templates: &Templates, round: u64, times: &Times) -> Self {
        let mut values = templates.values.clone();
        for Placed { at, value, .. } in &templates.places {
            match value {
                Value::Did(did) if round > 0 => put(&mut values, *at, &templates.names.name(did, round)),
                _ => {}
            }
        }
        match times {
            Times::Moved(seconds) => put_moved(templates, *seconds, &mut values),
            Times::Live(micros) => put_live(templates, micros, &mut values),
        }
        let keys = keys(templates, &values);
        let mut scratch = Vec::new();
        for block in &templates.blocks {
            scratch.clear();
            scratch.extend_from_slice(&templates.bytes[block.bytes.clone()]);
            apply(&templates.patches[block.patches.clone()], block.bytes.start, &mut scratch, &values);
            if let Some(signed) = &block.signed
                && let Some(key) = keys.get(&signed.did.start)
                && let Some(signature) = key.sign(&unsigned(&scratch, &signed.field))
            {
                put(&mut values, signed.at, &signature);
                scratch[signed.field.end - SIGNATURE..signed.field.end].copy_from_slice(&signature);
            }
            let digest: Digest = Sha256::digest(&scratch).into();
            put(&mut values, block.digest, &digest);
            if let Some(text) = block.text {
                put(&mut values, text, &cid_text(&digest));
            }
        }
        Self { round, values }
    }

    /// What a recorded rev is in this loop.
    pub(crate) fn rev(&self, templates: &Templates, rev: u64) -> Option<u64> {
        let placed = templates.places.iter().find(|placed| placed.value == Value::Tid(rev))?;
        tid_of_text(self.values.get(placed.at..placed.at + TID_CHARS)?)
    }

    /// Writes the frames at `places` one after the other, each as a WebSocket message.
    pub(crate) fn print(
        &self,
        templates: &Templates,
        timeline: &Timeline,
        places: Range<usize>,
        alter: Option<Alter>,
    ) -> Chunk {
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
            let payload = out.len();
            for (segment, filled) in segments.iter().zip(filled) {
                let at = out.len();
                out.extend_from_slice(&templates.bytes[segment.bytes.clone()]);
                apply(&templates.patches[segment.patches.clone()], segment.bytes.start, &mut out[at..], &self.values);
                out.extend_from_slice(&holes[filled]);
            }
            let altered = alter.and_then(|alter| alter(timeline.seq_in(self.round, place), &out[payload..]));
            if let Some(altered) = &altered {
                out.truncate(start);
                put_header(&mut out, BINARY, altered.len());
            }
            frames.push(Frame { start, payload: if altered.is_some() { out.len() } else { payload } });
            out.extend_from_slice(altered.as_deref().unwrap_or_default());
        }
        Chunk { first, bytes: Bytes::from(out), frames }
    }
}

/// The keys of the accounts that sign, by where their DIDs stand among the values.
fn keys(templates: &Templates, values: &[u8]) -> HashMap<usize, Key> {
    let signed = templates.blocks.iter().filter_map(|block| block.signed.as_ref());
    let dids: HashMap<usize, &Range<usize>> = signed.map(|signed| (signed.did.start, &signed.did)).collect();
    let key = |did: &Range<usize>| Some(Key::of(&values[did.clone()], templates.signing?, Purpose::Repo));
    dids.into_iter().filter_map(|(at, did)| Some((at, key(did)?))).collect()
}

/// The digest of a commit without the field that holds its signature: what is signed.
fn unsigned(commit: &[u8], field: &Range<usize>) -> Digest {
    let (head, rest) = commit.split_first().map_or((0, &[][..]), |(head, rest)| (*head, rest));
    // A commit is a map of few fields: their number stands in its first byte.
    let fields = Sha256::new().chain_update([head.wrapping_sub(1)]);
    fields.chain_update(&rest[..field.start - 1]).chain_update(&rest[field.end - 1..]).finalize().into()
}

/// Moves every recorded time.
fn put_moved(templates: &Templates, seconds: i64, values: &mut [u8]) {
    for Placed { at, value, .. } in &templates.places {
        match value {
            Value::Tid(tid) => put(values, *at, &tid_text(tid_moved(*tid, seconds))),
            Value::Second(second) => put(values, *at, &second_text(second.saturating_add(seconds))),
            Value::Milli(milli) | Value::Time(milli, _) => {
                put(values, *at, &milli_text(milli.saturating_add(seconds.saturating_mul(1000))));
            }
            Value::Did(_) | Value::Digest(_) | Value::CidText(_) | Value::Signature(..) => {}
        }
    }
}

/// Gives every time the moment of the first frame that it stands in. Two that differed still do: what is one record's alone would
/// become another's, too. Revs go on from what comes before, the times of records back from what follows.
fn put_live(templates: &Templates, micros: &[i64], values: &mut [u8]) {
    let micros = |frame: usize| micros.get(frame).copied().unwrap_or_default();
    let (mut revs, mut records) = (Vec::new(), Vec::new());
    for Placed { at, value, frame } in &templates.places {
        match value {
            Value::Tid(tid) => revs.push((*frame, *tid, *at)),
            Value::Second(_) => put(values, *at, &second_text(micros(*frame).div_euclid(1_000_000))),
            Value::Milli(milli) => records.push((*frame, *milli, *at)),
            Value::Time(..) => put(values, *at, &milli_text(micros(*frame).div_euclid(1000))),
            Value::Did(_) | Value::Digest(_) | Value::CidText(_) | Value::Signature(..) => {}
        }
    }
    revs.sort_unstable();
    let mut next = 0;
    for (frame, tid, at) in revs {
        let rev = u64::try_from(micros(frame)).unwrap_or_default().max(next);
        put(values, at, &tid_text(tid_at(tid, rev)));
        next = rev.saturating_add(1);
    }
    records.sort_unstable();
    let mut last = i64::MAX;
    for (frame, _, at) in records.into_iter().rev() {
        let milli = micros(frame).div_euclid(1000).min(last);
        put(values, at, &milli_text(milli));
        last = milli.saturating_sub(1);
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
