//! The store's connections: how they are made, and when they are given up because the server does not answer, or answers
//! that they are no longer usable.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_core::settings::Projections;
use penstock_postgres::{Address, PasswordSource, Pool};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool, Postgres};
use tokio::time::error::Elapsed;

use super::claim_rules::Rules;
use super::derived::Projector;
use super::error::{Answer, Fitness, StoreError};
use super::head::Head;
use super::prepared;
use super::reserve::Reserved;
use super::snapshot_sql::SnapshotStatements;
use super::sql::Statements;

/// How the store reaches PostgreSQL.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Where the password comes from; default that URL.
    pub password: PasswordSource,
    /// The schema with the AppView's tables; default the one that was recorded, or is found.
    pub schema: Option<String>,
    /// Connections at most; default 10.
    pub pool_size: u32,
    /// How long to wait for a connection; default 10 s.
    pub acquire_timeout: Duration,
    /// How long a statement may take before PostgreSQL cancels it and the batch is tried again; default 60 s.
    pub statement_timeout: Duration,
    /// Whether to fill `search_vector` of posts and users; default false, an index on it costs.
    pub search_vector: bool,
    /// Whether the CIDs of records are recorded whose table has no column for them; default false.
    pub record_cids: bool,
    /// Whether the message buffer writes here as well; default false.
    pub messages: bool,
    /// Which projections are written; default those whose tables exist.
    pub projections: Projections,
    /// How long the rows of a deleted account are kept; default not at all.
    pub delete_grace: Duration,
    /// Whether the hosts of accounts are asked before an event takes an account away; default false.
    pub asks_hosts: bool,
    /// How long after a failure a host is asked again; default 1 min.
    pub ask_again: Duration,
    /// How many rows follow at once from posts that came or went; default 5,000. The others follow later.
    pub page: u32,
}

/// The database that entries are written to; clones share its connections.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) pool: Pool,
    /// What each transaction begins with.
    pub(super) head: Head,
    /// Which of them are no longer usable.
    outdated: Outdated,
    /// Which stream IDs may be written.
    pub(super) reserved: Reserved,
    /// How long an answer may take before its connection is given up: the server may be gone without a word.
    pub(super) deadline: Duration,
    pub(super) statements: Arc<Statements>,
    /// Those that hold snapshots against what is stored.
    pub(super) snapshots: Arc<SnapshotStatements>,
    pub(super) search_vector: bool,
    pub(super) record_cids: bool,
    pub(super) messages: bool,
    pub(super) schema: Option<String>,
    pub(super) projector: Projector,
    pub(super) page: u32,
    /// When accounts are taken away.
    pub(super) rules: Rules,
    /// How many steps of sweeps were looked for.
    pub(super) turns: Arc<AtomicUsize>,
}

/// A connection of the pool, to be returned with what was [answered](Self::answered) on it.
pub(crate) struct Borrowed {
    conn: PoolConnection<Postgres>,
    outdated: Outdated,
}

/// Since when connections are good: the server behind those that were made before changed. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outdated(Arc<Mutex<Option<Instant>>>);

/// How long an answer may take to whether no connection can be made, or only none is free.
const ASKING: Duration = Duration::from_secs(2);

// === impl StoreSettings ===

impl StoreSettings {
    /// Makes settings with every default for a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            password: PasswordSource::Address,
            schema: None,
            pool_size: 10,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(60),
            search_vector: false,
            record_cids: false,
            messages: false,
            projections: Projections::Auto,
            delete_grace: Duration::ZERO,
            asks_hosts: false,
            ask_again: Duration::from_secs(60),
            page: 5000,
        }
    }
}

// === impl Store ===

impl Store {
    /// Connects once; the pool reconnects by itself later.
    ///
    /// # Errors
    /// When the URL is not valid, no server answers there, or a pooler does that has no transactions or confuses statements.
    pub async fn connect(settings: &StoreSettings) -> Result<Self, StoreError> {
        let url = settings.url.parse::<Address>().map_err(StoreError::Url)?;
        let address = url.with_password(settings.password.clone()).named("penstock-worker").statements(256);
        let outdated = Outdated::default();
        let gone = outdated.clone();
        let options =
            PgPoolOptions::new().max_connections(settings.pool_size.max(1)).acquire_timeout(settings.acquire_timeout);
        let pool = Pool::lazy(address, options, move |connection| !gone.covers(connection.age));
        let pool = pool.map_err(StoreError::Connect)?.connected().await.map_err(StoreError::Connect)?;
        let head = Head::new(settings.statement_timeout);
        check_pooler(&pool, &head).await.map_err(StoreError::Connect)?;
        let statements = Arc::new(Statements::new(settings.search_vector));
        let deadline = settings.acquire_timeout + 2 * settings.statement_timeout;
        let projector = Projector::new(settings.projections.clone());
        let StoreSettings { search_vector, record_cids, messages, page, .. } = *settings;
        let reserved = Reserved::default();
        Ok(Self {
            pool,
            head,
            outdated,
            reserved,
            deadline,
            statements,
            snapshots: Arc::new(SnapshotStatements::new()),
            search_vector,
            record_cids,
            messages,
            schema: settings.schema.clone(),
            projector,
            page: page.max(1),
            rules: Rules { grace: settings.delete_grace, asks: settings.asks_hosts, retry: settings.ask_again },
            turns: Arc::default(),
        })
    }

