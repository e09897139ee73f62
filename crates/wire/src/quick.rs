//! The usual forms, read in one pass: what as good as all servers write.
//!
//! Each function here answers only where what it sees is plain in every respect, and then exactly as the strict readers do
//! that stand behind it: `body.rs` for the envelope, `json.rs` for records, `car.rs`, `commit.rs` and `proof/signed.rs` for the
//! rest. Whatever is unusual, wrong or damaged is theirs, and they alone name faults.

use std::cmp::Ordering;

use penstock_core::data::write_utf8;

use crate::body::{CommitBlock, CommitBody, Op, Ops};
use crate::cbor::{Input, major};
use crate::cid::{Cid, Link};
use crate::limits::OPS_HELD;
use crate::record::{write_bytes, write_float, write_link};

/// How many maps and lists inside each other are followed.
const DEPTH: usize = 32;

/// The header of a commit's frame: `{t: "#commit", op: 1}`.
const COMMIT: &[u8] = b"\xA2\x61t\x67#commit\x62op\x01";

/// What stands before the 36 bytes of a CID: tag 42, the head of 37 bytes, and the first of them.
const LINK: &[u8] = b"\xD8\x2A\x58\x25\x00";

/// What stands around the root in the header of a CAR that has one root.
const ROOTS: &[u8] = b"\xA2\x65roots\x81\xD8\x2A\x58\x25\x00";
const VERSION: &[u8] = b"\x67version\x01";

/// The signed commit of a repo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedCommit<'a> {
    pub(crate) names: CommitBlock<'a>,
    /// The root of the tree.
    pub(crate) data: Cid<'a>,
    pub(crate) signature: &'a [u8],
    /// What stands before the signature, without the head of the map, and what stands behind it.
    pub(crate) around: [&'a [u8]; 2],
}

/// The fields of a commit's body, as far as they have been read.
#[derive(Default)]
struct Fields<'a> {
    seq: Option<u64>,
    repo: Option<&'a str>,
    time: Option<&'a str>,
    rev: Option<&'a str>,
    since: Option<&'a str>,
    commit: Option<Link<'a>>,
    blocks: Option<&'a [u8]>,
    ops: Option<Ops<'a>>,
    too_big: Option<bool>,
    prev_data: Option<Link<'a>>,
}

/// What is left to be read.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

/// Reads the frame of a commit.
pub(crate) fn commit_body(frame: &[u8]) -> Option<CommitBody<'_>> {
    let mut rest = Rest(frame.strip_prefix(COMMIT)?);
    let mut fields = Fields::default();
    // Each field has its bit: what stands twice is left to those who say so.
    let mut seen = 0_u16;
    for _ in 0..rest.head_of(major::MAP)? {
        let bit = match rest.bytes_of(major::TEXT)? {
            b"seq" => {
                fields.seq = Some(rest.head_of(major::UNSIGNED)?);
                0
            }
            b"repo" => {
                fields.repo = Some(rest.text()?);
                1
            }
            b"time" => {
                fields.time = rest.unless_null(Rest::text)?;
                2
            }
            b"rev" => {
                fields.rev = Some(rest.text()?);
                3
            }
            b"since" => {
                fields.since = rest.unless_null(Rest::text)?;
                4
            }
            b"commit" => {
                fields.commit = Some(rest.link()?);
                5
            }
            b"blocks" => {
                fields.blocks = Some(rest.bytes_of(major::BYTES)?);
                6
            }
            b"ops" => {
                fields.ops = Some(rest.ops()?);
                7
            }
            b"tooBig" => {
                fields.too_big = rest.unless_null(Rest::truth)?;
                8
            }
            b"prevData" => {
                fields.prev_data = rest.unless_null(Rest::link)?;
                9
            }
            _ => {
                rest.pass()?;
                continue;
            }
        };
        if seen & 1 << bit != 0 {
            return None;
        }
        seen |= 1 << bit;
    }
    rest.0.is_empty().then_some(())?;
    let Fields { seq, repo, time, rev, since, commit, blocks, ops, too_big, prev_data } = fields;
    Some(CommitBody {
        seq: seq?,
        repo: repo?,
        time,
        rev: rev?,
        since,
        commit: commit?,
        blocks: blocks?,
        ops: ops?,
        too_big,
        prev_data,
    })
}

/// Reads the header of a CAR with one root.
pub(crate) fn root_of(header: &[u8]) -> Option<Cid<'_>> {
    let (cid, rest) = header.strip_prefix(ROOTS)?.split_at_checked(36)?;
    if rest != VERSION {
        return None;
    }
    Link(cid).dag_cbor()
}

