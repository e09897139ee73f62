//! Why the healer ends without being asked to.

use penstock_telemetry::tasks::TaskError;
use thiserror::Error;

/// Why the healer, or one of its commands, ended. A PostgreSQL that is away is no reason for the service: it waits.
#[derive(Debug, Error)]
pub enum HealError {
    /// There is no database to write to.
    #[error("postgres.url (DATABASE_URL) is not set: the healer needs a database")]
    NoDatabase,
    /// Repos cannot be read with these settings.
    #[error(transparent)]
    Settings(#[from] penstock_identity::SettingsError),
    /// The filter cannot be read.
    #[error(transparent)]
    Filter(#[from] penstock_core::filter_files::FilterError),
    /// A task ended before the healer was asked to end.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// PostgreSQL cannot be used.
    #[error("could not open the database")]
    Open(#[from] penstock_worker::store::StoreError),
    /// The tables are not there.
    #[error("could not use the tables: run penstock migrate")]
    Tables(#[from] penstock_worker::schema::SchemaError),
    /// PostgreSQL did not do what a command needs.
    #[error("could not {action}")]
    Database {
        /// What.
        action: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
    /// A backfill was not registered.
    #[error(transparent)]
    Put(#[from] crate::backfills::PutError),
}

impl HealError {
    /// Says of what PostgreSQL answered what was wanted of it.
    pub fn database(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { action, source }
    }
}
