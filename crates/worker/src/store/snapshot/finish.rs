//! Closes a snapshot: what the repo's row says from then on.

use penstock_core::stream::StreamId;

use super::Finished;
use crate::store::connection::Store;
use crate::store::floor::END;

/// How many bytes of a root are kept.
const PREFIX: usize = 8;

/// A commit that is newer has said its own root. A mark by the clock of this server is of something that the snapshot has if it was
/// made before reading began: what was missed was on the host by then.
const FINISH: &str = "\
UPDATE penstock.repos SET
    root = CASE WHEN rev > $2 THEN root ELSE coalesce($3, CASE WHEN rev = $2 THEN root END) END, rev = greatest(rev, $2),
    sync = CASE WHEN sync_at < to_timestamp($4::float8 / 1000) THEN NULL ELSE sync END,
    sync_at = CASE WHEN sync_at < to_timestamp($4::float8 / 1000) THEN NULL ELSE sync_at END,
    snapshot_rev = $2, snapshot_entry = CASE WHEN writing_rev = $2 THEN writing_entry ELSE snapshot_entry END,
    writing_rev = NULL, writing_entry = NULL, writing_through = NULL, writing_fresh = NULL
 WHERE did = $1 AND ((writing_rev = $2 AND writing_through >= $5 AND (deleted_through IS NULL OR deleted_through < writing_entry))
    OR (snapshot_rev = $2 AND (deleted_through IS NULL OR deleted_through < snapshot_entry) AND writing_rev IS NULL))";

// === impl Store ===

impl Store {
    pub(super) async fn finish(
        &self,
        did: &str,
        rev: &str,
        root: &[u8; 32],
        started: StreamId,
    ) -> sqlx::Result<Finished> {
        let prefix = Some(&root[..PREFIX]).filter(|_| root.iter().any(|byte| *byte != 0));
        let query = sqlx::query(FINISH).bind(did).bind(rev).bind(prefix).bind(started.ms as f64).bind(END);
        let done = self.in_unhurried_transaction(async |tx| query.execute(tx).await).await?;
        Ok(if done.rows_affected() > 0 { Finished::Whole } else { Finished::Incomplete })
    }
}
