//! The PostgreSQL half of the worker: entries become rows, so that the database converges.
//!
//! A batch is one transaction. It locks the repos that it touches, reads what stands where it wants to write, decides
//! in memory, and writes one statement a table and kind of change. Under the locks nothing of those repos moves but by
//! writers outside Penstock, whose rows are locked while they are read; a row that they insert meanwhile is a unique
//! violation, and the batch looks again.
//!
//! What a record ends as depends on versions alone, never on who came first: see `version` for which of two states is
//! the later one, `decide` for records that want the same place, `counts` for how posts are counted.

mod accounts;
mod batch;
mod checkpoint;
mod connection;
mod counts;
mod decide;
pub(crate) mod derived;
mod error;
mod letters;
mod messages;
mod micros;
mod opt_outs;
mod project;
mod row;
mod seen;
mod sql;
mod sweep;
pub(crate) mod table;
mod users;
mod version;
mod whole;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use penstock_core::entry::Entry;
use penstock_core::settings::{Projection, Projections};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};

use crate::schema::{self, SchemaError};
use accounts::Guards;
use batch::{Batch, What};
pub use checkpoint::Checkpoint;
use counts::Tally;
use decide::decide;
use derived::{Projector, Stale};
use error::Fault;
pub use error::{ApplyError, StoreError};
pub use letters::DeadLetter;
pub(crate) use micros::Micros;
use seen::Seen;
use sql::Statements;
pub use sweep::Swept;
use table::Table;
pub use whole::{Counted, Turn};

/// How the store reaches PostgreSQL.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections at most; default 10.
    pub pool_size: u32,
    /// How long to wait for a connection; default 10 s.
    pub acquire_timeout: Duration,
    /// How long a statement may take before PostgreSQL cancels it and the batch is tried again; default 60 s.
    pub statement_timeout: Duration,
    /// Whether to fill `search_vector` of posts and users; default false, an index on it costs.
    pub search_vector: bool,
    /// Whether the message buffer writes here, too; default false.
    pub messages: bool,
    /// What is derived from records besides; default what has its table.
    pub projections: Projections,
    /// How many rows follow at once from posts that came or went; default 5,000. The others follow later.
    pub page: u32,
}

/// The database that entries are written to; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// How long an answer may take before its connection is given up: the server may be gone without a word.
    deadline: Duration,
    statements: Arc<Statements>,
    search_vector: bool,
    messages: bool,
    projector: Projector,
    page: u32,
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows inserted, updated or removed, by table.
    pub rows: BTreeMap<&'static str, u64>,
    /// What has no place in its table: to be dead-lettered. The rest of their entries is written.
    pub rejected: Vec<Rejected>,
    /// Changes of records that were not written because their account opted out.
    pub refused: u64,
    /// Notifications that were not made because their URI is longer than its column.
    pub refused_notifications: u64,
    /// Keys of the AppView's cache that are stale by it.
    pub stale: BTreeSet<String>,
}

/// An op, or an entry, that has no place in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Which entry of the batch, from 0.
    pub entry: usize,
    /// Which op of its commit, from 0; none where the entry itself is refused.
    pub op: Option<usize>,
    /// Why.
    pub reason: String,
}

/// What one worker has written of one kind, in total.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountTotal {
    /// The worker.
    pub worker: String,
    /// The field of `db:record_counts`.
    pub field: String,
    /// Rows inserted less rows removed.
    pub total: i64,
}

const COUNTS: &str = "SELECT worker, field, total FROM penstock.counts ORDER BY worker, field";
const COUNTS_OF: &str = "SELECT worker, field, total FROM penstock.counts WHERE worker = $1";

/// How often a batch looks again at once when others write the same rows: then it is left to the caller.
const ATTEMPTS: u32 = 4;

// Every statement looks rows up by the keys of one batch, so that there is one right plan, whatever the statistics say:
// a nested loop over an index. It is made once for each connection; left to itself the planner would scan tables from
// end to end, above all those that were empty when it looked. A worker that is cut off must not keep its locks.
const SESSION: &str = "\
SET default_transaction_isolation = 'read committed';
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET idle_in_transaction_session_timeout = '60s'";

// === impl StoreSettings ===

impl StoreSettings {
    /// Makes settings with every default for a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 10,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            search_vector: false,
            messages: false,
            projections: Projections::Auto,
            page: 5000,
        }
    }
}

