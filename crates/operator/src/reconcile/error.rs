//! Why a pipeline was not reconciled.

use std::time::Duration;

use thiserror::Error;

use crate::plan::PlanError;

use super::apply::{self, ApplyError};
use super::hash_key::HashKeyError;

/// How long one pipeline may take. A request has no end of its own where an API server died without a word.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Why a pipeline was not reconciled.
#[derive(Debug, Error)]
pub(super) enum ReconcileError {
    /// The API server does not answer, or the operator may not read Secrets.
    #[error("could not read the secrets")]
    Dereference(#[source] Box<kube::Error>),
    /// There is no key for the hashes of Secrets.
    #[error(transparent)]
    HashKey(#[from] HashKeyError),
    /// The resource is not valid as it is written.
    #[error(transparent)]
    Invalid(#[from] PlanError),
    /// A child is not as it should be.
    #[error(transparent)]
    Child(#[from] ApplyError),
    /// The finalizer was not written.
    #[error("could not write the finalizer")]
    Finalizer(#[source] Box<kube::Error>),
    /// Some request got no answer.
    #[error("the api server did not answer within {PATIENCE:?}")]
    Slow,
}

// === impl ReconcileError ===

impl ReconcileError {
    /// Returns the reason for the condition Ready, in one word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(source) if matches!(apply::code(source), 401 | 403) => "Forbidden",
            Self::Dereference(_) => "SecretsUnreadable",
            Self::HashKey(HashKeyError::Api { source, .. }) if matches!(apply::code(source), 401 | 403) => "Forbidden",
            Self::HashKey(_) => "HashKeyMissing",
            Self::Invalid(error) => error.reason(),
            Self::Child(error) => error.reason(),
            Self::Finalizer(_) => "FinalizerFailed",
            Self::Slow => "ApiServerSlow",
        }
    }
}
