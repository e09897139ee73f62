//! Statements that get their locks without holding others up.
//!
//! Whoever waits for a table for itself holds up everybody who comes after, readers too, for as long as it waits. So such a
//! statement takes what is free at a glance, again and again; only a few times it queues, and then briefly, because a table
//! that is read all the time is never free.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use thiserror::Error;
use tracing::{info, warn};

use super::database::Database;
use super::session;

/// Why a step of a migration was not taken; what it did is undone.
#[derive(Debug, Error)]
pub enum StepError {
    /// PostgreSQL refused a statement.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// A table was in use all the time.
    #[error("{table} was not free within {waited:?}{}: try again at a quieter time", held_by(.holders))]
    InUse {
        /// The table.
        table: String,
        /// For how long it was tried.
        waited: Duration,
        /// Who had it in use at the end.
        holders: Vec<String>,
    },
}

/// What a step brought.
pub(super) type Step<T> = Result<T, StepError>;

/// How long to go on trying to get a lock.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often it is told that a table is still in use.
const REMIND: Duration = Duration::from_secs(10);

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Tables for itself: whoever comes meanwhile waits behind it.
    Table,
    /// Rows that others are writing: nobody waits behind it who would not wait for them.
    Rows,
}

/// Who has locks on a table: how it calls itself, and since when. Not what it does, which may be somebody's data.
const HOLDERS: &str = "\
SELECT format('%s of %s (pid %s, %s, transaction of %s s)', coalesce(nullif(a.application_name, ''), 'a session'), a.usename, a.pid,
    a.state, greatest(0, extract(epoch FROM now() - a.xact_start)::int))
  FROM pg_stat_activity AS a
 WHERE a.pid <> pg_backend_pid() AND a.pid IN (SELECT l.pid FROM pg_locks AS l WHERE l.relation = to_regclass($1) AND l.granted)
 ORDER BY a.xact_start LIMIT 3";

// === impl Wait ===

impl Wait {
    /// Returns how long the attempt of that number, from 0, waits for each lock. Readers of a table wait behind its three
    /// longer ones at most, a fifth of a second in all.
    fn patience(self, attempt: u32) -> &'static str {
        match (self, attempt) {
            (Self::Rows, _) => "900ms",
            (Self::Table, 3 | 9 | 27) => "60ms",
            (Self::Table, _) => "1ms",
        }
    }
}

/// How long after the attempt of that number the next one follows: whoever waits behind us gets its turn.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(20 << attempt.min(5))
}

