//! A row of the table as it stands, for a person to look at.

use penstock_postgres::Pool;
use penstock_wire::Key;
use sqlx::Acquire as _;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, postgres::PgDatabaseError};

const READ: &str = "\
SELECT key, host, handle, handle_valid, stale, failures, error,
  extract(epoch FROM clock_timestamp() - fetched_at)::bigint AS fetched,
  extract(epoch FROM clock_timestamp() - handle_checked_at)::bigint AS checked,
  extract(epoch FROM clock_timestamp() - stale_at)::bigint AS stale_for,
  extract(epoch FROM clock_timestamp() - failed_at)::bigint AS failed
FROM penstock.identities WHERE did = $1";

/// What the table says of an account; times are seconds ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The signing key.
    pub key: Option<Key>,
    /// The present host.
    pub host: Option<String>,
    /// The handle that the document claims.
    pub handle: Option<String>,
    /// Whether it led back to the account.
    pub handle_valid: Option<bool>,
    /// When that was looked at.
    pub checked: Option<i64>,
    /// When the document was asked for; of an import, when the directory took the operation.
    pub fetched: Option<i64>,
    /// Why it has to be asked for again.
    pub stale: Option<String>,
    /// Since when.
    pub stale_for: Option<i64>,
    /// How often in a row asking was of no use.
    pub failures: i32,
    /// When that, or asking because of a wrong signature, was last.
    pub failed: Option<i64>,
    /// What came of it.
    pub error: Option<String>,
}

/// Reads what the table says; none where it has no such row.
///
/// # Errors
/// The database cannot be asked.
pub async fn stored(pool: &Pool, did: &str) -> sqlx::Result<Option<Stored>> {
    let mut connection = pool.acquire().await?;
    // A transaction, because behind a pooler the halves of a statement could otherwise come to two sessions.
    let mut transaction = connection.begin().await?;
    let row = sqlx::query(READ).bind(did).persistent(false).fetch_optional(&mut *transaction).await?;
    transaction.commit().await?;
    row.as_ref().map(read).transpose()
}

/// Whether a failure means that the table is missing.
#[must_use]
pub fn is_missing(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| matches!(error.code(), "42P01" | "3F000"))
}

fn read(row: &PgRow) -> sqlx::Result<Stored> {
    let key: Option<&[u8]> = row.try_get("key")?;
    Ok(Stored {
        key: key.and_then(|key| Key::from_bytes(key).ok()),
        host: row.try_get("host")?,
        handle: row.try_get("handle")?,
        handle_valid: row.try_get("handle_valid")?,
        checked: row.try_get("checked")?,
        fetched: row.try_get("fetched")?,
        stale: row.try_get("stale")?,
        stale_for: row.try_get("stale_for")?,
        failures: row.try_get("failures")?,
        failed: row.try_get("failed")?,
        error: row.try_get("error")?,
    })
}
