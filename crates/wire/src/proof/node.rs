//! Nodes of the tree (MST): read from blocks, and written again for their hash
//! (<https://atproto.com/specs/repository>, "MST structure").
//!
//! What is read is held to the one form that it has: keys in order, each with exactly the prefix that it shares with the one
//! before, all of one layer, and nothing else in the block.

use crate::cid::Cid;
use crate::sha256::{leading_zeros, sha256};

/// The most bytes of keys that are held of one commit: those of an honest one are some kB.
///
/// Keys stand in a node without the prefix that they share, so that a small node may have large ones.
const KEYS_HELD: usize = 4_000_000;

/// The digest of the root of a tree without records.
pub const EMPTY_TREE: [u8; 32] = [
    0x9D, 0xFE, 0xFE, 0x61, 0xDD, 0x76, 0xEA, 0x3D, 0xCA, 0xE5, 0x02, 0x38, 0x80, 0xB0, 0x83, 0x79, 0xD5, 0x7A, 0xDF,
    0x20, 0x48, 0x2D, 0x6F, 0xDB, 0xE2, 0x75, 0x92, 0x89, 0xF6, 0x47, 0x67, 0x7B,
];

/// The longest key, in bytes.
const KEY: usize = 1_024;

/// Every key that was read, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<u8>);

/// Where a key stands in [`Keys`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: u32,
    len: u32,
}

/// Between which keys those of a subtree lie; none where nothing bounds them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    pub(super) above: Option<Place>,
    pub(super) below: Option<Place>,
}

/// What hangs in a gap between keys.
#[derive(Debug, Default)]
pub(super) enum Link<'a> {
    /// Nothing.
    #[default]
    Empty,
    /// A node as the repo holds it, not read.
    Stored(Cid<'a>, Bounds),
    /// A node that was read, and perhaps changed.
    Read(Box<Node<'a>>),
}

/// A node: a gap, then keys, each with the gap behind it.
#[derive(Debug, Default)]
pub(super) struct Node<'a> {
    pub(super) first: Link<'a>,
    pub(super) entries: Vec<Entry<'a>>,
}

#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: Place,
    pub(super) record: Cid<'a>,
    pub(super) behind: Link<'a>,
}

/// Why a block is no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeFault {
    Malformed(&'static str),
    /// The keys are more than are held.
    TooLarge,
}

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

/// Says whether bytes may be a key of the tree: two parts around one slash. What a collection is called matters to records only.
pub(super) fn is_key(bytes: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        !part.is_empty()
            && part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'~' | b'-'))
    };
    let slash = bytes.iter().position(|byte| *byte == b'/');
    let parts = slash.and_then(|slash| Some((bytes.get(..slash)?, bytes.get(slash + 1..)?)));
    bytes.len() <= KEY && parts.is_some_and(|(collection, rkey)| is_part(collection) && is_part(rkey))
}

/// Returns the layer of a key: half the number of zero bits that its hash begins with.
pub(super) fn layer_of(key: &[u8]) -> u8 {
    u8::try_from(leading_zeros(key) / 2).unwrap_or(u8::MAX)
}

// === impl Keys ===

impl Keys {
    pub(super) fn get(&self, place: Place) -> &[u8] {
        let start = place.start as usize;
        self.0.get(start..start + place.len as usize).unwrap_or_default()
    }