/// Runs statements, which are one transaction, as often as it takes until they get their locks; returns how many rows they
/// changed. `table` is the one that they wait for, as the log names it.
///
/// # Errors
/// When they fail otherwise, or get no lock for two minutes.
pub(super) async fn patiently(conn: &mut PgConnection, wait: Wait, table: &str, sql: &str) -> Step<u64> {
    let began = Instant::now();
    let mut told = began;
    let mut attempt = 0;
    loop {
        let patience = wait.patience(attempt);
        let head = format!("{}; SET LOCAL lock_timeout = '{patience}'", session::working());
        // The statements by themselves: pg_stat_activity shows the first 1,024 bytes of what a session runs.
        let tried = async {
            let mut tx = conn.begin_with(AssertSqlSafe(head)).await?;
            let done = tx.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            tx.commit().await?;
            Ok(done.rows_affected())
        };
        match tried.await {
            Ok(rows) => return Ok(rows),
            Err(error) if is_locked(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let waited = began.elapsed();
        if waited >= DEADLINE {
            return Err(StepError::InUse { table: table.to_owned(), waited, holders: holders(conn, table).await });
        }
        if attempt == 3 || told.elapsed() >= REMIND {
            told = Instant::now();
            let holders = holders(conn, table).await.join(", ");
            warn!(table, holders, "a table is in use, trying this step again");
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// Runs a statement that builds or drops an index beside its readers and writers, and that no transaction may hold. It waits for
/// transactions that began before it, however long, and nobody waits for it. It names everything with its schema.
///
/// # Errors
/// When PostgreSQL refuses it. Through a pooler also where the role has limits that would end it: without a transaction they can be
/// lifted for the session alone, which others have by then.
pub(super) async fn concurrently(conn: &mut PgConnection, database: Database<'_>, sql: &str) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    let limited: Vec<String> = sqlx::query_scalar(LIMITED).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    if limited.is_empty() {
        return conn.execute(AssertSqlSafe(sql)).await.map(drop);
    }
    if database.shares_sessions() {
        let limits = limited.join(" and ");
        let said = format!(
            "{limits} of this role would end the building of an index, and through a pooler it cannot be lifted: \
             set postgres.directUrl to an address of the server itself, or run ALTER ROLE … SET {} = 0",
            limited.first().map(String::as_str).unwrap_or_default()
        );
        return Err(sqlx::Error::Configuration(said.into()));
    }
    conn.execute("SET lock_timeout = 0; SET statement_timeout = 0").await?;
    let done = conn.execute(AssertSqlSafe(sql)).await;
    conn.execute("RESET lock_timeout; RESET statement_timeout").await?;
    done.map(drop)
}

/// What ends a statement that takes long.
const LIMITED: &str = "SELECT name FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') AND setting <> '0' ORDER BY name DESC";

/// Whether a statement waited for a lock in vain.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

/// Tells who uses a table; nothing where nobody may be asked.
async fn holders(conn: &mut PgConnection, table: &str) -> Vec<String> {
    let found: sqlx::Result<Vec<String>> = async {
        let mut tx = session::begin_reading(conn).await?;
        let found = sqlx::query_scalar(HOLDERS).bind(table).fetch_all(&mut *tx).await?;
        tx.rollback().await?;
        Ok(found)
    }
    .await;
    found.unwrap_or_default()
}

fn held_by(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(", in use by {}", holders.join(", ")) }
}

/// Whom the migration waits for: there is one at a time, and its session may be another one in each transaction.
const BLOCKERS: &str = "\
SELECT coalesce((SELECT l.relation::regclass::text FROM pg_locks AS l WHERE l.pid = m.pid AND NOT l.granted AND l.relation IS NOT NULL
    LIMIT 1), 'transactions that began earlier'),
  format('%s of %s (pid %s, %s, transaction of %s s)', coalesce(nullif(a.application_name, ''), 'a session'), a.usename, a.pid,
    a.state, greatest(0, extract(epoch FROM now() - a.xact_start)::int))
  FROM pg_stat_activity AS m, unnest(pg_blocking_pids(m.pid)) AS b (pid) JOIN pg_stat_activity AS a ON a.pid = b.pid
 WHERE m.application_name = 'penstock-migrate' AND m.datname = current_database() AND m.wait_event_type = 'Lock'
 ORDER BY a.xact_start LIMIT 1";

/// Tells now and then whom the migration waits for, until dropped.
pub(super) async fn tell_waits(mut conn: PgConnection) {
    loop {
        tokio::time::sleep(REMIND).await;
        match blocker(&mut conn).await {
            Ok(Some((waits_for, held_by))) => info!(waits_for, held_by, "still waiting, readers and writers go on"),
            Ok(None) => {}
            Err(_) => return std::future::pending().await,
        }
    }
}

async fn blocker(conn: &mut PgConnection) -> sqlx::Result<Option<(String, String)>> {
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_as(BLOCKERS).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wait_less_than_half_a_second_however_long_a_table_is_in_use() {
        let millis = |attempt| Wait::Table.patience(attempt).trim_end_matches("ms").parse::<u64>().unwrap();
        let mut waited = 0;
        let mut passed = Duration::ZERO;
        for attempt in 0.. {
            waited += millis(attempt);
            passed += Duration::from_millis(millis(attempt)) + pause(attempt);
            if passed > DEADLINE {
                break;
            }
        }
        assert!(waited < 400, "{waited} ms");
    }
}
