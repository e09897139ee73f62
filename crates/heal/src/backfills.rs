//! `penstock.backfills`: what is to be read in bulk, how far the listing of its repos is, and what came of it.

use std::time::Duration;

use jiff::Timestamp;
use penstock_core::backfill::{BackfillRequest, BackfillState, BackfillStatus, RequestError, Scope, is_name};
use penstock_core::time;
use penstock_repo::ListedRepo;
use penstock_worker::store::Store;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use thiserror::Error;

/// The table, as one process sees it.
#[derive(Clone, Debug)]
pub struct Backfills {
    store: Store,
}

/// Why a backfill was not registered.
#[derive(Debug, Error)]
pub enum PutError {
    /// Its name is not allowed.
    #[error(
        "the name {name:?} is not allowed; allowed: up to 317 letters, digits and -_./, the first and the last a letter or digit"
    )]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A field is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is one of that name that covers something else.
    #[error("there is a backfill {name} with another {field}: choose another name, or delete it")]
    Exists {
        /// The name.
        name: String,
        /// What differs.
        field: &'static str,
    },
    /// PostgreSQL did not take it.
    #[error("could not write penstock.backfills")]
    Write(#[source] sqlx::Error),
}

/// A backfill whose repos this process lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) reason: String,
    pub(crate) relay: Option<String>,
    pub(crate) cursor: Option<String>,
    /// How many requests failed in a row.
    pub(crate) attempts: u32,
    /// Further repos that may wait.
    pub(crate) room: u64,
    priority: i16,
}

/// What was done by when, to tell a pace by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    /// Seconds of the epoch.
    at: f64,
    done: i64,
    records: i64,
}

/// How many repos of a backfill may wait at most.
pub(crate) const AHEAD: u64 = 50_000;

/// How long a pace is looked back for.
const LOOK_BACK: f64 = 60.0;

const PUT: &str = "\
INSERT INTO penstock.backfills (name, scope, relay, rate, parallelism, priority, suspended, state, listed, total, verify)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (name) DO NOTHING";

const CHANGE: &str = "\
UPDATE penstock.backfills SET rate = $2, parallelism = $3, priority = $4, suspended = $5, verify = $6 WHERE name = $1";

/// Those that wait follow, but for those that are more urgent for another reason.
const CHANGE_PRIORITY: &str = "\
UPDATE penstock.repairs AS r SET priority = $2 FROM penstock.backfills AS b
 WHERE b.name = $1 AND r.backfill = b.name AND r.reason = b.reason AND r.priority <> $2";

const SCOPE: &str = "SELECT scope, relay FROM penstock.backfills WHERE name = $1";

const GET: &str = "\
SELECT b.name, b.scope, b.relay, b.rate, b.parallelism, b.priority, b.state, b.suspended, b.listed, b.total, b.done, b.failed,
    (SELECT count(*) FROM penstock.repairs AS r WHERE r.backfill = b.name) AS waiting,
    (SELECT count(*) FROM penstock.repairs AS r WHERE r.backfill = b.name AND r.lease > now()) AS running,
    b.reason, b.verify, b.records, b.pace, extract(epoch FROM clock_timestamp())::float8 AS now, extract(epoch FROM b.created_at)::float8 AS created,
    extract(epoch FROM b.updated_at)::float8 AS updated, extract(epoch FROM b.finished_at)::float8 AS finished, b.error
  FROM penstock.backfills AS b WHERE $1::text IS NULL OR b.name = $1 ORDER BY b.created_at DESC, b.name LIMIT 1000";

/// Repos that are being read, or that are listed for another reason as well, are left to that.
const DELETE_WAITING: &str = "\
DELETE FROM penstock.repairs WHERE backfill = $1 AND reason IN ('backfill', 'filter', 'seam') AND (lease IS NULL OR lease <= now())";

const RELEASE: &str = "UPDATE penstock.repairs SET backfill = NULL WHERE backfill = $1";

const DELETE: &str = "DELETE FROM penstock.backfills WHERE name = $1";

const CLAIM: &str = "\
UPDATE penstock.backfills AS b SET holder = $1, lease = clock_timestamp() + make_interval(secs => $2)
  FROM (SELECT c.name, (SELECT count(*) FROM penstock.repairs AS r WHERE r.backfill = c.name) AS waiting
          FROM penstock.backfills AS c
         WHERE c.state = 'listing' AND NOT c.suspended AND (c.lease IS NULL OR c.lease <= clock_timestamp() OR c.holder = $1)
           AND (c.next_list_at IS NULL OR c.next_list_at <= clock_timestamp()) AND ($3::text IS NULL OR c.name = $3)
           AND ($5 OR c.reason = 'backfill')
         ORDER BY c.priority DESC, c.created_at FOR UPDATE OF c SKIP LOCKED) AS w
 WHERE b.name = w.name AND w.waiting < $4
