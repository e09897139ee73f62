//! Removes what deleted accounts left behind, a bounded batch at a time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

use penstock_core::causes::chain;
use penstock_core::stream::StreamId;
use sqlx::PgConnection;

use super::connection::Store;
use super::derived;
use super::derived::Stale;
use super::error::ApplyError;
use super::error::Fault;
use super::parsed::{Op, Parsed, What};
use super::queue::{self, Step};
use super::table::Table;
use super::version::{Stamp, Version};

/// What one call of [`Store::sweep_deleted`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records removed, or rows derived from posts that were created or deleted.
    pub rows: u64,
    /// Keys of the AppView's cache that are stale by it.
    pub stale: BTreeSet<String>,
    /// Whether more accounts or rows may be waiting: call again soon.
    pub more: bool,
    /// The step that failed: it is tried again later, and the others continue.
    pub failed: Option<Unswept>,
}

/// An account or a post whose step failed for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unswept {
    /// The account's DID, or the post's URI.
    pub what: String,
    /// How often in a row it failed.
    pub attempts: u32,
    /// Whether it failed more often than interference by others explains.
    pub in_trouble: bool,
    /// A word for logs and metrics, from a fixed set.
    pub reason: &'static str,
    /// What PostgreSQL said.
    pub error: String,
}

/// Held for the transaction by the one worker that sweeps. A row that somebody else holds is waited for only a while: the
/// others wait for this step.
const BEGIN: &str = "SELECT set_config('lock_timeout', '1s', true), pg_try_advisory_xact_lock($1)";

const SWEEPER: i64 = 0x7065_6e73_746f_636b;

