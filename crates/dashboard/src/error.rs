//! What ends the dashboard.

use std::io;
use std::net::SocketAddr;

/// Names the action of the dashboard that failed.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// An address could not be bound.
    #[error("could not bind the dashboard address {address}")]
    Bind {
        /// The address as it was given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A task that must run as long as the service ended before it.
    #[error("the task {task} ended by itself")]
    TaskEnded {
        /// Its name.
        task: &'static str,
    },
    /// A task panicked.
    #[error("the task {task} failed")]
    TaskFailed {
        /// Its name.
        task: &'static str,
        /// How it ended.
        source: tokio::task::JoinError,
    },
}