    /// Holds a key that consists of the start of another one and of what is new.
    pub(super) fn push(&mut self, before: Option<Place>, shared: usize, rest: &[u8]) -> Result<Place, NodeFault> {
        let start = self.0.len();
        let (Ok(place), Ok(len)) = (u32::try_from(start), u32::try_from(shared + rest.len())) else {
            return Err(NodeFault::TooLarge);
        };
        if start + shared + rest.len() > KEYS_HELD {
            return Err(NodeFault::TooLarge);
        }
        if let Some(before) = before.filter(|_| shared > 0) {
            let from = before.start as usize;
            if shared > before.len as usize {
                return Err(NodeFault::Malformed("a key shares more than there is"));
            }
            self.0.extend_from_within(from..from + shared);
        }
        self.0.extend_from_slice(rest);
        Ok(Place { start: place, len })
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    /// Reads a block as a node of a layer, or, as the root, of that which its first key has. Returns the layer too; none of a
    /// node without keys where it is not told.
    pub(super) fn read(
        block: &'a [u8],
        keys: &mut Keys,
        bounds: Bounds,
        layer: Option<u8>,
    ) -> Result<(Self, Option<u8>), NodeFault> {
        let malformed = NodeFault::Malformed;
        let mut input = Reader(block);
        input.expect(b"\xA2\x61e").ok_or(malformed("it is not {e, l}"))?;
        let count = input.head(0x80).ok_or(malformed("its entries are no list"))?;
        // Each takes 60 bytes and more: nothing is reserved for a count that is only claimed.
        let mut entries = Vec::with_capacity(count.min(block.len() / 48));
        let (mut layer, mut before) = (layer, bounds.above);
        let mut last = None;
        for _ in 0..count {
            let entry = input.entry().ok_or(malformed("an entry is not {k, p, t, v}"))?;
            let (shared, rest, behind, record) = entry;
            if last.is_none() && shared != 0 {
                return Err(malformed("its first key shares a prefix with nothing"));
            }
            let key = keys.push(last, shared, rest)?;
            let text = keys.get(key);
            if let Some(last) = last {
                let last = keys.get(last);
                // The bytes behind the prefix differ, or it would be longer; they are those of the greater key here.
                let (old, new) = (last.get(shared), text.get(shared));
                if old >= new {
                    return Err(malformed("its keys are not in order, or share more than they say"));
                }
            } else if before.is_some_and(|before| keys.get(before) >= text) {
                return Err(malformed("a key is not behind the one above its node"));
            }
            if !is_key(text) {
                return Err(malformed("a key is no record path"));
            }
            let own = layer_of(text);
            if *layer.get_or_insert(own) != own {
                return Err(malformed("a key is of another layer"));
            }
            let record = Cid::take(record).map(|(cid, _)| cid).ok_or(malformed("a record's cid is of another kind"))?;
            entries.push((key, record, behind));
            (last, before) = (Some(key), Some(key));
        }
        input.expect(b"\x61l").ok_or(malformed("it is not {e, l}"))?;
        let first = input.link().ok_or(malformed("its first gap is no link"))?;
        if !input.0.is_empty() {
            return Err(malformed("there is more behind it"));
        }
        if let (Some(last), Some(below)) = (last, bounds.below)
            && keys.get(last) >= keys.get(below)
        {
            return Err(malformed("a key is not before the one above its node"));
        }
        let bottom = layer == Some(0);
        let gap = |link: Option<&'a [u8]>, above, below| match link {
            None => Ok(Link::Empty),
            Some(_) if bottom => Err(malformed("there is something below the lowest layer")),
            Some(link) => crate::cid::Link(link)
                .dag_cbor()
                .map(|cid| Link::Stored(cid, Bounds { above, below }))
                .ok_or(malformed("a node's cid is of another kind")),
        };
        let mut node = Self {
            first: gap(first, bounds.above, entries.first().map_or(bounds.below, |(key, ..)| Some(*key)))?,
            entries: Vec::with_capacity(entries.len()),
        };
        let mut rest = entries.into_iter().peekable();
        while let Some((key, record, behind)) = rest.next() {
            let below = rest.peek().map_or(bounds.below, |(key, ..)| Some(*key));
            node.entries.push(Entry { key, record, behind: gap(behind, Some(key), below)? });
        }
        Ok((node, layer))
    }

