//! What PostgreSQL remembers in case Redis loses its data: each host's checkpoint, and the incarnation.
//!
//! It is read on a connection that is opened when needed and closed again: ingest needs PostgreSQL so rarely that a pool
//! would waste memory and connections.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use penstock_core::causes::chain;
use penstock_core::keys::Keys;
use penstock_core::servers;
use penstock_core::stream::{Seq, StreamId};
use penstock_postgres::Address;
use penstock_postgres::schema::placed;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::events::Events;

/// How long PostgreSQL may take to connect, and for each answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait before asking again which database it is, while Redis looks complete.
const ASK_AGAIN: Duration = Duration::from_secs(30);

const INCARNATION: &str = "SELECT value FROM penstock.meta WHERE key = 'incarnation' AND value <> ''";

/// The position where the AppView's own ingestion resumes.
const APPVIEW: &str = "SELECT cursor FROM {schema}.firehose_cursor WHERE service = 'firehose' AND cursor IS NOT NULL";

const CHECKPOINTS: &str = "SELECT host, seq, stream_id FROM penstock.checkpoint ORDER BY updated_at DESC, host";

/// In milliseconds: no row has a later ID.
const RESERVED: &str = "SELECT value FROM penstock.meta WHERE key = 'reserved'";

/// Up to where one host's events are settled: committed, or dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The relay's host.
    pub(crate) host: String,
    /// Every event of this number or below is settled; 0 where none is.
    pub(crate) seq: u64,
    /// The last ID of the stream at that time.
    pub(crate) stream_id: Option<StreamId>,
}

/// Whether Redis still holds what was written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does, as far as is known; with the incarnation that each batch must find, empty where it is not checked.
    Whole(String),
    /// It does not: the cursor or the stream is gone, or it is not the Redis that filled this database.
    Lost {
        /// The incarnation that the first batch sets, if the database knows it.
        incarnation: Option<String>,
        /// The checkpoints of all hosts, newest first.
        checkpoints: Vec<Checkpoint>,
    },
}

/// Why PostgreSQL did not answer.
#[derive(Debug, Error)]
pub(crate) enum CheckpointError {
    /// No answer in time.
    #[error("postgresql did not answer within {DEADLINE:?}")]
    Deadline,
    /// No connection could be made.
    #[error("could not connect to postgresql")]
    Connect(#[source] sqlx::Error),
    /// It answered with an error.
    #[error("could not read the checkpoint")]
    Read(#[source] sqlx::Error),
    /// A query failed.
    #[error("the query failed")]
    Answer(#[source] sqlx::Error),
}

/// The workers' database.
#[derive(Debug)]
pub(crate) struct Database {
    address: Address,
    incarnation: Option<String>,
    /// The ID that no row exceeds, as last read.
    reserved: Option<StreamId>,
    ask_at: Instant,
}

// === impl CheckpointError ===

impl CheckpointError {
    /// Returns whether PostgreSQL could not be reached or gave no answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        let error = match self {
            Self::Deadline => return true,
            Self::Connect(error) | Self::Read(error) | Self::Answer(error) => error,
        };
        let is_ending = error.as_database_error().and_then(|error| error.code());
        is_ending.is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03"))
            || matches!(error, sqlx::Error::Tls(_) | sqlx::Error::Protocol(_))
            || servers::is_unanswered(error)
    }
}

// === impl Standing ===

impl Default for Standing {
    fn default() -> Self {
        Self::Whole(String::new())
    }
}

impl Standing {
    /// Returns whether Redis lost its data.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns whether Redis lost its data and there are checkpoints to resume from.
    pub(crate) fn has_checkpoints(&self) -> bool {
        matches!(self, Self::Lost { checkpoints, .. } if !checkpoints.is_empty())
    }
}

// === impl Database ===

impl Database {
    /// Prepares the database at an address; nothing is connected yet.
    pub(crate) fn new(address: Address) -> Self {
        let address = address.named("penstock-ingest");
        Self { address, incarnation: None, reserved: None, ask_at: Instant::now() }
    }

    /// Forgets what it said: while another ingest held the lease, workers wrote entries that this process does not know of.
    pub(crate) fn forget(&mut self) {
        self.incarnation = None;
        self.ask_at = Instant::now();
    }

    /// Returns the ID below which no entry may come; rows would take such an entry for an older one.
    pub(crate) fn reserved(&self) -> Option<StreamId> {
        self.reserved
    }

