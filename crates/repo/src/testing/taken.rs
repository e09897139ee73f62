//! A CAR that is taken from memory, as one is that arrives.

use penstock_wire::BlockCid;

use crate::car::intake::{Bounds, Intake, IntakeFault, Whole};
use crate::car::spool::Budget;
use crate::records::{RepoRecord, Unfit};

/// What a CAR was found to hold, but for the signature.
#[derive(Debug)]
pub struct Taken {
    /// The rev of its commit.
    pub rev: Box<str>,
    /// The root of its tree.
    pub root: BlockCid,
    /// How many records its tree has.
    pub count: u64,
    /// Those that an event could carry.
    pub records: Vec<RepoRecord>,
    /// The first of the others.
    pub unfit: Vec<Unfit>,
}

/// Takes a CAR in pieces of this size, and reads it whole.
///
/// # Errors
/// Why it is no repo of this account.
pub fn take(did: &str, car: &[u8], piece: usize) -> Result<Taken, String> {
    let bounds = Bounds::new(1 << 30, Budget::new(1 << 30, std::env::temp_dir()));
    taken(did, car, piece, &bounds).map_err(|fault| fault.to_string())
}

fn taken(did: &str, car: &[u8], piece: usize, bounds: &Bounds) -> Result<Taken, IntakeFault> {
    let mut intake = Intake::new(did, bounds);
    for piece in car.chunks(piece.max(1)) {
        intake.push(piece)?;
    }
    let Whole { commit, mut records, count, .. } = intake.finish()?;
    let mut found = Vec::new();
    loop {
        let next = records.next(1_000, 1 << 20)?;
        if next.is_empty() {
            break;
        }
        found.extend(next);
    }
    Ok(Taken { rev: commit.rev, root: commit.root, count, records: found, unfit: records.unfit })
}