// === impl Store ===

impl Store {
    /// Connects, once: the pool reconnects by itself later.
    ///
    /// # Errors
    /// When the URL is none or nobody answers there.
    pub async fn connect(settings: &StoreSettings) -> Result<Self, StoreError> {
        let timeout = settings.statement_timeout.as_millis();
        let session = format!("{SESSION}; SET statement_timeout = {timeout}; {}", schema::SEARCH_PATH);
        let options: PgConnectOptions = settings.url.parse().map_err(StoreError::Url)?;
        // How long a batch takes is a metric; a page of SQL in the log for each slow one helps nobody.
        let options = options.application_name("penstock-worker").disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(settings.pool_size.max(1))
            .acquire_timeout(settings.acquire_timeout)
            .after_connect(move |conn, _| {
                let session = session.clone();
                Box::pin(async move { conn.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(session))).await.map(drop) })
            })
            .connect_with(options.statement_cache_capacity(256))
            .await
            .map_err(StoreError::Connect)?;
        let statements = Arc::new(Statements::new(settings.search_vector));
        let deadline = settings.acquire_timeout + 2 * settings.statement_timeout;
        let projector = Projector::new(settings.projections.clone());
        let StoreSettings { search_vector, messages, page, .. } = *settings;
        Ok(Self { pool, deadline, statements, search_vector, messages, projector, page: page.max(1) })
    }

    /// Returns the connections, for what the worker keeps in PostgreSQL besides rows.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Checks that every table and column is there that the worker writes.
    ///
    /// # Errors
    /// Names what is missing, or that PostgreSQL could not be asked.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut conn = self.connection().await.map_err(SchemaError::Connect)?;
        let checked = self.in_time(self.check_all(&mut conn)).await;
        conn.answered(checked)
    }

    async fn check_all(&self, conn: &mut PgConnection) -> Result<(), SchemaError> {
        schema::check(conn, self.messages).await?;
        let missing = derived::missing(conn, self.projector.asked()).await?;
        if !missing.is_empty() {
            return Err(SchemaError::Missing(missing));
        }
        self.projector.refresh(conn).await?;
        Ok(())
    }

    /// Writes a batch of entries in one transaction: whatever their order, and however often they come.
    ///
    /// `worker` names whose totals the counts are added to.
    ///
    /// # Errors
    /// [`ApplyError::Data`] when the batch holds something that PostgreSQL will never take; [`ApplyError::Retry`] for
    /// everything else. Nothing is written then.
    pub async fn apply(&self, worker: &str, entries: &[Entry]) -> Result<Applied, ApplyError> {
        let batch = Batch::read(entries);
        if batch.actors.is_empty() {
            return Ok(Applied { rejected: batch.rejected, ..Applied::default() });
        }
        let mut attempt = 1;
        let (tally, stale) = loop {
            match self.attempt(worker, &batch).await {
                Err(fault) if fault.is_race() && attempt < ATTEMPTS => attempt += 1,
                other => break other?,
            }
        };
        let is_refused = |did: &str| tally.opted_out.contains(did);
        let repos = batch.ops.iter().map(|op| op.repo).chain(batch.profiles.iter().map(|op| op.repo));
        let refused = repos.filter(|repo| is_refused(repo)).count() as u64;
        // What is not to be kept is not kept as a dead letter either.
        let of = |rejected: &Rejected| entries.get(rejected.entry).map(|entry| entry.event.did());
        let rejected = batch.rejected.into_iter().filter(|rejected| !of(rejected).is_some_and(is_refused)).collect();
        Ok(Applied {
            rows: tally.rows,
            rejected,
            refused,
            refused_notifications: tally.refused_notifications,
            stale: stale.into_keys(),
        })
    }

    async fn attempt(&self, worker: &str, batch: &Batch<'_>) -> Result<(Tally, Stale), Fault> {
        let mut conn = self.connection().await?;
        let written = self.in_time(self.transact(&mut conn, worker, batch)).await;
        conn.answered(written)
    }

    async fn transact(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        batch: &Batch<'_>,
    ) -> Result<(Tally, Stale), Fault> {
        let mut stale = Stale::default();
        let mut tx = conn.begin().await?;
        let tally = self.write(&mut tx, worker, batch, &mut stale).await?;
        tx.commit().await?;
        Ok((tally, stale))
    }

    /// Writes a batch within a transaction.
    async fn write(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        batch: &Batch<'_>,
        stale: &mut Stale,
    ) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        let active = self.projector.active(conn).await?;
        let verified = verified(conn, batch).await?;
        let guards = accounts::lock(conn, batch, &verified).await?;
        tally.opted_out = guards.forbidden().cloned().collect();
        self.write_accounts(conn, batch, &guards, &mut tally).await?;

        let through = |did: &str| guards.deleted_through(did, batch);
        let changes = batch::fold(&batch.ops, through);
        let seen = Seen::read(conn, &self.statements, &changes).await?;
        if seen.has_other_subject(&verified) {
            return Err(Fault::Moved);
        }
        let mut plan = decide(changes, &seen, through);
        let before = derived::look(conn, active, &plan).await?;
        write::write(conn, &self.statements, &mut plan, &mut tally).await?;
        plan.counts.settle();
        if active.has(Projection::Cache) {
            stale.add_said(batch);
            stale.add_changes(&plan);
        }
        derived::hold(active, &mut plan, &before);
        counts::write_counts(conn, &mut plan, &mut tally).await?;
        let contexts = derived::write(conn, active, &plan, &before, self.page, &mut tally).await?;
        if active.has(Projection::Cache) {
            stale.add_contexts(&contexts);
        }
        tally.write(conn, worker).await?;
        Ok(tally)
    }

    async fn write_accounts(
        &self,
        conn: &mut PgConnection,
        batch: &Batch<'_>,
        guards: &Guards,
        tally: &mut Tally,
    ) -> sqlx::Result<()> {
        let mut changed = users::Changed::default();
        if !batch.profiles.is_empty() {
            users::take_profiles(conn, batch, guards, &mut changed).await?;
        }
        if !batch.identities.is_empty() {
            users::take_identities(conn, batch, guards, &mut changed).await?;
        }
        users::write(conn, batch, guards, &changed, self.search_vector, tally).await?;
        if !batch.accounts.is_empty() {
            accounts::write_accounts(conn, batch, guards).await?;
        }
        Ok(())
    }

    /// Reads the totals of every worker that ever wrote here, dead ones included.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn counts(&self) -> Result<Vec<CountTotal>, StoreError> {
        self.read_counts(None).await
    }

    /// Reads the totals of one worker.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn counts_of(&self, worker: &str) -> Result<Vec<CountTotal>, StoreError> {
        self.read_counts(Some(worker)).await
    }

    async fn read_counts(&self, worker: Option<&str>) -> Result<Vec<CountTotal>, StoreError> {
        let query = match worker {
            None => sqlx::query_as(COUNTS),
            Some(worker) => sqlx::query_as(COUNTS_OF).bind(worker),
        };
        let mut conn = self.connection().await.map_err(StoreError::Counts)?;
        let rows = self.in_time(query.fetch_all(&mut *conn)).await;
        let rows: Vec<(String, String, i64)> = conn.answered(rows).map_err(StoreError::Counts)?;
        Ok(rows.into_iter().map(|(worker, field, total)| CountTotal { worker, field, total }).collect())
    }

    /// Returns the random name that the database got when it was migrated first.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or was never migrated.
    pub async fn incarnation(&self) -> Result<String, StoreError> {
        let query = sqlx::query_scalar("SELECT value FROM penstock.meta WHERE key = 'incarnation'");
        let mut conn = self.connection().await.map_err(StoreError::Incarnation)?;
        let incarnation = self.in_time(query.fetch_one(&mut *conn)).await;
        conn.answered(incarnation).map_err(StoreError::Incarnation)
    }
}

/// Finds the subjects of verifications that the batch may write, move or take away.
async fn verified(conn: &mut PgConnection, batch: &Batch<'_>) -> sqlx::Result<BTreeSet<String>> {
    let ops = || batch.ops.iter().filter(|op| op.homes.contains(&Table::Verifications));
    let uris: Vec<&str> = ops().map(|op| &*op.uri).collect();
    let mut verified = seen::subjects(conn, &uris).await?;
    verified.extend(ops().filter_map(|op| match &op.what {
        What::Put(row) => row.pair().map(|pair| pair.b),
        What::Delete | What::Sweep => None,
    }));
    Ok(verified)
}

#[cfg(test)]
mod tests;