    /// Returns the gap behind all keys.
    pub(super) fn last_gap(&mut self) -> &mut Link<'a> {
        self.entries.last_mut().map_or(&mut self.first, |entry| &mut entry.behind)
    }

    /// Returns the node as what hangs in a gap: nothing, where there is nothing in it.
    pub(super) fn into_link(self) -> Link<'a> {
        if self.entries.is_empty() && matches!(self.first, Link::Empty) {
            return Link::Empty;
        }
        Link::Read(Box::new(self))
    }

    /// Returns the digest of the node, those below it first. `out` is a place to write, left as it was.
    ///
    /// Goes as deep as the tree has layers: no more than 128, as a hash has no more zeros.
    pub(super) fn digest(&self, keys: &Keys, out: &mut Vec<u8>) -> [u8; 32] {
        let start = out.len();
        out.extend_from_slice(b"\xA2\x61e");
        write_head(out, 0x80, self.entries.len());
        let mut before: &[u8] = b"";
        for entry in &self.entries {
            let key = keys.get(entry.key);
            let shared = before.iter().zip(key).take_while(|(old, new)| old == new).count();
            let rest = key.get(shared..).unwrap_or_default();
            out.extend_from_slice(b"\xA4\x61k");
            write_head(out, 0x40, rest.len());
            out.extend_from_slice(rest);
            out.extend_from_slice(b"\x61p");
            write_head(out, 0x00, shared);
            out.extend_from_slice(b"\x61t");
            entry.behind.write(keys, out);
            out.extend_from_slice(b"\x61v");
            out.extend_from_slice(b"\xD8\x2A\x58\x25\x00");
            out.extend_from_slice(entry.record.bytes());
            before = key;
        }
        out.extend_from_slice(b"\x61l");
        self.first.write(keys, out);
        let digest = sha256(out.get(start..).unwrap_or_default());
        out.truncate(start);
        digest
    }
}

// === impl Link ===

impl Link<'_> {
    fn write(&self, keys: &Keys, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.push(0xF6),
            Self::Stored(cid, _) => {
                out.extend_from_slice(b"\xD8\x2A\x58\x25\x00");
                out.extend_from_slice(cid.bytes());
            }
            Self::Read(node) => {
                let digest = node.digest(keys, out);
                out.extend_from_slice(b"\xD8\x2A\x58\x25\x00\x01\x71\x12\x20");
                out.extend_from_slice(&digest);
            }
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn expect(&mut self, bytes: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(bytes)?;
        Some(())
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes a head of this kind, as short as it can be; numbers beyond 32 bits have no place in a node.
    fn head(&mut self, kind: u8) -> Option<usize> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        let short = first.checked_sub(kind)?;
        let (len, least) = match short {
            0..24 => return Some(usize::from(short)),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            _ => return None,
        };
        let value = self.take(len)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte));
        (value >= least).then_some(value)
    }

    /// Takes a link, or null.
    fn link(&mut self) -> Option<Option<&'a [u8]>> {
        if let Some(rest) = self.0.strip_prefix(b"\xF6") {
            self.0 = rest;
            return Some(None);
        }
        self.expect(b"\xD8\x2A\x58\x25\x00")?;
        self.take(36).map(Some)
    }

    /// Takes an entry: how much its key shares, the rest of it, the gap behind, the record.
    #[expect(clippy::type_complexity, reason = "the four fields of an entry, in their order")]
    fn entry(&mut self) -> Option<(usize, &'a [u8], Option<&'a [u8]>, &'a [u8])> {
        self.expect(b"\xA4\x61k")?;
        let len = self.head(0x40)?;
        let rest = self.take(len)?;
        self.expect(b"\x61p")?;
        let shared = self.head(0x00)?;
        self.expect(b"\x61t")?;
        let behind = self.link()?;
        self.expect(b"\x61v")?;
        Some((shared, rest, behind, self.link()??))
    }
}

pub(super) fn write_head(out: &mut Vec<u8>, kind: u8, value: usize) {
    // What was read is below 2^32, and nothing longer is made of it.
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    let [first, second, third, fourth] = value.to_be_bytes();
    match value {
        0..24 => out.push(kind | fourth),
        24..0x100 => out.extend_from_slice(&[kind | 24, fourth]),
        0x100..0x1_0000 => out.extend_from_slice(&[kind | 25, third, fourth]),
        _ => out.extend_from_slice(&[kind | 26, first, second, third, fourth]),
    }
}
