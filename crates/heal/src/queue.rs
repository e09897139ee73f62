//! `penstock.repairs`: which repo is next, who has it, and what became of it.
//!
//! A repo is taken for a time (a lease) that its healer renews. What its healer says of it later counts only while it still has it: a
//! healer that was stopped or cut off loses its repos to others, and changes nothing of theirs.

use std::time::Duration;

use penstock_core::backfill::{Backlog, Reason};
use penstock_core::filter::Epoch;
use penstock_worker::store::Store;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::types::Json;

/// The queue, as one healer sees it.
#[derive(Clone, Debug)]
pub struct Queue {
    store: Store,
    holder: Box<str>,
    lease: Duration,
}

/// A repo that this healer has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whose it is.
    pub did: Box<str>,
    /// Why it is read again.
    pub reason: Reason,
    /// How many attempts in a row failed.
    pub attempts: u32,
    /// How far an earlier attempt came.
    pub progress: Option<Written>,
    /// The backfill that covers it.
    pub backfill: Option<String>,
    /// Whether an audit of it compares all records.
    pub whole: bool,
    /// Whether only what a signature proves is to be written.
    pub verify: bool,
    /// When it was last asked for, as PostgreSQL writes it.
    asked: String,
}

/// How much of a repo is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The rev of the repo.
    pub rev: String,
    /// When reading it began, as a stream ID: ranges of one snapshot have the same.
    #[serde(default)]
    pub started: String,
    /// The last path that is written.
    pub after: String,
    /// Records that were written.
    #[serde(default)]
    pub records: u64,
}

/// What may not be taken now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Hosts, and how many further repos of each may be taken.
    pub hosts: Vec<(Box<str>, u32)>,
    /// How many repos of any other host may be taken.
    pub of_host: u32,
    /// Only repos of this backfill.
    pub only: Option<String>,
    /// No repos but those of backfills that somebody asked for, and those asked for.
    pub only_asked: bool,
    /// The rules by which this healer reads: what is for others it leaves.
    pub filter: Epoch,
}

/// A backfill with a bound, or one of which nothing may be taken now.
#[derive(Clone, Debug)]
struct Bound {
    name: String,
    rate: Option<f64>,
    parallelism: Option<u32>,
    is_suspended: bool,
}

/// How many candidates are looked at for each repo that can be taken, so that hosts that are busy do not fill the view.
const VIEW: u32 = 16;

/// $1 the rules by which this healer reads, $2 whether only what was asked for.
const BOUNDS: &str = "SELECT name, rate, parallelism, is_closed FROM (
    SELECT *, suspended OR coalesce(filter <> $1, false) OR ($2 AND reason <> 'backfill') AS is_closed FROM penstock.backfills
     WHERE state IN ('listing', 'running')) AS b
 WHERE is_closed OR rate IS NOT NULL OR parallelism IS NOT NULL";

/// A backfill of which another healer takes repos at this moment is left to it.
const LOCK_BOUND: &str = "SELECT coalesce(extract(epoch FROM clock_timestamp() - b.next_at), 1e9)::float8,
    (SELECT count(*) FROM penstock.repairs AS r WHERE r.backfill = b.name AND r.lease > now())
  FROM penstock.backfills AS b WHERE b.name = $1 FOR UPDATE SKIP LOCKED";

const SPEND: &str =
    "UPDATE penstock.backfills SET next_at = clock_timestamp() + make_interval(secs => $2) WHERE name = $1";

/// $1 hosts, $2 how many of each, $3 of any other, $4 how many at most, $5 how many are looked at, $6 the lease in seconds, $7 whose,
/// $8 backfills to leave out, $9 the only backfill, $10 whether only what was asked for.
const TAKE: &str = "\
WITH closed AS (SELECT u.host, u.free FROM unnest($1::text[], $2::int[]) AS u (host, free)),
candidates AS (
  SELECT r.did, i.host, r.priority, r.due FROM penstock.repairs AS r
    LEFT JOIN penstock.identities AS i ON i.did = r.did
   WHERE r.due <= now() AND (r.lease IS NULL OR r.lease <= now())
     AND (r.backfill IS NULL OR r.backfill <> ALL($8::text[]))
     AND ($9::text IS NULL OR r.backfill = $9)
     AND (NOT $10 OR r.backfill IS NOT NULL OR r.reason = 'asked')
     AND (i.host IS NULL OR i.host NOT IN (SELECT c.host FROM closed AS c WHERE c.free <= 0))
   ORDER BY r.priority DESC, r.due LIMIT $5),
