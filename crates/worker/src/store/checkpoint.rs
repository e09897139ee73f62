//! The checkpoint: up to which number a host's events are known to be written, in case Redis is lost.

use penstock_core::stream::StreamId;
use sqlx::PgConnection;

use super::connection::Store;
use super::error::StoreError;
use super::head::Head;

/// Up to where one host's events are settled: committed, or dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The relay's host.
    pub host: String,
    /// The last sequence number up to which every event is settled; 0 where none is.
    pub seq: u64,
    /// The last ID of the stream at that moment.
    pub stream_id: StreamId,
}

/// Held for the transaction by the one worker whose turn it is.
const TURN: i64 = 0x7065_6e73_746f_636c;

const BEGIN: &str = "\
SELECT pg_try_advisory_xact_lock($1), coalesce((SELECT value FROM penstock.meta WHERE key = 'incarnation'), '')";

// A host's sequence may begin again: then the number goes down.
const KEEP: &str = "\
INSERT INTO penstock.checkpoint AS c (host, seq, stream_id, updated_at) VALUES ($1, $2, $3, clock_timestamp())
ON CONFLICT (host) DO UPDATE SET seq = excluded.seq, stream_id = excluded.stream_id, updated_at = excluded.updated_at";

// === impl Store ===

impl Store {
    /// Saves the checkpoint that `compute` returns for this incarnation of the database, and returns it; none if there
    /// is none, or if it is another worker's turn.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn checkpoint<F>(&self, compute: impl FnOnce(String) -> F) -> Result<Option<Checkpoint>, StoreError>
    where
        F: Future<Output = Option<Checkpoint>>,
    {
        let mut conn = self.connection().await.map_err(StoreError::Checkpoint)?;
        let kept = self.in_time(keep(&self.head, &mut conn, compute)).await;
        conn.answered(kept).map_err(StoreError::Checkpoint)
    }
}

async fn keep<F>(
    head: &Head,
    conn: &mut PgConnection,
    compute: impl FnOnce(String) -> F,
) -> sqlx::Result<Option<Checkpoint>>
where
    F: Future<Output = Option<Checkpoint>>,
{
    let mut turn = head.begin(conn).await?;
    let (is_mine, incarnation): (bool, String) = sqlx::query_as(BEGIN).bind(TURN).fetch_one(&mut *turn).await?;
    let checkpoint = if is_mine { compute(incarnation).await } else { None };
    if let Some(Checkpoint { host, seq, stream_id }) = &checkpoint {
        sqlx::query(KEEP)
            .bind(host)
            .bind(i64::try_from(*seq).unwrap_or(i64::MAX))
            .bind(stream_id.to_string())
            .execute(&mut *turn)
            .await?;
    }
    turn.commit().await?;
    Ok(checkpoint)
}