RETURNING b.name, b.scope, b.reason, b.relay, b.cursor, b.attempts, b.priority, w.waiting";

/// A repo that waits for another reason is counted for this backfill too, unless it is another one's: then that one reads it. What
/// was proven as of the listed rev since the backfill was asked for needs no reading, unless it was proven by the rules before those that
/// the backfill is for; what is being read by those is read again. Of a gap, those are read that changed in it, as far as is known.
const LISTED: &str = "\
WITH held AS (SELECT name, created_at, reason, filter, since FROM penstock.backfills WHERE name = $1 AND holder = $2 FOR UPDATE),
listed AS (SELECT DISTINCT ON (u.did) u.did, u.rev FROM unnest($3::text[], $4::text[]) AS u (did, rev), held ORDER BY u.did, u.rev),
wanted AS (
  SELECT l.did FROM held AS h, listed AS l LEFT JOIN penstock.repos AS r ON r.did = l.did
   WHERE CASE WHEN h.since IS NULL
         THEN h.filter IS NOT NULL OR r.proven_rev IS NULL OR l.rev = '' OR r.proven_rev < l.rev OR r.sync IS NOT NULL
           OR r.proven_at < h.created_at
         ELSE l.rev = '' OR r.sync IS NOT NULL OR CASE WHEN r.rev IS NULL THEN l.rev >= h.since ELSE l.rev > r.rev END END),
queued AS (
  INSERT INTO penstock.repairs AS r (did, reason, priority, backfill)
  SELECT w.did, h.reason, $5::smallint, $1 FROM wanted AS w, held AS h ORDER BY w.did
  ON CONFLICT (did) DO UPDATE SET backfill = excluded.backfill,
    updated_at = CASE WHEN excluded.reason = 'filter' THEN excluded.updated_at ELSE r.updated_at END
   WHERE r.backfill IS NULL
  RETURNING did)
UPDATE penstock.backfills AS b SET cursor = $6, listed = b.listed + (SELECT count(*) FROM listed),
    done = b.done + (SELECT count(*) FROM listed) - (SELECT count(*) FROM queued), attempts = 0, error = NULL,
    state = CASE WHEN $7 THEN 'running' ELSE b.state END,
    total = CASE WHEN $7 THEN b.listed + (SELECT count(*) FROM listed) ELSE b.total END,
    updated_at = clock_timestamp(), lease = CASE WHEN $7 THEN NULL ELSE b.lease END, holder = CASE WHEN $7 THEN NULL ELSE b.holder END
  FROM held WHERE b.name = held.name";

const LIST_AGAIN: &str = "\
UPDATE penstock.backfills SET attempts = attempts + 1, error = $3, lease = NULL, holder = NULL,
    next_list_at = clock_timestamp() + make_interval(secs => $4)
 WHERE name = $1 AND holder = $2";

const LIST_FAILED: &str = "\
UPDATE penstock.backfills SET state = 'failed', error = $3, lease = NULL, holder = NULL, finished_at = clock_timestamp()
 WHERE name = $1 AND holder = $2";

const FINISH: &str = "\
UPDATE penstock.backfills AS b SET state = 'complete', finished_at = clock_timestamp(), updated_at = clock_timestamp()
 WHERE b.state = 'running' AND NOT EXISTS (SELECT FROM penstock.repairs AS r WHERE r.backfill = b.name)
RETURNING b.name, b.done, b.failed, b.records";

/// What a relay cannot list by the collection is read with everything that it lists: once, whatever collections there are.
const LIST_ALL: &str = "\
INSERT INTO penstock.backfills (name, scope, relay, priority, reason, filter)
SELECT $2, '{\"all\":true}', b.relay, b.priority, b.reason, b.filter FROM penstock.backfills AS b WHERE b.name = $1
ON CONFLICT (name) DO NOTHING";

const UNMARKED: &str = "\
SELECT name, pace, done + failed, records, extract(epoch FROM clock_timestamp())::float8 FROM penstock.backfills
 WHERE state IN ('listing', 'running') FOR UPDATE SKIP LOCKED";

const MARK: &str = "UPDATE penstock.backfills SET pace = $2 WHERE name = $1";