ranked AS (
  SELECT did, host, priority, due, row_number() OVER (PARTITION BY host ORDER BY priority DESC, due, did) AS place FROM candidates),
chosen AS (
  SELECT r.did FROM penstock.repairs AS r JOIN ranked AS k ON k.did = r.did LEFT JOIN closed AS c ON c.host = k.host
   WHERE (k.host IS NULL OR k.place <= coalesce(c.free, $3)) AND r.due <= now() AND (r.lease IS NULL OR r.lease <= now())
   ORDER BY k.priority DESC, k.due LIMIT $4 FOR UPDATE OF r SKIP LOCKED)
UPDATE penstock.repairs AS r SET lease = now() + make_interval(secs => $6), holder = $7
  FROM chosen WHERE r.did = chosen.did
RETURNING r.did, r.reason, r.attempts, r.progress, r.backfill, r.updated_at::text, r.whole,
  coalesce((SELECT b.verify FROM penstock.backfills AS b WHERE b.name = r.backfill), false)";

const RENEW: &str = "\
UPDATE penstock.repairs SET lease = now() + make_interval(secs => $1) WHERE holder = $2 AND did = ANY($3) RETURNING did";

const HAND_BACK: &str = "UPDATE penstock.repairs SET lease = NULL, holder = NULL,
    due = CASE WHEN $3::float8 > 0 THEN now() + make_interval(secs => $3) ELSE due END
  WHERE holder = $1 AND ($2::text IS NULL OR did = $2)";

const PROGRESS: &str = "\
UPDATE penstock.repairs SET progress = $3, lease = now() + make_interval(secs => $4) WHERE did = $1 AND holder = $2";

/// What was asked for since it was taken is due again after a moment.
const DONE: &str = "\
WITH mine AS (SELECT did, backfill, updated_at > $3::timestamp AS again FROM penstock.repairs WHERE did = $1 AND holder = $2 FOR UPDATE),
gone AS (DELETE FROM penstock.repairs AS r USING mine AS m WHERE r.did = m.did AND NOT m.again),
kept AS (
  UPDATE penstock.repairs AS r SET lease = NULL, holder = NULL, attempts = 0, error = NULL, progress = NULL, backfill = NULL,
    due = now() + make_interval(secs => $7), reason = CASE WHEN r.reason = 'backfill' THEN 'chain' ELSE r.reason END
  FROM mine AS m WHERE r.did = m.did AND m.again),
counted AS (
  UPDATE penstock.backfills AS b SET done = b.done + 1, records = b.records + $4, updated_at = clock_timestamp()
    FROM mine AS m WHERE b.name = m.backfill),
healed AS (DELETE FROM penstock.unhealed AS u USING mine AS m WHERE u.did = m.did),
proven AS (
  UPDATE penstock.repos AS r SET proven_at = clock_timestamp(), proven_rev = $5 FROM mine AS m WHERE r.did = m.did AND $6)
SELECT count(*) FROM mine";

/// $3 seconds, $4 attempts, $5 the error.
const AGAIN: &str = "\
UPDATE penstock.repairs SET lease = NULL, holder = NULL, due = now() + make_interval(secs => $3), attempts = $4, error = $5,
    progress = CASE WHEN $6 THEN NULL ELSE progress END
 WHERE did = $1 AND holder = $2";

const GIVE_UP: &str = "\
WITH mine AS (
  SELECT did, reason, backfill, attempts, updated_at > $3::timestamp AS again FROM penstock.repairs
   WHERE did = $1 AND holder = $2 FOR UPDATE),
