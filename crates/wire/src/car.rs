//! The CAR of a commit: its first root and its blocks, every one held against its CID.
//!
//! Blocks may come in any order, twice, and in excess of what the commit needs. What is wrong with one of them is said, and
//! the others are read.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::cbor::{self, Input, major};
use crate::cid::{Cid, Link};
use crate::error::BadReason;
use crate::quick;
use crate::sha256::sha256;

/// Up to this many blocks a search from the front is quicker than sorting them.
const UNSORTED: usize = 32;

/// A CAR, of which only blocks that are what their CIDs say are used.
#[derive(Debug)]
pub(crate) struct Car<'a> {
    /// The commit, by the rules of atproto.
    pub(crate) root: Cid<'a>,
    /// Blocks that are not what their CIDs say.
    pub(crate) spoilt: Vec<(Cid<'a>, &'a [u8])>,
    /// Why it was not read to its end, or what else is wrong with it.
    pub(crate) fault: Option<BadReason>,
    blocks: Vec<(Cid<'a>, &'a [u8])>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    roots: First<'a>,
    version: u64,
}

/// The first of a list of links.
struct First<'a>(Option<Link<'a>>);

// === impl Car ===

impl<'a> Car<'a> {
    /// Reads a CAR as far as it can be read, `limit` bytes of it at most, and hashes each of its blocks.
    ///
    /// # Errors
    /// A header that is not that of a CARv1 with the CID of a commit.
    pub(crate) fn read(bytes: &'a [u8], limit: usize) -> Result<Self, BadReason> {
        let mut fault = (bytes.len() > limit).then_some(BadReason::BlocksTooLarge { len: bytes.len(), limit });
        let mut rest = bytes.get(..limit).unwrap_or(bytes);
        let header = take_section(&mut rest)?;
        let root = root_of(header)?;
        let mut blocks = Vec::with_capacity(16);
        let mut spoilt = Vec::new();
        while !rest.is_empty() {
            let section = match take_section(&mut rest) {
                Ok(section) => section,
                // Where a section does not end nothing says where the next one begins.
                Err(reason) => {
                    fault.get_or_insert(reason);
                    break;
                }
            };
            match Cid::take(section) {
                Some((cid, data)) if sha256(data) == cid.digest() => blocks.push((cid, data)),
                Some(block) => spoilt.push(block),
                None => {
                    fault.get_or_insert(car("a block's cid is not version 1 with sha-256"));
                }
            }
        }
        if blocks.len() > UNSORTED {
            blocks.sort_unstable_by_key(|(cid, _)| *cid);
        }
        Ok(Self { root, spoilt, fault, blocks })
    }

    /// Reads the commit of a CAR, which is all that is looked at. None where anything else than the hash of another block is wrong.
    pub(crate) fn read_commit(bytes: &'a [u8], limit: usize) -> Option<Self> {
        if bytes.len() > limit {
            return None;
        }
        let mut rest = bytes;
        let root = root_of(take_section(&mut rest).ok()?).ok()?;
        let mut commit = None;
        while !rest.is_empty() {
            let (cid, data) = Cid::take(take_section(&mut rest).ok()?)?;
            if cid == root {
                commit = Some((cid, data)).filter(|(cid, data)| sha256(data) == cid.digest());
                commit?;
            }
        }
        Some(Self { root, spoilt: Vec::new(), fault: None, blocks: vec![commit?] })
    }

    /// Returns what is wrong with it in the first place, if anything is.
    pub(crate) fn first_fault(&self) -> Option<BadReason> {
        self.spoilt.first().map(|(cid, _)| hash_of(*cid)).or_else(|| self.fault.clone())
    }

