//! Accounts that forbid the collection of their data in the AppView's `user_settings`.
//!
//! What the AppView says is copied to `penstock.repos` under the lock that every batch takes, so that no batch relies on
//! what another worker remembers. While an account is marked, nothing of it is written, and its rows are removed like those
//! of a deleted account. An account that opts back in starts again like one that was deleted: earlier events stay out,
//! however late they are delivered.

use penstock_core::stream::StreamId;
use sqlx::PgConnection;

use super::connection::Store;
use super::error::StoreError;
use super::head::Head;
use super::reserve::Reserved;
use super::version::Stamp;

/// How many accounts one query returns at most.
const LOOK: i64 = 500;

const IS_THERE: &str = "SELECT to_regclass('user_settings') IS NOT NULL";

// Each side is looked up by its own key: the other's collation would not find it.
const DIFFERENT: &str = "\
SELECT s.user_did FROM user_settings AS s WHERE s.data_collection_forbidden
   AND NOT EXISTS (SELECT FROM penstock.repos AS r WHERE r.did = s.user_did COLLATE \"C\" AND r.forbidden)
UNION ALL
SELECT r.did FROM penstock.repos AS r WHERE r.forbidden
   AND NOT EXISTS (SELECT FROM user_settings AS s
     WHERE s.user_did = r.did COLLATE \"default\" AND s.data_collection_forbidden)
LIMIT $1";

const LOCK: &str = "\
INSERT INTO penstock.repos AS r (did) VALUES ($1) ON CONFLICT (did) DO UPDATE SET rev = r.rev
RETURNING forbidden IS TRUE";

const IS_FORBIDDEN: &str = "\
SELECT EXISTS (SELECT FROM user_settings WHERE user_did = $1 AND data_collection_forbidden)";

const MARK: &str = "\
UPDATE penstock.repos SET forbidden = CASE WHEN $2 THEN true END, deleted_through = greatest(deleted_through, $3),
    swept_through = CASE WHEN NOT $2 THEN swept_through END
 WHERE did = $1";

// === impl Store ===

impl Store {
    /// Returns some of the accounts that opted out and are not marked, or that are marked and opted back in.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or does not allow reading `user_settings`. A missing table or column
    /// is not an error: then nobody opts out, and marks stay.
    pub async fn opt_outs_to_obey(&self) -> Result<Vec<String>, StoreError> {
        let mut conn = self.connection().await.map_err(StoreError::OptOuts)?;
        let found = self.in_time(differing(&self.head, &mut conn)).await;
        match conn.answered(found) {
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            found => found.map_err(StoreError::OptOuts),
        }
    }

    /// Copies what `user_settings` says of an account now; `last` returns the stream's last entry, and is asked once
    /// no batch can write any more. Returns whether the account is forbidden now, where that changed.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses a statement.
    pub async fn obey_opt_out<F>(&self, did: &str, last: impl FnOnce() -> F) -> Result<Option<bool>, StoreError>
    where
        F: Future<Output = Option<StreamId>>,
    {
        let mut conn = self.connection().await.map_err(StoreError::OptOuts)?;
        let obeyed = self.in_time(obey(&self.head, &mut conn, &self.reserved, did, last)).await;
        conn.answered(obeyed).map_err(StoreError::OptOuts)
    }
}

async fn differing(head: &Head, conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    // Asked first: a failed statement each minute would fill the server's log.
    let mut tx = head.begin(conn).await?;
    let differing = if sqlx::query_scalar(IS_THERE).fetch_one(&mut *tx).await? {
        sqlx::query_scalar(DIFFERENT).bind(LOOK).fetch_all(&mut *tx).await?
    } else {
        Vec::new()
    };
    tx.commit().await?;
    Ok(differing)
}

async fn obey<F>(
    head: &Head,
    conn: &mut PgConnection,
    reserved: &Reserved,
    did: &str,
    last: impl FnOnce() -> F,
) -> sqlx::Result<Option<bool>>
where
    F: Future<Output = Option<StreamId>>,
{
    let mut tx = head.begin(conn).await?;
    let marked: bool = sqlx::query_scalar(LOCK).bind(did).fetch_one(&mut *tx).await?;
    let forbidden: bool = sqlx::query_scalar(IS_FORBIDDEN).bind(did).fetch_one(&mut *tx).await?;
    let through = if forbidden == marked { None } else { last().await };
    let Some(through) = through else {
        tx.rollback().await?;
        return Ok(None);
    };
    reserved.cover(&mut tx, through).await?;
    // As text the last entry's own stamp sorts after its bare ID.
    let through = Stamp::live(through.next(), None).to_string();
    sqlx::query(MARK).bind(did).bind(forbidden).bind(through).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(forbidden))
}

/// Returns whether a table or a column is not there.
fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "42703"))
}