/// The lock that batches take: rows that one of them is about to move or take over are looked for only after it.
const LOCK: &str = "\
SELECT deleted_through FROM penstock.repos
 WHERE did = $1 AND deleted_through IS NOT NULL AND (swept_through IS NULL OR swept_through < deleted_through)
   FOR NO KEY UPDATE";

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
    /// Takes the next step. For a deleted account, removes up to `limit` of its records: rows, what waits for their places,
    /// and what they count. For a post that was created or deleted, updates the rows derived from it.
    ///
    /// Any worker may call it, at any time: one sweeps, the others return at once. Call it again soon while there is
    /// more, otherwise every few seconds. A step that fails is tried again later, with fewer rows if it took too long.
    ///
    /// # Errors
    /// As [`Store::apply`], if the failure could not be recorded either.
    pub async fn sweep_deleted(&self, worker: &str, limit: u32) -> Result<Swept, ApplyError> {
        let mut step = None;
        let swept: Result<Swept, Fault> = async {
            let mut conn = self.connection().await?;
            let swept = self.in_time(self.take_step(&mut conn, worker, limit, &mut step)).await;
            conn.answered(swept)
        }
        .await;
        match (swept, step) {
            (Err(fault), Some(step)) => self.keep_failure(&step, fault.into(), limit).await,
            (swept, _) => Ok(swept?),
        }
    }

    async fn keep_failure(&self, step: &Step, error: ApplyError, limit: u32) -> Result<Swept, ApplyError> {
        let rows = step.limit(if step.is_of_post() { self.page } else { limit });
        let step = step.failed(&error, rows);
        let text = chain(&error);
        let kept = async {
            let mut conn = self.connection().await?;
            let kept = async {
                let mut tx = self.head.begin(&mut conn).await?;
                step.keep(&mut tx, &text).await?;
                tx.commit().await
            };
            let kept = self.in_time(kept).await;
            conn.answered(kept)
        };
        // Where not even that can be kept it is not this step's fault.
        if kept.await.is_err() {
            return Err(error);
        }
        let (attempts, in_trouble, reason) = (step.attempts, step.is_in_trouble(), error.word());
        let failed = Unswept { what: step.what, attempts, in_trouble, reason, error: text };
        Ok(Swept { more: true, failed: Some(failed), ..Swept::default() })
    }

    async fn take_step(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        limit: u32,
        taken: &mut Option<Step>,
    ) -> Result<Swept, Fault> {
        let mut tx = self.head.begin(conn).await?;
        let swept = self.take_step_within(&mut tx, worker, limit, taken).await;
        // Left to itself the rollback would come later, and the next sweep would still find the lock held.
        let is_taken = swept.as_ref().is_ok_and(|swept| swept.more);
        let ended = if is_taken { tx.commit().await } else { tx.rollback().await };
        swept.and_then(|swept| ended.map(|()| swept).map_err(Fault::from))
    }

    /// Takes the next step within a transaction, which is to be committed where there was one.
    async fn take_step_within(
        &self,
        tx: &mut PgConnection,
        worker: &str,
        limit: u32,
        taken: &mut Option<Step>,
    ) -> Result<Swept, Fault> {
        let active = self.projector.refresh(tx).await?;
        let (_, alone): (String, bool) = sqlx::query_as(BEGIN).bind(SWEEPER).fetch_one(&mut *tx).await?;
        let next = if alone { queue::next(tx, self.turns.fetch_add(1, Relaxed)).await? } else { None };
        let Some(step) = next else { return Ok(Swept::default()) };
        *taken = Some(step.clone());
        let mut stale = Stale::default();
        let (rows, done) = if step.is_of_post() {
            derived::finish(tx, active, &step.what, step.limit(self.page), &mut stale).await?
        } else {
            self.sweep_account(tx, worker, &step.what, step.limit(limit), &mut stale).await?
        };
        step.done(tx, done).await?;
        Ok(Swept { rows, stale: stale.into_keys(), more: true, failed: None })
    }

    /// Removes up to `limit` records of an account; returns how many that were, and whether none is left.
    async fn sweep_account(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        did: &str,
        limit: u32,
        stale: &mut Stale,
    ) -> Result<(u64, bool), Fault> {
        let through: Option<String> = sqlx::query_scalar(LOCK).bind(did).fetch_optional(&mut *conn).await?;
        let Some(through) = through else { return Ok((0, true)) };
        let found = self.left_behind(conn, did, &through, limit).await?;
        let batch = batch(did, &found);
        let written = self.write(conn, worker, &batch, stale).await?;
        let rows = written.rows.values().sum::<u64>().min(found.len() as u64);
        // A row whose URI does not belong to its table is found again each time: rather leave it than never end.
        let done = found.len() < limit as usize || rows == 0;
        if done {
            sqlx::query(SWEPT).bind(did).bind(&through).execute(&mut *conn).await?;
            sqlx::query(PROFILE).bind(did).bind(&through).execute(conn).await?;
        }
        Ok((rows, done))
    }

    /// Finds records of a repo that its deletion took, in one snapshot: a record may move from the shadows to its table.
    async fn left_behind(
        &self,
        conn: &mut PgConnection,
        did: &str,
        through: &str,
        limit: u32,
    ) -> Result<Vec<(Option<Table>, String)>, Fault> {
        let rows: Vec<(String, String)> = sqlx::query_as(self.statements.left_behind())
            .bind(did)
            .bind(through)
            .bind(format!("at://{did}/"))
            .bind(format!("at://{did}/zz"))
            .bind(i64::from(limit))
            .fetch_all(conn)
            .await?;
        Ok(rows.into_iter().map(|(name, key)| (Table::named(&name), key)).collect())
    }
}

/// Makes one op of each record; whether it still is to go is decided under the lock. What was found in no table of records
/// stands in `penstock.records`, perhaps beside its row.
fn batch<'a>(did: &'a str, found: &[(Option<Table>, String)]) -> Parsed<'a> {
    let version = Version { rev: None, stamp: Some(Stamp::live(StreamId::MIN, None)) };
    let op = |(table, key): &(Option<Table>, String)| {
        let uri = table.map_or(Cow::Borrowed(key.as_str()), |table| table.uri_of(key)).into_owned();
        // Another program may have written a record to both tables that it can stand in: it goes from both.
        let homes = uri.split('/').nth(3).map_or(&[][..], Table::homes);
        let homes = match table {
            Some(table) if !homes.contains(table) => table.alone(),
            _ => homes,
        };
        Op { repo: did, uri, homes, version: version.clone(), what: What::Sweep, kept: None }
    };
    let mut ops: Vec<_> = found.iter().map(op).collect();
    ops.sort_by(|a, b| a.uri.cmp(&b.uri));
    Parsed { actors: BTreeMap::from([(did, None)]), sweeps: true, ops, ..Parsed::default() }
}