/// As of listed ones: what another backfill covers is left to it.
const QUEUE_NAMED: &str = "\
WITH queued AS (
  INSERT INTO penstock.repairs AS r (did, reason, priority, backfill)
  SELECT DISTINCT u.did, 'backfill', $3::smallint, $1 FROM unnest($2::text[]) AS u (did)
  ON CONFLICT (did) DO UPDATE SET backfill = excluded.backfill WHERE r.backfill IS NULL
  RETURNING did)
UPDATE penstock.backfills SET done = cardinality($2::text[]) - (SELECT count(*) FROM queued) WHERE name = $1";

const FAILURES: &str = "\
SELECT did, word, error FROM penstock.unhealed WHERE backfill = $1 ORDER BY at DESC LIMIT $2";

// === impl Backfills ===

impl Backfills {
    /// Looks at the table.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Registers a backfill, or changes the bounds of the one of that name.
    ///
    /// # Errors
    /// A name or field that is not allowed, a backfill of that name that covers something else, or what PostgreSQL says.
    pub async fn put(&self, name: &str, request: BackfillRequest) -> Result<BackfillStatus, PutError> {
        if !is_name(name) {
            return Err(PutError::Name { name: name.chars().take(100).collect() });
        }
        let request = request.checked()?;
        let put = self.store.in_transaction(async |tx| put(tx, name, &request).await);
        if let Some(field) = put.await.map_err(PutError::Write)? {
            return Err(PutError::Exists { name: name.to_owned(), field });
        }
        let gone = || PutError::Write(sqlx::Error::RowNotFound);
        self.get(name).await.map_err(PutError::Write)?.ok_or_else(gone)
    }

    /// Tells how far a backfill is.
    ///
    /// # Errors
    /// What PostgreSQL or the connection says, as of all functions below.
    pub async fn get(&self, name: &str) -> sqlx::Result<Option<BackfillStatus>> {
        Ok(self.read(Some(name)).await?.pop())
    }

    /// Lists the newest 1,000.
    pub async fn list(&self) -> sqlx::Result<Vec<BackfillStatus>> {
        self.read(None).await
    }

    async fn read(&self, name: Option<&str>) -> sqlx::Result<Vec<BackfillStatus>> {
        let read = async |tx: &mut PgConnection| sqlx::query(GET).bind(name).fetch_all(tx).await;
        self.store.in_transaction(read).await?.iter().map(status).collect()
    }

    /// Ends a backfill and forgets it; what is being read is written yet. Returns whether there was one.
    pub async fn delete(&self, name: &str) -> sqlx::Result<bool> {
        let delete = async |tx: &mut PgConnection| {
            // First, so that nobody lists further repos meanwhile.
            let deleted = sqlx::query(DELETE).bind(name).execute(&mut *tx).await?.rows_affected() > 0;
            sqlx::query(DELETE_WAITING).bind(name).execute(&mut *tx).await?;
            sqlx::query(RELEASE).bind(name).execute(tx).await?;
            Ok(deleted)
        };
        self.store.in_transaction(delete).await
    }

    /// Names the newest of the repos that were given up, with the kind of failure and the failure.
    pub async fn failures(&self, name: &str, most: u32) -> sqlx::Result<Vec<(String, String, String)>> {
        let read =
            async |tx: &mut PgConnection| sqlx::query_as(FAILURES).bind(name).bind(i64::from(most)).fetch_all(tx).await;
        self.store.in_transaction(read).await
    }

    /// Takes the backfills of which further repos are to be listed.
    /// Those that nobody asked for only if `all`.
    pub(crate) async fn claim(
        &self,
        holder: &str,
        lease: Duration,
        only: Option<&str>,
        all: bool,
    ) -> sqlx::Result<Vec<Listing>> {
        type Claimed = (String, Json<Scope>, String, Option<String>, Option<String>, i32, i16, i64);
        let claim = async |tx: &mut PgConnection| {
            let claim = sqlx::query_as(CLAIM).bind(holder).bind(lease.as_secs_f64()).bind(only);
            claim.bind(i64::try_from(AHEAD).unwrap_or(i64::MAX)).bind(all).fetch_all(tx).await
        };
        let rows: Vec<Claimed> = self.store.in_transaction(claim).await?;
        let listings =
            rows.into_iter().map(|(name, Json(scope), reason, relay, cursor, attempts, priority, waiting)| Listing {
                name,
                scope,
                reason,
                relay,
                cursor,
                attempts: u32::try_from(attempts).unwrap_or_default(),
                room: AHEAD.saturating_sub(u64::try_from(waiting).unwrap_or_default()),
                priority,
            });
        Ok(listings.collect())
    }

