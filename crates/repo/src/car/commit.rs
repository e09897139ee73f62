//! A signed commit in the CAR of a few blocks.

use penstock_wire::{BlockCid, RepoCommit};

use super::intake::IntakeFault;
use super::sections::Sections;

/// Finds the commit of this CID, and reads it. The header names no root there: who asks for blocks names them.
pub(crate) fn read(car: &[u8], cid: &str, did: &str) -> Result<RepoCommit, IntakeFault> {
    let mut sections = Sections::default();
    let (mut is_header, mut found) = (true, None);
    sections.push(car, |section| {
        if std::mem::take(&mut is_header) {
            return Ok(());
        }
        let Some((of, block)) = BlockCid::take(section) else {
            return Err(IntakeFault::Car("a block's cid is not version 1 with sha-256".into()));
        };
        if of.to_string() == cid {
            if !of.is_of(block) {
                return Err(IntakeFault::Hash(of));
            }
            found = Some(RepoCommit::read(block, did).map_err(IntakeFault::Commit)?);
        }
        Ok(())
    })?;
    if !sections.is_whole() {
        return Err(IntakeFault::Cut);
    }
    found.ok_or_else(|| IntakeFault::Car("the commit that was asked for is not in it".into()))
}
