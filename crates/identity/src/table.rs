//! The table `penstock.identities`, which all services share; without it, or while it is away, there is memory alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use penstock_core::causes::said;
use penstock_postgres::Pool;
use penstock_wire::Key;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, Row as _};
use tokio::time::{Instant, timeout};

use crate::error::ResolveError;
use crate::events::Events;
use crate::policy::{Checked, Failure, Record};

/// How long the database may take; tests run on machines that have much else to do.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 3 });

/// How long it is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(5);

/// How long something is kept of a DID that does not exist.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How often such rows are looked for.
const PRUNED_EVERY: Duration = Duration::from_secs(60);

const READ: &str = "\
SELECT did, key, host, handle, stale IS NOT NULL AS stale, failures, error, handle_valid,
  extract(epoch FROM clock_timestamp() - fetched_at)::float8 AS fetched,
  extract(epoch FROM clock_timestamp() - failed_at)::float8 AS failed,
  extract(epoch FROM clock_timestamp() - handle_checked_at)::float8 AS checked
FROM penstock.identities WHERE did = ANY($1)";

/// An answer that was asked for later stays, and so does word of a change that came meanwhile.
const WRITE: &str = "\
INSERT INTO penstock.identities AS i (did, key, host, handle, fetched_at)
VALUES ($1, $2, $3, $4, clock_timestamp() - make_interval(secs => $5))
ON CONFLICT (did) DO UPDATE SET key = EXCLUDED.key, host = EXCLUDED.host, handle = EXCLUDED.handle, fetched_at = EXCLUDED.fetched_at,
  stale = CASE WHEN i.stale_at > EXCLUDED.fetched_at THEN i.stale END,
  stale_at = CASE WHEN i.stale_at > EXCLUDED.fetched_at THEN i.stale_at END,
  handle_checked_at = CASE WHEN i.handle = EXCLUDED.handle THEN i.handle_checked_at END,
  handle_valid = CASE WHEN i.handle = EXCLUDED.handle THEN i.handle_valid END,
  failures = 0, failed_at = NULL, error = NULL
WHERE i.fetched_at IS NULL OR i.fetched_at <= EXCLUDED.fetched_at";

const FAIL: &str = "\
INSERT INTO penstock.identities AS i (did, failures, failed_at, error) VALUES ($1, 1, clock_timestamp(), $2)
ON CONFLICT (did) DO UPDATE SET failures = least(i.failures + 1, 1000), failed_at = EXCLUDED.failed_at, error = EXCLUDED.error,
  key = NULL, host = NULL, handle = NULL, handle_checked_at = NULL, handle_valid = NULL, fetched_at = NULL, stale = NULL, stale_at = NULL";

/// In order: several processes mark the same ones.
const STALE: &str = "\
UPDATE penstock.identities SET stale = $2, stale_at = clock_timestamp(), failures = 0, failed_at = NULL, error = NULL,
  handle_checked_at = NULL, handle_valid = NULL
WHERE did = ANY(ARRAY(SELECT did FROM penstock.identities WHERE did = ANY($1) ORDER BY did FOR UPDATE))";

/// Nobody waits for the disk: what a crash of the server takes away is asked for again, or found out by the next signature.
const BEGIN_WRITE: &str = "BEGIN; SET LOCAL synchronous_commit = off";
const BEGIN_READ: &str = "BEGIN";

/// Of several processes that find a signature wrong at one time, one asks.
const CLAIM: &str = "\
UPDATE penstock.identities SET failed_at = clock_timestamp() WHERE did = $1 AND failures = 0
  AND coalesce(greatest(fetched_at, failed_at), '-infinity') <= clock_timestamp() - make_interval(secs => $2)";

const CHECK: &str = "\
UPDATE penstock.identities SET handle_checked_at = clock_timestamp(), handle_valid = $3 WHERE did = $1 AND handle = $2";

const PRUNE: &str = "\
DELETE FROM penstock.identities WHERE did = ANY(ARRAY(SELECT did FROM penstock.identities
  WHERE fetched_at IS NULL AND failed_at < clock_timestamp() - make_interval(secs => $1) ORDER BY failed_at LIMIT 200 FOR UPDATE SKIP LOCKED))";

/// The table, as far as it can be reached.
#[derive(Debug)]
pub(crate) struct Table {
    pool: Option<Pool>,
    reads: Away,
    writes: Away,
    pruned: Mutex<Instant>,
    events: Events,
}

/// Until when it is left alone, since it failed. Who may read and not write has one of two.
type Away = Mutex<Option<Instant>>;

/// What came of claiming a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is this process's.
    Granted,
    /// Somebody asked a short time ago.
    Taken,
    /// The table cannot tell.
    Unknown,
}

// === impl Table ===

impl Table {
    /// Makes one; without a pool there is none.
    pub(crate) fn new(pool: Option<Pool>, events: Events) -> Self {
        let pruned = Mutex::new(Instant::now());
        Self { pool, reads: Away::default(), writes: Away::default(), pruned, events }
    }

    /// Reads what is known of some DIDs; nothing while the table is away.
    pub(crate) async fn read(&self, dids: &[&str]) -> HashMap<Box<str>, Record> {
        if dids.is_empty() {
            return HashMap::new();
        }
        let rows = self.attempt(&self.reads, BEGIN_READ, async |connection| {
            sqlx::query(READ).bind(dids).persistent(false).fetch_all(connection).await
        });
        let rows = rows.await.unwrap_or_default();
        rows.iter().filter_map(|row| Some((row.try_get::<Box<str>, _>("did").ok()?, read(row)))).collect()
    }

