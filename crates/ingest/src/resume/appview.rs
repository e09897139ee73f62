//! Keeps the AppView's own cursor current, in case somebody goes back to its ingestion.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use penstock_core::causes::chain;
use penstock_core::live::Source;
use penstock_core::servers::{Circumstances, Failing, Server};
use penstock_core::settings::{RelayUrl, Settings};
use penstock_core::stream::Seq;
use penstock_postgres::Address;
use penstock_postgres::schema::placed;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::resume::checkpoint::{CheckpointError, Database, connect, in_time};
use crate::servers::Servers;
use crate::stream::pressure::Hold;

/// How often it is written, as often as the AppView does.
const EVERY: Duration = Duration::from_secs(5);

const FIND: &str = "SELECT updated_at::text FROM {schema}.firehose_cursor WHERE service = 'firehose'";

/// Writes only over the row that was read: a process that was frozen must not undo what the next one wrote.
const SAVE: &str = "\
INSERT INTO {schema}.firehose_cursor AS kept (service, cursor, last_event_time, updated_at)
VALUES ('firehose', $1, timezone('UTC', now()), timezone('UTC', now()))
ON CONFLICT (service) DO UPDATE
SET cursor = excluded.cursor, last_event_time = excluded.last_event_time, updated_at = excluded.updated_at
WHERE kept.updated_at IS NOT DISTINCT FROM $2::text::timestamp";

/// Keeps the AppView's cursor current, if that is enabled.
pub(crate) struct AppviewCursor {
    client: Client,
    settings: Arc<Settings>,
    database: Option<Address>,
    connection: Option<PgConnection>,
    hold: watch::Receiver<Hold>,
    every: Duration,
    saved: Option<u64>,
    log: Failing,
    server: Server,
}

// === impl AppviewCursor ===

impl AppviewCursor {
    /// Prepares it; nothing is connected yet.
    pub(crate) fn new(
        client: &Client,
        settings: &Arc<Settings>,
        database: Option<&Database>,
        servers: &Servers,
        hold: watch::Receiver<Hold>,
    ) -> Self {
        let wanted = settings.ingest.appview_cursor;
        if wanted && database.is_none() {
            warn!("cannot update the AppView's own cursor: no database is configured (postgres.url)");
        }
        Self {
            client: client.clone(),
            settings: Arc::clone(settings),
            database: database.filter(|_| wanted).map(Database::address),
            connection: None,
            hold,
            every: EVERY.min(settings.ingest.status_interval),
            saved: None,
            log: Failing::default(),
            server: servers.postgres.clone(),
        }
    }

    /// Writes it every few seconds, until dropped.
    pub(crate) async fn follow(&mut self) {
        if self.database.is_none() {
            return std::future::pending().await;
        }
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.save().await;
        }
    }

    /// Writes the cursor as it is in Redis, so that it is never ahead of the stream. PostgreSQL may be down.
    pub(crate) async fn save(&mut self) {
        // While another program writes to the stream, the row belongs to it.
        if self.database.is_none() || *self.hold.borrow() != Hold::Nothing {
            return;
        }
        let Some(cursor) = self.cursor().await.filter(|cursor| self.saved != Some(*cursor)) else { return };
        match self.write().await {
            Ok(written) => {
                self.server.answered();
                self.log.over(Instant::now());
                self.saved = written;
            }
            Err(error) => {
                self.connection = None;
                if error.is_unanswered() {
                    self.server.failed(&error);
                }
                let how = Circumstances { is_away: self.server.is_away(), is_unanswered: error.is_unanswered() };
                if self.log.failed(Instant::now(), how).is_some() {
                    warn!(error = chain(&error), cursor, "could not update the AppView's own cursor, continuing");
                }
            }
        }
    }

    /// Reads the cursor, if it is one of the first relay, which the AppView reads too.
    async fn cursor(&self) -> Option<u64> {
        let keys = &self.settings.keys;
        let names = vec![keys.cursor().to_owned(), keys.ingest_source()];
        let (cursor, source): (Option<String>, Option<String>) = self.client.mget(names).await.ok()?;
        let source: Source = serde_json::from_str(&source?).ok()?;
        let first = self.settings.relay.urls.first().map(RelayUrl::host)?;
        cursor?.parse::<Seq>().ok().map(Seq::get).filter(|_| source.host == first)
    }

    /// Writes the cursor, read again after the row; none where there is none or the row has changed meanwhile.
    async fn write(&mut self) -> Result<Option<u64>, CheckpointError> {
        let Some(address) = &self.database else { return Ok(None) };
        // A connection that is dropped while an answer is pending is useless.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(address).await?,
        };
        let mut written = None;
        // A write of our own that was abandoned may have changed the row: so try twice.
        for _ in 0..2 {
            let found = in_time(find(&mut connection)).await?;
            let Some(cursor) = self.cursor().await else { break };
            if in_time(save(&mut connection, cursor, found)).await? {
                written = Some(cursor);
                break;
            }
        }
        self.connection = Some(connection);
        Ok(written)
    }
}

/// Reads when the row was written last. A pooler lends a session for a transaction: only within one does what is asked follow what
/// was prepared.
async fn find(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    let mut transaction = connection.begin().await?;
    let find = placed(&mut transaction, FIND).await?;
    let find = sqlx::query_scalar(AssertSqlSafe(find)).persistent(false);
    let found: Option<Option<String>> = find.fetch_optional(&mut *transaction).await?;
    transaction.rollback().await?;
    Ok(found.flatten())
}

/// Writes the cursor over the row that was found; says whether it was still that one.
async fn save(connection: &mut PgConnection, cursor: u64, found: Option<String>) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    let save = placed(&mut transaction, SAVE).await?;
    let save = sqlx::query(AssertSqlSafe(save)).persistent(false).bind(cursor.to_string()).bind(found);
    let is_saved = save.execute(&mut *transaction).await?.rows_affected() > 0;
    transaction.commit().await?;
    Ok(is_saved)
}
