//! The signed commit: what it says of the tree, its signature, and the bytes that it is of.

use crate::cbor::{self, Input, major};
use crate::cid::{Cid, Link};
use crate::key::{Key, SignatureFault};
use crate::quick::{self, SignedCommit};

/// The version of repos that there is.
const VERSION: i128 = 3;

/// What was signed, and the signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The DAG-CBOR of the commit without its signature.
    unsigned: Box<[u8]>,
    signature: Box<[u8]>,
}

// === impl Signed ===

impl Signed {
    /// Holds the signature against a key.
    ///
    /// # Errors
    /// What is wrong with the signature.
    pub fn verify(&self, key: &Key) -> Result<(), SignatureFault> {
        key.verify(&self.unsigned, &self.signature)
    }

    /// Reads a commit block: the root of its tree, and what was signed. Its DID and its revision are compared elsewhere.
    ///
    /// The signature is of the commit as DAG-CBOR without the field `sig`. There is one way to write that, and the block is held to
    /// it: so the field is cut out, and whatever else stands there, known or not, is covered as it stands.
    pub(super) fn read(block: &[u8]) -> Result<(Cid<'_>, Self), &'static str> {
        if let Some(SignedCommit { data, signature, around: [before, behind], .. }) = quick::signed_commit(block) {
            let unsigned = [&b"\xA5"[..], before, behind].concat();
            return Ok((data, Self { unsigned: unsigned.into(), signature: signature.into() }));
        }
        Self::read_strictly(block)
    }

    fn read_strictly(block: &[u8]) -> Result<(Cid<'_>, Self), &'static str> {
        let mut input = Input::new(block);
        let head = input.head().ok().filter(|head| head.major == major::MAP && head.is_minimal());
        let count = head.map(|head| head.value).ok_or("it is no map")?;
        let mut unsigned = Vec::with_capacity(block.len());
        write_count(&mut unsigned, count.saturating_sub(1));
        let (mut data, mut signature, mut is_versioned) = (None, None, false);
        let mut before: Option<&str> = None;
        for _ in 0..count {
            let key = input.item().map_err(|_| "it is cut off")?;
            let name = cbor::text(key).ok_or("a key is no text")?;
            if !is_minimal(key) || before.is_some_and(|before| (before.len(), before) >= (name.len(), name)) {
                return Err("a key is not in its place");
            }
            before = Some(name);
            let value = input.item().map_err(|_| "it is cut off")?;
            match name {
                "sig" => {
                    signature = Some(cbor::bytes(value).filter(|_| is_minimal(value)).ok_or("sig is no bytes")?);
                    continue;
                }
                "data" => data = Some(link(value).and_then(Link::dag_cbor).ok_or("data is no cid of a tree")?),
                "prev" if value != [0xF6] && link(value).is_none() => return Err("prev is neither null nor a cid"),
                "version" => is_versioned = is_minimal(value) && cbor::number(value) == Some(VERSION),
                "did" | "rev" if !is_minimal(value) => return Err("a length is not minimal"),
                _ => {}
            }
            unsigned.extend_from_slice(key);
            unsigned.extend_from_slice(value);
        }
        match (data, signature) {
            _ if !input.is_empty() => Err("there is more behind it"),
            _ if !is_versioned => Err("version is not 3"),
            (None, _) => Err("data is missing"),
            (_, None) => Err("sig is missing"),
            (Some(data), Some(signature)) => {
                Ok((data, Self { unsigned: unsigned.into(), signature: signature.into() }))
            }
        }
    }
}

/// Reads a link that is written as short as it can be.
fn link(value: &[u8]) -> Option<Link<'_>> {
    let inner = value.strip_prefix(&[0xD8, 0x2A]).filter(|inner| is_minimal(inner))?;
    cbor::bytes(inner)?.strip_prefix(&[0]).map(Link)
}

fn is_minimal(item: &[u8]) -> bool {
    Input::new(item).head().is_ok_and(|head| head.is_minimal())
}

/// Writes the head of a map.
fn write_count(out: &mut Vec<u8>, count: u64) {
    match u8::try_from(count) {
        Ok(count @ 0..24) => out.push(0xA0 | count),
        Ok(count) => out.extend_from_slice(&[0xB8, count]),
        Err(_) => {
            out.push(0xBB);
            out.extend_from_slice(&count.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::body::CommitBlock;

    /// A commit block with a DID, a rev and a signature of some length, and with a commit before it or none.
    fn block(did: &str, signature: &[u8], has_prev: bool) -> Vec<u8> {
        let link = [&b"\xD8\x2A\x58\x25\x00\x01\x71\x12\x20"[..], &[7; 32]].concat();
        let mut block = vec![0xA6, 0x63];
        let text = |block: &mut Vec<u8>, text: &str| {
            block.extend([0x78, u8::try_from(text.len()).unwrap()]);
            block.extend(text.as_bytes());
        };
        block.extend(b"did");
        text(&mut block, did);
        block.extend(b"\x63rev\x6D3lkjhgfdsa234");
        block.extend(b"\x63sig\x58");
        block.push(u8::try_from(signature.len()).unwrap());
        block.extend(signature);
        block.extend(b"\x64data");
        block.extend(&link);
        block.extend(b"\x64prev");
        block.extend(if has_prev { link } else { vec![0xF6] });
        block.extend(b"\x67version\x03");
        block
    }

    /// Holds both readers against each other; returns whether the quick one answered.
    fn agree(block: &[u8]) -> bool {
        let Some(quick) = quick::signed_commit(block) else { return false };
        let strict: CommitBlock<'_> = serde_ipld_dagcbor::from_slice(block).unwrap();
        assert_eq!((quick.names.did, quick.names.rev), (strict.did, strict.rev));
        assert_eq!(Signed::read(block), Signed::read_strictly(block));
        assert!(Signed::read_strictly(block).is_ok());
        true
    }

    proptest! {
        #[test]
        fn a_commit_is_signed_the_same_by_either_reader(
            did in "did:plc:[a-z2-7]{24,60}", signature in proptest::collection::vec(any::<u8>(), 24..100), has_prev: bool,
            at: prop::sample::Index, to: u8, cut: prop::sample::Index,
        ) {
            let mut block = block(&did, &signature, has_prev);
            prop_assert!(agree(&block));
            agree(&block[..cut.index(block.len())]);
            block.push(to);
            prop_assert!(!agree(&block));
            block.pop();
            let at = at.index(block.len());
            block[at] = to;
            agree(&block);
        }
    }
}
