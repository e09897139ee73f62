//! Counts all existing rows.

use std::io;
use std::time::Duration;

use penstock_core::live::RECORD_COUNTS;
use sqlx::{Connection, Executor, PgConnection};

use super::connection::Store;
use super::error::StoreError;
use super::schema;
use super::totals::CountTotal;

/// All rows, and what the workers counted of them, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Which recount was the last one, if any.
    pub id: Option<String>,
    /// Rows by field of `db:record_counts`.
    pub rows: Vec<(&'static str, i64)>,
    /// The totals of every worker.
    pub totals: Vec<CountTotal>,
}

/// Everything in one statement, which sees one moment; the rows in the order of [`RECORD_COUNTS`], the totals in that of workers.
const COUNT: &str = "\
WITH counted AS (
  SELECT worker, field, total FROM penstock.counts ORDER BY worker COLLATE \"C\", field COLLATE \"C\"
)
SELECT (SELECT value FROM penstock.meta WHERE key = 'counts'),
  ARRAY(SELECT worker FROM counted), ARRAY(SELECT field FROM counted), ARRAY(SELECT total FROM counted),
  ARRAY[(SELECT count(*) FROM users), (SELECT count(*) FROM posts), (SELECT count(*) FROM likes),
  (SELECT count(*) FROM reposts), (SELECT count(*) FROM follows), (SELECT count(*) FROM blocks),
  (SELECT count(*) FROM feed_items), (SELECT count(*) FROM post_aggregations)]";

const ID: &str = "SELECT value FROM penstock.meta WHERE key = 'counts'";

/// Held by the one worker that counts.
const TURN: i64 = 0x7065_6e73_746f_636d;

/// The turn is a lock of the transaction: it cannot outlive it, whoever the session goes to afterwards. A big table takes minutes.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Otherwise the server would go on counting for a dead worker, and hold its turn. Not every server supports it.
const NOTICE: &str = "SAVEPOINT notice; SET LOCAL client_connection_check_interval = '5s'";

const NO_NOTICE: &str = "ROLLBACK TO SAVEPOINT notice";

/// After how long a silent server counts as gone.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A worker's turn to count, held by a transaction on a connection of its own.
#[derive(Debug)]
pub struct Turn {
    conn: PgConnection,
}

// === impl Store ===

impl Store {
    /// Returns which recount of the rows was asked for last, if any was.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn recount_asked(&self) -> Result<Option<String>, StoreError> {
        let id = self.in_transaction(async |tx| sqlx::query_scalar(ID).fetch_optional(tx).await).await;
        id.map_err(StoreError::Counts)
    }

    /// Takes the turn to count; none if another worker has it.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn turn_to_count(&self) -> Result<Option<Turn>, StoreError> {
        let turn = async {
            let mut conn = self.pool.address().connect().await?;
            conn.execute(sqlx::raw_sql(BEGIN)).await?;
            conn.execute(schema::SEARCH_PATH).await?;
            if conn.execute(sqlx::raw_sql(NOTICE)).await.is_err() {
                conn.execute(NO_NOTICE).await?;
            }
            let mine = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(TURN);
            let mine: bool = mine.fetch_one(&mut conn).await?;
            Ok(mine.then_some(Turn { conn }))
        };
        self.in_time(turn).await.unwrap_or_else(|_| Err(silent())).map_err(StoreError::Counts)
    }
}

// === impl Turn ===

impl Turn {
    /// Counts the rows, in one snapshot with the totals that the workers have come to.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn count(&mut self) -> Result<Counted, StoreError> {
        let counted = tokio::time::timeout(PATIENCE, count(&mut self.conn)).await;
        counted.unwrap_or_else(|_| Err(silent())).map_err(StoreError::Counts)
    }

    /// Gives the turn up.
    pub async fn end(self) {
        let mut conn = self.conn;
        // The lock goes with the transaction, and that with the connection, whatever the farewell.
        let _ = conn.execute("ROLLBACK").await;
        let _ = conn.close().await;
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time"))
}

async fn count(conn: &mut PgConnection) -> sqlx::Result<Counted> {
    type Row = (Option<String>, Vec<String>, Vec<String>, Vec<i64>, Vec<i64>);
    let (id, workers, fields, totals, rows): Row = sqlx::query_as(COUNT).fetch_one(conn).await?;
    let totals = workers.into_iter().zip(fields).zip(totals);
    Ok(Counted {
        id,
        rows: RECORD_COUNTS.into_iter().zip(rows).collect(),
        totals: totals.map(|((worker, field), total)| CountTotal { worker, field, total }).collect(),
    })
}