gone AS (DELETE FROM penstock.repairs AS r USING mine AS m WHERE r.did = m.did AND NOT m.again),
kept AS (
  UPDATE penstock.repairs AS r SET lease = NULL, holder = NULL, attempts = 0, error = $5, progress = NULL, backfill = NULL,
    due = now() + make_interval(secs => $6)
  FROM mine AS m WHERE r.did = m.did AND m.again),
counted AS (
  UPDATE penstock.backfills AS b SET failed = b.failed + 1, error = $7, updated_at = clock_timestamp()
    FROM mine AS m WHERE b.name = m.backfill),
noted AS (
  INSERT INTO penstock.unhealed AS u (did, reason, word, error, backfill, attempts)
  SELECT m.did, m.reason, $4, $5, m.backfill, m.attempts + 1 FROM mine AS m
  ON CONFLICT (did) DO UPDATE SET reason = excluded.reason, word = excluded.word, error = excluded.error,
    backfill = excluded.backfill, attempts = excluded.attempts, at = excluded.at)
SELECT count(*) FROM mine";

/// Whoever asks for more keeps its place; a lower priority leaves a higher one. An audit that was due anyway compares all records then.
const ENQUEUE: &str = "\
INSERT INTO penstock.repairs AS r (did, reason, priority)
SELECT DISTINCT u.did, $2, $3::smallint FROM unnest($1::text[]) AS u (did)
ON CONFLICT (did) DO UPDATE SET updated_at = excluded.updated_at, whole = true,
  due = CASE WHEN excluded.priority > r.priority THEN least(r.due, excluded.due) ELSE r.due END,
  reason = CASE WHEN excluded.priority > r.priority THEN excluded.reason ELSE r.reason END,
  priority = greatest(r.priority, excluded.priority)";

const BACKLOG: &str = "\
SELECT count(*) FILTER (WHERE is_free), count(*) FILTER (WHERE is_free AND due <= now()), count(*) FILTER (WHERE NOT is_free),
    (SELECT count(*) FROM penstock.backfills
      WHERE state IN ('listing', 'running') AND NOT suspended AND ($1 OR reason = 'backfill'))
  FROM (SELECT r.due, r.lease IS NULL OR r.lease <= now() AS is_free FROM penstock.repairs AS r
          LEFT JOIN penstock.backfills AS b ON b.name = r.backfill
         WHERE (b.suspended IS NOT TRUE OR r.lease > now()) AND ($1 OR b.reason = 'backfill' OR r.reason = 'asked')) AS w";

const WAITING: &str = "\
SELECT reason, count(*) FROM penstock.repairs WHERE lease IS NULL OR lease <= now() GROUP BY reason";

const FORGET: &str = "\
DELETE FROM penstock.unhealed WHERE at < (SELECT at FROM penstock.unhealed ORDER BY at DESC OFFSET $1 LIMIT 1)";

/// How long a repo that was asked for again while it was read waits until it is read again.
const ASKED_MEANWHILE: Duration = Duration::from_secs(10);

/// How many repos that were given up are remembered.
const REMEMBERED: i64 = 100_000;

type TakenRow = (String, String, i32, Option<Json<Written>>, Option<String>, String, bool, bool);

// === impl Queue ===

impl Queue {
    /// Looks at the queue as `holder`, whose name nobody else has.
    #[must_use]
    pub fn new(store: Store, holder: impl Into<Box<str>>, lease: Duration) -> Self {
        Self { store, holder: holder.into(), lease }
    }

