//! One recorded frame, read for what a rewriting must change.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::cbor::{self, Item, Kind};
use crate::error::Malformed;
use crate::sign::SIGNATURE;
use crate::value::{DAG_CBOR, Digest, Value, cid_digest, cid_of_text, milli_of_text, second_of_text, tid_of_text};

/// Says that `value` stands at a place of the frame.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) at: usize,
    pub(crate) value: Value,
}

/// What stands in a place whose width may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hole {
    Seq,
    Handle(Box<str>),
}

/// One frame's findings, each list in the order of the bytes.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) seq: u64,
    /// When it happened, seconds since 1970; `None` where unreadable.
    pub(crate) second: Option<i64>,
    /// The same in milliseconds.
    pub(crate) milli: Option<i64>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) holes: Vec<(Range<usize>, Hole)>,
    /// The DAG-CBOR blocks: digest and place.
    pub(crate) blocks: Vec<(Digest, Range<usize>)>,
    /// Those of them that are commits of a repo of the recording; none where commits are not signed.
    pub(crate) commits: Vec<(Digest, Commit)>,
}

/// Where things stand in a commit's block, from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) did: Box<[u8]>,
    /// The field `sig`, its key included: what is left out of what is signed.
    pub(crate) field: Range<usize>,
    /// The signature itself, the last bytes of the field.
    pub(crate) signature: Value,
}

/// What is wanted of the frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) dids: &'a Dids,
    /// Whether commits are signed anew.
    pub(crate) signed: bool,
}

/// The DIDs that a recording is about.
#[derive(Debug, Default)]
pub(crate) struct Dids {
    known: HashSet<Box<[u8]>>,
    /// Their lengths, longest first.
    lengths: Vec<usize>,
}

/// Bytes of a binary CIDv1 with SHA-256.
const CID_BYTES: usize = 36;

/// Finds the DIDs of the repos in all frames.
pub(crate) fn dids(frames: &[Bytes]) -> Result<Dids, (usize, Malformed)> {
    let mut dids = Dids::default();
    for (n, frame) in frames.iter().enumerate() {
        let mut found = |item: Item<'_>| {
            let did = &frame[item.at..item.end];
            if item.depth == 1
                && matches!(item.key, b"repo" | b"did")
                && item.kind == Kind::Text
                && dids.known.insert(did.into())
            {
                dids.lengths.push(did.len());
            }
            Ok(())
        };
        cbor::walk(frame, 0, &mut |_| Ok(()))
            .and_then(|body| cbor::walk(frame, body, &mut found))
            .map_err(|malformed| (n, malformed))?;
    }
    dids.lengths.sort_unstable_by(|a, b| b.cmp(a));
    dids.lengths.dedup();
    Ok(dids)
}

/// Parses one frame, checking every block's hash.
pub(crate) fn parse(frame: &Bytes, wanted: Wanted<'_>) -> Result<Parsed, Malformed> {
    let dids = wanted.dids;
    let mut parsed = Parsed {
        seq: 0,
        second: None,
        milli: None,
        marks: Vec::new(),
        holes: Vec::new(),
        blocks: Vec::new(),
        commits: Vec::new(),
    };
    let body = cbor::walk(frame, 0, &mut |_| Ok(()))?;
    let mut seq = None;
    let end = cbor::walk(frame, body, &mut |item| {
        let content = &frame[item.at..item.end];
        match (item.depth, item.key, item.kind) {
            (1, b"seq", Kind::Unsigned(n)) => {
                seq = Some(n);
                parsed.holes.push((item.head..item.end, Hole::Seq));
            }
            (1, b"handle", Kind::Text) => {
                let handle = str::from_utf8(content).map_err(|_| Malformed::Cbor { at: item.at })?;
                parsed.holes.push((item.head..item.end, Hole::Handle(handle.into())));
            }
            (1, b"time", Kind::Text) => {
                parsed.second = second_of_text(content);
                parsed.milli = milli_of_text(content).or(parsed.second.map(|second| second.saturating_mul(1000)));
                mark_time(content, item.at, |milli| Value::Time(milli, 0), &mut parsed.marks);
            }
            (1, b"rev" | b"since", Kind::Text) => mark_tid(content, item.at, &mut parsed.marks),
            (1, b"blocks", Kind::Bytes) => parsed.car(frame, item.at..item.end, wanted)?,
            // A record key in a path is also a key of the tree, whose shape hangs on it: paths stay.
            (_, b"path", Kind::Text) => {}
            _ => mark_common(&item, content, dids, &mut parsed.marks),
        }
        Ok(())
    })?;
    if end != frame.len() {
        return Err(Malformed::Cbor { at: end });
    }
    parsed.seq = seq.ok_or(Malformed::NoSeq)?;
    for mark in &mut parsed.marks {
        if let Value::Time(_, seq) = &mut mark.value {
            *seq = parsed.seq;
        }
    }
    Ok(parsed)
}

