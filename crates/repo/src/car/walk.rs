//! A whole tree, walked in the order of its keys, each node held to the specification in its place.
//!
//! A node below has a layer less, and keys between those around its gap: so the walk ends, and comes by no key twice.

use std::io;

use penstock_wire::{BlockCid, NodePlace, ProofFault, RepoNode};

use super::blocks::{BlockPlace, Blocks};

/// The way from the root to where the walk is.
#[derive(Debug)]
pub(super) struct Walk<'b> {
    blocks: &'b Blocks,
    levels: Vec<Level>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Level {
    node: RepoNode,
    layer: u8,
    /// What comes next: an even number is a gap, an odd one a key.
    next: usize,
    /// The keys around the node.
    above: Option<Box<str>>,
    below: Option<Box<str>>,
}

/// A record of the tree, and where its block lies.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: Box<str>,
    pub(super) place: BlockPlace,
}

/// Why a tree is none.
#[derive(Debug)]
pub(super) enum TreeFault {
    /// A block is not there.
    Missing(BlockCid),
    Node(ProofFault),
    Read(io::Error),
}

// === impl Walk ===

impl<'b> Walk<'b> {
    /// Begins at a root.
    pub(super) fn begin(blocks: &'b Blocks, root: &BlockCid) -> Result<Self, TreeFault> {
        let mut walk = Self { blocks, levels: Vec::new(), buffer: Vec::new() };
        let node = walk.node(root, NodePlace::Root)?;
        let layer = node.layer().unwrap_or_default();
        walk.levels.push(Level { node, layer, next: 0, above: None, below: None });
        Ok(walk)
    }

    fn node(&mut self, cid: &BlockCid, place: NodePlace<'_>) -> Result<RepoNode, TreeFault> {
        let found = self.blocks.find(cid, &mut self.buffer)?.ok_or(TreeFault::Missing(*cid))?;
        let (_, block) = self.blocks.read(found, &mut self.buffer)?;
        RepoNode::read(block, place).map_err(TreeFault::Node)
    }

    /// Returns the next record; none behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<Found>, TreeFault> {
        while let Some(level) = self.levels.last_mut() {
            let (index, is_key) = (level.next / 2, level.next % 2 == 1);
            level.next += 1;
            if is_key {
                let Some((path, record)) = level.node.entry(index) else {
                    self.levels.pop();
                    continue;
                };
                let path = path.into();
                let place = self.blocks.find(&record, &mut self.buffer)?.ok_or(TreeFault::Missing(record))?;
                return Ok(Some(Found { path, place }));
            }
            let Some(child) = level.node.gap(index) else { continue };
            let key = |index: Option<usize>, around: &Option<Box<str>>| match index.and_then(|at| level.node.entry(at))
            {
                Some((key, _)) => Some(Box::from(key)),
                None => around.clone(),
            };
            let above: Option<Box<str>> = key(index.checked_sub(1), &level.above);
            let below: Option<Box<str>> = key(Some(index), &level.below);
            // The node's own reader has seen to it that nothing hangs below the lowest layer.
            let layer = level.layer.saturating_sub(1);
            let place = NodePlace::Below { layer, above: above.as_deref(), below: below.as_deref() };
            let node = self.node(&child, place)?;
            self.levels.push(Level { node, layer, next: 0, above, below });
        }
        Ok(None)
    }
}

impl From<io::Error> for TreeFault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}