/// Reads the signed commit of a repo: its six fields, and no other.
pub(crate) fn signed_commit(block: &[u8]) -> Option<SignedCommit<'_>> {
    let fields = block.strip_prefix(b"\xA6")?;
    let mut rest = Rest(fields);
    rest.expect(b"\x63did")?;
    let did = rest.text()?;
    rest.expect(b"\x63rev")?;
    let rev = rest.text()?;
    let before = fields.get(..fields.len() - rest.0.len())?;
    rest.expect(b"\x63sig")?;
    let signature = rest.bytes_of(major::BYTES)?;
    let behind = rest.0;
    rest.expect(b"\x64data")?;
    let data = rest.link()?.dag_cbor()?;
    rest.expect(b"\x64prev")?;
    rest.unless_null(|rest| rest.link()?.dag_cbor())?;
    rest.expect(b"\x67version\x03")?;
    let names = CommitBlock { did, rev };
    rest.0.is_empty().then_some(SignedCommit { names, data, signature, around: [before, behind] })
}

/// Appends a record as lexicon JSON. Without an answer `out` holds a torso.
pub(crate) fn write_record(out: &mut Vec<u8>, block: &[u8], nesting: usize) -> Option<()> {
    let mut rest = Rest(block);
    rest.write_value(out, nesting.min(DEPTH))?;
    rest.0.is_empty().then_some(())
}

// === impl Rest ===

impl<'a> Rest<'a> {
    fn expect(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    #[inline]
    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes a head of a definite length or a number, written as short as it can be.
    #[inline]
    fn head(&mut self) -> Option<(u8, u64)> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        let (major, short) = (first >> 5, first & 31);
        if short < 24 {
            return Some((major, u64::from(short)));
        }
        self.long_head(short).map(|value| (major, value))
    }

