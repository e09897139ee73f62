//! A commit's ops undone on its tree, of which only the blocks are there that the commit brings.
//!
//! A tree is determined by its keys and records, so that it does not matter in which order ops are undone. They are all undone
//! in one walk from the top: a node's keys that were created go, and what hung on both sides of them is joined; keys that were
//! deleted come back, and what hung in their place is split. What no op touches is not read.

use std::cmp::Ordering;

use super::fault;
use super::fault::ProofFault;
use super::node::{Bounds, EMPTY_TREE, Entry, Keys, Link, Node, NodeFault, Place, layer_of};
use crate::car::Car;
use crate::cid::Cid;

/// An op, told backwards: what the key has now, and what it had before.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) key: Place,
    pub(super) layer: u8,
    /// The record that the op says is there now; none where it deleted it.
    pub(super) now: Option<Cid<'a>>,
    /// The record that was there before; none where the op created it.
    pub(super) before: Option<Cid<'a>>,
}

/// The tree of a commit.
#[derive(Debug)]
pub(super) struct Tree<'a, 'c> {
    car: &'c Car<'a>,
    pub(super) keys: Keys,
}

// === impl Change ===

impl Change<'_> {
    /// Says whether undoing the op brings a key back.
    fn is_insert(&self) -> bool {
        self.now.is_none()
    }
}

// === impl Tree ===

impl<'a, 'c> Tree<'a, 'c> {
    pub(super) fn new(car: &'c Car<'a>) -> Self {
        Self { car, keys: Keys::default() }
    }

