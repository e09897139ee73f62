//! An upper bound of the stream IDs in all rows, kept in PostgreSQL so that it survives a lost Redis.
//!
//! Rows are ordered by the IDs of their entries. After a failover, Redis may lack the newest entries while its clock is
//! behind: it would assign IDs below those of existing rows, and later events would be taken for earlier ones. So
//! workers raise the bound in `penstock.meta` before they write anything above it, somewhat ahead, and ingest starts above it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use penstock_core::stream::StreamId;
use sqlx::PgConnection;

use super::head::Head;

/// How far ahead of what is written the bound is set at least, in ms: entries that a worker has read and not written yet are
/// below it too. So far a new ingest may find it ahead of the clock.
const AHEAD: u64 = 10_000;

/// How far ahead of entries that are older than this it is set at most, in ms, for a backlog is not to raise it with every batch.
const FAR: u64 = 600_000;

/// The greatest bound: larger numbers are not times.
const END: u64 = 999_999_999_999_999;

/// Raises the bound to a number of ms and returns it; what another worker set higher stays.
const RAISE: &str = "\
INSERT INTO penstock.meta AS m (key, value) VALUES ('reserved', $1::bigint::text)
ON CONFLICT (key) DO UPDATE
  SET value = CASE WHEN m.value ~ '^[0-9]{1,15}$' THEN greatest(m.value::bigint, $1)::text ELSE excluded.value END
RETURNING value::bigint";

/// Up to where the bound is known to stand, in ms; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved(Arc<AtomicU64>);

// === impl Reserved ===

impl Reserved {
    /// Does what [`Self::cover`] does in a transaction of its own: other workers need not wait for what is written then.
    pub(super) async fn cover_first(&self, head: &Head, conn: &mut PgConnection, newest: StreamId) -> sqlx::Result<()> {
        if self.raised(newest).is_none() {
            return Ok(());
        }
        let mut tx = head.begin(conn).await?;
        self.cover(&mut tx, newest).await?;
        tx.commit().await
    }

    /// Ensures that the bound covers IDs up to this one, before anything with such an ID is written.
    pub(super) async fn cover(&self, conn: &mut PgConnection, newest: StreamId) -> sqlx::Result<()> {
        let Some(bound) = self.raised(newest) else { return Ok(()) };
        let stands: i64 = sqlx::query_scalar(RAISE).bind(bound.cast_signed()).fetch_one(conn).await?;
        self.0.fetch_max(stands.cast_unsigned(), Ordering::Relaxed);
        Ok(())
    }

    fn raised(&self, newest: StreamId) -> Option<u64> {
        raised(newest.ms, self.0.load(Ordering::Relaxed), Timestamp::now())
    }
}

/// Returns the bound to raise the current one to, all in ms; none if it is far enough ahead.
fn raised(newest: u64, stands: u64, now: Timestamp) -> Option<u64> {
    let newest = newest.min(END - FAR);
    if newest + AHEAD / 2 <= stands {
        return None;
    }
    let now = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Some((newest + AHEAD).max(now.min(newest + FAR)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_raised_ahead_of_what_is_written_and_seldom() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let now = at(1_000_000_000);
        assert_eq!(raised(1_000_000_000, 0, now), Some(1_000_010_000));
        assert_eq!(raised(1_000_005_000, 1_000_010_000, now), None);
        assert_eq!(raised(1_000_005_001, 1_000_010_000, now), Some(1_000_015_001));
        assert_eq!(raised(1_000, 0, now), Some(601_000), "of a backlog");
        assert_eq!(raised(999_900_000, 0, now), Some(1_000_000_000), "never beyond now for what is old");
        assert_eq!(raised(u64::MAX, 0, now), Some(END - FAR + AHEAD));
        let mut raises = 0;
        let mut stands = 0;
        for newest in (0..3_600_000).step_by(100) {
            if let Some(bound) = raised(newest, stands, at(i64::try_from(newest).unwrap())) {
                (stands, raises) = (bound, raises + 1);
            }
            assert!(newest + AHEAD / 2 <= stands);
        }
        assert!(raises <= 3_600_000 / 5_000, "{raises}");
    }
}
