//! Why a repo was not read.

use std::io;
use std::time::Duration;

use penstock_core::causes::innermost;
use penstock_identity::ResolveError;
use penstock_wire::SignatureFault;
use thiserror::Error;

use crate::car::intake::IntakeFault;
use crate::car::spool::Budget;

/// Why a repo, or what a host says of it, could not be had.
#[derive(Debug, Error)]
pub enum RepoError {
    /// Whose it is could not be resolved.
    #[error("the account could not be resolved: {0}")]
    Identity(ResolveError),
    /// The account's document names no host that can be used.
    #[error("the account's document names no host")]
    NoHost,
    /// The account's document has no key that can be used, so that nothing can be verified.
    #[error("the account's document has no signing key")]
    NoKey,
    /// The host has no such repo.
    #[error("{host} has no such repo")]
    NotFound {
        /// Its name.
        host: Box<str>,
    },
    /// The repo has no such record.
    #[error("{host} has no such record")]
    NoRecord {
        /// Its name.
        host: Box<str>,
    },
    /// The host does not have a method of the protocol.
    #[error("{host} does not have {method}")]
    Unsupported {
        /// Its name.
        host: Box<str>,
        /// The method.
        method: &'static str,
    },
    /// The host does not show the repo.
    #[error("{host} does not show the repo: {status}")]
    Inactive {
        /// Its name.
        host: Box<str>,
        /// Why: `deactivated`, `takendown` or `suspended`.
        status: &'static str,
    },
    /// The host gave no answer, or a failure, and is left alone for a while.
    #[error("{host} {why}")]
    Unreachable {
        /// Its name.
        host: Box<str>,
        /// What happened.
        why: Box<str>,
        /// How long it is left alone.
        retry_after: Duration,
    },
    /// The host asks for fewer requests.
    #[error("{host} allows no request for {} s", retry_after.as_secs())]
    Limited {
        /// Its name.
        host: Box<str>,
        /// How long it asks to be left alone.
        retry_after: Duration,
    },
    /// Others are asking the host for as much as it is asked at once.
    #[error("too many requests wait for {host}")]
    Busy {
        /// Its name.
        host: Box<str>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The host may not be asked, or says something that is no answer.
    #[error("{host} {why}")]
    Refused {
        /// Its name.
        host: Box<str>,
        /// What is wrong.
        why: Box<str>,
    },
    /// What the host sent ended early.
    #[error("{host} sent only a part of the repo: {why}")]
    Cut {
        /// Its name.
        host: Box<str>,
        /// How it ended.
        why: Box<str>,
    },
    /// The host sends too slowly.
    #[error("{host} sends too slowly")]
    Slow {
        /// Its name.
        host: Box<str>,
    },
    /// The repo is larger than allowed.
    #[error("the repo is over {limit} {what}")]
    TooLarge {
        /// What there is too much of: `bytes (heal.repoBytes)` or `blocks`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// What the host sent is no CAR of a repo.
    #[error("{host} sent what is not a repo's CAR: {detail}")]
    Car {
        /// Its name.
        host: Box<str>,
        /// What is wrong with it.
        detail: Box<str>,
    },
    /// A block is not what its CID says.
    #[error("{host} sent a block that is not what its CID says: {cid}")]
    Hash {
        /// The host's name.
        host: Box<str>,
        /// The CID.
        cid: Box<str>,
    },
    /// A block is not there, of which the tree says that it is.
    #[error("{host} did not send a block of the repo: {cid}")]
    BlockMissing {
        /// The host's name.
        host: Box<str>,
        /// The CID.
        cid: Box<str>,
    },
    /// The tree is not as the specification has it.
    #[error("{host} sent a tree that is not as the specification has it: {detail}")]
    Tree {
        /// The host's name.
        host: Box<str>,
        /// What is wrong with it.
        detail: Box<str>,
    },
    /// The signed commit is not one of this repo.
    #[error("{host} sent another commit than the repo's: {detail}")]
    Commit {
        /// The host's name.
        host: Box<str>,
        /// What is wrong with it.
        detail: Box<str>,
    },
    /// The account's key did not sign the commit.
    #[error("{host} sent a commit that the account's key did not sign: {fault}")]
    Signature {
        /// The host's name.
        host: Box<str>,
        /// What is wrong with it.
        fault: SignatureFault,
    },
    /// The host offers no CAR of the repo, so that nothing of it is proven, and only what is proven was wanted.
    #[error("{host} has no CAR of the repo, so that nothing of it is proven")]
    Unproven {
        /// The host's name.
        host: Box<str>,
    },
    /// The repo changed while its records were listed, each time.
    #[error("{host} changed the repo while its records were listed")]
    Changed {
        /// The host's name.
        host: Box<str>,
    },
    /// What does not fit into memory could not be written or read.
    #[error("the file of a repo in {folder} (heal.folder) could not be used: {}", innermost(.source))]
    Spill {
        /// The folder.
        folder: Box<str>,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The process ends.
    #[error("the repo was not read to its end, because the process ends")]
    Ended,
}

// === impl RepoError ===

impl RepoError {
    /// Names it for the label of a metric, one of a fixed set.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::NoHost => "no_host",
            Self::NoKey => "no_key",
            Self::NotFound { .. } => "not_found",
            Self::NoRecord { .. } => "no_record",
            Self::Unsupported { .. } => "unsupported",
            Self::Inactive { .. } => "inactive",
            Self::Unreachable { .. } => "unreachable",
            Self::Limited { .. } => "limited",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::Cut { .. } => "cut",
            Self::Slow { .. } => "slow",
            Self::TooLarge { .. } => "too_large",
            Self::Car { .. } => "car",
            Self::Hash { .. } => "hash",
            Self::BlockMissing { .. } => "block_missing",
            Self::Tree { .. } => "tree",
            Self::Commit { .. } => "commit",
            Self::Signature { .. } => "signature",
            Self::Unproven { .. } => "unproven",
            Self::Changed { .. } => "changed",
            Self::Spill { .. } => "spill",
            Self::Ended => "ended",
        }
    }

    /// Returns whether asking again soon is of no use: who was asked said so, or will say the same again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Identity(error) => error.is_final(),
            Self::NoRecord { .. } | Self::Unsupported { .. } => true,
            Self::NoHost | Self::NoKey | Self::NotFound { .. } | Self::Inactive { .. } | Self::Refused { .. } => true,
            Self::TooLarge { .. } | Self::Car { .. } | Self::Hash { .. } | Self::BlockMissing { .. } => true,
            Self::Tree { .. } | Self::Commit { .. } | Self::Signature { .. } | Self::Unproven { .. } => true,
            Self::Unreachable { .. } | Self::Limited { .. } | Self::Busy { .. } | Self::Cut { .. } => false,
            Self::Slow { .. } | Self::Changed { .. } | Self::Spill { .. } | Self::Ended => false,
        }
    }

    /// Returns how long its host is left alone, where that is known: an earlier try comes to the same.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. }
            | Self::Limited { retry_after, .. }
            | Self::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Returns whether a mirror may have what the repo's own host has not. Where that says that there is no repo to be shown, there is none.
    pub(crate) fn is_of_host(&self) -> bool {
        !matches!(
            self,
            Self::Identity(_)
                | Self::NoKey
                | Self::NotFound { .. }
                | Self::Inactive { .. }
                | Self::TooLarge { .. }
                | Self::Spill { .. }
                | Self::Ended
        )
    }

    /// Returns whether the account may be with another host by now.
    pub(crate) fn may_have_moved(&self) -> bool {
        matches!(
            self,
            Self::NoHost
                | Self::NotFound { .. }
                | Self::Inactive { .. }
                | Self::Refused { .. }
                | Self::Unreachable { .. }
        )
    }

    pub(crate) fn spill(budget: &Budget, source: io::Error) -> Self {
        Self::Spill { folder: budget.folder().to_string_lossy().into(), source }
    }

    /// Says what is wrong with what a host sent.
    pub(crate) fn of_intake(fault: IntakeFault, host: &str, budget: &Budget) -> Self {
        let host: Box<str> = host.into();
        match fault {
            IntakeFault::Car(detail) => Self::Car { host, detail },
            IntakeFault::Cut => Self::Cut { host, why: "it ends within a section".into() },
            IntakeFault::Hash(cid) => Self::Hash { host, cid: cid.to_string().into() },
            IntakeFault::Missing(cid) => Self::BlockMissing { host, cid: cid.to_string().into() },
            IntakeFault::Commit(fault) => Self::Commit { host, detail: fault.to_string().into() },
            IntakeFault::Tree(fault) => Self::Tree { host, detail: fault.to_string().into() },
            IntakeFault::TooLarge { what, limit } => Self::TooLarge { what, limit },
            IntakeFault::Spill(source) => Self::spill(budget, source),
        }
    }
}
