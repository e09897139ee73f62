//! Writes what the export says, each chunk in a transaction.

use std::time::Duration;

use penstock_postgres::Pool;
use penstock_wire::Key;
use sqlx::{Acquire as _, PgConnection};
use tokio::time::timeout;

use super::batch::Batch;
use super::error::ImportError;
use super::resume::Mark;
use crate::error::ResolveError;

/// An operation takes the place of one before it, and of a document that was asked for before it. Whatever else is known of the row stays as
/// it would if the document had been fetched then.
const WRITE: &str = "\
INSERT INTO penstock.identities AS i (did, key, host, handle, fetched_at, failures, failed_at, error)
SELECT n.did, n.key, n.host, n.handle, CASE WHEN NOT n.gone THEN n.at END, n.gone::int,
  CASE WHEN n.gone THEN n.at END, CASE WHEN n.gone THEN $7 END
FROM (SELECT did, key, host, handle, gone, timestamptz 'epoch' + micros * interval '1 microsecond' AS at
  FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::bigint[], $6::bool[]) AS u (did, key, host, handle, micros, gone)) AS n
ON CONFLICT (did) DO UPDATE SET key = EXCLUDED.key, host = EXCLUDED.host, handle = EXCLUDED.handle, fetched_at = EXCLUDED.fetched_at,
  stale = CASE WHEN i.stale_at > coalesce(EXCLUDED.fetched_at, EXCLUDED.failed_at) THEN i.stale END,
  stale_at = CASE WHEN i.stale_at > coalesce(EXCLUDED.fetched_at, EXCLUDED.failed_at) THEN i.stale_at END,
  handle_checked_at = CASE WHEN i.handle = EXCLUDED.handle THEN i.handle_checked_at END,
  handle_valid = CASE WHEN i.handle = EXCLUDED.handle THEN i.handle_valid END,
  failures = EXCLUDED.failures, failed_at = EXCLUDED.failed_at, error = EXCLUDED.error
WHERE coalesce(greatest(i.fetched_at, CASE WHEN i.error LIKE 'tombstoned%' THEN i.failed_at END), '-infinity')
  < coalesce(EXCLUDED.fetched_at, EXCLUDED.failed_at)";

const NOTE: &str = "\
INSERT INTO penstock.meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

const NOTED: &str = "SELECT value FROM penstock.meta WHERE key = $1";

/// How long the database may take for a chunk.
const PATIENCE: Duration = Duration::from_secs(300);

/// Under what `penstock.meta` knows an export.
fn key(first: &str) -> String {
    format!("identity import {first}")
}

/// Returns up to where an export was imported before.
pub(super) async fn mark(pool: &Pool, first: &str) -> Result<Option<Mark>, ImportError> {
    let value: Option<String> = within(pool, async |connection| {
        sqlx::query_scalar(NOTED).bind(key(first)).persistent(false).fetch_optional(connection).await
    })
    .await?;
    // What another version noted is read from the start: that costs time alone.
    Ok(value.and_then(|value| serde_json::from_str(&value).ok()))
}

/// Writes a batch; returns how many rows it changed.
pub(super) async fn write(pool: &Pool, batch: &Batch) -> Result<u64, ImportError> {
    let rows = &batch.rows;
    let dids: Vec<&str> = rows.iter().map(|row| &*row.did).collect();
    let document = |row: usize| rows[row].document.as_ref();
    let keys: Vec<Option<[u8; 34]>> =
        (0..rows.len()).map(|row| document(row)?.key.as_ref().map(Key::to_bytes)).collect();
    let keys: Vec<Option<&[u8]>> = keys.iter().map(|key| key.as_ref().map(|key| &key[..])).collect();
    let hosts: Vec<Option<&str>> = (0..rows.len()).map(|row| document(row)?.host.as_deref()).collect();
    let handles: Vec<Option<&str>> = (0..rows.len()).map(|row| document(row)?.handle.as_deref()).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.at).collect();
    let gone: Vec<bool> = rows.iter().map(|row| row.document.is_none()).collect();
    let tombstoned = format!("{}: {}", ResolveError::Tombstoned.word(), ResolveError::Tombstoned);
    within(pool, async |connection| {
        let mut written = 0;
        if !rows.is_empty() {
            let query = sqlx::query(WRITE).persistent(false).bind(&dids).bind(&keys).bind(&hosts).bind(&handles);
            let query = query.bind(&times).bind(&gone).bind(&tombstoned);
            written = query.execute(&mut *connection).await?.rows_affected();
        }
        if let Some((first, mark)) = &batch.mark {
            let value = serde_json::to_string(mark).map_err(|error| sqlx::Error::Encode(error.into()))?;
            sqlx::query(NOTE).bind(key(first)).bind(value).persistent(false).execute(&mut *connection).await?;
        }
        Ok(written)
    })
    .await
}

/// Runs statements in a transaction, because behind a pooler the halves of a statement could otherwise come to two sessions.
async fn within<T>(
    pool: &Pool,
    statements: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> Result<T, ImportError> {
    let done = timeout(PATIENCE, async {
        let mut connection = pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let done = statements(&mut transaction).await?;
        transaction.commit().await?;
        Ok::<_, sqlx::Error>(done)
    });
    match done.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error.as_database_error().and_then(|error| error.code()).as_deref() {
            Some("42P01" | "3F000") => ImportError::NoTable,
            _ => ImportError::Database(error),
        }),
        Err(_) => Err(ImportError::Silent { seconds: PATIENCE.as_secs() }),
    }
}