    /// Takes the most urgent repos that are due, at most so many.
    ///
    /// # Errors
    /// What PostgreSQL or the connection says, as of all functions here.
    pub async fn take(&self, most: u32, closed: &Closed) -> sqlx::Result<Vec<Taken>> {
        // A lease that a crash of the server takes back is another healer's: two may read a repo, and both write the same.
        // Who takes repos of one backfill alone was asked for it.
        let only_asked = closed.only_asked && closed.only.is_none();
        let rows = self
            .store
            .in_unhurried_transaction(async |tx| {
                let bounds: Vec<(String, Option<f64>, Option<i32>, bool)> =
                    sqlx::query_as(BOUNDS).bind(closed.filter.as_str()).bind(only_asked).fetch_all(&mut *tx).await?;
                let bounds: Vec<Bound> = bounds.into_iter().map(Bound::from).collect();
                let names: Vec<&str> = bounds.iter().map(|bound| &*bound.name).collect();
                let mut rows = match &closed.only {
                    Some(only) if names.contains(&only.as_str()) => Vec::new(),
                    only => self.take_of(tx, most, closed, only.as_deref(), &names).await?,
                };
                for bound in bounds.iter().filter(|bound| !bound.is_suspended) {
                    let free = most.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
                    if free > 0 && closed.only.as_ref().is_none_or(|only| *only == bound.name) {
                        rows.extend(self.take_bound(tx, free, closed, bound).await?);
                    }
                }
                Ok(rows)
            })
            .await?;
        Ok(rows.into_iter().map(Taken::from).collect())
    }

    async fn take_of(
        &self,
        tx: &mut PgConnection,
        most: u32,
        closed: &Closed,
        only: Option<&str>,
        without: &[&str],
    ) -> sqlx::Result<Vec<TakenRow>> {
        let hosts: Vec<&str> = closed.hosts.iter().map(|(host, _)| &**host).collect();
        let free: Vec<i32> = closed.hosts.iter().map(|(_, free)| int(*free)).collect();
        sqlx::query_as(TAKE)
            .bind(hosts)
            .bind(free)
            .bind(i64::from(closed.of_host))
            .bind(i64::from(most))
            .bind(i64::from(most.saturating_mul(VIEW).max(64)))
            .bind(self.lease.as_secs_f64())
            .bind(&*self.holder)
            .bind(without)
            .bind(only)
            .bind(closed.only_asked)
            .fetch_all(tx)
            .await
    }

    /// Takes of a backfill as many as its bounds allow.
    async fn take_bound(
        &self,
        tx: &mut PgConnection,
        free: u32,
        closed: &Closed,
        bound: &Bound,
    ) -> sqlx::Result<Vec<TakenRow>> {
        let Some((since, running)) =
            sqlx::query_as::<_, (f64, i64)>(LOCK_BOUND).bind(&bound.name).fetch_optional(&mut *tx).await?
        else {
            return Ok(Vec::new());
        };
        let allowed = bound.allows(since, u32::try_from(running).unwrap_or(u32::MAX)).min(free);
        if allowed == 0 {
            return Ok(Vec::new());
        }
        let rows = self.take_of(&mut *tx, allowed, closed, Some(&bound.name), &[]).await?;
        if let Some(after) = bound.next_after(since, rows.len()) {
            sqlx::query(SPEND).bind(&bound.name).bind(after).execute(tx).await?;
        }
        Ok(rows)
    }

    /// Renews the leases of repos; returns those that this healer still has.
    pub async fn renew(&self, dids: &[Box<str>]) -> sqlx::Result<Vec<String>> {
        let dids: Vec<&str> = dids.iter().map(|did| &**did).collect();
        let renew = async |tx: &mut PgConnection| {
            sqlx::query_scalar(RENEW).bind(self.lease.as_secs_f64()).bind(&*self.holder).bind(dids).fetch_all(tx).await
        };
        self.store.in_transaction(renew).await
    }

    /// Remembers how far a repo is written; returns whether this healer still has it.
    pub async fn progress(&self, did: &str, written: &Written) -> sqlx::Result<bool> {
        let keep = async |tx: &mut PgConnection| {
            let keep = sqlx::query(PROGRESS).bind(did).bind(&*self.holder).bind(Json(written));
            keep.bind(self.lease.as_secs_f64()).execute(tx).await
        };
        Ok(self.store.in_transaction(keep).await?.rows_affected() > 0)
    }

