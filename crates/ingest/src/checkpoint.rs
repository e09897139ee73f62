//! What PostgreSQL remembers should Redis be lost: up to where each host's events are settled, and which database it is.
//!
//! It is asked on a connection of its own, made when there is something to ask and closed again: ingest needs PostgreSQL
//! so rarely that a pool would be a waste of memory and of connections.

use std::error::Error;
use std::time::Duration;

use penstock_core::stream::{Seq, StreamId};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tracing::warn;

/// How long PostgreSQL may take to let us in, and for each answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a database that did not say which one it is gets left alone, while Redis looks whole.
const ASK_AGAIN: Duration = Duration::from_secs(30);

const INCARNATION: &str = "SELECT value FROM penstock.meta WHERE key = 'incarnation' AND value <> ''";

/// Where the AppView's own ingestion resumes.
const APPVIEW: &str = "SELECT cursor FROM firehose_cursor WHERE service = 'firehose' AND cursor IS NOT NULL";

const CHECKPOINTS: &str = "SELECT host, seq, stream_id FROM penstock.checkpoint ORDER BY updated_at DESC, host";

/// Up to where one host's events are settled: committed, or dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The relay's host.
    pub(crate) host: String,
    /// Every event of this number or below is settled; 0 where none is.
    pub(crate) seq: u64,
    /// The last ID of the stream when that was so.
    pub(crate) stream_id: Option<StreamId>,
}

/// Whether Redis still holds what was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does, as far as can be told; with the incarnation that each batch must find, empty where that is not looked at.
    Whole(String),
    /// It does not: cursor or stream are gone, or it is not the Redis that this database was filled from.
    Lost {
        /// What the first batch is to set, where the database knows it.
        incarnation: Option<String>,
        /// The checkpoints of all hosts, newest first.
        checkpoints: Vec<Checkpoint>,
    },
}

/// Why PostgreSQL does not tell.
#[derive(Debug, Error)]
pub(crate) enum CheckpointError {
    /// It did not answer in time.
    #[error("postgresql did not answer within {DEADLINE:?}")]
    Deadline,
    /// No connection could be made.
    #[error("could not connect to postgresql")]
    Connect(#[source] sqlx::Error),
    /// It answered with an error.
    #[error("could not read the checkpoint")]
    Read(#[source] sqlx::Error),
    /// It did not take what was to be kept.
    #[error("postgresql refused")]
    Answer(#[source] sqlx::Error),
}

/// The database that the workers fill.
#[derive(Debug)]
pub(crate) struct Database {
    options: PgConnectOptions,
    incarnation: Option<String>,
    ask_at: Instant,
}

// === impl Standing ===

impl Default for Standing {
    fn default() -> Self {
        Self::Whole(String::new())
    }
}

impl Standing {
    /// Says whether Redis lost what was written to it.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Says whether it is lost, and there are checkpoints to resume at.
    pub(crate) fn has_checkpoints(&self) -> bool {
        matches!(self, Self::Lost { checkpoints, .. } if !checkpoints.is_empty())
    }
}

// === impl CheckpointError ===

impl CheckpointError {
    /// Puts the error and its cause into one line.
    pub(crate) fn line(&self) -> String {
        self.source().map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }
}

// === impl Database ===

impl Database {
    /// Prepares to ask the database at a URL; nothing is connected yet.
    pub(crate) fn new(url: &str) -> Result<Self, sqlx::Error> {
        let options: PgConnectOptions = url.parse()?;
        Ok(Self { options: options.application_name("penstock-ingest"), incarnation: None, ask_at: Instant::now() })
    }

    /// Returns how it is connected to.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Judges a Redis with this incarnation, empty where it has none, and with or without cursor and stream.
    ///
    /// A Redis in which nothing is missing needs no answer from PostgreSQL.
    pub(crate) async fn judge(&mut self, found: &str, is_there: bool) -> Result<Standing, CheckpointError> {
        let complete = is_there && !found.is_empty();
        let unknown = self.incarnation.is_none();
        if complete && (self.incarnation.as_deref() == Some(found) || unknown && Instant::now() < self.ask_at) {
            return Ok(Standing::Whole(found.to_owned()));
        }
        let (incarnation, checkpoints) = match self.read().await {
            Ok(remembered) => remembered,
            Err(error) if complete && unknown => {
                self.ask_at = Instant::now() + ASK_AGAIN;
                let error = error.line();
                warn!(error, "could not tell which database redis belongs to, going on: nothing is missing there");
                return Ok(Standing::Whole(found.to_owned()));
            }
            Err(error) => return Err(error),
        };
        self.incarnation.clone_from(&incarnation);
        if complete && incarnation.as_deref().is_none_or(|incarnation| incarnation == found) {
            return Ok(Standing::Whole(found.to_owned()));
        }
        Ok(Standing::Lost { incarnation, checkpoints })
    }

    /// Reads up to where the AppView's own ingestion came; none where it never ran.
    pub(crate) async fn appview_cursor(&self) -> Result<Option<u64>, CheckpointError> {
        let mut connection = connect(&self.options).await?;
        let found: Vec<String> = rows(&mut connection, APPVIEW, |row| row.try_get(0)).await?;
        let _ = timeout(DEADLINE, connection.close()).await;
        Ok(found.first().and_then(|cursor| cursor.parse::<Seq>().ok()).map(Seq::get))
    }

    /// Reads the incarnation and the checkpoints; a table that is not there holds none.
    async fn read(&self) -> Result<(Option<String>, Vec<Checkpoint>), CheckpointError> {
        let mut connection = connect(&self.options).await?;
        let incarnation = rows(&mut connection, INCARNATION, |row| row.try_get(0)).await?;
        let checkpoints = rows(&mut connection, CHECKPOINTS, |row| {
            let (seq, stream_id): (i64, &str) = (row.try_get(1)?, row.try_get(2)?);
            let seq = u64::try_from(seq).unwrap_or_default();
            Ok(Checkpoint { host: row.try_get(0)?, seq, stream_id: stream_id.parse().ok() })
        })
        .await?;
        let _ = timeout(DEADLINE, connection.close()).await;
        Ok((incarnation.into_iter().next(), checkpoints))
    }
}

/// Connects, or gives up after a while.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, CheckpointError> {
    let connecting = timeout(DEADLINE, PgConnection::connect_with(options)).await;
    connecting.map_err(|_| CheckpointError::Deadline)?.map_err(CheckpointError::Connect)
}

/// Waits for an answer, or gives up after a while.
pub(crate) async fn in_time<T>(answer: impl Future<Output = sqlx::Result<T>>) -> Result<T, CheckpointError> {
    timeout(DEADLINE, answer).await.map_err(|_| CheckpointError::Deadline)?.map_err(CheckpointError::Answer)
}

async fn rows<T>(
    connection: &mut PgConnection,
    query: &'static str,
    read: impl Fn(&sqlx::postgres::PgRow) -> sqlx::Result<T>,
) -> Result<Vec<T>, CheckpointError> {
    let answer = timeout(DEADLINE, sqlx::query(query).fetch_all(connection)).await;
    match answer.map_err(|_| CheckpointError::Deadline)? {
        Ok(rows) => rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(CheckpointError::Read),
        Err(error) if is_undefined_table(&error) => Ok(Vec::new()),
        Err(error) => Err(CheckpointError::Read(error)),
    }
}

/// Says whether a table, or the schema that it should be in, is not there.
fn is_undefined_table(error: &sqlx::Error) -> bool {
    matches!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42P01" | "3F000"))
}
