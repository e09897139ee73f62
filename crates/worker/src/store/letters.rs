//! Dead letters as they stand in PostgreSQL, and what is pruned by age.

use std::borrow::Cow;

use penstock_core::stream::StreamId;

use super::version::Stamp;
use super::{Store, StoreError};

/// An entry, or a message, that failed for good.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// What tells it from others: the ID that the entry had in the stream at first.
    pub orig_id: Cow<'a, str>,
    /// Its `type`.
    pub kind: &'a str,
    /// Its `data`, byte for byte.
    pub data: &'a [u8],
    /// Its `seq`, empty where it has none.
    pub seq: &'a str,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Why it failed.
    pub error: &'a str,
    /// The consumer that gave it up.
    pub consumer: &'a str,
}

const KEEP: &str = "\
INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (orig_id) DO UPDATE SET kind = excluded.kind, data = excluded.data, seq = excluded.seq,
  deliveries = excluded.deliveries, error = excluded.error, consumer = excluded.consumer";

const PRUNE_TOMBSTONES: &str = "\
DELETE FROM penstock.tombstones WHERE uri IN (
  SELECT uri FROM penstock.tombstones WHERE entry_id < $1 ORDER BY entry_id LIMIT $2 FOR UPDATE SKIP LOCKED)";

const PRUNE_LETTERS: &str = "\
DELETE FROM penstock.dead_letters WHERE orig_id IN (
  SELECT orig_id FROM penstock.dead_letters ORDER BY created_at DESC, orig_id DESC OFFSET $1)";

// === impl Store ===

impl Store {
    /// Keeps a dead letter; the same entry again replaces it.
    ///
    /// # Errors
    /// When PostgreSQL does not take it: the entry must not be acknowledged then.
    pub async fn dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let text = |text: &str| text.replace('\0', "");
        let query = sqlx::query(KEEP)
            .bind(&*letter.orig_id)
            .bind(text(letter.kind))
            .bind(letter.data)
            .bind(text(letter.seq))
            .bind(i64::try_from(letter.deliveries).unwrap_or(i64::MAX))
            .bind(text(letter.error))
            .bind(letter.consumer);
        let mut conn = self.connection().await.map_err(StoreError::DeadLetter)?;
        let kept = self.in_time(query.execute(&mut *conn)).await;
        conn.answered(kept).map_err(StoreError::DeadLetter)?;
        Ok(())
    }

    /// Removes dead letters but the newest `keep`, and returns how many went.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn prune_dead_letters(&self, keep: u32) -> Result<u64, StoreError> {
        self.prune("dead letters", sqlx::query(PRUNE_LETTERS).bind(i64::from(keep))).await
    }

    /// Removes up to `limit` tombstones of entries before `before`, and returns how many went.
    ///
    /// `before` must not be later than the begin of the relay's replay window, the oldest entry that is not
    /// acknowledged, and the oldest dead letter: an older event could come again after that and would find nothing.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn prune_tombstones(&self, before: StreamId, limit: u32) -> Result<u64, StoreError> {
        let query = sqlx::query(PRUNE_TOMBSTONES).bind(Stamp::live(before, None).to_string()).bind(i64::from(limit));
        self.prune("tombstones", query).await
    }

    async fn prune(
        &self,
        what: &'static str,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<u64, StoreError> {
        let failed = |source| StoreError::Prune { what, source };
        let mut conn = self.connection().await.map_err(failed)?;
        let done = self.in_time(query.execute(&mut *conn)).await;
        Ok(conn.answered(done).map_err(failed)?.rows_affected())
    }
}