    fn long_head(&mut self, short: u8) -> Option<u64> {
        let (value, least) = match short {
            24 => (u64::from(self.fixed::<1>().map(u8::from_be_bytes)?), 24),
            25 => (u64::from(self.fixed().map(u16::from_be_bytes)?), 0x100),
            26 => (u64::from(self.fixed().map(u32::from_be_bytes)?), 0x1_0000),
            27 => (self.fixed().map(u64::from_be_bytes)?, 0x1_0000_0000),
            _ => return None,
        };
        (value >= least).then_some(value)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    fn head_of(&mut self, wanted: u8) -> Option<u64> {
        let (major, value) = self.head()?;
        (major == wanted).then_some(value)
    }

    #[inline]
    fn bytes_of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let len = self.head_of(wanted)?;
        self.take(len)
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes_of(major::TEXT)?).ok()
    }

    fn link(&mut self) -> Option<Link<'a>> {
        self.expect(LINK)?;
        self.take(36).map(Link)
    }

    fn truth(&mut self) -> Option<bool> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        match first {
            0xF4 => Some(false),
            0xF5 => Some(true),
            _ => None,
        }
    }

    /// Takes null, or else what it may be instead.
    fn unless_null<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.0.strip_prefix(b"\xF6") {
            Some(rest) => {
                self.0 = rest;
                Some(None)
            }
            None => read(self).map(Some),
        }
    }

    /// Passes over an item, whatever it is.
    fn pass(&mut self) -> Option<()> {
        let len = Input::new(self.0).item().ok()?.len();
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn ops(&mut self) -> Option<Ops<'a>> {
        let count = usize::try_from(self.head_of(major::LIST)?).ok()?;
        // More than are held is not usual.
        if count > OPS_HELD {
            return None;
        }
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            held.push(self.op()?);
        }
        Some(Ops { held, count })
    }

    fn op(&mut self) -> Option<Op<'a>> {
        let (mut action, mut path, mut cid, mut prev) = (None, None, None, None);
        for _ in 0..self.head_of(major::MAP)? {
            let is_new = match self.bytes_of(major::TEXT)? {
                b"cid" => cid.replace(self.unless_null(Self::link)?).is_none(),
                b"path" => path.replace(self.text()?).is_none(),
                b"prev" => prev.replace(self.unless_null(Self::link)?).is_none(),
                b"action" => action.replace(self.text()?).is_none(),
                _ => return None,
            };
            is_new.then_some(())?;
        }
        Some(Op { action: action?, path: path?, cid: cid.flatten(), prev: prev.flatten() })
    }

    /// Writes a value; `depth` more maps and lists may be entered.
    fn write_value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let (major, value) = match *self.0.first()? {
            // Tags and simple values, whose heads say more than a length.
            0xC0.. => return self.write_other(out),
            _ => self.head()?,
        };
        match major {
            major::TEXT => write_utf8(out, self.take(value)?).then_some(())?,
            major::MAP => self.write_map(out, value, depth.checked_sub(1)?)?,
            major::LIST => self.write_list(out, value, depth.checked_sub(1)?)?,
            major::BYTES => write_bytes(out, self.take(value)?),
            major::UNSIGNED => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            _ => {
                let value = i64::try_from(value).ok()?;
                out.extend_from_slice(itoa::Buffer::new().format(-1 - value).as_bytes());
            }
        }
        Some(())
    }

    fn write_map(&mut self, out: &mut Vec<u8>, count: u64, depth: usize) -> Option<()> {
        out.push(b'{');
        let mut before: &[u8] = b"";
        for entry in 0..count {
            let key = self.bytes_of(major::TEXT)?;
            // Shorter ones first, then bytewise.
            let order = before.len().cmp(&key.len()).then_with(|| before.cmp(key));
            if entry > 0 {
                if order != Ordering::Less {
                    return None;
                }
                out.push(b',');
            }
            before = key;
            write_utf8(out, key).then_some(())?;
            out.push(b':');
            self.write_value(out, depth)?;
        }
        out.push(b'}');
        Some(())
    }

    fn write_list(&mut self, out: &mut Vec<u8>, count: u64, depth: usize) -> Option<()> {
        out.push(b'[');
        for item in 0..count {
            if item > 0 {
                out.push(b',');
            }
            self.write_value(out, depth)?;
        }
        out.push(b']');
        Some(())
    }

    fn write_other(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (&first, rest) = self.0.split_first()?;
        match first {
            0xD8 => return write_link(out, self.link()?).ok(),
            0xF4 => out.extend_from_slice(b"false"),
            0xF5 => out.extend_from_slice(b"true"),
            0xF6 => out.extend_from_slice(b"null"),
            0xFB => {
                let (bits, behind) = rest.split_first_chunk()?;
                let float = f64::from_be_bytes(*bits);
                if !float.is_finite() || float.to_bits() == (-0.0_f64).to_bits() {
                    return None;
                }
                write_float(out, float);
                self.0 = behind;
                return Some(());
            }
            _ => return None,
        }
        self.0 = rest;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ipld_core::ipld::Ipld;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use serde::Deserialize;

    use super::*;
    use crate::body::Header;
    use crate::limits::NESTING_READ;
    use crate::{car, envelope, json};

    const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../replay/recording/pds.frames.bin");

    fn recorded() -> Vec<Vec<u8>> {
        let recording = std::fs::read(RECORDING).unwrap();
        let (mut frames, mut rest) = (Vec::new(), recording.as_slice());
        while let Some((len, behind)) = rest.split_first_chunk() {
            let (frame, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
            frames.push(frame.to_vec());
            rest = behind;
        }
        frames
    }

    fn by_serde(frame: &[u8]) -> Option<CommitBody<'_>> {
        let mut input = serde_ipld_dagcbor::de::Deserializer::from_slice(frame);
        let header = Header::deserialize(&mut input).ok()?;
        let body = CommitBody::deserialize(&mut input).ok()?;
        let is_commit = (header.op, header.t) == (1, Some("#commit"));
        input.end().ok().filter(|()| is_commit).map(|()| body)
    }

    fn by_envelope(frame: &[u8]) -> Option<CommitBody<'_>> {
        let mut input = Input::new(frame);
        let header = envelope::Header::take(&mut input).ok()?;
        let object = envelope::Object::take(&mut input).ok()?;
        object.commit().ok().filter(|_| (header.op, header.t) == (1, Some("#commit")))
    }

    /// Holds the readers of an envelope against each other; returns whether the quick one answered.
    fn agree_on_frame(frame: &[u8]) -> bool {
        let Some(body) = commit_body(frame) else { return false };
        let other = by_serde(frame).or_else(|| by_envelope(frame)).expect("a slower reader takes it too");
        assert_eq!(format!("{body:?}"), format!("{other:?}"));
        true
    }

    /// Holds the readers of a record against each other; returns whether the quick one answered.
    fn agree_on_record(block: &[u8]) -> bool {
        let (mut quick, mut strict) = (Vec::new(), Vec::new());
        if write_record(&mut quick, block, NESTING_READ).is_none() {
            return false;
        }
        assert_eq!(json::write_strictly(&mut strict, block, NESTING_READ), Ok(()));
        assert_eq!(String::from_utf8(quick), String::from_utf8(strict));
        true
    }

    #[test]
    fn every_recorded_commit_is_usual_and_means_the_same_by_either_reader() {
        let frames = recorded();
        let commits = frames.iter().filter(|frame| agree_on_frame(frame)).count();
        assert_eq!(commits, frames.iter().filter(|frame| frame.starts_with(COMMIT)).count());
        assert!(commits > 400, "{commits}");
    }

    #[test]
    fn a_damaged_envelope_is_read_as_the_others_do_or_left_to_them() {
        let mut random = StdRng::seed_from_u64(1);
        let (mut read, mut left) = (0, 0);
        for frame in recorded().iter().filter(|frame| frame.len() < 4_000) {
            for _ in 0..40 {
                let mut frame = frame.clone();
                let at = random.random_range(0..frame.len());
                frame[at] ^= 1 << random.random_range(0..8);
                if random.random_bool(0.1) {
                    frame.truncate(at);
                }
                match agree_on_frame(&frame) {
                    true => read += 1,
                    false => left += 1,
                }
            }
        }
        assert!(read > 1_000 && left > 1_000, "{read} {left}");
    }

    #[test]
    fn the_root_of_a_car_is_the_same_by_either_reader() {
        let mut random = StdRng::seed_from_u64(1);
        let header = [ROOTS, b"\x01\x71\x12\x20", &[7; 32], VERSION].concat();
        assert!(root_of(&header).is_some());
        for _ in 0..20_000 {
            let mut header = header.clone();
            let at = random.random_range(0..header.len());
            header[at] = random.random_range(0..=255);
            if let Some(root) = root_of(&header) {
                assert_eq!(car::root_strictly(&header), Ok(root));
            }
        }
    }

    fn value() -> impl Strategy<Value = Ipld> {
        let cid = any::<[u8; 32]>().prop_map(|digest| {
            let bytes = [&[0x01, 0x71, 0x12, 0x20][..], &digest].concat();
            Ipld::Link(ipld_core::cid::Cid::try_from(bytes).unwrap())
        });
        let float = any::<f64>().prop_map(|float| if float.is_finite() && float != 0.0 { float } else { 0.5 });
        let leaf = prop_oneof![
            Just(Ipld::Null),
            any::<bool>().prop_map(Ipld::Bool),
            any::<i64>().prop_map(|value| Ipld::Integer(value.into())),
            any::<u64>().prop_map(|value| Ipld::Integer(value.into())),
            (-300..300_i128).prop_map(Ipld::Integer),
            float.prop_map(Ipld::Float),
            any::<String>().prop_map(Ipld::String),
            "[a-z\"\\\\\u{1}\u{7f}é]{0,300}".prop_map(Ipld::String),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Ipld::Bytes),
            cid,
        ];
        leaf.prop_recursive(5, 40, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..30).prop_map(Ipld::List),
                proptest::collection::btree_map(any::<String>(), inner, 0..8).prop_map(Ipld::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_record_is_the_same_by_either_reader(
            entries in proptest::collection::btree_map("[a-zA-Z$]{0,40}", value(), 0..8),
            at: prop::sample::Index, to: u8, cut: prop::sample::Index,
        ) {
            let entries: BTreeMap<String, Ipld> = entries;
            let mut block = serde_ipld_dagcbor::to_vec(&Ipld::Map(entries)).unwrap();
            prop_assert!(agree_on_record(&block));
            prop_assert!(!agree_on_record(&block[..cut.index(block.len())]));
            block.push(to);
            prop_assert!(!agree_on_record(&block));
            block.pop();
            let at = at.index(block.len());
            block[at] = to;
            agree_on_record(&block);
        }
    }

    #[test]
    fn deeper_records_are_left_to_the_others() {
        for (depth, is_read) in [(1, true), (DEPTH, true), (DEPTH + 1, false), (10_000, false)] {
            let block = [vec![0x81; depth - 1], vec![0x80]].concat();
            assert_eq!(agree_on_record(&block), is_read, "{depth}");
        }
        let block = [vec![0x81; 4], vec![0x80]].concat();
        assert!(
            write_record(&mut Vec::new(), &block, 5).is_some() && write_record(&mut Vec::new(), &block, 4).is_none()
        );
    }
}
