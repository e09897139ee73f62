//! Why a command ends, and with which exit code.

use std::net::SocketAddr;
use std::path::PathBuf;

use penstock_core::settings::{FileError, SettingsError};
use penstock_heal::{HealError, PutError};
use penstock_telemetry::TelemetryError;
use penstock_worker::schema::SchemaError;
use thiserror::Error;

/// A bad flag, variable or settings file.
pub(crate) const USAGE: u8 = 64;

/// PostgreSQL cannot be reached, or refuses the connection; the operator tells it from a migration that fails.
const UNAVAILABLE: u8 = 69;

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
    /// What draws, tells or follows a pipeline ended.
    #[error(transparent)]
    Console(#[from] penstock_console::ConsoleError),
    /// The runtime did not start.
    #[error("could not start the runtime")]
    Runtime(#[source] std::io::Error),
    /// Ingest ended.
    #[error("ingest ended")]
    Ingest(#[from] penstock_ingest::IngestError),
    /// The worker ended.
    #[error("worker ended")]
    Worker(#[from] penstock_worker::WorkerError),
    /// The healer, a backfill or an audit ended.
    #[error(transparent)]
    Heal(#[from] penstock_heal::HealError),
    /// The dashboard ended.
    #[error("dashboard ended")]
    Dashboard(#[from] penstock_dashboard::DashboardError),
    /// The operator ended.
    #[error("operator ended")]
    Operator(#[from] penstock_operator::OperatorError),
    /// The database was not migrated.
    #[error("could not migrate the database")]
    Migrate(#[from] penstock_worker::schema::SchemaError),
    /// The filter cannot be read.
    #[error("could not read the filter")]
    Filter(#[from] penstock_core::filter_files::FilterError),
    /// The database was not opened, or not read.
    #[error(transparent)]
    Store(penstock_worker::store::StoreError),
    /// Something was not removed.
    #[error("could not remove what the filter leaves out")]
    Prune(#[source] penstock_worker::store::ApplyError),
    /// The directory's export was not imported.
    #[error("could not import")]
    Import(#[from] penstock_identity::import::ImportError),
    /// Identities cannot be resolved.
    #[error("could not resolve")]
    Identity(#[from] penstock_identity::SettingsError),
    /// The table of identities cannot be read.
    #[error("could not read the table penstock.identities")]
    ReadIdentity(#[source] sqlx::Error),
    /// The simulation did not run.
    #[error("could not simulate")]
    Simulate(#[from] penstock_autoscale::simulate::SimulateError),
    /// The manual pages were not written.
    #[error("could not write the manual pages to {}", path.display())]
    WritePages {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output was not written.
    #[error("could not print")]
    Print(#[source] std::io::Error),
    /// The relay that serves a recording ended.
    #[error("replay ended")]
    Replay(#[from] penstock_replay::Error),
    /// A local server did not start.
    #[error("could not start a local server")]
    Local(#[from] penstock_local::LocalError),
    /// The local Redis does not answer.
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
    /// Another run has the data folder.
    #[error(
        "{} is in use by another penstock run (process {process}): stop it, or choose another folder with --data",
        path.display()
    )]
    FolderInUse {
        /// The folder.
        path: PathBuf,
        /// The other one's process ID.
        process: String,
    },
    /// The data folder has reached its bound.
    #[error(
        "{} has reached {size}, the limit set by --max-disk or by the free disk space: raise it to resume, or delete the folder",
        path.display()
    )]
    FolderFull {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        size: String,
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
        "{address}, the address of this folder's recording, is in use: stop what listens there, or use another data folder"
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
    /// What a command says that needs a database and has none.
    pub(crate) const NO_DATABASE: Self = Self::Missing {
        field: "postgres.url",
        how: "set the database URL, such as DATABASE_URL=postgres://user:password@host/database",
    };

    /// Returns the exit code: 64 for what the caller wrote, 69 where a migration found no database, 1 for the rest.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::SettingsFile(_) | Self::ReadSettingsFile { .. } | Self::Missing { .. } => USAGE,
            Self::Replay(penstock_replay::Error::Setting { .. }) => USAGE,
            Self::Telemetry(
                TelemetryError::ParseLogFilter { .. }
                | TelemetryError::ExportEndpoint { .. }
                | TelemetryError::ExportHeader { .. },
            ) => USAGE,
            Self::Migrate(SchemaError::Connect(_) | SchemaError::Silent { .. } | SchemaError::Reach { .. }) => {
                UNAVAILABLE
            }
            Self::Console(error) if error.is_usage() => USAGE,
            Self::Heal(HealError::Put(PutError::Name { .. } | PutError::Request(_) | PutError::Exists { .. })) => USAGE,
            _ => FAILURE,
        }
    }
}