    /// Queues a page of repos, and remembers where the next one begins; none: that was the last. Returns whether the listing is still
    /// this holder's.
    pub(crate) async fn listed(
        &self,
        holder: &str,
        listing: &Listing,
        repos: &[ListedRepo],
        next: Option<&str>,
    ) -> sqlx::Result<bool> {
        let active = || repos.iter().filter(|repo| repo.active);
        let dids: Vec<&str> = active().map(|repo| &*repo.did).collect();
        let revs: Vec<&str> = active().map(|repo| repo.rev.as_deref().unwrap_or_default()).collect();
        let queue = async |tx: &mut PgConnection| {
            let queue = sqlx::query(LISTED).bind(&listing.name).bind(holder).bind(dids).bind(revs);
            queue.bind(listing.priority).bind(next).bind(next.is_none()).execute(tx).await
        };
        Ok(self.store.in_transaction(queue).await?.rows_affected() > 0)
    }

    /// Puts the listing off after a failure.
    pub(crate) async fn list_again(&self, holder: &str, name: &str, error: &str, pause: Duration) -> sqlx::Result<()> {
        let again = async |tx: &mut PgConnection| {
            sqlx::query(LIST_AGAIN).bind(name).bind(holder).bind(error).bind(pause.as_secs_f64()).execute(tx).await
        };
        self.store.in_transaction(again).await.map(drop)
    }

    /// Ends the listing, and begins a backfill of everything in its place.
    pub(crate) async fn list_all(&self, holder: &str, name: &str, instead: &str, error: &str) -> sqlx::Result<()> {
        let replace = async |tx: &mut PgConnection| {
            let failed = sqlx::query(LIST_FAILED).bind(name).bind(holder).bind(error).execute(&mut *tx).await?;
            if failed.rows_affected() > 0 {
                sqlx::query(LIST_ALL).bind(name).bind(instead).execute(tx).await?;
            }
            Ok(())
        };
        self.store.in_transaction(replace).await
    }

    /// Ends the listing, and the backfill with it.
    pub(crate) async fn list_failed(&self, holder: &str, name: &str, error: &str) -> sqlx::Result<()> {
        let failed = async |tx: &mut PgConnection| {
            sqlx::query(LIST_FAILED).bind(name).bind(holder).bind(error).execute(tx).await
        };
        self.store.in_transaction(failed).await.map(drop)
    }

    /// Closes the backfills of which nothing waits any more; returns their names, and how many repos were read, how many given up,
    /// and how many records written.
    pub(crate) async fn finish(&self) -> sqlx::Result<Vec<(String, i64, i64, i64)>> {
        self.store.in_transaction(async |tx| sqlx::query_as(FINISH).fetch_all(tx).await).await
    }

    /// Remembers how much is done by now, to tell a pace by.
    pub(crate) async fn mark(&self) -> sqlx::Result<()> {
        type Unmarked = (String, Option<Json<Vec<Mark>>>, i64, i64, f64);
        let mark = async |tx: &mut PgConnection| {
            let rows: Vec<Unmarked> = sqlx::query_as(UNMARKED).fetch_all(&mut *tx).await?;
            for (name, pace, done, records, at) in rows {
                let mut marks = pace.map(|Json(marks)| marks).unwrap_or_default();
                if marks.last().is_none_or(|last| at - last.at >= LOOK_BACK / 12.0 || at < last.at) {
                    marks.retain(|mark| at - mark.at <= LOOK_BACK * 1.1 && mark.at <= at);
                    marks.push(Mark { at, done, records });
                    sqlx::query(MARK).bind(name).bind(Json(marks)).execute(&mut *tx).await?;
                }
            }
            Ok(())
        };
        self.store.in_transaction(mark).await
    }
}

