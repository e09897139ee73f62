//! Dead letters in PostgreSQL, and what is pruned by age.

use std::borrow::Cow;

use penstock_core::dead_letter::Bounds;
use penstock_core::stream::StreamId;

use super::connection::Store;
use super::error::StoreError;
use super::version::Stamp;

/// An entry, or a message, that can never be written.
#[derive(Clone, Debug)]
pub struct DeadLetter<'a> {
    /// Its identity: the first ID that the entry had in the stream.
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
    /// The DID whose entry it is; empty where that is not known.
    pub repo: &'a str,
}

/// An event that was read again, because Redis lost its data, has another ID: its letter, found by what is in it, takes that, under
/// which Redis holds it now.
const KEEP: &str = "\
WITH again AS (
  UPDATE penstock.dead_letters SET orig_id = $1, deliveries = $5, error = $6, consumer = $7, settled_at = NULL
   WHERE orig_id = (SELECT orig_id FROM penstock.dead_letters
      WHERE $4 <> '' AND left(seq, 40) = left($4, 40) AND seq = $4 AND kind = $2 AND data = $3
      ORDER BY orig_id = $1 DESC LIMIT 1)
  RETURNING orig_id)
INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, repo)
SELECT $1, $2, $3, $4, $5, $6, $7, nullif($8, '') WHERE NOT EXISTS (SELECT FROM again)
ON CONFLICT (orig_id) DO UPDATE SET kind = excluded.kind, data = excluded.data, seq = excluded.seq,
  deliveries = excluded.deliveries, error = excluded.error, consumer = excluded.consumer, repo = excluded.repo,
  settled_at = NULL";

const PRUNE_TOMBSTONES: &str = "\
DELETE FROM penstock.tombstones WHERE uri IN (
  SELECT uri FROM penstock.tombstones WHERE entry_id < $1 ORDER BY entry_id LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// While all weigh more than they may ($1), letters go of those that hold more than their share ($3), of who holds most
/// first and their oldest first, and then the oldest of all; at most so much of it in one statement ($4). A letter weighs its
/// bytes, and at least $2: so one sum bounds both, as in Redis. One worker at a time.
const BOUND_LETTERS: &str = "\
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($5) AS mine)
DELETE FROM penstock.dead_letters WHERE (SELECT mine FROM turn) AND orig_id IN (
  SELECT orig_id FROM (
    SELECT orig_id, total - $1 AS excess, weight, sum(weight) OVER (
      ORDER BY of_repo > $3 DESC, CASE WHEN of_repo > $3 THEN of_repo END DESC, created_at, orig_id) AS through
    FROM (
      SELECT orig_id, created_at, weight, sum(weight) OVER () AS total,
        sum(weight) OVER (PARTITION BY coalesce(repo, kind) ORDER BY created_at DESC, orig_id DESC) AS of_repo
      FROM (
        SELECT orig_id, created_at, repo, CASE kind WHEN 'message' THEN kind ELSE '' END AS kind,
          greatest(octet_length(data) + octet_length(error), $2) AS weight
        FROM penstock.dead_letters) AS letters) AS sums) AS ranked
  WHERE through - weight < least(excess, $4))";

/// How many bytes one statement removes at most.
const BOUND_STEP: i64 = 64_000_000;

/// Held by the one worker that bounds the letters.
const TURN: i64 = 0x7065_6e73_746f_636c;

// === impl Store ===

impl Store {
    /// Stores a dead letter; the same entry again replaces it.
    ///
    /// # Errors
    /// When PostgreSQL does not take it; then the entry must not be acknowledged.
    pub async fn dead_letter(&self, letter: &DeadLetter<'_>) -> Result<(), StoreError> {
        let text = |text: &str| text.replace('\0', "");
        let query = sqlx::query(KEEP)
            .bind(&*letter.orig_id)
            .bind(text(letter.kind))
            .bind(letter.data)
            .bind(text(letter.seq))
            .bind(i64::try_from(letter.deliveries).unwrap_or(i64::MAX))
            .bind(text(letter.error))
            .bind(letter.consumer)
            .bind(text(letter.repo));
        let kept = self.in_transaction(async |tx| query.execute(tx).await).await;
        kept.map(drop).map_err(StoreError::DeadLetter)
    }

    /// Removes some dead letters if there are more than the bounds allow, and returns how many; 0 if there are not.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn bound_dead_letters(&self, bounds: Bounds) -> Result<u64, StoreError> {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let query = sqlx::query(BOUND_LETTERS)
            .bind(number(bounds.bytes))
            .bind(number(bounds.least()))
            .bind(number(bounds.share()))
            .bind(BOUND_STEP)
            .bind(TURN);
        self.prune("dead letters", query).await
    }

    /// Removes up to `limit` tombstones of entries before `before`, and returns how many.
    ///
    /// `before` must not be later than the start of the relay's replay window, the oldest entry that is not
    /// acknowledged, and the oldest dead letter that may be replayed: an older event could come again after that and would
    /// find nothing.
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
        let done = self.in_transaction(async |tx| query.execute(tx).await).await;
        done.map(|done| done.rows_affected()).map_err(|source| StoreError::Prune { what, source })
    }
}
