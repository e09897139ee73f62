//! What can be wrong with a commit's proof.

use thiserror::Error;

use crate::error::quote;

/// The first thing that is wrong with what a commit claims.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofFault {
    /// The signed commit is not as the specification has it.
    #[error("signed commit is not as the specification has it: {detail}")]
    Commit {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// An op lacks a field that its action needs, or has one that it must not have.
    #[error("op is not as its action demands: {detail}: {path}")]
    Op {
        /// What is wrong with it.
        detail: &'static str,
        /// The record's path.
        path: Box<str>,
    },
    /// Two ops are of one record, and the second does not follow from the first.
    #[error("record has two ops that do not follow each other: {path}")]
    Duplicate {
        /// The record's path.
        path: Box<str>,
    },
    /// There are more ops than are held.
    #[error("{count} ops are too many to be proved")]
    TooManyOps {
        /// How many there are.
        count: usize,
    },
    /// An op creates or updates a record that the tree does not have.
    #[error("record is not in the tree: {path}")]
    Absent {
        /// The record's path.
        path: Box<str>,
    },
    /// An op deletes a record that the tree has.
    #[error("record is still in the tree: {path}")]
    Present {
        /// The record's path.
        path: Box<str>,
    },
    /// The tree has another record than the op says.
    #[error("record in the tree is another one: {path}")]
    OtherRecord {
        /// The record's path.
        path: Box<str>,
    },
    /// A node of the tree is not as the specification has it.
    #[error("tree is not as the specification has it: {detail}")]
    Node {
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A node that the proof needs is not in the frame.
    #[error("block of the tree is missing: {cid}")]
    BlockMissing {
        /// The node's CID.
        cid: Box<str>,
    },
    /// The tree's keys are larger than what is held of one commit.
    #[error("tree is too large to be proved")]
    TooLarge,
    /// Undone, the ops do not lead to the tree that the frame says was there before.
    #[error("ops do not lead back to prevData")]
    PrevData,
}

// === impl ProofFault ===

impl ProofFault {
    /// Returns a word for metrics, one of a fixed set.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Commit { .. } => "commit",
            Self::Op { .. } => "op",
            Self::Duplicate { .. } => "duplicate",
            Self::TooManyOps { .. } => "too_many_ops",
            Self::Absent { .. } => "absent",
            Self::Present { .. } => "present",
            Self::OtherRecord { .. } => "other_record",
            Self::Node { .. } => "node",
            Self::BlockMissing { .. } => "block_missing",
            Self::TooLarge => "too_large",
            Self::PrevData => "prev_data",
        }
    }
}

/// Shortens a path that is told.
pub(super) fn path(path: &str) -> Box<str> {
    quote(path)
}