/// Registers a backfill; returns in what it differs from the one that there is.
async fn put(tx: &mut PgConnection, name: &str, request: &BackfillRequest) -> sqlx::Result<Option<&'static str>> {
    let named = match &request.scope {
        Scope::Repos(repos) => Some(repos),
        Scope::Collection(_) | Scope::All(_) => None,
    };
    let state = if named.is_some() { BackfillState::Running } else { BackfillState::Listing };
    let count = named.map(|repos| i64::try_from(repos.len()).unwrap_or(i64::MAX));
    let parallelism = request.parallelism.map(|most| i32::try_from(most).unwrap_or(i32::MAX));
    let made = sqlx::query(PUT)
        .bind(name)
        .bind(Json(&request.scope))
        .bind(&request.relay)
        .bind(request.rate)
        .bind(parallelism)
        .bind(request.priority)
        .bind(request.suspend)
        .bind(state.word())
        .bind(count.unwrap_or_default())
        .bind(count)
        .bind(request.verify)
        .execute(&mut *tx)
        .await?;
    if made.rows_affected() > 0 {
        if let Some(repos) = named {
            let repos: Vec<&str> = repos.iter().map(|repo| &**repo).collect();
            sqlx::query(QUEUE_NAMED).bind(name).bind(repos).bind(request.priority).execute(tx).await?;
        }
        return Ok(None);
    }
    let (Json(scope), relay): (Json<Scope>, Option<String>) =
        sqlx::query_as(SCOPE).bind(name).fetch_one(&mut *tx).await?;
    if scope != request.scope {
        return Ok(Some("scope"));
    }
    if relay != request.relay {
        return Ok(Some("relay"));
    }
    let change = sqlx::query(CHANGE).bind(name).bind(request.rate).bind(parallelism).bind(request.priority);
    change.bind(request.suspend).bind(request.verify).execute(&mut *tx).await?;
    sqlx::query(CHANGE_PRIORITY).bind(name).bind(request.priority).execute(tx).await?;
    Ok(None)
}

/// Reads a row of [`GET`].
fn status(row: &PgRow) -> sqlx::Result<BackfillStatus> {
    let number = |column| row.try_get::<i64, _>(column).map(|count| u64::try_from(count).unwrap_or_default());
    let Json(scope): Json<Scope> = row.try_get("scope")?;
    let state = match row.try_get::<&str, _>("state")? {
        "complete" => BackfillState::Complete,
        "failed" => BackfillState::Failed,
        _ if row.try_get("suspended")? => BackfillState::Paused,
        "running" => BackfillState::Running,
        _ => BackfillState::Listing,
    };
    let (done, failed, records) = (number("done")?, number("failed")?, number("records")?);
    let total: Option<i64> = row.try_get("total")?;
    let total = total.map(|total| u64::try_from(total).unwrap_or_default());
    let now: f64 = row.try_get("now")?;
    let marks = row.try_get::<Option<Json<Vec<Mark>>>, _>("pace")?.map(|Json(marks)| marks).unwrap_or_default();
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let present = Mark { at: now, done: signed(done + failed), records: signed(records) };
    let (repos_per_second, records_per_second) = pace_of(&marks, present);
    let left = total.map(|total| total.saturating_sub(done + failed));
    let is_under_way = matches!(state, BackfillState::Listing | BackfillState::Running);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let ends_at =
        left.filter(|_| is_under_way && repos_per_second > 0.0).map(|left| now + left as f64 / repos_per_second);
    let parallelism: Option<i32> = row.try_get("parallelism")?;
    Ok(BackfillStatus {
        name: row.try_get("name")?,
        scope,
        reason: row.try_get("reason")?,
        relay: row.try_get("relay")?,
        rate: row.try_get("rate")?,
        parallelism: parallelism.and_then(|most| u32::try_from(most).ok()),
        priority: row.try_get("priority")?,
        verify: row.try_get("verify")?,
        state,
        listed: number("listed")?,
        total,
        done,
        failed,
        waiting: number("waiting")?,
        running: number("running")?,
        records,
        records_per_second,
        repos_per_second,
        ends_at: ends_at.and_then(moment),
        created_at: moment(row.try_get("created")?).unwrap_or_default(),
        updated_at: moment(row.try_get("updated")?).unwrap_or_default(),
        finished_at: row.try_get::<Option<f64>, _>("finished")?.and_then(moment),
        error: row.try_get("error")?,
    })
}

/// Returns repos and records a second since the oldest mark that counts.
fn pace_of(marks: &[Mark], now: Mark) -> (f64, f64) {
    let Some(oldest) = marks.iter().find(|mark| now.at - mark.at <= LOOK_BACK * 1.5) else { return (0.0, 0.0) };
    let time = now.at - oldest.at;
    if time < 1.0 {
        return (0.0, 0.0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |now: i64, then: i64| ((now - then).max(0) as f64 / time * 10.0).round() / 10.0;
    (rate(now.done, oldest.done), rate(now.records, oldest.records))
}

fn moment(seconds: f64) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "out of range is none")]
    let ms = (seconds * 1000.0) as i64;
    Timestamp::from_millisecond(ms).ok().map(time::format)
}
