//! What the AppView's `users` say of accounts, copied once to where it survives that a row is pruned.

use sqlx::{Connection, PgConnection};
use tracing::info;

/// How many accounts one transaction copies.
const PIECE: i64 = 2000;

/// Up to where it came is kept in `penstock.meta`.
const FROM: &str = "SELECT value FROM penstock.meta WHERE key = 'profiles'";

const KEEP: &str = "\
INSERT INTO penstock.meta (key, value) VALUES ('profiles', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// No DID: it marks the end.
const DONE: &str = "done";

const NEXT: &str = "SELECT did FROM users WHERE did > $1 ORDER BY did LIMIT $2";

/// Takes the locks that batches take, in their order: after that nobody writes these accounts, and what a worker took
/// stands.
const HANDLES: &str = "\
INSERT INTO penstock.repos AS r (did, handle)
SELECT t.did, nullif(t.handle, 'handle.invalid') FROM users AS t WHERE t.did = ANY($1)
  AND (t.handle <> 'handle.invalid' OR t.profile_record IS NOT NULL)
 ORDER BY t.did COLLATE \"C\"
ON CONFLICT (did) DO UPDATE SET handle = coalesce(r.handle, excluded.handle)";

const PROFILES: &str = "\
INSERT INTO penstock.profiles (did, display_name, description, avatar_url, banner_url, record, pinned_post, created_at)
SELECT did, display_name, description, avatar_url, banner_url, profile_record, pinned_post, nullif(created_at, indexed_at)
  FROM users WHERE did = ANY($1) AND profile_record IS NOT NULL
ON CONFLICT (did) DO NOTHING";

/// Copies handles and profiles of `users` to tables of ours, a piece at a time, and once: interrupted, it goes on where it
/// was.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses a statement. What was copied stays so.
pub(crate) async fn fill_profiles(conn: &mut PgConnection) -> sqlx::Result<()> {
    let kept: Option<String> = sqlx::query_scalar(FROM).fetch_optional(&mut *conn).await?;
    let mut from = kept.unwrap_or_default();
    let mut accounts = 0;
    while from != DONE {
        let dids: Vec<String> = sqlx::query_scalar(NEXT).bind(&from).bind(PIECE).fetch_all(&mut *conn).await?;
        accounts += dids.len();
        let mut tx = conn.begin().await?;
        sqlx::query(HANDLES).bind(&dids).execute(&mut *tx).await?;
        sqlx::query(PROFILES).bind(&dids).execute(&mut *tx).await?;
        from = dids.last().cloned().unwrap_or_else(|| DONE.to_owned());
        sqlx::query(KEEP).bind(&from).execute(&mut *tx).await?;
        tx.commit().await?;
    }
    if accounts > 0 {
        info!(accounts, "handles and profiles copied");
    }
    Ok(())
}
