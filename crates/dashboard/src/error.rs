//! What ends the dashboard.

use std::io;
use std::net::SocketAddr;

use penstock_telemetry::tasks::TaskError;

/// Names the action of the dashboard that failed.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// An address could not be bound.
    #[error("could not bind {address}, an address of the dashboard (DASHBOARD_ADDRESS, dashboard.extraAddresses)")]
    Bind {
        /// The address as it was given.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A task ended before it was told to.
    #[error(transparent)]
    Task(#[from] TaskError),
}
