//! Which step is next: of deleted accounts, and of posts with many dependent rows that were created or deleted.
//!
//! They take turns. A new one gets a step soon; one that needs more goes to the end of the queue, and so does one that failed:
//! a few times at once, then after growing pauses. So neither the size nor the failures of one hold up another. The queue is
//! a separate table: no lock on the rows of an account can block it.

use std::time::Duration;

use sqlx::PgConnection;

use super::error::ApplyError;

/// A step that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The account's DID, or the post's URI.
    pub(crate) what: String,
    /// How often in a row it failed.
    pub(crate) attempts: u32,
    /// How many rows it may take at most, if more were found to be too many.
    pub(crate) rows: Option<u32>,
}

const UNSWEPT: &str = "\
SELECT r.did FROM penstock.repos AS r
 WHERE r.deleted_through IS NOT NULL AND (r.swept_through IS NULL OR r.swept_through < r.deleted_through)
   AND NOT EXISTS (SELECT FROM penstock.sweeps AS s WHERE s.what = r.did OFFSET 0)
 ORDER BY r.did LIMIT 1";

const UNFINISHED: &str = "\
SELECT u.uri FROM penstock.unfinished_posts AS u
 WHERE NOT EXISTS (SELECT FROM penstock.sweeps AS s WHERE s.what = u.uri OFFSET 0) ORDER BY u.uri LIMIT 1";

const DUE: &str = "\
SELECT what, attempts, step FROM penstock.sweeps WHERE due <= clock_timestamp() ORDER BY due LIMIT 1";

const LATER: &str = "\
INSERT INTO penstock.sweeps (what) VALUES ($1)
ON CONFLICT (what) DO UPDATE SET due = excluded.due, attempts = 0, error = NULL";

const FAILED: &str = "\
INSERT INTO penstock.sweeps (what, due, attempts, step, error)
VALUES ($1, clock_timestamp() + $2 * interval '1 second', $3, $4, $5)
ON CONFLICT (what) DO UPDATE SET due = excluded.due, attempts = excluded.attempts, step = excluded.step,
  error = excluded.error";

const DONE: &str = "DELETE FROM penstock.sweeps WHERE what = $1";

/// How often a step is tried again without a pause: others may only have interfered.
const AT_ONCE: u32 = 3;

/// The longest pause before a step that failed is tried again.
const LONGEST: Duration = Duration::from_secs(3600);

/// Finds the next step. `turn` counts up: new accounts, new posts and those that wait for a further step take turns, too.
pub(crate) async fn next(conn: &mut PgConnection, turn: usize) -> sqlx::Result<Option<Step>> {
    for source in (0..3).map(|more| (turn % 3 + more) % 3) {
        let found = if source == 0 {
            let due: Option<(String, i32, Option<i32>)> = sqlx::query_as(DUE).fetch_optional(&mut *conn).await?;
            let number = |number: i32| u32::try_from(number).unwrap_or_default();
            due.map(|(what, attempts, rows)| Step { what, attempts: number(attempts), rows: rows.map(number) })
        } else {
            let new = sqlx::query_scalar(if source == 1 { UNSWEPT } else { UNFINISHED });
            new.fetch_optional(&mut *conn).await?.map(|what| Step { what, attempts: 0, rows: None })
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Returns how long a failed step waits.
fn pause(attempts: u32) -> Duration {
    match attempts.checked_sub(AT_ONCE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1_u64.checked_shl(more).unwrap_or(u64::MAX)).min(LONGEST),
    }
}

// === impl Step ===

impl Step {
    /// Returns whether it is a post's.
    pub(crate) fn is_of_post(&self) -> bool {
        self.what.starts_with("at://")
    }

    /// Returns how many rows it takes of so many that the settings allow.
    pub(crate) fn limit(&self, allowed: u32) -> u32 {
        self.rows.unwrap_or(allowed).min(allowed).max(1)
    }

    /// Returns the step as it is to be tried next, having failed with so many rows.
    pub(crate) fn failed(&self, error: &ApplyError, rows: u32) -> Self {
        let rows = if error.is_out_of_time() { Some((rows / 2).max(1)) } else { self.rows };
        Self { attempts: self.attempts.saturating_add(1), rows, ..self.clone() }
    }

    /// Returns whether it failed more often than interference by others explains.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.attempts >= AT_ONCE
    }

    /// Records that it failed, and how.
    pub(crate) async fn keep(&self, conn: &mut PgConnection, error: &str) -> sqlx::Result<()> {
        sqlx::query(FAILED)
            .bind(&self.what)
            .bind(pause(self.attempts).as_secs_f64())
            .bind(i32::try_from(self.attempts).unwrap_or(i32::MAX))
            .bind(self.rows.map(|rows| i32::try_from(rows).unwrap_or(i32::MAX)))
            .bind(error.replace('\0', ""))
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Records that it is done: for good, or with more to follow after the others.
    pub(crate) async fn done(&self, conn: &mut PgConnection, for_good: bool) -> sqlx::Result<()> {
        sqlx::query(if for_good { DONE } else { LATER }).bind(&self.what).execute(conn).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_longer_each_time_and_never_for_ever() {
        let pauses = [0, 1, 2, 3, 4, 5, 14, 15, 40, 200, u32::MAX].map(|attempts| pause(attempts).as_secs());
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 2048, 3600, 3600, 3600, 3600]);
    }

    #[test]
    fn a_step_that_took_too_long_is_halved_down_to_one_row() {
        let error = |reason| ApplyError::Retry { reason, source: None };
        let mut step = Step { what: "did:plc:a".to_owned(), attempts: 0, rows: None };
        let mut limits = Vec::new();
        for _ in 0..6 {
            limits.push(step.limit(10));
            step = step.failed(&error("statement cancelled"), step.limit(10));
        }
        assert_eq!((limits, step.attempts), (vec![10, 5, 2, 1, 1, 1], 6));
        let step = Step { rows: None, ..step };
        assert_eq!(step.failed(&error("deadlock"), 10).limit(10), 10);
    }
}
