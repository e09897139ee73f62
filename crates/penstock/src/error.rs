//! Why a command ends, and with which exit code.

use std::net::SocketAddr;
use std::path::PathBuf;

use penstock_core::settings::{FileError, SettingsError};
use penstock_telemetry::TelemetryError;
use thiserror::Error;

/// A bad flag, variable or settings file.
pub(crate) const USAGE: u8 = 64;

/// Anything else.
const FAILURE: u8 = 1;

/// Why a command ended without having done its work.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A setting is wrong.
    #[error("settings\n{0}")]
    Settings(SettingsError),
    /// The settings file is wrong.
    #[error(transparent)]
    SettingsFile(#[from] FileError),
    /// The settings file cannot be read.
    #[error("could not read the settings file {path}")]
    ReadSettingsFile {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A setting that this command needs is not set.
    #[error("{field} is not set: {how}")]
    Missing {
        /// The setting.
        field: &'static str,
        /// What to do.
        how: &'static str,
    },
    /// The log, the signals or the admin server did not start, or nobody answers there.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The runtime did not start.
    #[error("could not start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Ingest ended.
    #[error("ingest ended")]
    Ingest(#[from] penstock_ingest::IngestError),
    /// The worker ended.
    #[error("worker ended")]
    Worker(#[from] penstock_worker::WorkerError),
    /// The dashboard ended.
    #[error("dashboard ended")]
    Dashboard(#[from] penstock_dashboard::DashboardError),
    /// The operator ended.
    #[error("operator ended")]
    Operator(#[from] penstock_operator::OperatorError),
    /// The database was not migrated.
    #[error("could not migrate the database")]
    Migrate(#[from] penstock_worker::schema::SchemaError),
    /// The simulation did not run.
    #[error("could not simulate")]
    Simulate(#[from] penstock_autoscale::simulate::SimulateError),
    /// The output was not written.
    #[error("could not print")]
    Print(#[source] std::io::Error),
    /// The relay that serves a recording ended.
    #[error("replay ended")]
    Replay(#[from] penstock_replay::Error),
    /// A server of one's own did not start.
    #[error("could not start a server of our own")]
    Local(#[from] penstock_local::LocalError),
    /// The Redis of our own does not answer.
    #[error("could not use redis")]
    Redis(#[from] penstock_core::redis::RedisError),
    /// The data folder cannot be used.
    #[error("could not use the data folder {path}")]
    DataFolder {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A part ended by a panic.
    #[error("{part} ended")]
    Part {
        /// Which one.
        part: &'static str,
        /// How.
        source: tokio::task::JoinError,
    },
    /// The relay's port is taken by something else.
    #[error(
        "{address}, where this folder's recording is served, is taken: stop what listens there, or use another data folder"
    )]
    ReplayPort {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: Box<penstock_replay::Error>,
    },
}

// === impl Error ===

impl Error {
    /// Returns the exit code: 64 for what the caller wrote, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::SettingsFile(_) | Self::ReadSettingsFile { .. } | Self::Missing { .. } => USAGE,
            Self::Replay(penstock_replay::Error::Setting { .. }) => USAGE,
            Self::Telemetry(TelemetryError::ExportEndpoint { .. } | TelemetryError::ExportHeader { .. }) => USAGE,
            _ => FAILURE,
        }
    }
}

/// Writes an error with what caused it, each once.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = next.source();
    }
    text
}