    /// Returns the bytes of a block.
    pub(crate) fn block(&self, cid: Cid<'_>) -> Option<&'a [u8]> {
        let found = if self.blocks.len() > UNSORTED {
            self.blocks.binary_search_by(|(held, _)| (*held).cmp(&cid)).ok().and_then(|index| self.blocks.get(index))
        } else {
            self.blocks.iter().find(|(held, _)| *held == cid)
        };
        found.map(|(_, data)| *data)
    }
}

/// Reads a header, and returns the first root.
pub(crate) fn root_of(header: &[u8]) -> Result<Cid<'_>, BadReason> {
    quick::root_of(header).map_or_else(|| root_strictly(header), Ok)
}

/// Reads one that is unusual, or says what is wrong with it.
pub(crate) fn root_strictly(header: &[u8]) -> Result<Cid<'_>, BadReason> {
    let header = serde_ipld_dagcbor::from_slice(header)
        .ok()
        .or_else(|| Header::of_any_order(header))
        .ok_or_else(|| car("its header is not {roots, version}"))?;
    if header.version != 1 {
        return Err(car("its version is not 1"));
    }
    header.roots.0.and_then(Link::dag_cbor).ok_or_else(|| car("its first root is not the cid of a commit"))
}

/// Says that a block is not what its CID says.
pub(crate) fn hash_of(cid: Cid<'_>) -> BadReason {
    BadReason::BlockHash { cid: cid.text().as_str().into() }
}

/// Takes one length-prefixed section.
fn take_section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadReason> {
    let len = take_varint(rest)?;
    let (section, after) = usize::try_from(len)
        .ok()
        .and_then(|len| rest.split_at_checked(len))
        .ok_or_else(|| car("a section is longer than what is left"))?;
    *rest = after;
    Ok(section)
}

/// Takes an unsigned varint of at most nine bytes, which has to be the shortest of its value
/// (<https://github.com/multiformats/unsigned-varint>).
fn take_varint(rest: &mut &[u8]) -> Result<u64, BadReason> {
    let mut value = 0;
    for shift in 0..9 {
        let (&byte, after) = rest.split_first().ok_or_else(|| car("a length is cut"))?;
        *rest = after;
        value |= u64::from(byte & 0x7F) << (7 * shift);
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(car("a length is not minimal")) } else { Ok(value) };
        }
    }
    Err(car("a length has over nine bytes"))
}

fn car(detail: &'static str) -> BadReason {
    BadReason::Car { detail }
}

// === impl Header ===

impl<'a> Header<'a> {
    /// Reads a header whose keys stand in another order: nothing holds it against a hash.
    fn of_any_order(section: &'a [u8]) -> Option<Self> {
        let mut input = Input::new(section);
        let [roots, version] = cbor::fields(&mut input, ["roots", "version"]).ok().filter(|_| input.is_empty())?;
        let mut roots = Input::new(roots.once()?).open(major::LIST)?;
        let first = roots.next().ok()?.and_then(cbor::link).map(Link);
        Some(Self { roots: First(first), version: cbor::number(version.once()?)?.try_into().ok()? })
    }
}

// === impl First ===

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct FirstVisitor;

        impl<'de> Visitor<'de> for FirstVisitor {
            type Value = First<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of cids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut links: A) -> Result<Self::Value, A::Error> {
                let first = links.next_element()?;
                while links.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }

        input.deserialize_seq(FirstVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut bytes: &[u8]) -> Result<u64, &'static str> {
        take_varint(&mut bytes).map_err(|reason| match reason {
            BadReason::Car { detail } => detail,
            _ => "another reason",
        })
    }

    #[test]
    fn varints_are_minimal_whole_and_bounded() {
        assert_eq!(varint(&[0]), Ok(0));
        assert_eq!(varint(&[0xE0, 0x01]), Ok(224));
        assert_eq!(varint(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]), Ok((1 << 63) - 1));
        assert_eq!(varint(&[]), Err("a length is cut"));
        assert_eq!(varint(&[0x80]), Err("a length is cut"));
        assert_eq!(varint(&[0x81, 0x00]), Err("a length is not minimal"));
        assert_eq!(varint(&[0xFF; 10]), Err("a length has over nine bytes"));
    }
}