    /// Holds the path of an op as a key.
    pub(super) fn change(
        &mut self,
        path: &'a str,
        now: Option<Cid<'a>>,
        before: Option<Cid<'a>>,
    ) -> Result<Change<'a>, ProofFault> {
        let key = self.keys.push(None, 0, path.as_bytes()).map_err(node_fault)?;
        Ok(Change { key, layer: layer_of(path.as_bytes()), now, before })
    }

    /// Undoes changes, sorted by key, and returns the digest of the root before them.
    pub(super) fn undo(&mut self, root: Cid<'a>, changes: &[Change<'a>]) -> Result<[u8; 32], ProofFault> {
        // Where nothing changes, the tree is the one before: servers do not send its root then.
        if changes.is_empty() {
            return Ok(root.sha256());
        }
        let (mut link, layer) = self.root(root)?;
        let highest = changes.iter().filter(|change| change.is_insert()).map(|change| change.layer).max();
        let (mut top, highest) = match (layer, highest) {
            (Some(layer), highest) => (layer, highest.unwrap_or(layer).max(layer)),
            (None, Some(highest)) => (highest, highest),
            // An op says of an empty tree that it is not.
            (None, None) => (0, 0),
        };
        // What comes back may stand above all that is there now.
        while top < highest {
            link = Node { first: link, entries: Vec::new() }.into_link();
            top += 1;
        }
        let mut link = self.undo_below(link, Some(top), changes)?;
        // Nodes without keys at the top are none of the tree.
        loop {
            link = match link {
                Link::Empty => return Ok(EMPTY_TREE),
                Link::Read(node) if node.entries.is_empty() => node.first,
                Link::Read(node) => return Ok(node.digest(&self.keys, &mut Vec::with_capacity(4_096))),
                // If it is not there, then because nothing in it changed: it is the root, or the root is not the right one.
                Link::Stored(cid, _) if self.car.block(cid).is_none() => return Ok(cid.sha256()),
                Link::Stored(cid, bounds) => {
                    let node = self.load(Link::Stored(cid, bounds), None)?;
                    if !node.entries.is_empty() {
                        return Ok(cid.sha256());
                    }
                    node.first
                }
            };
        }
    }

    /// Holds changes against the tree, without undoing them: what is there now has to be there, as far as blocks are.
    pub(super) fn check(&mut self, root: Cid<'a>, changes: &[Change<'a>]) -> Result<(), ProofFault> {
        if changes.is_empty() {
            return Ok(());
        }
        let (link, layer) = self.root(root)?;
        self.check_below(link, layer, changes)
    }

    fn root(&mut self, root: Cid<'a>) -> Result<(Link<'a>, Option<u8>), ProofFault> {
        let block = self.car.block(root).ok_or_else(|| missing(root))?;
        let (node, layer) = Node::read(block, &mut self.keys, Bounds::default(), None).map_err(node_fault)?;
        if node.entries.is_empty() && !matches!(node.first, Link::Empty) {
            return Err(ProofFault::Node { detail: "its root has no keys" });
        }
        Ok((node.into_link(), layer))
    }

    /// Returns the node in a gap; an empty one, where there is none.
    fn load(&mut self, link: Link<'a>, layer: Option<u8>) -> Result<Node<'a>, ProofFault> {
        let (cid, bounds) = match link {
            Link::Empty => return Ok(Node::default()),
            Link::Read(node) => return Ok(*node),
            Link::Stored(cid, bounds) => (cid, bounds),
        };
        let block = self.car.block(cid).ok_or_else(|| missing(cid))?;
        let (node, _) = Node::read(block, &mut self.keys, bounds, layer).map_err(node_fault)?;
        if node.entries.is_empty() && matches!(node.first, Link::Empty) {
            return Err(ProofFault::Node { detail: "a node below the root is empty" });
        }
        Ok(node)
    }

    /// Undoes the changes of keys that lie in a gap. `layer` is that of the node in it; none below the lowest.
    fn undo_below(
        &mut self,
        link: Link<'a>,
        layer: Option<u8>,
        changes: &[Change<'a>],
    ) -> Result<Link<'a>, ProofFault> {
        let Some(first) = changes.first() else { return Ok(link) };
        let Some(layer) = layer else { return Err(self.absent(first)) };
        let Node { first, entries } = self.load(link, Some(layer))?;
        let mut undone = Node { first: Link::Empty, entries: Vec::with_capacity(entries.len() + 1) };
        let mut gap = first;
        let mut rest = changes;
        for Entry { key, record, behind } in entries {
            let (inside, after) = self.split_changes(rest, key);
            self.undo_gap(&mut undone, gap, layer, inside)?;
            gap = behind;
            rest = after;
            let change = rest.first().filter(|change| self.keys.get(change.key) == self.keys.get(key));
            let Some(change) = change else {
                undone.entries.push(Entry { key, record, behind: Link::Empty });
                continue;
            };
            rest = rest.get(1..).unwrap_or_default();
            if change.now != Some(record) {
                return Err(self.other(change));
            }
            if let Some(record) = change.before {
                undone.entries.push(Entry { key, record, behind: Link::Empty });
            }
        }
        self.undo_gap(&mut undone, gap, layer, rest)?;
        Ok(undone.into_link())
    }

    /// Undoes the changes between two keys of a node, and hangs what comes of the gap behind what is undone already.
    fn undo_gap(
        &mut self,
        undone: &mut Node<'a>,
        gap: Link<'a>,
        layer: u8,
        changes: &[Change<'a>],
    ) -> Result<(), ProofFault> {
        let below = layer.checked_sub(1);
        let is_here = |change: &Change<'_>| change.layer == layer;
        if !changes.iter().any(is_here) {
            // What is above this layer was found there, or does not stand in the tree.
            if let Some(change) = changes.iter().find(|change| change.layer > layer) {
                return Err(self.absent(change));
            }
            let gap = self.undo_below(gap, below, changes)?;
            return self.hang(undone, gap, below);
        }
        let mut back: Vec<&Change<'a>> = Vec::new();
        for change in changes.iter().filter(|change| change.layer >= layer) {
            if change.layer > layer || !change.is_insert() {
                return Err(self.absent(change));
            }
            back.push(change);
        }
        let places: Vec<Place> = back.iter().map(|change| change.key).collect();
        let mut pieces = self.split(gap, below, &places)?.into_iter();
        let mut parts = changes.split(is_here);
        let mut back = back.into_iter();
        while let (Some(piece), Some(part)) = (pieces.next(), parts.next()) {
            let piece = self.undo_below(piece, below, part)?;
            self.hang(undone, piece, below)?;
            let Some(change) = back.next() else { break };
            if let Some(record) = change.before {
                undone.entries.push(Entry { key: change.key, record, behind: Link::Empty });
            }
        }
        Ok(())
    }

    /// Hangs a subtree behind a node's last key, joined with what hangs there.
    fn hang(&mut self, node: &mut Node<'a>, gap: Link<'a>, layer: Option<u8>) -> Result<(), ProofFault> {
        let last = node.last_gap();
        let held = std::mem::take(last);
        let joined = self.join(held, gap, layer)?;
        *node.last_gap() = joined;
        Ok(())
    }

    /// Joins two subtrees between which there is no key any more.
    fn join(&mut self, left: Link<'a>, right: Link<'a>, layer: Option<u8>) -> Result<Link<'a>, ProofFault> {
        let (left, right) = match (left, right) {
            (Link::Empty, other) | (other, Link::Empty) => return Ok(other),
            both => both,
        };
        let mut left = self.load(left, layer)?;
        let right = self.load(right, layer)?;
        self.hang(&mut left, right.first, layer.and_then(|layer| layer.checked_sub(1)))?;
        left.entries.extend(right.entries);
        Ok(Link::Read(Box::new(left)))
    }

    /// Splits a subtree at keys that it does not have, into one part more than there are keys.
    fn split(&mut self, link: Link<'a>, layer: Option<u8>, at: &[Place]) -> Result<Vec<Link<'a>>, ProofFault> {
        if at.is_empty() {
            return Ok(vec![link]);
        }
        if matches!(link, Link::Empty) {
            return Ok(std::iter::repeat_with(Link::default).take(at.len() + 1).collect());
        }
        let Node { first, entries } = self.load(link, layer)?;
        let below = layer.and_then(|layer| layer.checked_sub(1));
        let mut pieces = Vec::with_capacity(at.len() + 1);
        let mut piece = Node::default();
        let mut gap = first;
        let mut rest = at;
        let mut entries = entries.into_iter();
        loop {
            let entry = entries.next();
            let inside = match &entry {
                Some(entry) => {
                    let end = rest.partition_point(|place| self.keys.get(*place) < self.keys.get(entry.key));
                    let (inside, after) = rest.split_at(end);
                    rest = after;
                    inside
                }
                None => rest,
            };
            if inside.is_empty() {
                *piece.last_gap() = gap;
            } else {
                for (index, part) in self.split(gap, below, inside)?.into_iter().enumerate() {
                    if index > 0 {
                        pieces.push(std::mem::take(&mut piece).into_link());
                    }
                    *piece.last_gap() = part;
                }
            }
            let Some(Entry { key, record, behind }) = entry else { break };
            piece.entries.push(Entry { key, record, behind: Link::Empty });
            gap = behind;
        }
        pieces.push(piece.into_link());
        Ok(pieces)
    }

    fn check_below(&mut self, link: Link<'a>, layer: Option<u8>, changes: &[Change<'a>]) -> Result<(), ProofFault> {
        let Some(first) = changes.first() else { return Ok(()) };
        let is_stored = |link: &Link<'a>| matches!(link, Link::Stored(cid, _) if self.car.block(*cid).is_none());
        if is_stored(&link) {
            // A commit brings the nodes in which its records are; in others it may be that nothing is.
            let there = changes.iter().find(|change| change.now.is_some());
            return match (there, link) {
                (Some(_), Link::Stored(cid, _)) => Err(missing(cid)),
                _ => Ok(()),
            };
        }
        if matches!(link, Link::Empty) {
            let there = changes.iter().find(|change| change.now.is_some());
            return there.map_or(Ok(()), |change| Err(self.absent(change)));
        }
        let Some(layer) = layer else { return Err(self.absent(first)) };
        let Node { first, entries } = self.load(link, Some(layer))?;
        let below = layer.checked_sub(1);
        let mut gap = first;
        let mut rest = changes;
        for Entry { key, record, behind } in entries {
            let (inside, after) = self.split_changes(rest, key);
            self.check_below(gap, below, inside)?;
            gap = behind;
            rest = after;
            if let Some(change) = rest.first().filter(|change| self.keys.get(change.key) == self.keys.get(key)) {
                if change.now != Some(record) {
                    return Err(self.other(change));
                }
                rest = rest.get(1..).unwrap_or_default();
            }
        }
        self.check_below(gap, below, rest)
    }

    /// Splits sorted changes into those before a key and the others.
    fn split_changes<'s>(&self, changes: &'s [Change<'a>], key: Place) -> (&'s [Change<'a>], &'s [Change<'a>]) {
        // As a rule there is one change, or none.
        let end = match changes {
            [] => 0,
            _ => changes.partition_point(|change| self.keys.get(change.key).cmp(self.keys.get(key)) == Ordering::Less),
        };
        changes.split_at(end)
    }

    /// Says that a key is not there, of which an op says that it is.
    fn absent(&self, change: &Change<'_>) -> ProofFault {
        ProofFault::Absent { path: self.path(change) }
    }

    /// Says that a key has another record than the op says.
    fn other(&self, change: &Change<'_>) -> ProofFault {
        let path = self.path(change);
        if change.now.is_none() { ProofFault::Present { path } } else { ProofFault::OtherRecord { path } }
    }

    pub(super) fn path(&self, change: &Change<'_>) -> Box<str> {
        fault::path(str::from_utf8(self.keys.get(change.key)).unwrap_or_default())
    }
}

fn missing(cid: Cid<'_>) -> ProofFault {
    ProofFault::BlockMissing { cid: cid.text().as_str().into() }
}

fn node_fault(fault: NodeFault) -> ProofFault {
    match fault {
        NodeFault::Malformed(detail) => ProofFault::Node { detail },
        NodeFault::TooLarge => ProofFault::TooLarge,
    }
}
