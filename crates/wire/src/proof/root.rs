//! The root of a tree from its records alone, in the order of their keys: what a repo's commit signs.
//!
//! A tree has one form only. A node is complete as soon as a key of a higher layer comes, so that no more is held than one node of each
//! layer.

use super::node::{EMPTY_TREE, is_key, layer_of, write_head};
use crate::sha256::sha256;

/// Builds the root of a tree, key by key.
#[derive(Debug, Default)]
pub struct TreeRoot {
    /// The node of each layer that is not complete.
    open: Vec<Open>,
    /// The last key.
    last: Vec<u8>,
    count: u64,
}

/// A key that has no place in a tree, or not behind the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is no record path, or does not come after the one before")]
pub struct KeyOrder;

/// A node that grows.
#[derive(Debug, Default)]
struct Open {
    /// The digest of what hangs before its first key.
    first: Option<[u8; 32]>,
    /// Its entries as they are written, each without what hangs behind it: that is not known before the next.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    record: [u8; 32],
    behind: Option<[u8; 32]>,
}

// === impl TreeRoot ===

impl TreeRoot {
    /// Starts with an empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many records there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a record: its path, and the digest in its CID.
    ///
    /// # Errors
    /// The path is none, or is not behind the last one.
    pub fn push(&mut self, path: &str, record: [u8; 32]) -> Result<(), KeyOrder> {
        let key = path.as_bytes();
        if !is_key(key) || self.count > 0 && key <= self.last.as_slice() {
            return Err(KeyOrder);
        }
        let layer = usize::from(layer_of(key));
        let below = self.close(layer);
        while self.open.len() <= layer {
            self.open.push(Open::default());
        }
        if let Some(node) = self.open.get_mut(layer) {
            node.hang(below);
            node.entries.push(Entry { key: key.to_vec(), record, behind: None });
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.count += 1;
        Ok(())
    }

    /// Returns the digest of the root.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        // The highest layer has a key, or it would not be there.
        self.close(self.open.len()).unwrap_or(EMPTY_TREE)
    }

    /// Completes the nodes below a layer, and returns the digest of the highest.
    fn close(&mut self, layer: usize) -> Option<[u8; 32]> {
        let mut below = None;
        for node in self.open.iter_mut().take(layer) {
            node.hang(below);
            below = std::mem::take(node).digest();
        }
        // Between a key and the layer of the next one there may be layers that were never begun.
        for _ in self.open.len()..layer {
            below = Open { first: Some(below?), entries: Vec::new() }.digest();
        }
        below
    }
}

// === impl Open ===

impl Open {
    /// Hangs what is below behind all that there is.
    fn hang(&mut self, below: Option<[u8; 32]>) {
        if let Some(below) = below {
            let gap = self.entries.last_mut().map_or(&mut self.first, |entry| &mut entry.behind);
            *gap = Some(below);
        }
    }

    /// Returns the digest of the node; none where there is nothing in it.
    fn digest(self) -> Option<[u8; 32]> {
        if self.entries.is_empty() && self.first.is_none() {
            return None;
        }
        let mut out = b"\xA2\x61e".to_vec();
        write_head(&mut out, 0x80, self.entries.len());
        let mut before: &[u8] = b"";
        for Entry { key, record, behind } in &self.entries {
            let shared = before.iter().zip(key).take_while(|(old, new)| old == new).count();
            let rest = key.get(shared..).unwrap_or_default();
            out.extend_from_slice(b"\xA4\x61k");
            write_head(&mut out, 0x40, rest.len());
            out.extend_from_slice(rest);
            out.extend_from_slice(b"\x61p");
            write_head(&mut out, 0x00, shared);
            out.extend_from_slice(b"\x61t");
            write_link(&mut out, behind.as_ref());
            out.extend_from_slice(b"\x61v");
            write_link(&mut out, Some(record));
            before = key;
        }
        out.extend_from_slice(b"\x61l");
        write_link(&mut out, self.first.as_ref());
        Some(sha256(&out))
    }
}

fn write_link(out: &mut Vec<u8>, digest: Option<&[u8; 32]>) {
    match digest {
        None => out.push(0xF6),
        Some(digest) => {
            out.extend_from_slice(b"\xD8\x2A\x58\x25\x00\x01\x71\x12\x20");
            out.extend_from_slice(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest in a CID of base 32.
    fn digest(cid: &str) -> [u8; 32] {
        let bits = cid[1..].bytes().flat_map(|digit| {
            let value = if digit < b'a' { digit - b'2' + 26 } else { digit - b'a' };
            (0..5).rev().map(move |bit| value >> bit & 1)
        });
        let bits: Vec<u8> = bits.collect();
        let bytes: Vec<u8> =
            bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect();
        bytes[4..].try_into().unwrap()
    }

    fn root(keys: &[&str]) -> [u8; 32] {
        let record = digest("bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454");
        let mut root = TreeRoot::new();
        for key in keys {
            root.push(&format!("com.example.record/{key}"), record).unwrap();
        }
        assert_eq!(root.count(), keys.len() as u64);
        root.finish()
    }

    /// The trees of the protocol's own tests (<https://github.com/bluesky-social/atproto>, `packages/repo/tests/mst.test.ts`).
    #[test]
    fn trees_have_the_roots_that_other_implementations_give_them() {
        for (keys, expected) in [
            (&[][..], "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"),
            (&["3jqfcqzm3fo2j"], "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu"),
            (&["3jqfcqzm3fx2j"], "bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai"),
            (
                &["3jqfcqzm3fp2j", "3jqfcqzm3fr2j", "3jqfcqzm3fs2j", "3jqfcqzm3ft2j", "3jqfcqzm4fc2j"],
                "bafyreicmahysq4n6wfuxo522m6dpiy7z7qzym3dzs756t5n7nfdgccwq7m",
            ),
        ] {
            assert_eq!(root(keys), digest(expected), "{keys:?}");
        }
    }

    #[test]
    fn keys_come_in_their_order() {
        let mut root = TreeRoot::new();
        root.push("a.b.c/b", [0; 32]).unwrap();
        for key in ["a.b.c/b", "a.b.c/a", "a", "a.b.c/", "/x", "a.b.c/ü"] {
            assert_eq!(root.push(key, [0; 32]), Err(KeyOrder), "{key}");
        }
        root.push("a.b.c/c", [0; 32]).unwrap();
    }
}
