//! Removes what deleted accounts left, a bounded batch at a time.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::stream::StreamId;
use sqlx::{Connection, PgConnection};

use super::batch::{Batch, Op, What};
use super::derived::Stale;
use super::error::Fault;
use super::table::Table;
use super::version::{Stamp, Version};
use super::{ApplyError, Store, derived};

/// What one call of [`Store::sweep_deleted`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records removed, or rows that followed from posts that came or went.
    pub rows: u64,
    /// Keys of the AppView's cache that are stale by it.
    pub stale: BTreeSet<String>,
    /// Whether more accounts or rows may be waiting: call again soon.
    pub more: bool,
}

/// Held for the transaction by the one worker that sweeps.
const SWEEPER: i64 = 0x7065_6e73_746f_636b;

const NEXT: &str = "\
SELECT did FROM penstock.repos
 WHERE deleted_through IS NOT NULL AND (swept_through IS NULL OR swept_through < deleted_through)
 ORDER BY did LIMIT 1";

/// The lock that batches take: rows that one of them is about to move or take over are looked for only after it.
const LOCK: &str = "SELECT deleted_through FROM penstock.repos WHERE did = $1 FOR NO KEY UPDATE";

const SWEPT: &str = "UPDATE penstock.repos SET swept_through = $2 WHERE did = $1";

/// Joined by the parameter: `penstock.repos.did` has a collation of its own, and by it the key of `users` is not found.
pub(super) const PROFILE: &str = "\
WITH gone AS (
  UPDATE penstock.repos SET profile_rev = NULL, profile_entry = NULL
   WHERE did = $1 AND (profile_entry IS NULL OR ltrim(profile_entry, '!') <= $2)
  RETURNING did
), copy AS (
  DELETE FROM penstock.profiles WHERE did = $1 AND EXISTS (SELECT FROM gone)
)
UPDATE users AS t SET display_name = NULL, description = NULL, avatar_url = NULL, banner_url = NULL,
    profile_record = NULL, pinned_post = NULL, search_vector = NULL, created_at = t.indexed_at
 WHERE t.did = $1 AND t.profile_record IS NOT NULL AND EXISTS (SELECT FROM gone)";

// === impl Store ===

impl Store {
    /// Removes up to `limit` records of an account that was deleted: rows, what waits behind them, and what they count.
    ///
    /// Any worker may call it, at any time: one sweeps, the others return at once. Call it again soon while there is
    /// more, else every few seconds.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn sweep_deleted(&self, worker: &str, limit: u32) -> Result<Swept, ApplyError> {
        match self.sweep(worker, limit).await {
            Err(fault) if fault.is_race() => Err(Fault::Moved.into()),
            other => Ok(other?),
        }
    }

    async fn sweep(&self, worker: &str, limit: u32) -> Result<Swept, Fault> {
        let mut conn = self.connection().await?;
        let swept = self.in_time(self.sweep_over(&mut conn, worker, limit)).await;
        conn.answered(swept)
    }

    async fn sweep_over(&self, conn: &mut PgConnection, worker: &str, limit: u32) -> Result<Swept, Fault> {
        let active = self.projector.refresh(conn).await?;
        let mut tx = conn.begin().await?;
        let alone: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(SWEEPER).fetch_one(&mut *tx).await?;
        if !alone {
            return Ok(Swept::default());
        }
        let next: Option<String> = sqlx::query_scalar(NEXT).fetch_optional(&mut *tx).await?;
        let Some(did) = next else {
            let mut stale = Stale::default();
            if let Some(rows) = derived::finish(&mut tx, active, self.page, &mut stale).await? {
                tx.commit().await?;
                return Ok(Swept { rows, stale: stale.into_keys(), more: true });
            }
            // Left to itself the rollback would come later, and the next sweep would still find the lock held.
            tx.rollback().await?;
            return Ok(Swept::default());
        };
        let through: String = sqlx::query_scalar(LOCK).bind(&did).fetch_one(&mut *tx).await?;
        let found = self.left_behind(&mut tx, &did, &through, limit).await?;
        let batch = batch(&did, &found);
        let mut stale = Stale::default();
        let written = self.write(&mut tx, worker, &batch, &mut stale).await?;
        let rows = written.rows.values().sum::<u64>().min(found.len() as u64);
        // A row whose URI does not belong to its table is found again each time: rather leave it than never end.
        let done = found.len() < limit as usize || rows == 0;
        if done {
            sqlx::query(SWEPT).bind(&did).bind(&through).execute(&mut *tx).await?;
            sqlx::query(PROFILE).bind(&did).bind(&through).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Swept { rows, stale: stale.into_keys(), more: true })
    }

    /// Finds records of a repo that its deletion took, in one snapshot: a record may move from the shadows to its table.
    async fn left_behind(
        &self,
        conn: &mut PgConnection,
        did: &str,
        through: &str,
        limit: u32,
    ) -> Result<Vec<(Table, String)>, Fault> {
        let rows: Vec<(String, String)> = sqlx::query_as(self.statements.left_behind())
            .bind(did)
            .bind(through)
            .bind(format!("at://{did}/"))
            .bind(format!("at://{did}/zz"))
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?;
        let table = |(name, key): (String, String)| Some((Table::named(&name)?, key));
        Ok(rows.into_iter().filter_map(table).collect())
    }
}

/// Makes one op of each record; whether it still is to go is decided under the lock.
fn batch<'a>(did: &'a str, found: &[(Table, String)]) -> Batch<'a> {
    let version = Version { rev: None, stamp: Some(Stamp::live(StreamId::MIN, None)) };
    let op = |(table, key): &(Table, String)| {
        let uri = table.uri_of(key).into_owned();
        // Another program may have written a record to both tables that it can stand in: it goes from both.
        let homes = Table::homes(uri.split('/').nth(3).unwrap_or_default());
        let homes = if homes.contains(table) { homes } else { table.alone() };
        Op { repo: did, uri, homes, version: version.clone(), what: What::Sweep }
    };
    let mut ops: Vec<_> = found.iter().map(op).collect();
    ops.sort_by(|a, b| a.uri.cmp(&b.uri));
    Batch { actors: BTreeMap::from([(did, None)]), sweeps: true, ops, ..Batch::default() }
}
