//! Handles that are to be checked, where identities are resolved: what an event says of a handle is only a hint.
//!
//! A batch only writes down whose handle may have changed; a check resolves it both ways, outside of any transaction, and
//! brings the result here. A handle that does not lead back to its account is checked again after growing pauses, one that
//! does is done with until the next event. Who else shows a handle that was found to be somebody's is checked again at once.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::accounts::Guards;
use super::connection::Store;
use super::error::StoreError;
use super::parsed::Parsed;
use super::version::Stamp;

/// An account whose handle is due to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandleCheck {
    /// The account.
    pub(crate) did: String,
    /// The stamp of the event that asked for it; empty where none did.
    entry: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The account's handle, which leads back to it.
    Valid(String),
    /// It has none that does.
    Invalid,
    /// Nobody could say.
    Unknown(String),
}

/// The longest pause before a handle that is not valid is checked again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Whoever takes a check has so long to settle it; then it is due again.
const LEASE: Duration = Duration::from_secs(120);

/// How many accounts that show the same handle are checked again at once.
const SAME: i64 = 100;

const TAKEN: &str = "\
UPDATE penstock.repos AS r SET identity_entry = u.entry
  FROM unnest($1::text[], $2::text[]) AS u (did, entry) WHERE r.did = u.did";

// An account that says all the time that it changed is not checked with each event.
const WANT: &str = "\
INSERT INTO penstock.handle_checks AS h (did, entry) SELECT u.did, u.entry FROM unnest($1::text[], $2::text[]) AS u (did, entry)
ON CONFLICT (did) DO UPDATE SET entry = excluded.entry, attempts = 0,
  due = least(h.due, greatest(clock_timestamp(), h.checked_at + interval '15 seconds'))";

/// Writes down whose handles may have changed: those of identity events that are later than the last one taken.
pub(super) async fn want(conn: &mut PgConnection, batch: &Parsed<'_>, guards: &Guards) -> sqlx::Result<()> {
    let later: Vec<_> = batch
        .renamed
        .iter()
        .filter(|(did, order)| guards.of(did).is_none_or(|guard| Some(**order) > guard.identity))
        .map(|(did, order)| (*did, Stamp::live(*order, None).to_string()))
        .collect();
    if later.is_empty() {
        return Ok(());
    }
    for sql in [TAKEN, WANT] {
        let dids = later.iter().map(|(did, _)| *did).bind_iter();
        sqlx::query(sql)
            .bind(dids)
            .bind(later.iter().map(|(_, entry)| &**entry).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

// By the time of the statement: that of the clock is another one for each row, and no index is searched by it.
const TAKE: &str = "\
WITH taken AS (
  SELECT did FROM penstock.handle_checks WHERE due <= statement_timestamp() ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE penstock.handle_checks AS h SET due = clock_timestamp() + $2 * interval '1 second', checked_at = clock_timestamp()
  FROM taken AS t WHERE h.did = t.did RETURNING h.did, h.entry";

/// The lock that batches take.
const LOCK: &str = "SELECT did FROM penstock.repos WHERE did = $1 FOR NO KEY UPDATE";

const STANDING: &str = "SELECT attempts FROM penstock.handle_checks WHERE did = $1 AND entry = $2 FOR UPDATE";

const REPO: &str = "UPDATE penstock.repos SET handle = $2 WHERE did = $1 AND handle IS DISTINCT FROM $2";

// The key is found by its own collation.
const USER: &str = "\
UPDATE users AS t SET handle = coalesce($2, 'handle.invalid') WHERE t.did = $1 AND t.handle <> coalesce($2, 'handle.invalid')";

/// A handle is one account's: the others that show it no longer have it.
const OTHERS: &str = "\
INSERT INTO penstock.handle_checks AS h (did, entry)
SELECT t.did, '' FROM users AS t WHERE t.handle = $2 AND t.did <> $1 LIMIT $3
ON CONFLICT (did) DO UPDATE SET due = least(h.due, greatest(clock_timestamp(), h.checked_at + interval '15 seconds'))";

const END: &str = "DELETE FROM penstock.handle_checks WHERE did = $1";

const AGAIN: &str = "\
UPDATE penstock.handle_checks SET due = clock_timestamp() + $2 * (0.75 + random() / 2) * interval '1 second',
    attempts = attempts + 1, error = $3
 WHERE did = $1";

// === impl Store ===

impl Store {
    /// Takes checks that are due, for two minutes.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or refuses a statement.
    pub(crate) async fn take_handle_checks(&self, most: usize) -> Result<Vec<HandleCheck>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let take = sqlx::query_as(TAKE).bind(most).bind(LEASE.as_secs_f64());
        let rows: Vec<(String, String)> = self.of_checks(async |tx| take.fetch_all(tx).await).await?;
        Ok(rows.into_iter().map(|(did, entry)| HandleCheck { did, entry }).collect())
    }

    /// Writes what a check found, unless a later event asked for another one.
    ///
    /// # Errors
    /// As [`Self::take_handle_checks`]; the check is then due again after its two minutes.
    pub(crate) async fn settle_handle_check(&self, check: &HandleCheck, checked: &Checked) -> Result<(), StoreError> {
        self.of_checks(async |tx| self.settle_check(tx, check, checked).await).await
    }

    async fn of_checks<T>(&self, act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> Result<T, StoreError> {
        self.in_transaction(act).await.map_err(StoreError::HandleChecks)
    }

    async fn settle_check(&self, tx: &mut PgConnection, check: &HandleCheck, checked: &Checked) -> sqlx::Result<()> {
        let HandleCheck { did, entry } = check;
        sqlx::query(LOCK).bind(did).execute(&mut *tx).await?;
        let attempts: Option<i32> = sqlx::query_scalar(STANDING).bind(did).bind(entry).fetch_optional(&mut *tx).await?;
        let Some(attempts) = attempts else { return Ok(()) };
        let handle = match checked {
            Checked::Valid(handle) => Some(Some(&**handle)),
            Checked::Invalid => Some(None),
            Checked::Unknown(_) => None,
        };
        if let Some(handle) = handle {
            sqlx::query(REPO).bind(did).bind(handle).execute(&mut *tx).await?;
            sqlx::query(USER).bind(did).bind(handle).execute(&mut *tx).await?;
        }
        match checked {
            Checked::Valid(handle) => {
                sqlx::query(OTHERS).bind(did).bind(handle).bind(SAME).execute(&mut *tx).await?;
                sqlx::query(END).bind(did).execute(tx).await?;
            }
            Checked::Invalid => again(tx, did, self.pause_of_check(attempts), None).await?,
            Checked::Unknown(error) => again(tx, did, self.pause_of_check(attempts), Some(error)).await?,
        }
        Ok(())
    }

    fn pause_of_check(&self, attempts: i32) -> Duration {
        pause(self.rules.retry, attempts)
    }
}

async fn again(tx: &mut PgConnection, did: &str, pause: Duration, error: Option<&str>) -> sqlx::Result<()> {
    let error = error.map(|error| error.replace('\0', ""));
    sqlx::query(AGAIN).bind(did).bind(pause.as_secs_f64()).bind(error).execute(tx).await?;
    Ok(())
}

/// Returns how long a handle waits after so many checks in a row that did not find it valid.
fn pause(first: Duration, attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or_default().min(16);
    first.saturating_mul(1 << doublings).min(LONGEST.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_that_stay_invalid_are_checked_less_and_less_and_once_a_day_at_least() {
        let minutes =
            [0, 1, 2, 6, 10, 11, i32::MAX].map(|attempts| pause(Duration::from_secs(60), attempts).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 64, 1024, 1440, 1440]);
    }
}
