//! What ends the operator.

use std::io;
use std::net::SocketAddr;

use penstock_telemetry::tasks::TaskError;
use thiserror::Error;

/// Names the action of the operator that failed.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// There is no way to the API server.
    #[error("could not find the way to the api server: run in a cluster, or give KUBECONFIG")]
    Connect(#[source] Box<kube::Error>),
    /// The address of the recommendations could not be bound.
    #[error("could not bind operator.address {address}")]
    Bind {
        /// The address as it was given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another operator leads, or may do so by now.
    #[error("lost the lease {lease}: {why}")]
    LeaseLost {
        /// The lease.
        lease: String,
        /// How it was lost.
        why: String,
    },
    /// A task ended before it was told to.
    #[error(transparent)]
    Task(#[from] TaskError),
}

/// Writes an error with what caused it, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
