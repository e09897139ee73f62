//! A CAR as it arrives, and what becomes of it at its end.

use std::io;
use std::sync::Arc;

use penstock_wire::{BlockCid, CommitFault, ProofFault, RepoCommit, car_root};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blocks::Blocks;
use super::sections::{LONGEST, SectionFault, Sections};
use super::spool::{Budget, Spool};
use super::walk::{TreeFault, Walk};
use crate::records::{Records, Writer};

/// The most blocks of a repo: some twelve million records, and 256 MiB of memory while they are read.
const BLOCKS: usize = 16 * 1024 * 1024;

/// From so many blocks on a repo is read while no other of this size is: 32 MiB of memory.
const GIANT: usize = 2 * 1024 * 1024;

/// What repos are read within, all of a process together.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The most bytes of one repo.
    pub(crate) bytes: u64,
    /// The most blocks of one repo.
    pub(crate) blocks: usize,
    pub(crate) budget: Arc<Budget>,
    giants: Arc<Semaphore>,
}

/// A CAR that is being received.
#[derive(Debug)]
pub(crate) struct Intake {
    did: Box<str>,
    bounds: Bounds,
    sections: Sections,
    content: Content,
}

/// What was received of it.
#[derive(Debug)]
struct Content {
    root: Option<BlockCid>,
    blocks: Blocks,
    bytes: u64,
    giant: Option<OwnedSemaphorePermit>,
}

/// A CAR that is whole, and whose tree is: only the signature is not held against a key yet.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) commit: RepoCommit,
    pub(crate) records: Records,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Why a CAR is no repo.
#[derive(Debug, Error)]
pub(crate) enum IntakeFault {
    #[error("{0}")]
    Car(Box<str>),
    #[error("it ends within a section")]
    Cut,
    #[error("a block is not what its cid says: {0}")]
    Hash(BlockCid),
    #[error("a block is missing: {0}")]
    Missing(BlockCid),
    #[error("{0}")]
    Commit(CommitFault),
    #[error("{0}")]
    Tree(ProofFault),
    #[error("it is over {limit} {what}")]
    TooLarge { what: &'static str, limit: u64 },
    #[error("it could not be laid down")]
    Spill(#[from] io::Error),
}

// === impl Bounds ===

impl Bounds {
    pub(crate) fn new(bytes: u64, budget: Budget) -> Self {
        Self { bytes, blocks: BLOCKS, budget: Arc::new(budget), giants: Arc::new(Semaphore::new(1)) }
    }
}

// === impl Intake ===

impl Intake {
    /// Begins to receive the CAR of a repo.
    pub(crate) fn new(did: &str, bounds: &Bounds) -> Self {
        let blocks = Blocks::new(Arc::clone(&bounds.budget));
        let content = Content { root: None, blocks, bytes: 0, giant: None };
        Self { did: did.into(), bounds: bounds.clone(), sections: Sections::default(), content }
    }

    /// Takes the next piece. Blocks the thread: it hashes, and may write to the disk.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), IntakeFault> {
        let Self { sections, content, bounds, .. } = self;
        content.bytes += piece.len() as u64;
        if content.bytes > bounds.bytes {
            return Err(IntakeFault::TooLarge { what: "bytes (heal.repoBytes)", limit: bounds.bytes });
        }
        sections.push(piece, |section| content.take(section, bounds))
    }

    /// Ends it: everything has to be there, and as it should be. Blocks the thread.
    pub(crate) fn finish(self) -> Result<Whole, IntakeFault> {
        let Self { did, bounds, sections, content } = self;
        let Content { root, mut blocks, bytes, giant } = content;
        let root = root.filter(|_| sections.is_whole()).ok_or(IntakeFault::Cut)?;
        blocks.finish()?;
        let mut buffer = Vec::new();
        let place = blocks.find(&root, &mut buffer)?.ok_or(IntakeFault::Missing(root))?;
        let (_, block) = blocks.read(place, &mut buffer)?;
        let commit = RepoCommit::read(block, &did).map_err(IntakeFault::Commit)?;
        let mut order = Writer::new(Spool::new(Arc::clone(&bounds.budget)));
        let mut walk = Walk::begin(&blocks, &commit.root)?;
        let mut count = 0;
        while let Some(found) = walk.next()? {
            order.place(&found.path, found.place)?;
            count += 1;
        }
        drop(walk);
        blocks.forget();
        drop(giant);
        Ok(Whole { commit, records: order.finish(Some(blocks))?, count, bytes })
    }
}

// === impl Content ===

impl Content {
    fn take(&mut self, section: &[u8], bounds: &Bounds) -> Result<(), IntakeFault> {
        if self.root.is_none() {
            self.root = Some(car_root(section).map_err(|reason| IntakeFault::Car(reason.to_string().into()))?);
            return Ok(());
        }
        let Some((cid, block)) = BlockCid::take(section) else {
            return Err(IntakeFault::Car("a block's cid is not version 1 with sha-256".into()));
        };
        if !cid.is_of(block) {
            return Err(IntakeFault::Hash(cid));
        }
        if self.blocks.len() == bounds.blocks {
            return Err(IntakeFault::TooLarge { what: "blocks", limit: bounds.blocks as u64 });
        }
        if self.blocks.len() == GIANT
            && let Ok(runtime) = Handle::try_current()
        {
            self.giant = runtime.block_on(Arc::clone(&bounds.giants).acquire_owned()).ok();
        }
        Ok(self.blocks.add(&cid, section)?)
    }
}

// === impl IntakeFault ===

impl From<SectionFault> for IntakeFault {
    fn from(fault: SectionFault) -> Self {
        match fault {
            SectionFault::Malformed(detail) => Self::Car(detail.into()),
            SectionFault::TooLong(len) => Self::Car(format!("a block of {len} bytes is over {LONGEST}").into()),
        }
    }
}

impl From<TreeFault> for IntakeFault {
    fn from(fault: TreeFault) -> Self {
        match fault {
            TreeFault::Missing(cid) => Self::Missing(cid),
            TreeFault::Node(fault) => Self::Tree(fault),
            TreeFault::Read(error) => Self::Spill(error),
        }
    }
}
