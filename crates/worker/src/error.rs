//! Why a worker ends without being asked to.

use penstock_telemetry::tasks::TaskError;
use thiserror::Error;

/// Why a worker ended. An unavailable Redis or PostgreSQL is no reason: it waits for both.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// There is no database to write to.
    #[error("postgres.url (DATABASE_URL) is not set: the worker needs a database")]
    NoDatabase,
    /// The consumer's name cannot be used.
    #[error("worker.consumerId (CONSUMER_ID) {name:?} is not allowed; allowed: 1 to 200 visible characters")]
    ConsumerName {
        /// The name, shortened.
        name: String,
    },
    /// Identities cannot be resolved with these settings.
    #[error(transparent)]
    Identity(#[from] penstock_identity::SettingsError),
    /// A task ended before the worker was asked to end.
    #[error(transparent)]
    Task(#[from] TaskError),
}