    /// Returns where it is.
    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Judges a Redis with this incarnation (empty where it has none), with or without cursor and stream.
    ///
    /// A complete Redis needs no answer from PostgreSQL.
    pub(crate) async fn judge(&mut self, found: &str, is_there: bool) -> Result<Standing, CheckpointError> {
        let complete = is_there && !found.is_empty();
        let unknown = self.incarnation.is_none();
        if complete && (self.incarnation.as_deref() == Some(found) || unknown && Instant::now() < self.ask_at) {
            return Ok(Standing::Whole(found.to_owned()));
        }
        let (incarnation, checkpoints, reserved) = match self.read().await {
            Ok(remembered) => remembered,
            Err(error) if complete && unknown => {
                self.ask_at = Instant::now() + ASK_AGAIN;
                let error = chain(&error);
                warn!(error, "could not check which database redis belongs to, continuing because redis is complete");
                return Ok(Standing::Whole(found.to_owned()));
            }
            Err(error) => return Err(error),
        };
        self.incarnation.clone_from(&incarnation);
        self.reserved = self.reserved.max(reserved);
        if complete && incarnation.as_deref().is_none_or(|incarnation| incarnation == found) {
            return Ok(Standing::Whole(found.to_owned()));
        }
        Ok(Standing::Lost { incarnation, checkpoints })
    }

    /// Reads the cursor of the AppView's own ingestion; none where it never ran.
    pub(crate) async fn appview_cursor(&self) -> Result<Option<u64>, CheckpointError> {
        let mut connection = connect(&self.address).await?;
        let query = in_time(placed(&mut connection, APPVIEW)).await?;
        let found: Vec<String> = rows(&mut connection, &query, |row| row.try_get(0)).await?;
        let _ = timeout(DEADLINE, connection.close()).await;
        Ok(found.first().and_then(|cursor| cursor.parse::<Seq>().ok()).map(Seq::get))
    }

    /// Reads the incarnation, the checkpoints and the bound of IDs; a missing table counts as empty.
    async fn read(&self) -> Result<(Option<String>, Vec<Checkpoint>, Option<StreamId>), CheckpointError> {
        let mut connection = connect(&self.address).await?;
        let incarnation = rows(&mut connection, INCARNATION, |row| row.try_get(0)).await?;
        let checkpoints = rows(&mut connection, CHECKPOINTS, |row| {
            let (seq, stream_id): (i64, &str) = (row.try_get(1)?, row.try_get(2)?);
            let seq = u64::try_from(seq).unwrap_or_default();
            Ok(Checkpoint { host: row.try_get(0)?, seq, stream_id: stream_id.parse().ok() })
        })
        .await?;
        let reserved: Vec<String> = rows(&mut connection, RESERVED, |row| row.try_get(0)).await?;
        let _ = timeout(DEADLINE, connection.close()).await;
        let reserved = reserved.first().and_then(|ms| ms.parse::<u64>().ok());
        let reserved = reserved.map(|ms| StreamId { ms: ms.saturating_add(1), seq: 0 });
        Ok((incarnation.into_iter().next(), checkpoints, reserved))
    }
}

/// Without a database: reports again and again if checkpoints have stopped since Redis lost its data. The workers then removed the
/// incarnation, and only an ingest that knows it sets it again.
pub(crate) async fn watch_checkpoints(client: Client, keys: Keys, every: Duration, events: Events) {
    loop {
        // A failure to read says nothing.
        let found: Result<(Option<String>, Option<String>), _> =
            client.mget(vec![keys.pipeline(), keys.incarnation()]).await;
        if let Ok((claim, incarnation)) = found {
            events.checkpoints_stopped(claim.is_some() && incarnation.is_none());
        }
        sleep(every).await;
    }
}

/// Connects, within the deadline.
pub(crate) async fn connect(address: &Address) -> Result<PgConnection, CheckpointError> {
    let connecting = timeout(DEADLINE, address.connect()).await;
    connecting.map_err(|_| CheckpointError::Deadline)?.map_err(CheckpointError::Connect)
}

/// Waits for an answer, within the deadline.
pub(crate) async fn in_time<T>(answer: impl Future<Output = sqlx::Result<T>>) -> Result<T, CheckpointError> {
    timeout(DEADLINE, answer).await.map_err(|_| CheckpointError::Deadline)?.map_err(CheckpointError::Answer)
}

async fn rows<T>(
    connection: &mut PgConnection,
    query: &str,
    read: impl Fn(&sqlx::postgres::PgRow) -> sqlx::Result<T>,
) -> Result<Vec<T>, CheckpointError> {
    // A pooler lends a session for a transaction: only within one does what is asked follow what was prepared.
    let answer = async {
        let mut transaction = connection.begin().await?;
        let rows = sqlx::query(AssertSqlSafe(query)).persistent(false).fetch_all(&mut *transaction).await;
        transaction.rollback().await?;
        rows
    };
    let answer = timeout(DEADLINE, answer).await;
    match answer.map_err(|_| CheckpointError::Deadline)? {
        Ok(rows) => rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(CheckpointError::Read),
        Err(error) if is_undefined_table(&error) => Ok(Vec::new()),
        Err(error) => Err(CheckpointError::Read(error)),
    }
}

/// Returns whether a table or its schema does not exist.
fn is_undefined_table(error: &sqlx::Error) -> bool {
    matches!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42P01" | "3F000"))
}
