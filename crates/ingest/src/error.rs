//! Why ingest stops.

use penstock_core::filter_files::FilterError;
use penstock_core::redis::RedisError;
use penstock_telemetry::tasks::TaskError;
use thiserror::Error;

/// Why ingest stops although no shutdown was requested.
#[derive(Debug, Error)]
pub enum IngestError {
    /// Redis is set up in a way that ingest cannot use.
    #[error("could not use redis")]
    Redis {
        /// The cause.
        source: RedisError,
    },
    /// The address of PostgreSQL cannot be used as configured.
    #[error("could not use the address of postgresql")]
    Database {
        /// The cause.
        source: sqlx::Error,
    },
    /// Identities cannot be resolved as configured.
    #[error("could not prepare the resolution of identities")]
    Identities {
        /// The cause.
        source: penstock_identity::SettingsError,
    },
    /// The filter cannot be read as configured.
    #[error("could not read the filter")]
    Filter {
        /// The cause.
        source: FilterError,
    },
    /// A task that must run failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}