    /// Writes what a document said that was asked for at this time.
    pub(crate) async fn write(&self, did: &str, record: &Record, asked: Instant) {
        let key = record.key.as_ref().map(Key::to_bytes);
        self.execute(async |connection| {
            // Only now: getting here may have taken longer than asking.
            let age = asked.elapsed();
            let query = sqlx::query(WRITE).persistent(false).bind(did).bind(key.as_ref().map(|key| &key[..]));
            let query = query.bind(record.host.as_deref()).bind(record.handle.as_deref()).bind(age.as_secs_f64());
            query.execute(connection).await
        })
        .await;
    }

    /// Writes that asking was of no use.
    pub(crate) async fn fail(&self, did: &str, error: &ResolveError) {
        let text = format!("{}: {error}", error.word());
        self.execute(async |connection| {
            sqlx::query(FAIL).persistent(false).bind(did).bind(&*text).execute(connection).await
        })
        .await;
        self.prune().await;
    }

    /// Notes why what is known of some is no longer right.
    pub(crate) async fn mark_stale(&self, dids: &[&str], why: &str) {
        if dids.is_empty() {
            return;
        }
        self.execute(async |connection| {
            sqlx::query(STALE).persistent(false).bind(dids).bind(why).execute(connection).await
        })
        .await;
    }

    /// Asks to be the one that refreshes a DID, once in so long.
    pub(crate) async fn claim(&self, did: &str, every: Duration) -> Claim {
        let done = self.execute(async |connection| {
            sqlx::query(CLAIM).persistent(false).bind(did).bind(every.as_secs_f64()).execute(connection).await
        });
        match done.await {
            None => Claim::Unknown,
            Some(0) => Claim::Taken,
            Some(_) => Claim::Granted,
        }
    }

    /// Notes whether a handle led back to its DID.
    pub(crate) async fn check(&self, did: &str, handle: &str, valid: bool) {
        self.execute(async |connection| {
            sqlx::query(CHECK).persistent(false).bind(did).bind(handle).bind(valid).execute(connection).await
        })
        .await;
    }

    async fn prune(&self) {
        {
            let mut pruned = self.pruned.lock().unwrap_or_else(PoisonError::into_inner);
            if pruned.elapsed() < PRUNED_EVERY {
                return;
            }
            *pruned = Instant::now();
        }
        self.execute(async |connection| {
            sqlx::query(PRUNE).persistent(false).bind(KEPT.as_secs_f64()).execute(connection).await
        })
        .await;
    }

    async fn execute(
        &self,
        statement: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<sqlx::postgres::PgQueryResult>,
    ) -> Option<u64> {
        self.attempt(&self.writes, BEGIN_WRITE, statement).await.map(|done| done.rows_affected())
    }

    /// Runs a statement in a transaction of its own; none while the table is away.
    async fn attempt<T>(
        &self,
        away: &Away,
        begin: &'static str,
        statement: impl AsyncFnOnce(&mut sqlx::PgConnection) -> sqlx::Result<T>,
    ) -> Option<T> {
        let pool = self.pool.as_ref()?;
        if lock(away).is_some_and(|until| Instant::now() < until) {
            return None;
        }
        // A transaction, because behind a pooler the halves of a statement could otherwise come to two sessions.
        let done = timeout(PATIENCE, async {
            let mut connection = pool.acquire().await?;
            let mut transaction = connection.begin_with(begin).await?;
            let done = statement(&mut transaction).await?;
            transaction.commit().await?;
            Ok::<_, sqlx::Error>(done)
        });
        let failed = match done.await {
            Ok(Ok(done)) => {
                if lock(away).take().is_some() {
                    self.events.table_back();
                }
                return Some(done);
            }
            Ok(Err(error)) => said(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        let until = Instant::now() + PAUSE;
        if lock(away).replace(until).is_none() {
            self.events.table_away(&failed);
        }
        None
    }
}

fn lock(away: &Away) -> MutexGuard<'_, Option<Instant>> {
    away.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(row: &PgRow) -> Record {
    let age = |name: &str| {
        let seconds = row.try_get::<Option<f64>, _>(name).ok().flatten();
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    };
    let text = |name: &str| row.try_get::<Option<Box<str>>, _>(name).ok().flatten();
    let key = row.try_get::<Option<&[u8]>, _>("key").ok().flatten().and_then(|key| Key::from_bytes(key).ok());
    let failures =
        row.try_get::<i32, _>("failures").ok().and_then(|failures| u32::try_from(failures).ok()).unwrap_or(0);
    let failure = age("failed").filter(|_| failures > 0).map(|age| Failure {
        error: failure_of(&text("error").unwrap_or_default()),
        failures,
        age,
    });
    let checked = row.try_get::<Option<bool>, _>("handle_valid").ok().flatten();
    Record {
        key,
        host: text("host"),
        handle: text("handle"),
        fetched: age("fetched"),
        stale: row.try_get("stale").unwrap_or(false),
        told: None,
        failure,
        checked: checked.zip(age("checked")).map(|(valid, age)| Checked { valid, age }),
        asks: 0,
    }
}

/// Reads what [`Table::fail`] wrote.
fn failure_of(text: &str) -> ResolveError {
    match text.split_once(": ") {
        Some(("not_found", _)) => ResolveError::NotFound,
        Some(("tombstoned", _)) => ResolveError::Tombstoned,
        Some((_, why)) => ResolveError::refused(why),
        None => ResolveError::refused("it failed before"),
    }
}
