//! The settings of a migration's transactions, and the turn to migrate.
//!
//! Nothing is set for a session, and nothing is held by one: between two transactions a pooler lends it to other programs.

use std::time::Duration;

use penstock_postgres::Address;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres, Transaction};
use tracing::info;

use super::database::Database;
use super::{SEARCH_PATH, SchemaError};

/// The statements that read a whole table take as long as they take, whatever limit the role has.
const UNLIMITED: &str = "SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning";

/// How long a lock is waited for where nothing else is said.
const PATIENCE: &str = "SET LOCAL lock_timeout = '900ms'";

/// Held by the transaction of the process that migrates; workers take turns at other numbers.
const TURN: i64 = 0x7065_6e73_746f_636e;

/// Held together by each transaction that changes something: one of a process that was killed may not have ended yet.
const WORK: i64 = 0x7065_6e73_746f_6370;

/// It is idle for as long as the migration works, and has no snapshot by which an index that is built would wait for it.
const TAKE: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config(name, '0', true) FROM pg_settings
 WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')";

/// Who holds one of the locks: how it calls itself, from where, and what it is about.
const HOLDER: &str = "\
SELECT format('%s of %s (pid %s, from %s, %s since %s s)', coalesce(nullif(a.application_name, ''), 'a session'), a.usename, l.pid,
    coalesce(host(a.client_addr), 'an unknown address'), coalesce(a.state, 'working'),
    greatest(0, extract(epoch FROM clock_timestamp() - a.state_change)::int))
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.datname = current_database()
   AND l.classid::bigint = $1 >> 32 AND l.objid::bigint = $1 & 4294967295
 ORDER BY a.state_change LIMIT 1";

/// How often it is looked whether another migration has ended.
const LOOK: Duration = Duration::from_millis(500);

/// How often it is told who holds the turn, in looks.
const REMIND: u32 = 20;

/// How often it is looked whether the turn is still held.
const WATCH: Duration = Duration::from_secs(5);

/// The turn to migrate, held by a transaction on a connection of its own: it ends with either.
pub(super) struct Turn {
    conn: PgConnection,
}

/// Returns what begins a transaction that changes something.
pub(super) fn working() -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; {UNLIMITED}; {PATIENCE}; SELECT pg_advisory_xact_lock_shared({WORK}), ({SEARCH_PATH})"
    )
}

/// Begins a transaction that waits for locks as long as the role does.
pub(super) async fn begin_waiting(conn: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
    conn.begin_with(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL READ COMMITTED; {UNLIMITED}; {SEARCH_PATH}"))).await
}

/// Begins a transaction that cannot change anything; within a transaction a savepoint.
pub(super) async fn begin_reading(conn: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
    if conn.is_in_transaction() {
        return conn.begin().await;
    }
    let head = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {UNLIMITED}; {PATIENCE}; {SEARCH_PATH}");
    conn.begin_with(AssertSqlSafe(head)).await
}

/// Returns whether two connections that are idle have the same session: then a pooler lends it by the transaction.
pub(super) async fn is_shared(one: &mut PgConnection, other: &mut PgConnection) -> sqlx::Result<bool> {
    Ok(pid(one).await? == pid(other).await?)
}

async fn pid(conn: &mut PgConnection) -> sqlx::Result<i32> {
    let mut tx = begin_reading(conn).await?;
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    Ok(pid)
}

// === impl Turn ===

impl Turn {
    /// Waits until no other process migrates, and tells who does.
    pub(super) async fn take(database: Database<'_>, options: &Address) -> Result<Self, SchemaError> {
        let mut looks = 0;
        loop {
            let mut conn = database.connect(options).await?;
            let Some(held_by) = take(&mut conn).await? else { return Ok(Self { conn }) };
            if looks % REMIND == 0 {
                info!(held_by, "another migration is running, waiting for it");
            }
            looks += 1;
            let _ = conn.close().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Returns why the turn was lost, if it ever is.
    pub(super) async fn lost(&mut self) -> sqlx::Error {
        loop {
            tokio::time::sleep(WATCH).await;
            // No statement, which would take a snapshot.
            if let Err(error) = self.conn.ping().await {
                return error;
            }
        }
    }

    /// Gives it up.
    pub(super) async fn end(mut self) {
        // The lock goes with the transaction, and that with the connection, whatever the farewell.
        let _ = self.conn.execute("ROLLBACK").await;
        let _ = self.conn.close().await;
    }
}

/// Begins the transaction that holds the turn; returns who holds it already, if somebody does.
async fn take(conn: &mut PgConnection) -> sqlx::Result<Option<String>> {
    conn.execute(sqlx::raw_sql(TAKE)).await?;
    for lock in [TURN, WORK] {
        // The second one is only looked at: the statements of this migration hold it together.
        let sql = if lock == TURN {
            "SELECT pg_try_advisory_xact_lock($1)"
        } else {
            "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND classid::bigint = $1 >> 32 AND objid::bigint = $1 & 4294967295)"
        };
        if !sqlx::query_scalar::<_, bool>(sql).bind(lock).fetch_one(&mut *conn).await? {
            let held_by = sqlx::query_scalar(HOLDER).bind(lock).fetch_optional(&mut *conn).await?;
            return Ok(Some(held_by.unwrap_or_else(|| "a session that has just ended".to_owned())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use penstock_local::testing::fresh_database;

    use super::*;

    #[tokio::test]
    async fn whoever_holds_the_turn_is_named_with_its_process_and_address() {
        let url = fresh_database().await.unwrap();
        let connect = async || PgConnection::connect(&url).await.unwrap();
        let (mut first, mut second) = (connect().await, connect().await);
        let name = "SELECT set_config('application_name', 'an older version', false)";
        first.execute(name).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut first).await.unwrap();
        // As a version did whose lock stayed behind in a session of a pooler.
        sqlx::query("SELECT pg_advisory_lock($1)").bind(TURN).execute(&mut first).await.unwrap();
        let held_by = take(&mut second).await.unwrap().unwrap();
        let expected = format!("an older version of penstock (pid {pid}, from 127.0.0.1, idle since ");
        assert!(held_by.starts_with(&expected), "{held_by}");
        second.execute("ROLLBACK").await.unwrap();
        first.execute("SELECT pg_advisory_unlock_all()").await.unwrap();
        assert_eq!(take(&mut second).await.unwrap(), None);

        // A transaction of a migration that was killed goes on.
        let mut third = connect().await;
        first.execute(AssertSqlSafe(working())).await.unwrap();
        second.execute("ROLLBACK").await.unwrap();
        let held_by = take(&mut third).await.unwrap().unwrap();
        assert!(held_by.contains(&format!("pid {pid}")) && held_by.contains("idle in transaction"), "{held_by}");
    }
}
