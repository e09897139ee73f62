//! Why ingest ends.

use penstock_core::redis::RedisError;
use thiserror::Error;

/// Why ingest ends although nobody asked it to.
#[derive(Debug, Error)]
pub enum IngestError {
    /// Redis cannot be used as it is set up.
    #[error("could not use redis")]
    Redis {
        /// Why not.
        source: RedisError,
    },
    /// The database's URL is none.
    #[error("could not use the database url")]
    Database {
        /// Why not.
        source: sqlx::Error,
    },
    /// A task that must run ended by a panic.
    #[error("task {name} ended")]
    Task {
        /// Its name.
        name: &'static str,
        /// How it ended.
        source: tokio::task::JoinError,
    },
}