    /// Gives a repo back as it was taken, due after `pause`.
    pub async fn hand_back(&self, did: &str, pause: Duration) -> sqlx::Result<()> {
        self.hand_back_some(Some(did), pause).await
    }

    /// Gives back all that this healer has.
    pub async fn hand_back_all(&self) -> sqlx::Result<()> {
        self.hand_back_some(None, Duration::ZERO).await
    }

    async fn hand_back_some(&self, did: Option<&str>, pause: Duration) -> sqlx::Result<()> {
        let back = async |tx: &mut PgConnection| {
            sqlx::query(HAND_BACK).bind(&*self.holder).bind(did).bind(pause.as_secs_f64()).execute(tx).await
        };
        self.store.in_transaction(back).await.map(drop)
    }

    /// Ends a repair: the repo is as of `rev`, and was compared with its host, or written from it, if it is `proven`. Returns whether
    /// this healer still had it.
    pub async fn done(&self, taken: &Taken, records: u64, rev: &str, is_proven: bool) -> sqlx::Result<bool> {
        let (did, asked) = (&*taken.did, taken.asked.as_str());
        let done = async |tx: &mut PgConnection| {
            sqlx::query_scalar::<_, i64>(DONE)
                .bind(did)
                .bind(&*self.holder)
                .bind(asked)
                .bind(i64::try_from(records).unwrap_or(i64::MAX))
                .bind(rev)
                .bind(is_proven)
                .bind(ASKED_MEANWHILE.as_secs_f64())
                .fetch_one(tx)
                .await
        };
        Ok(self.store.in_transaction(done).await? > 0)
    }

    /// Puts a repair off after a failure. What was written counts, unless it `begins_anew`.
    pub async fn again(
        &self,
        did: &str,
        pause: Duration,
        attempts: u32,
        error: &str,
        begins_anew: bool,
    ) -> sqlx::Result<()> {
        let again = async |tx: &mut PgConnection| {
            let again = sqlx::query(AGAIN).bind(did).bind(&*self.holder).bind(pause.as_secs_f64());
            again.bind(int(attempts)).bind(error).bind(begins_anew).execute(tx).await
        };
        self.store.in_transaction(again).await.map(drop)
    }

    /// Ends a repair that is of no use. Returns whether this healer still had it.
    pub async fn give_up(&self, taken: &Taken, word: &str, error: &str) -> sqlx::Result<bool> {
        let (did, asked) = (&*taken.did, taken.asked.as_str());
        let give_up = async |tx: &mut PgConnection| {
            sqlx::query_scalar::<_, i64>(GIVE_UP)
                .bind(did)
                .bind(&*self.holder)
                .bind(asked)
                .bind(word)
                .bind(error)
                .bind(ASKED_MEANWHILE.as_secs_f64())
                .bind(format!("{did}: {error}"))
                .fetch_one(tx)
                .await
        };
        Ok(self.store.in_transaction(give_up).await? > 0)
    }

    /// Lists repos to be read again; one that waits already keeps its place unless this reason is more urgent.
    pub async fn enqueue(&self, dids: &[&str], reason: Reason) -> sqlx::Result<u64> {
        let enqueue = async |tx: &mut PgConnection| {
            sqlx::query(ENQUEUE).bind(dids).bind(reason.word()).bind(reason.priority()).execute(tx).await
        };
        Ok(self.store.in_transaction(enqueue).await?.rows_affected())
    }

    /// Counts what waits; without what is neither of a backfill nor asked for, unless `all`.
    pub async fn backlog(&self, all: bool) -> sqlx::Result<Backlog> {
        let count = async |tx: &mut PgConnection| sqlx::query_as(BACKLOG).bind(all).fetch_one(tx).await;
        let (waiting, due, running, backfills): (i64, i64, i64, i64) = self.store.in_transaction(count).await?;
        let number = |count: i64| u64::try_from(count).unwrap_or_default();
        Ok(Backlog {
            waiting: number(waiting),
            due: number(due),
            running: number(running),
            backfills: number(backfills),
        })
    }

