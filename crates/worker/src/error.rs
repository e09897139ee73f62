//! Why a worker ends other than by being asked to.

use thiserror::Error;
use tokio::task::JoinError;

/// Why a worker ended. A Redis or a PostgreSQL that is away is no reason: it waits for both.
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
    /// A task that the worker cannot do without died.
    #[error("task {name} died")]
    TaskDied {
        /// The task.
        name: &'static str,
        /// How.
        source: JoinError,
    },
    /// A task that the worker cannot do without came to its end too early.
    #[error("task {name} ended before it was asked to")]
    TaskEnded {
        /// The task.
        name: &'static str,
    },
}
