//! What workers counted in total, including those that no longer exist.
//!
//! Each pod has its own name, so totals by worker would grow without end. Those of workers that wrote nothing for a
//! long time are folded into one row, in one transaction: the sum stays. If such a worker writes again, it begins a new row.

use std::time::Duration;

use sqlx::PgConnection;

use super::connection::Store;
use super::error::StoreError;
use super::head::Head;

/// What one worker has written of one kind, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountTotal {
    /// The worker; empty for all those that no longer exist.
    pub worker: String,
    /// The field of `db:record_counts`.
    pub field: String,
    /// Rows inserted minus rows removed.
    pub total: i64,
}

/// The row of those that no longer exist comes first.
pub(super) const COUNTS: &str =
    "SELECT worker, field, total FROM penstock.counts ORDER BY worker COLLATE \"C\", field COLLATE \"C\"";
const COUNTS_OF: &str = "SELECT worker, field, total FROM penstock.counts WHERE worker = $1";

/// Held by the one worker that folds. A locked row is left for the next time.
const BEGIN: &str = "SELECT set_config('lock_timeout', '1s', true), pg_try_advisory_xact_lock($1)";

const FOLDER: i64 = 0x7065_6e73_746f_636f;

/// A worker that writes at this very moment is waited for, and what it wrote is folded with the rest.
const FOLD: &str = "\
WITH idle AS (
  SELECT worker FROM penstock.counts WHERE worker <> '' GROUP BY worker
  HAVING max(written_at) < now() - $1 * interval '1 second' ORDER BY worker LIMIT $2
), gone AS (
  DELETE FROM penstock.counts AS c WHERE c.worker = ANY(ARRAY(SELECT worker FROM idle)) RETURNING c.worker, c.field, c.total
), folded AS (
  INSERT INTO penstock.counts AS c (worker, field, total)
  SELECT '', field, sum(total)::bigint FROM gone GROUP BY field ORDER BY field
  ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total, written_at = excluded.written_at
)
SELECT count(DISTINCT worker) FROM gone";

// === impl Store ===

impl Store {
    /// Reads the totals of every worker that ever wrote here, dead ones included.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn counts(&self) -> Result<Vec<CountTotal>, StoreError> {
        self.read_counts(None).await
    }

    /// Reads the totals of one worker.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn counts_of(&self, worker: &str) -> Result<Vec<CountTotal>, StoreError> {
        self.read_counts(Some(worker)).await
    }

    async fn read_counts(&self, worker: Option<&str>) -> Result<Vec<CountTotal>, StoreError> {
        let query = match worker {
            None => sqlx::query_as(COUNTS),
            Some(worker) => sqlx::query_as(COUNTS_OF).bind(worker),
        };
        let rows = self.in_transaction(async |tx| query.fetch_all(tx).await).await;
        let rows: Vec<(String, String, i64)> = rows.map_err(StoreError::Counts)?;
        Ok(rows.into_iter().map(|(worker, field, total)| CountTotal { worker, field, total }).collect())
    }

    /// Folds the totals of up to `limit` workers that wrote nothing for `idle` into one; returns how many workers those
    /// were. Nothing is lost or duplicated if one of them is alive.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or one of their rows is locked.
    pub async fn fold_counts(&self, idle: Duration, limit: u32) -> Result<u64, StoreError> {
        let mut conn = self.connection().await.map_err(StoreError::Counts)?;
        let folded = self.in_time(fold(&self.head, &mut conn, idle, limit)).await;
        conn.answered(folded).map_err(StoreError::Counts)
    }
}

async fn fold(head: &Head, conn: &mut PgConnection, idle: Duration, limit: u32) -> sqlx::Result<u64> {
    let mut tx = head.begin(conn).await?;
    let (_, alone): (String, bool) = sqlx::query_as(BEGIN).bind(FOLDER).fetch_one(&mut *tx).await?;
    if !alone {
        tx.rollback().await?;
        return Ok(0);
    }
    let query = sqlx::query_scalar(FOLD).bind(idle.as_secs_f64()).bind(i64::from(limit));
    let workers: i64 = query.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(workers.cast_unsigned())
}
