//! The parts of a whole repo, for whoever reads one block by block: the header of its CAR, its signed commit, its records. The nodes of
//! its tree are [`RepoNode`](crate::RepoNode)s.

use crate::block::BlockCid;
use crate::car;
use crate::changes::refuse;
use crate::commit::{check_rev, read_commit};
use crate::error::{BadReason, quote};
use crate::json::write_record;
use crate::limits::{Limits, NESTING_READ};
use crate::proof::{Proof, ProofFault, Signed};
use crate::syntax;

/// The signed commit of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoCommit {
    /// The revision, a TID.
    pub rev: Box<str>,
    /// The root of the tree.
    pub root: BlockCid,
    /// What was signed, and the signature.
    pub signed: Signed,
}

/// Why a block is not the signed commit of a repo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitFault {
    /// It is another one's, or none.
    #[error(transparent)]
    Bad(BadReason),
    /// It is not as the specification has it.
    #[error(transparent)]
    Form(ProofFault),
}

/// Returns the commit that the header of a CAR names.
///
/// # Errors
/// It is not the header of a CARv1 with the CID of a commit.
pub fn car_root(header: &[u8]) -> Result<BlockCid, BadReason> {
    car::root_of(header).map(BlockCid::from)
}

/// Reads a record as the JSON that an event would carry.
///
/// # Errors
/// An event would not carry it: it is over a bound, no strict DAG-CBOR, or its path is none.
pub fn record_json(path: &str, block: &[u8], limits: &Limits) -> Result<String, BadReason> {
    if syntax::split_path(path).is_none() {
        return Err(BadReason::Path { path: quote(path) });
    }
    if block.len() > limits.record {
        return Err(BadReason::RecordTooLarge { len: block.len(), limit: limits.record, path: quote(path) });
    }
    let mut out = Vec::with_capacity(block.len() + block.len() / 4);
    let nesting = limits.nesting.min(NESTING_READ);
    write_record(&mut out, block, nesting).map_err(|fault| refuse(fault, path, nesting))?;
    if out.len() > limits.data {
        return Err(BadReason::DataTooLarge { limit: limits.data });
    }
    String::from_utf8(out).map_err(|_| BadReason::Record { path: quote(path), detail: "it is not utf-8".into() })
}

// === impl RepoCommit ===

impl RepoCommit {
    /// Reads the signed commit of a repo. Whose signature it is, is another question.
    ///
    /// # Errors
    /// It is another repo's, or not as the specification has it.
    pub fn read(block: &[u8], did: &str) -> Result<Self, CommitFault> {
        let rev = read_commit(block, did).map_err(CommitFault::Bad)?.rev;
        check_rev(rev).map_err(CommitFault::Bad)?;
        let Proof { data, signed, fault, .. } = Proof::of_sync(block, rev);
        match fault {
            Some(fault) => Err(CommitFault::Form(fault)),
            None => Ok(Self { rev: rev.into(), root: BlockCid::dag_cbor(&data), signed }),
        }
    }
}
