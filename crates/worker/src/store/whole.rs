//! The rows that there are, counted as a whole.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use penstock_core::live::RECORD_COUNTS;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};

use super::{CountTotal, Store, StoreError};
use crate::schema;

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

/// In the order of [`RECORD_COUNTS`].
const COUNT: &str = "\
SELECT ARRAY[(SELECT count(*) FROM users), (SELECT count(*) FROM posts), (SELECT count(*) FROM likes),
  (SELECT count(*) FROM reposts), (SELECT count(*) FROM follows), (SELECT count(*) FROM blocks),
  (SELECT count(*) FROM feed_items), (SELECT count(*) FROM post_aggregations)]";

const ID: &str = "SELECT value FROM penstock.meta WHERE key = 'counts'";

/// Held by the one worker that counts.
const TURN: i64 = 0x7065_6e73_746f_636d;

/// The snapshot is taken by the first statement; a big table takes minutes.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0";

/// Else the server would go on counting for a worker that is no more, and hold its turn. Not every server can tell.
const NOTICE: &str = "SET client_connection_check_interval = '5s'";

/// After how long a server counts as gone without a word.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A worker's turn to count: a connection of its own, which it gives up with it.
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
        let mut conn = self.connection().await.map_err(StoreError::Counts)?;
        let id = self.in_time(sqlx::query_scalar(ID).fetch_optional(&mut *conn)).await;
        conn.answered(id).map_err(StoreError::Counts)
    }

    /// Takes the turn to count; none where another worker has it.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn turn_to_count(&self) -> Result<Option<Turn>, StoreError> {
        let options: Arc<PgConnectOptions> = self.pool.connect_options();
        let turn = async {
            let mut conn = PgConnection::connect_with(&options).await?;
            conn.execute(schema::SEARCH_PATH).await?;
            let _ = conn.execute(NOTICE).await;
            let mine = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(TURN);
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

    /// Gives the turn to whoever wants it next.
    pub async fn end(self) {
        // The lock goes with the connection, whatever the farewell.
        let _ = self.conn.close().await;
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time"))
}

async fn count(conn: &mut PgConnection) -> sqlx::Result<Counted> {
    conn.execute(sqlx::raw_sql(BEGIN)).await?;
    let id = sqlx::query_scalar(ID).fetch_optional(&mut *conn).await?;
    let totals: Vec<(String, String, i64)> = sqlx::query_as(super::COUNTS).fetch_all(&mut *conn).await?;
    let rows: Vec<i64> = sqlx::query_scalar(COUNT).fetch_one(&mut *conn).await?;
    conn.execute("COMMIT").await?;
    Ok(Counted {
        id,
        rows: RECORD_COUNTS.into_iter().zip(rows).collect(),
        totals: totals.into_iter().map(|(worker, field, total)| CountTotal { worker, field, total }).collect(),
    })
}
