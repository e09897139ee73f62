//! The recording, taken apart once so that any loop of it can be made by copying and patching.
//!
//! What a loop changes keeps its width (DIDs, revs, times, CIDs), save two items outside all blocks: seq and handle. So a
//! frame is a run of bytes with patches, cut at those two. Blocks are rehashed in an order in which every block comes after
//! those it links to.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Malformed};
use crate::names::Names;
use crate::parse::{self, Commit, Hole, Mark, Parsed, Wanted};
use crate::settings::Signing;
use crate::value::{Digest, Value, is_renamable};

/// Copies a value over a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch {
    /// Where, in [`Templates::bytes`].
    pub(crate) at: u32,
    /// From where in the loop's values.
    pub(crate) from: u32,
    /// How much.
    pub(crate) length: u32,
}

/// A run of bytes, its patches, and what follows it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) bytes: Range<usize>,
    pub(crate) patches: Range<usize>,
    pub(crate) then: Option<Hole>,
}

/// A block that differs from loop to loop.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) bytes: Range<usize>,
    pub(crate) patches: Range<usize>,
    /// Where its digest stands among the values.
    pub(crate) digest: usize,
    /// Where its CID's text stands, if any record cites it.
    pub(crate) text: Option<usize>,
    /// Where to sign it, if it is a commit that is signed.
    pub(crate) signed: Option<Signed>,
}

/// Where a commit says whose it is, and has its signature.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The DID's place among the values.
    pub(crate) did: Range<usize>,
    /// The field `sig` in the block, whose last bytes are the signature.
    pub(crate) field: Range<usize>,
    /// The signature's place among the values.
    pub(crate) at: usize,
}

/// A value that differs from loop to loop without hanging on a block's content.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Where it stands among the values.
    pub(crate) at: usize,
    pub(crate) value: Value,
    /// The first frame that it stands in.
    pub(crate) frame: usize,
}

/// A recording ready to be rewritten.
#[derive(Debug)]
pub(crate) struct Templates {
    /// All frames without seqs and handles.
    pub(crate) bytes: Vec<u8>,
    pub(crate) patches: Vec<Patch>,
    pub(crate) segments: Vec<Segment>,
    /// Each frame's segments.
    pub(crate) frames: Vec<Range<usize>>,
    /// Blocks, each after those it links to.
    pub(crate) blocks: Vec<Block>,
    /// The values as recorded.
    pub(crate) values: Vec<u8>,
    /// Which DIDs, revs and times stand where among the values, in that order.
    pub(crate) places: Vec<Placed>,
    /// Each frame's recorded seq.
    pub(crate) seqs: Vec<u64>,
    /// The first event's time, seconds since 1970.
    pub(crate) first_second: i64,
    /// Seconds that all recorded times fit in.
    pub(crate) seconds: i64,
    /// When each frame's event happened, milliseconds since 1970; where unreadable, as the one before.
    pub(crate) millis: Vec<i64>,
    /// What the DIDs are called in each loop.
    pub(crate) names: Names,
    /// With what kind of keys commits are signed, if they are.
    pub(crate) signing: Option<Signing>,
}

impl Templates {
    /// Takes the frames apart.
    ///
    /// # Errors
    /// [`Error::ParseFrame`] for the first frame that cannot be served or rewritten.
    pub(crate) fn new(
        frames: &[Bytes],
        signing: Option<Signing>,
        names: impl FnOnce(u64) -> Names,
    ) -> Result<Self, Error> {
        let refused = |(frame, source)| Error::ParseFrame { frame, source };
        let dids = parse::dids(frames).map_err(refused)?;
        let wanted = Wanted { dids: &dids, signed: signing.is_some() };
        let mut parsed: Vec<Parsed> = Vec::with_capacity(frames.len());
        for (n, frame) in frames.iter().enumerate() {
            let one = parse::parse(frame, wanted).map_err(|source| refused((n, source)))?;
            if parsed.last().is_some_and(|before| before.seq >= one.seq) {
                return Err(refused((n, Malformed::SeqOrder { seq: one.seq })));
            }
            let short = |mark: &Mark| matches!(&mark.value, Value::Did(did) if !is_renamable(did));
            if one.marks.iter().any(short) {
                return Err(refused((n, Malformed::ShortDid)));
            }
            parsed.push(one);
        }
        let order = Order::of(&parsed);
        let mut builder = Builder::default();
        for (n, (frame, parsed)) in frames.iter().zip(&parsed).enumerate() {
            builder.frame(frame, parsed, &order).map_err(|source| refused((n, source)))?;
        }
        Ok(builder.finish(&parsed, &order, signing, names))
    }
}

/// The blocks that differ from loop to loop, each after those it links to.
#[derive(Default)]
struct Order {
    blocks: Vec<Digest>,
    changed: HashSet<Digest>,
}

impl Order {
    fn of(parsed: &[Parsed]) -> Self {
        let mut marks: HashMap<Digest, &[Mark]> = HashMap::new();
        for frame in parsed {
            for (digest, block) in &frame.blocks {
                marks.entry(*digest).or_insert_with(|| within(&frame.marks, |mark| mark.at, block));
            }
        }
        let mut order = Self::default();
        let mut seen = HashSet::new();
        // Every block's hash was checked, so links cannot form a circle.
        for digest in parsed.iter().flat_map(|frame| frame.blocks.iter().map(|(digest, _)| *digest)) {
            let mut open = vec![(digest, false)];
            while let Some((digest, resolved)) = open.pop() {
                let Some(marks) = marks.get(&digest) else { continue };
                if resolved {
                    if marks.iter().any(|mark| order.changes(&mark.value)) {
                        order.changed.insert(digest);
                        order.blocks.push(digest);
                    }
                } else if seen.insert(digest) {
                    open.push((digest, true));
                    open.extend(marks.iter().filter_map(|mark| match mark.value {
                        Value::Digest(linked) | Value::CidText(linked) => Some((linked, false)),
                        _ => None,
                    }));
                }
            }
        }
        order
    }

