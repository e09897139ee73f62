//! What the AppView's `users` say of accounts, copied once to where it survives that a row is pruned.

use std::time::Instant;

use sqlx::PgConnection;
use tracing::info;

use super::database::Database;
use super::news::{News, SELDOM};
use super::session;
use super::stage::Stage;

/// How many accounts one transaction copies.
const PIECE: i64 = 2000;

/// Up to where it came is kept in `penstock.meta`.
const FROM: &str = "SELECT value FROM penstock.meta WHERE key = 'profiles'";

const KEEP: &str = "\
INSERT INTO penstock.meta (key, value) VALUES ('profiles', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// No DID: it marks the end.
const DONE: &str = "done";

/// Roughly how many there are.
const ALL: &str = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass('users')";

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
pub(crate) async fn fill_profiles(conn: &mut PgConnection, database: Database<'_>) -> sqlx::Result<()> {
    let mut tx = session::begin_reading(conn).await?;
    let kept: Option<String> = sqlx::query_scalar(FROM).fetch_optional(&mut *tx).await?;
    let mut from = kept.unwrap_or_default();
    let mut accounts = 0;
    let all: i64 = sqlx::query_scalar(ALL).fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    let mut told = Instant::now();
    while from != DONE {
        let mut tx = session::begin_reading(conn).await?;
        let dids: Vec<String> = sqlx::query_scalar(NEXT).bind(&from).bind(PIECE).fetch_all(&mut *tx).await?;
        tx.rollback().await?;
        accounts += dids.len();
        let mut tx = session::begin_waiting(conn).await?;
        sqlx::query(HANDLES).bind(&dids).execute(&mut *tx).await?;
        sqlx::query(PROFILES).bind(&dids).execute(&mut *tx).await?;
        from = dids.last().cloned().unwrap_or_else(|| DONE.to_owned());
        sqlx::query(KEEP).bind(&from).execute(&mut *tx).await?;
        tx.commit().await?;
        let (done, all) = (accounts as u64, all.unsigned_abs().max(accounts as u64));
        let for_log = told.elapsed() > SELDOM;
        if for_log {
            told = Instant::now();
        }
        database.tell(News::Comes { stage: Stage::Profiles, what: "users", done, all, for_log });
    }
    if accounts > 0 {
        info!(accounts, "handles and profiles copied");
    }
    Ok(())
}
