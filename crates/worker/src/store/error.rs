//! What can go wrong in the database, told apart by what to do about it.

use thiserror::Error;

/// Why the store could not be opened or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL is none.
    #[error("database url is not understood")]
    Url(#[source] sqlx::Error),
    /// No connection could be made.
    #[error("could not connect to postgresql")]
    Connect(#[source] sqlx::Error),
    /// Counts could not be read.
    #[error("could not read the counts")]
    Counts(#[source] sqlx::Error),
    /// The incarnation could not be read.
    #[error("could not read the incarnation")]
    Incarnation(#[source] sqlx::Error),
    /// The checkpoint could not be kept.
    #[error("could not keep the checkpoint")]
    Checkpoint(#[source] sqlx::Error),
    /// A dead letter could not be kept.
    #[error("could not keep a dead letter")]
    DeadLetter(#[source] sqlx::Error),
    /// What `user_settings` says of opt-outs could not be read or carried over.
    #[error("could not obey opt-outs")]
    OptOuts(#[source] sqlx::Error),
    /// Tombstones or dead letters could not be pruned.
    #[error("could not prune {what}")]
    Prune {
        /// The table.
        what: &'static str,
        /// What PostgreSQL said.
        source: sqlx::Error,
    },
}

/// Why a batch was not written. Nothing of it was.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The data's fault: trying it again gives the same. Bisect the batch and dead-letter what remains.
    #[error("postgresql refuses the data: {message} (sqlstate {sqlstate})")]
    Data {
        /// The SQLSTATE, of class 22, 23 or 54.
        sqlstate: String,
        /// What PostgreSQL said, without the values.
        message: String,
    },
    /// Not the data's fault: try it again for as long as it takes.
    #[error("could not write the batch: {reason}")]
    Retry {
        /// A word for logs and metrics, of a fixed set.
        reason: &'static str,
        /// What PostgreSQL or the connection said; none where PostgreSQL refused nothing.
        source: Option<sqlx::Error>,
    },
}

/// Why one attempt failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Sql(sqlx::Error),
    /// What was read before the locks was no longer so under them.
    Moved,
}

const UNIQUE_VIOLATION: &str = "23505";

/// A table's ids are used up: of class 22, and yet nothing is wrong with the data.
const SEQUENCE_EXHAUSTED: &str = "2200H";

// === impl Fault ===

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    /// Tells whether another writer came between reading and writing: a second look then sees its rows.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            Self::Moved => true,
            Self::Sql(error) => sqlstate(error).as_deref() == Some(UNIQUE_VIOLATION),
        }
    }
}

impl From<Fault> for ApplyError {
    fn from(fault: Fault) -> Self {
        let error = match fault {
            Fault::Moved => return Self::Retry { reason: "race", source: None },
            Fault::Sql(error) => error,
        };
        let code = sqlstate(&error).unwrap_or_default();
        match (&error, code.get(..2)) {
            (sqlx::Error::Database(database), Some("22" | "23" | "54")) if code != SEQUENCE_EXHAUSTED => {
                Self::Data { message: database.message().to_owned(), sqlstate: code }
            }
            // A value that cannot be written to the wire will not be on the next attempt either.
            (sqlx::Error::Encode(source), _) => {
                Self::Data { message: source.to_string(), sqlstate: "22000".to_owned() }
            }
            _ => Self::Retry { reason: reason(&error, &code), source: Some(error) },
        }
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn reason(error: &sqlx::Error, code: &str) -> &'static str {
    match (error, code) {
        (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed, _) => "no connection free",
        (sqlx::Error::Io(error), _) if error.kind() == std::io::ErrorKind::TimedOut => "no answer",
        (sqlx::Error::Io(_) | sqlx::Error::Tls(_), _) => "connection lost",
        (_, "40P01") => "deadlock",
        (_, "40001") => "serialization failure",
        (_, "25006") => "read-only database",
        (_, SEQUENCE_EXHAUSTED) => "ids used up",
        (_, "42P01" | "42703") => "missing table or column",
        (_, "53100") => "disk full",
        (_, "55P03") => "lock timeout",
        (_, "57014") => "statement cancelled",
        (_, "57P01" | "57P02" | "57P03") => "server stops or starts",
        _ => match code.get(..2) {
            Some("08") => "connection lost",
            Some("28") => "login refused",
            Some("42") => "statement refused",
            Some("53") => "out of resources",
            _ => "other",
        },
    }
}