    fn changes(&self, value: &Value) -> bool {
        match value {
            Value::Digest(digest) | Value::CidText(digest) => self.changed.contains(digest),
            _ => true,
        }
    }
}

#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    patches: Vec<Patch>,
    segments: Vec<Segment>,
    frames: Vec<Range<usize>>,
    values: Vec<u8>,
    places: HashMap<Value, usize>,
    /// Each value in the order of the places, with the first frame that it stands in.
    placed: Vec<Placed>,
    /// Where the first copy of each block stands.
    blocks: HashMap<Digest, Range<usize>>,
}

impl Builder {
    fn frame(&mut self, frame: &Bytes, parsed: &Parsed, order: &Order) -> Result<(), Malformed> {
        let first = self.segments.len();
        let mut at = 0;
        for (hole, kind) in &parsed.holes {
            self.segment(frame, parsed, order, at..hole.start, Some(kind.clone()))?;
            at = hole.end;
        }
        self.segment(frame, parsed, order, at..frame.len(), None)?;
        self.frames.push(first..self.segments.len());
        Ok(())
    }

    fn segment(
        &mut self,
        frame: &Bytes,
        parsed: &Parsed,
        order: &Order,
        range: Range<usize>,
        then: Option<Hole>,
    ) -> Result<(), Malformed> {
        let (bytes, patches) = (self.bytes.len(), self.patches.len());
        for mark in within(&parsed.marks, |mark| mark.at, &range) {
            if order.changes(&mark.value) {
                let (from, length) = self.value(&mark.value);
                let at = bytes + mark.at - range.start;
                self.patches.push(Patch { at: small(at)?, from: small(from)?, length: small(length)? });
            }
        }
        for (digest, block) in within(&parsed.blocks, |(_, block)| block.start, &range) {
            let start = bytes + block.start - range.start;
            self.blocks.entry(*digest).or_insert(start..start + block.len());
        }
        self.bytes.extend_from_slice(&frame[range]);
        self.segments.push(Segment { bytes: bytes..self.bytes.len(), patches: patches..self.patches.len(), then });
        Ok(())
    }

    fn value(&mut self, value: &Value) -> (usize, usize) {
        let bytes = value.to_bytes();
        let from = *self.places.entry(value.clone()).or_insert_with(|| {
            let at = self.values.len();
            self.values.extend_from_slice(&bytes);
            if !matches!(value, Value::Digest(_) | Value::CidText(_) | Value::Signature(..)) {
                self.placed.push(Placed { at, value: value.clone(), frame: self.frames.len() });
            }
            at
        });
        (from, bytes.len())
    }

    fn finish(
        self,
        parsed: &[Parsed],
        order: &Order,
        signing: Option<Signing>,
        names: impl FnOnce(u64) -> Names,
    ) -> Templates {
        let commits: HashMap<Digest, &Commit> =
            parsed.iter().flat_map(|frame| frame.commits.iter().map(|(digest, commit)| (*digest, commit))).collect();
        let blocks = order.blocks.iter().filter_map(|digest| {
            let bytes = self.blocks.get(digest)?.clone();
            let patches = self.patches.partition_point(|patch| (patch.at as usize) < bytes.start)
                ..self.patches.partition_point(|patch| (patch.at as usize) < bytes.end);
            let text = self.places.get(&Value::CidText(*digest)).copied();
            let signed = commits.get(digest).and_then(|commit| {
                let did = *self.places.get(&Value::Did(commit.did.clone()))?;
                let at = *self.places.get(&commit.signature)?;
                Some(Signed { did: did..did + commit.did.len(), field: commit.field.clone(), at })
            });
            // Every block stands behind its own CID in some CAR, so its digest is among the values.
            let digest = *self.places.get(&Value::Digest(*digest))?;
            Some(Block { bytes, patches, digest, text, signed })
        });
        let blocks = blocks.collect();
        let times = parsed.iter().filter_map(|frame| frame.second);
        let (first, earliest, latest) = times.fold((None, i64::MAX, i64::MIN), |(first, earliest, latest), second| {
            (first.or(Some(second)), earliest.min(second), latest.max(second))
        });
        let mut milli = first.unwrap_or(0).saturating_mul(1000);
        let millis = parsed.iter().map(|frame| {
            milli = frame.milli.unwrap_or(milli);
            milli
        });
        let millis = millis.collect();
        let salt = self.bytes.len() as u64;
        Templates {
            bytes: self.bytes,
            patches: self.patches,
            segments: self.segments,
            frames: self.frames,
            blocks,
            values: self.values,
            places: self.placed,
            seqs: parsed.iter().map(|frame| frame.seq).collect(),
            first_second: first.unwrap_or(0),
            seconds: latest.saturating_sub(earliest).max(0) + 1,
            millis,
            names: names(salt),
            signing,
        }
    }
}

/// The part of a list, sorted by place, that lies within a range.
fn within<'a, T>(list: &'a [T], place: impl Fn(&T) -> usize, range: &Range<usize>) -> &'a [T] {
    &list[list.partition_point(|item| place(item) < range.start)..list.partition_point(|item| place(item) < range.end)]
}

fn small(n: usize) -> Result<u32, Malformed> {
    u32::try_from(n).map_err(|_| Malformed::TooLarge)
}
