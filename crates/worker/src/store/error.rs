//! What can go wrong in the database, sorted by what to do about it.

use thiserror::Error;

/// Why the store could not be opened or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The URL is not valid.
    #[error(transparent)]
    Url(penstock_postgres::AddressError),
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
    #[error("could not save the checkpoint")]
    Checkpoint(#[source] sqlx::Error),
    /// Repos could not be marked.
    #[error("could not mark desynchronized repos")]
    Mark(#[source] sqlx::Error),
    /// A snapshot of a repo could not be compared or finished.
    #[error("could not compare or finish the snapshot of a repo")]
    Snapshot(#[source] sqlx::Error),
    /// It could not be looked for what a filter leaves out.
    #[error("could not look for records that the filter leaves out")]
    Outside(#[source] sqlx::Error),
    /// A dead letter could not be kept.
    #[error("could not store a dead letter")]
    DeadLetter(#[source] sqlx::Error),
    /// What `user_settings` says of opt-outs could not be read or carried over.
    #[error("could not apply opt-outs")]
    OptOuts(#[source] sqlx::Error),
    /// Claims on accounts could not be read or settled.
    #[error("could not settle claims on accounts")]
    AccountClaims(#[source] sqlx::Error),
    /// Checks of handles could not be read or settled.
    #[error("could not settle checks of handles")]
    HandleChecks(#[source] sqlx::Error),
    /// It could not be asked how big tables are.
    #[error("could not read the sizes of tables")]
    Sizes(#[source] sqlx::Error),
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
    #[error("postgresql rejected the data: {message} (sqlstate {sqlstate})")]
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

/// What an error says of the connection that it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// Nothing: the next statement may go over it.
    Good,
    /// It is no longer usable.
    Bad,
    /// Nor is any that was made before it: the server behind them changed.
    Outdated,
}

/// An answer that may hold what PostgreSQL said.
pub(crate) trait Answer: From<sqlx::Error> {
    /// Returns what PostgreSQL or the connection said, if that is what failed.
    fn sql(&self) -> Option<&sqlx::Error>;
}

const UNIQUE_VIOLATION: &str = "23505";

/// A table's ids are used up: of class 22, and yet nothing is wrong with the data.
const SEQUENCE_EXHAUSTED: &str = "2200H";

// === impl Fitness ===

impl Fitness {
    /// Judges a connection by the error that came over it.
    pub(crate) fn after(error: &sqlx::Error) -> Self {
        let Some(code) = sqlstate(error) else {
            // Without an answer, or with one that was not understood, nobody knows what the next one belongs to.
            return match error {
                sqlx::Error::RowNotFound
                | sqlx::Error::Encode(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed => Self::Good,
                _ => Self::Bad,
            };
        };
        match &*code {
            // Became a replica.
            "25006"
            // Plans and names of statements are gone or taken: the tables changed, a pooler dealt another session out.
            | "0A000" | "26000" | "42P05"
            // Stops, crashed, starts, or the database was dropped.
            | "57P01" | "57P02" | "57P03" | "57P04"
            // What the session remembers of tables is not there any more, after a restore for instance; or they came after it, and
            // its search path, which was found when it began, does not lead there.
            | "XX000" | "XX001" | "XX002" | "42P01" | "42703" | "3F000" => Self::Outdated,
            "55P03" | "57014" => Self::Good,
            // The data, other transactions, room on the disk, limits, and what triggers raise.
            _ if matches!(code.get(..2), Some("22" | "23" | "40" | "53" | "54" | "P0")) => Self::Good,
            // What is refused otherwise may be refused to this session only.
            _ => Self::Bad,
        }
    }
}

// === impl Answer ===

impl Answer for sqlx::Error {
    fn sql(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

impl Answer for Fault {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(error),
            Self::Moved => None,
        }
    }
}

// === impl Fault ===

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fault {
    /// Returns whether another writer came between reading and writing: a second look then sees its rows.
    pub(crate) fn is_race(&self) -> bool {
        match self {
            Self::Moved => true,
            Self::Sql(error) => sqlstate(error).as_deref() == Some(UNIQUE_VIOLATION),
        }
    }

    /// Returns whether a connection was at fault that is closed by now: another one may do. Not where there was no answer in time: a
    /// second wait would be as long.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            Self::Moved => false,
            Self::Sql(sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => false,
            Self::Sql(error) => Fitness::after(error) != Fitness::Good,
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

// === impl ApplyError ===

impl ApplyError {
    /// Returns a word for it, of a fixed set.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Data { .. } => "data",
            Self::Retry { reason, .. } => reason,
        }
    }

    /// Returns whether a statement had no time to end: fewer rows take less.
    pub(crate) fn is_out_of_time(&self) -> bool {
        matches!(self.word(), "statement cancelled" | "no answer")
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn reason(error: &sqlx::Error, code: &str) -> &'static str {
    match (error, code) {
        (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed, _) => "no connection free",
        (sqlx::Error::Io(error), _) if error.kind() == std::io::ErrorKind::ConnectionRefused => "connection refused",
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
        (_, "0A000" | "26000" | "42P05") => "outdated statement",
        (_, "57P05" | "25P03" | "25P04") => "idle for too long",
        (_, "3D000" | "57P04") => "missing database",
        _ => match code.get(..2) {
            Some("08") => "connection lost",
            Some("28") => "login refused",
            Some("42") => "statement refused",
            Some("53") => "out of resources",
            Some("XX") => "internal error",
            _ => "other",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_of_the_connection_leaves_it_in_use() {
        for error in [sqlx::Error::RowNotFound, sqlx::Error::PoolTimedOut] {
            assert_eq!(Fitness::after(&error), Fitness::Good, "{error:?}");
        }
        let reset = sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
        for error in [reset, sqlx::Error::Protocol("unexpected message".to_owned()), sqlx::Error::WorkerCrashed] {
            assert_eq!(Fitness::after(&error), Fitness::Bad, "{error:?}");
        }
    }
}
