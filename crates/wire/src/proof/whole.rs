//! One node of a whole tree: what is in it, held to the same form as the nodes of a commit.

use super::fault::ProofFault;
use super::node::{Bounds, Keys, Link, Node, NodeFault, Place};
use crate::block::BlockCid;

/// A node of a repo's tree: a gap, then keys, each with the record that it has and the gap behind it. In a gap a further node may hang.
#[derive(Debug)]
pub struct RepoNode {
    keys: Keys,
    first: Option<BlockCid>,
    entries: Vec<RepoEntry>,
    layer: Option<u8>,
}

/// Where a node stands in its tree.
#[derive(Clone, Copy, Debug)]
pub enum NodePlace<'a> {
    /// At its top.
    Root,
    /// In a gap of a node above.
    Below {
        /// The node's layer, one less than that of the node above.
        layer: u8,
        /// The key before the gap, of whichever node; none where there is none.
        above: Option<&'a str>,
        /// The key behind it.
        below: Option<&'a str>,
    },
}

#[derive(Clone, Copy, Debug)]
struct RepoEntry {
    key: Place,
    record: BlockCid,
    behind: Option<BlockCid>,
}

// === impl RepoNode ===

impl RepoNode {
    /// Reads a node.
    ///
    /// # Errors
    /// It is not as the specification has it in this place, or its keys are longer than 4 MB together.
    pub fn read(block: &[u8], place: NodePlace<'_>) -> Result<Self, ProofFault> {
        let mut keys = Keys::default();
        let mut bounds = Bounds::default();
        let mut layer = None;
        if let NodePlace::Below { layer: own, above, below } = place {
            let mut hold = |key: Option<&str>| key.map(|key| keys.push(None, 0, key.as_bytes())).transpose();
            bounds = Bounds { above: hold(above).map_err(fault)?, below: hold(below).map_err(fault)? };
            layer = Some(own);
        }
        let (node, layer) = Node::read(block, &mut keys, bounds, layer).map_err(fault)?;
        let Node { first, entries } = node;
        match (&first, place) {
            _ if !entries.is_empty() => {}
            (Link::Empty, NodePlace::Root) | (Link::Stored(..), NodePlace::Below { .. }) => {}
            (_, NodePlace::Root) => return Err(ProofFault::Node { detail: "its root has no keys" }),
            _ => return Err(ProofFault::Node { detail: "a node below the root is empty" }),
        }
        let entries = entries.into_iter().map(|entry| RepoEntry {
            key: entry.key,
            record: BlockCid::from(entry.record),
            behind: child(&entry.behind),
        });
        let entries = entries.collect();
        Ok(Self { first: child(&first), entries, keys, layer })
    }

    /// Returns its layer; none of a tree without records.
    #[must_use]
    pub fn layer(&self) -> Option<u8> {
        self.layer
    }

    /// Returns how many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns a key, which is the path of a record, and its record's CID.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<(&str, BlockCid)> {
        let entry = self.entries.get(index)?;
        // A key is of letters, digits and marks of ASCII.
        let key = str::from_utf8(self.keys.get(entry.key)).ok()?;
        Some((key, entry.record))
    }

    /// Returns the node in a gap: 0 is the one before all keys, the others are those behind a key.
    #[must_use]
    pub fn gap(&self, index: usize) -> Option<BlockCid> {
        match index.checked_sub(1) {
            None => self.first,
            Some(entry) => self.entries.get(entry)?.behind,
        }
    }
}

fn child(link: &Link<'_>) -> Option<BlockCid> {
    match link {
        Link::Stored(cid, _) => Some(BlockCid::from(*cid)),
        Link::Empty | Link::Read(_) => None,
    }
}

fn fault(fault: NodeFault) -> ProofFault {
    match fault {
        NodeFault::Malformed(detail) => ProofFault::Node { detail },
        NodeFault::TooLarge => ProofFault::TooLarge,
    }
}