impl Parsed {
    fn car(&mut self, frame: &Bytes, car: Range<usize>, wanted: Wanted<'_>) -> Result<(), Malformed> {
        let bytes = &frame[..car.end];
        if car.is_empty() {
            return Ok(());
        }
        let (header, at) = section(bytes, car.start)?;
        cbor::walk(&bytes[..header.end], header.start, &mut |item| {
            mark_common(&item, &bytes[item.at..item.end], wanted.dids, &mut self.marks);
            Ok(())
        })?;
        let mut next = at;
        while next < car.end {
            let (block, end) = section(bytes, next)?;
            let malformed = Malformed::Car { at: block.start };
            let data = block.start + CID_BYTES;
            let cid = bytes.get(block.start..data.min(block.end)).ok_or(malformed)?;
            let (codec, digest) = cid_digest(cid).ok_or(malformed)?;
            if Sha256::digest(&bytes[data..block.end])[..] != digest {
                return Err(Malformed::Hash { at: data });
            }
            self.marks.push(Mark { at: data - digest.len(), value: Value::Digest(digest) });
            if codec == DAG_CBOR {
                if let Some(commit) = self.block(bytes, data..block.end, &digest, wanted)? {
                    self.commits.push((digest, commit));
                }
                self.blocks.push((digest, data..block.end));
            }
            next = end;
        }
        Ok(())
    }

    // What is marked in a block hangs on its content alone, so that one CID stays one CID wherever it turns up.
    fn block(
        &mut self,
        bytes: &[u8],
        block: Range<usize>,
        digest: &Digest,
        Wanted { dids, signed }: Wanted<'_>,
    ) -> Result<Option<Commit>, Malformed> {
        let (mut rev, mut sig, mut did) = (None, None, None);
        let (mut version, mut tree) = (None, false);
        let marks = &mut self.marks;
        let end = cbor::walk(&bytes[..block.end], block.start, &mut |item| {
            let content = &bytes[item.at..item.end];
            match (item.depth, item.key, item.kind) {
                (1, b"rev", Kind::Text) => rev = Some((content, item.at)),
                (1, b"sig", Kind::Bytes) => sig = Some(item),
                (_, b"createdAt", Kind::Text) => mark_time(content, item.at, Value::Milli, marks),
                _ => {
                    match (item.depth, item.key, item.kind) {
                        (1, b"did", Kind::Text) => did = Some(content),
                        (1, b"version", Kind::Unsigned(number)) => version = Some(number),
                        (1, b"data", Kind::Link) => tree = true,
                        _ => {}
                    }
                    mark_common(&item, content, dids, marks);
                }
            }
            Ok(())
        })?;
        if end != block.end {
            return Err(Malformed::Cbor { at: end });
        }
        let (Some((rev, at)), Some(sig)) = (rev, sig) else { return Ok(None) };
        mark_tid(rev, at, marks);
        let mut commit = None;
        // A record may have such fields too: what is a commit of the protocol's, and of a repo that is known, is signed.
        if let (true, Some(did), true, Some(3)) = (signed, did, tree, version)
            && dids.known.contains(did)
            && sig.end - sig.at == SIGNATURE
            && bytes.get(block.start).is_some_and(|head| (0xa1..0xb8).contains(head))
        {
            let signature = Value::Signature(*digest, bytes[sig.at..sig.end].into());
            marks.push(Mark { at: sig.at, value: signature.clone() });
            let field = sig.head - SIG_KEY - block.start..sig.end - block.start;
            commit = Some(Commit { did: did.into(), field, signature });
        }
        marks.sort_by_key(|mark| mark.at);
        Ok(commit)
    }
}

/// Bytes of the map key `sig`, its head included.
const SIG_KEY: usize = 4;

fn mark_common(item: &Item<'_>, content: &[u8], dids: &Dids, marks: &mut Vec<Mark>) {
    match item.kind {
        Kind::Link => {
            if let Some((_, digest)) = cid_digest(content) {
                marks.push(Mark { at: item.end - digest.len(), value: Value::Digest(digest) });
            }
        }
        Kind::Text => match cid_of_text(content) {
            Some(digest) => marks.push(Mark { at: item.at, value: Value::CidText(digest) }),
            None => dids.mark(content, item.at, marks),
        },
        Kind::Bytes | Kind::Unsigned(_) => {}
    }
}

fn mark_tid(text: &[u8], at: usize, marks: &mut Vec<Mark>) {
    if let Some(tid) = tid_of_text(text) {
        marks.push(Mark { at, value: Value::Tid(tid) });
    }
}

fn mark_time(text: &[u8], at: usize, of_milli: fn(i64) -> Value, marks: &mut Vec<Mark>) {
    let value = milli_of_text(text).map(of_milli).or_else(|| second_of_text(text).map(Value::Second));
    marks.extend(value.map(|value| Mark { at, value }));
}

impl Dids {
    fn mark(&self, text: &[u8], at: usize, marks: &mut Vec<Mark>) {
        let mut from = 0;
        while let Some(found) = text[from..].windows(4).position(|four| four == b"did:") {
            let start = from + found;
            let did = self.lengths.iter().find_map(|&length| {
                let did = text.get(start..start + length)?;
                self.known.contains(did).then_some(did)
            });
            if let Some(did) = did {
                marks.push(Mark { at: at + start, value: Value::Did(did.into()) });
            }
            from = start + did.map_or(4, <[u8]>::len);
        }
    }
}

fn section(bytes: &[u8], at: usize) -> Result<(Range<usize>, usize), Malformed> {
    let malformed = Malformed::Car { at };
    let mut length = 0;
    for (n, &byte) in bytes.iter().skip(at).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            let start = at + n + 1;
            let end = start + length;
            return if end <= bytes.len() { Ok((start..end, end)) } else { Err(malformed) };
        }
    }
    Err(malformed)
}
