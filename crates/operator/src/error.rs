//! What ends the operator.

use std::io;
use std::net::SocketAddr;

use penstock_telemetry::tasks::TaskError;
use thiserror::Error;

/// Names the action of the operator that failed.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// There is neither a service account nor a kubeconfig.
    #[error("could not configure access to the api server: run in a cluster, or set KUBECONFIG")]
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
    /// A task ended by itself.
    #[error(transparent)]
    Task(#[from] TaskError),
}
