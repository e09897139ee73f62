//! The messages in PostgreSQL.

use std::time::Duration;

use penstock_core::settings::Postgres;
use penstock_postgres::schema::placed;
use penstock_postgres::{Address, Pool};
use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, FromRow, Row as _};
use tokio::time::timeout;

/// How many connections one process holds at most.
const CONNECTIONS: u32 = 4;

/// How long a list may take, and a connection for anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer may take to remove rows.
const CLEARING: Duration = Duration::from_secs(25);

/// How long a connection is used: a server that became a replica, or that was replaced, is left after it.
const LIFETIME: Duration = Duration::from_secs(60);

/// The table of messages. Its statements are not kept prepared: their plans would outlive the tables that they were made for. Each
/// is a transaction: a pooler may lend another session for what comes after.
#[derive(Clone, Debug)]
pub(crate) struct Rows(Pool);

/// A stored message.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "StoredMessage")]
pub(crate) struct Row {
    id: i64,
    user_id: i32,
    channel_id: i32,
    content: String,
    /// When the API accepted it, RFC 3339.
    created_at: String,
    /// When it was written, RFC 3339.
    inserted_at: String,
}

const LATEST: &str = r#"
SELECT id::bigint AS id, user_id, channel_id, content, to_char(created_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at,
       to_char(inserted_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS inserted_at
  FROM {schema}.messages AS messages ORDER BY messages.id DESC LIMIT $1"#;

/// The rows that came through the message buffer, and their keys with them; others wrote the rest.
const CLEAR: &str = "\
WITH ours AS (DELETE FROM penstock.message_keys RETURNING message_id)
DELETE FROM {schema}.messages AS messages USING ours WHERE messages.id = ours.message_id";

// === impl Rows ===

impl Rows {
    /// Makes the connections when they are asked for; none where there is no address.
    pub(crate) fn new(postgres: &Postgres) -> Option<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE).max_lifetime(LIFETIME);
        Pool::lazy(Address::of(postgres)?, pool, |_| true).ok().map(Self)
    }

    /// Reads the newest messages.
    pub(crate) async fn latest(&self, most: i64) -> sqlx::Result<Vec<Row>> {
        in_time(PATIENCE, async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let latest = placed(&mut transaction, LATEST).await?;
            let query = sqlx::query_as(AssertSqlSafe(latest)).persistent(false).bind(most);
            let rows = query.fetch_all(&mut *transaction).await?;
            transaction.rollback().await?;
            Ok(rows)
        })
        .await
    }

    /// Removes the messages that came through the buffer; returns how many.
    pub(crate) async fn clear(&self) -> sqlx::Result<u64> {
        in_time(CLEARING, async {
            let mut connection = self.0.acquire().await?;
            let mut transaction = connection.begin().await?;
            let clear = placed(&mut transaction, CLEAR).await?;
            let cleared =
                sqlx::query(AssertSqlSafe(clear)).persistent(false).execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(cleared)
        })
        .await
    }
}

async fn in_time<T>(patience: Duration, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    timeout(patience, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

// === impl Row ===

impl FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            user_id: row.try_get("user_id")?,
            channel_id: row.try_get("channel_id")?,
            content: row.try_get("content")?,
            created_at: row.try_get("created_at")?,
            inserted_at: row.try_get("inserted_at")?,
        })
    }
}
