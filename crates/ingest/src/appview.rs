//! The place where the AppView's own ingestion would go on, kept current for the day somebody goes back to it.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::KeysInterface;
use penstock_core::live::Source;
use penstock_core::settings::{RelayUrl, Settings};
use penstock_core::stream::Seq;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::warn;

use crate::TELL_AGAIN;
use crate::checkpoint::{CheckpointError, Database, connect, in_time};
use crate::pressure::Hold;

/// How often it is kept, as theirs does.
const EVERY: Duration = Duration::from_secs(5);

const FIND: &str = "SELECT updated_at::text FROM firehose_cursor WHERE service = 'firehose'";

/// Writes only over the row that was found: who was frozen in between must not set back what the next process wrote.
const SAVE: &str = "\
INSERT INTO firehose_cursor (service, cursor, last_event_time, updated_at)
VALUES ('firehose', $1, timezone('UTC', now()), timezone('UTC', now()))
ON CONFLICT (service) DO UPDATE
SET cursor = excluded.cursor, last_event_time = excluded.last_event_time, updated_at = excluded.updated_at
WHERE firehose_cursor.updated_at IS NOT DISTINCT FROM $2::text::timestamp";

/// Keeps the row of the AppView's ingestion where it is wanted.
pub(crate) struct Cursor {
    client: Client,
    settings: Arc<Settings>,
    database: Option<PgConnectOptions>,
    connection: Option<PgConnection>,
    hold: watch::Receiver<Hold>,
    every: Duration,
    saved: Option<u64>,
    told: Option<Instant>,
}

// === impl Cursor ===

impl Cursor {
    /// Prepares for it; nothing is connected yet.
    pub(crate) fn new(
        client: &Client,
        settings: &Arc<Settings>,
        database: Option<&Database>,
        hold: watch::Receiver<Hold>,
    ) -> Self {
        let wanted = settings.ingest.appview_cursor;
        if wanted && database.is_none() {
            warn!("cannot keep the cursor of the appview's ingestion: no database is given (postgres.url)");
        }
        Self {
            client: client.clone(),
            settings: Arc::clone(settings),
            database: database.filter(|_| wanted).map(Database::options),
            connection: None,
            hold,
            every: EVERY.min(settings.ingest.status_interval),
            saved: None,
            told: None,
        }
    }

    /// Keeps it every few seconds, until dropped.
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

    /// Writes the cursor as it stands in Redis, so that it never lies ahead of the stream. PostgreSQL may be away.
    pub(crate) async fn save(&mut self) {
        // While another program writes the stream, that place is its own.
        if self.database.is_none() || *self.hold.borrow() != Hold::Nothing {
            return;
        }
        let Some(cursor) = self.cursor().await.filter(|cursor| self.saved != Some(*cursor)) else { return };
        match self.write().await {
            Ok(written) => self.saved = written,
            Err(error) => {
                self.connection = None;
                if self.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                    self.told = Some(Instant::now());
                    warn!(
                        error = error.line(),
                        cursor, "could not keep the cursor of the appview's ingestion, going on"
                    );
                }
            }
        }
    }

    /// Reads the cursor, if it is one of the relay that theirs reads too: the first.
    async fn cursor(&self) -> Option<u64> {
        let keys = &self.settings.keys;
        let names = vec![keys.cursor().to_owned(), keys.ingest_source()];
        let (cursor, source): (Option<String>, Option<String>) = self.client.mget(names).await.ok()?;
        let source: Source = serde_json::from_str(&source?).ok()?;
        let first = self.settings.relay.urls.first().map(RelayUrl::host)?;
        cursor?.parse::<Seq>().ok().map(Seq::get).filter(|_| source.host == first)
    }

    /// Writes the cursor, read anew behind the row it goes over; none where there is none or the row has changed meanwhile.
    async fn write(&mut self) -> Result<Option<u64>, CheckpointError> {
        let Some(options) = &self.database else { return Ok(None) };
        // Dropped in the middle of an answer, a connection is of no more use.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(options).await?,
        };
        let mut written = None;
        // What changed the row in between may be a write of our own that nobody waited for: so it is tried twice.
        for _ in 0..2 {
            let found: Option<Option<String>> =
                in_time(sqlx::query_scalar(FIND).fetch_optional(&mut connection)).await?;
            let Some(cursor) = self.cursor().await else { break };
            let save = sqlx::query(SAVE).bind(cursor.to_string()).bind(found.flatten());
            if in_time(save.execute(&mut connection)).await?.rows_affected() > 0 {
                written = Some(cursor);
                break;
            }
        }
        self.connection = Some(connection);
        Ok(written)
    }
}
