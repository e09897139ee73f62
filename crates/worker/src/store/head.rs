//! What each transaction begins with: the settings that its statements need.
//!
//! They hold until the transaction ends and no longer. A pooler lends the session to other programs between two transactions of
//! ours, and a setting of the session would go with it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};

use super::schema::SEARCH_PATH;

/// The statement that begins a transaction and makes its settings, in one round trip; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Without the search path.
    settings: Arc<str>,
    /// Finds the search path itself, in about a millisecond.
    finding: Arc<str>,
    /// The same with the path that was found, once there is one.
    now: Arc<RwLock<Arc<str>>>,
}

// Every statement looks rows up by the keys of one batch, so that there is one right plan, whatever the statistics say:
// a nested loop over an index. It is made once for each session; left to itself the planner would scan tables from
// end to end, above all those that were empty when it looked. A worker that is cut off must not keep its locks.
const SETTINGS: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL plan_cache_mode = force_generic_plan;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;
SET LOCAL idle_in_transaction_session_timeout = '60s'";

// === impl Head ===

impl Head {
    /// Gives each statement so much time.
    pub(super) fn new(statement_timeout: Duration) -> Self {
        let settings = format!("{SETTINGS};\nSET LOCAL statement_timeout = {}", statement_timeout.as_millis());
        let finding: Arc<str> = format!("{settings};\n{SEARCH_PATH}").into();
        Self { now: Arc::new(RwLock::new(Arc::clone(&finding))), finding, settings: settings.into() }
    }

    /// Begins a transaction that finds the search path, whatever was found before.
    pub(super) async fn begin_finding<'c>(
        &self,
        conn: &'c mut PgConnection,
    ) -> sqlx::Result<Transaction<'c, Postgres>> {
        conn.begin_with(AssertSqlSafe(Arc::clone(&self.finding))).await
    }

    /// Takes the search path of this transaction, which found it, for all that begin from here on.
    pub(super) async fn keep_path(&self, transaction: &mut PgConnection) -> sqlx::Result<()> {
        // As PostgreSQL shows it: a list of names, each in quotes where it needs them.
        let path: String = sqlx::query_scalar("SHOW search_path").persistent(false).fetch_one(transaction).await?;
        let head = format!("{};\nSET LOCAL search_path = {path}", self.settings);
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = head.into();
        Ok(())
    }

    /// Begins a transaction.
    pub(super) async fn begin<'c>(&self, conn: &'c mut PgConnection) -> sqlx::Result<Transaction<'c, Postgres>> {
        let head = Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner));
        conn.begin_with(AssertSqlSafe(head)).await
    }

    /// Begins a transaction whose commit does not wait for the disk: a crash of the server may take it back, with all that came after
    /// it and nothing that came before. Only for what is done again unless a later transaction says that it is done.
    pub(super) async fn begin_unhurried<'c>(
        &self,
        conn: &'c mut PgConnection,
    ) -> sqlx::Result<Transaction<'c, Postgres>> {
        let head = Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner));
        conn.begin_with(AssertSqlSafe(format!("{head};\nSET LOCAL synchronous_commit = off"))).await
    }
}