    /// Counts what waits, by reason.
    pub async fn waiting(&self) -> sqlx::Result<Vec<(String, i64)>> {
        self.store.in_transaction(async |tx| sqlx::query_as(WAITING).fetch_all(tx).await).await
    }

    /// Forgets the oldest of the repos that were given up, where there are too many.
    pub async fn forget(&self) -> sqlx::Result<()> {
        let forget = async |tx: &mut PgConnection| sqlx::query(FORGET).bind(REMEMBERED).execute(tx).await;
        self.store.in_transaction(forget).await.map(drop)
    }
}

// === impl Taken ===

impl From<TakenRow> for Taken {
    fn from((did, reason, attempts, progress, backfill, asked, whole, verify): TakenRow) -> Self {
        Self {
            did: did.into(),
            // One that a newer version writes is at least no backfill.
            reason: Reason::of(&reason).unwrap_or(Reason::Asked),
            attempts: u32::try_from(attempts).unwrap_or_default(),
            progress: progress.map(|Json(progress)| progress),
            backfill,
            whole,
            verify,
            asked,
        }
    }
}

// === impl Bound ===

impl Bound {
    /// Returns how many repos may begin, the next of which could have `since` so many seconds ago.
    fn allows(&self, since: f64, running: u32) -> u32 {
        let by_parallelism = self.parallelism.map_or(u32::MAX, |most| most.saturating_sub(running));
        // What was not used is not kept for longer than a second: the hosts would have it all at once.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float that is too large becomes the maximum"
        )]
        let by_rate =
            self.rate.map_or(u32::MAX, |rate| if since < 0.0 { 0 } else { (since.min(1.0) * rate).floor() as u32 + 1 });
        by_parallelism.min(by_rate)
    }

    /// Returns in how many seconds the next repo may begin, after `taken` did now.
    fn next_after(&self, since: f64, taken: usize) -> Option<f64> {
        let rate = self.rate.filter(|_| taken > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let taken = taken as f64;
        Some(taken / rate - since.clamp(0.0, 1.0))
    }
}

impl From<(String, Option<f64>, Option<i32>, bool)> for Bound {
    fn from((name, rate, parallelism, is_suspended): (String, Option<f64>, Option<i32>, bool)) -> Self {
        let parallelism = parallelism.map(|most| u32::try_from(most).unwrap_or_default());
        Self { name, rate: rate.filter(|rate| *rate > 0.0), parallelism, is_suspended }
    }
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(rate: Option<f64>, parallelism: Option<u32>) -> Bound {
        Bound { name: "b".to_owned(), rate, parallelism, is_suspended: false }
    }

    #[test]
    fn a_rate_is_kept_over_any_times_of_asking_and_never_saved_up() {
        for rate in [0.5, 3.0, 40.0] {
            let bound = bound(Some(rate), None);
            let (mut now, mut next, mut begun) = (0.0_f64, -100.0_f64, 0_u32);
            let mut step = 0.013;
            while now < 60.0 {
                let allowed = bound.allows(now - next, 0);
                begun += allowed;
                if let Some(after) = bound.next_after(now - next, allowed as usize) {
                    next = now + after;
                }
                step = if step > 2.0 { 0.007 } else { step * 1.3 };
                now += step;
            }
            let most = 60.0 * rate + rate + 2.0;
            assert!(f64::from(begun) <= most, "{begun} at {rate}");
            assert!(f64::from(begun) >= 60.0 * rate * 0.4, "{begun} at {rate}");
        }
    }

    #[test]
    fn no_more_run_at_once_than_a_backfill_allows() {
        assert_eq!(bound(None, Some(3)).allows(1e9, 1), 2);
        assert_eq!(bound(None, Some(3)).allows(1e9, 5), 0);
        assert_eq!(bound(Some(1.0), Some(3)).allows(1e9, 0), 2);
        assert_eq!(bound(Some(1.0), None).allows(-0.1, 0), 0);
        assert_eq!(bound(None, None).allows(1e9, 100), u32::MAX);
    }
}