    /// Returns the connections, for what the worker keeps in PostgreSQL besides rows.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.pool.inner()
    }

    /// Returns the connections as other parts share them.
    #[must_use]
    pub fn shared_pool(&self) -> Pool {
        self.pool.clone()
    }

    /// Takes a connection from the pool, which waits for one no longer than its acquire timeout.
    pub(crate) async fn connection(&self) -> sqlx::Result<Borrowed> {
        let conn = match self.pool.acquire().await {
            // Either all are in use, or none can be made, which the pool does not tell.
            Err(sqlx::Error::PoolTimedOut) => {
                return Err(self.ask_in_time().await.err().unwrap_or(sqlx::Error::PoolTimedOut));
            }
            taken => taken?,
        };
        Ok(Borrowed { conn, outdated: self.outdated.clone() })
    }

    /// Makes a connection beside the pool and closes it.
    pub(crate) async fn ask(&self) -> sqlx::Result<()> {
        self.pool.address().connect().await?.close().await
    }

    async fn ask_in_time(&self) -> sqlx::Result<()> {
        // Not of the kind of a statement that took too long: smaller ones would wait as long.
        let silence = |_| sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, "no answer in time"));
        tokio::time::timeout(ASKING, self.ask()).await.map_err(silence)?
    }

    /// Runs statements in a transaction of their own and commits it, all within the deadline.
    ///
    /// # Errors
    /// What PostgreSQL or the connection says; nothing is written then.
    pub async fn in_transaction<T>(
        &self,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        self.run(false, act).await
    }

    /// The same without waiting for the disk: a crash of the server may take it back, with all that came after it and nothing that came
    /// before. Only for what is done again unless a later transaction says that it is done.
    ///
    /// # Errors
    /// As [`Self::in_transaction`].
    pub async fn in_unhurried_transaction<T>(
        &self,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        self.run(true, act).await
    }

    async fn run<T>(
        &self,
        is_unhurried: bool,
        act: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut conn = self.connection().await?;
        let done = async {
            let head = &self.head;
            let mut tx =
                if is_unhurried { head.begin_unhurried(&mut conn).await? } else { head.begin(&mut conn).await? };
            let done = act(&mut tx).await?;
            tx.commit().await?;
            Ok(done)
        };
        let done = self.in_time(done).await;
        conn.answered(done)
    }

    /// Waits for an answer, at most for the deadline.
    pub(crate) async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout(self.deadline, answer).await
    }
}

/// Refuses a pooler that cannot be worked through, before anything is written.
async fn check_pooler(pool: &Pool, head: &Head) -> sqlx::Result<()> {
    let mut one = pool.acquire().await?;
    head.begin(&mut one).await?.rollback().await?;
    // Where there is no room for a second connection the first statements tell.
    if let Ok(Ok(mut other)) = tokio::time::timeout(ASKING, pool.address().connect()).await {
        let checked = prepared::check(&mut one, &mut other).await;
        let _ = other.close().await;
        checked?;
    }
    Ok(())
}

// === impl Outdated ===

impl Outdated {
    /// Returns whether a connection of that age is no longer usable.
    pub(super) fn covers(&self, age: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| age > since.elapsed())
    }

    /// Gives up every connection that there is: those in use are closed when they come back and are asked for again.
    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

// === impl Borrowed ===

impl Borrowed {
    /// Gives the connection back and returns what was answered. Where nothing was in time the connection is closed: the
    /// server may be gone without a word, and the pool would wait for it without end. It is closed, too, where the answer says
    /// that it is no longer usable: given back, it would give the same answer for as long as it lives.
    pub(crate) fn answered<T, E: Answer>(mut self, answer: Result<Result<T, E>, Elapsed>) -> Result<T, E> {
        let Ok(answer) = answer else {
            self.conn.close_on_drop();
            let silence = io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time");
            return Err(sqlx::Error::Io(silence).into());
        };
        match answer.as_ref().err().and_then(E::sql).map_or(Fitness::Good, Fitness::after) {
            Fitness::Good => {}
            Fitness::Bad => self.conn.close_on_drop(),
            Fitness::Outdated => {
                self.conn.close_on_drop();
                self.outdated.set();
            }
        }
        answer
    }
}

impl Deref for Borrowed {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}
