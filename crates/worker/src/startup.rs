//! Waits for Redis, for PostgreSQL and for the tables, and says what it waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use penstock_core::live::Claim;
use penstock_core::redis;
use penstock_core::settings::Settings;
use penstock_telemetry::admin::{CheckHandle, Health};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::consumer::{Consumer, JoinError, Joined};
use crate::events::{Events, chain};
use crate::store::{Store, StoreSettings};
use crate::trouble::Trouble;
use penstock_core::backoff::Backoff;

/// The pauses between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The checks of what the worker depends on.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) redis: CheckHandle,
    pub(crate) postgres: CheckHandle,
    pub(crate) schema: CheckHandle,
}

/// What a worker begins with.
pub(crate) struct Connections {
    pub(crate) consumer: Consumer,
    /// The same consumer over the connection that waits for entries.
    pub(crate) reader: Consumer,
    pub(crate) store: Store,
    pub(crate) claim: Claim,
}

// === impl Checks ===

impl Checks {
    pub(crate) fn new(health: &Health) -> Self {
        Self { redis: health.check("redis"), postgres: health.check("postgres"), schema: health.check("schema") }
    }
}

/// Connects to everything, however long it takes; `None` when cancelled before.
pub(crate) async fn connect(
    settings: &Arc<Settings>,
    store: &StoreSettings,
    name: &str,
    checks: &Checks,
    events: &Events,
    cancel: &CancellationToken,
) -> Option<Connections> {
    let connect = async {
        let client = connect_redis(settings, &checks.redis).await;
        let consumer = Consumer::new(client, settings, name);
        let reader = consumer.over(connect_redis(settings, &checks.redis).await);
        let store = connect_store(store, checks).await;
        let claim = join(&consumer, &store, settings, checks, events).await;
        Connections { consumer, reader, store, claim }
    };
    tokio::select! {
        connections = connect => Some(connections),
        () = cancel.cancelled() => None,
    }
}

async fn connect_redis(settings: &Settings, check: &CheckHandle) -> Client {
    let mut waiting = Waiting::new("connect to redis");
    loop {
        match redis::connect(settings).await {
            Ok(client) => {
                waiting.over();
                check.ok();
                return client;
            }
            Err(error) => waiting.failed(check, chain(&error)).await,
        }
    }
}

async fn connect_store(settings: &StoreSettings, checks: &Checks) -> Store {
    let mut waiting = Waiting::new("connect to postgresql");
    let store = loop {
        match Store::connect(settings).await {
            Ok(store) => break store,
            Err(error) => waiting.failed(&checks.postgres, chain(&error)).await,
        }
    };
    waiting.over();
    checks.postgres.ok();
    let mut waiting = Waiting::new("use the tables that penstock migrate makes");
    while let Err(error) = store.check_schema().await {
        waiting.failed(&checks.schema, chain(&error)).await;
    }
    waiting.over();
    checks.schema.ok();
    store
}

async fn join(consumer: &Consumer, store: &Store, settings: &Settings, checks: &Checks, events: &Events) -> Claim {
    let mut waiting = Waiting::new("join the consumer group");
    loop {
        match try_join(consumer, store, &settings.pipeline.name).await {
            Ok((claim, joined)) => {
                events.joined(consumer.group(), joined, false);
                waiting.over();
                checks.redis.ok();
                return claim;
            }
            Err(error) => waiting.failed(&checks.redis, chain(&error)).await,
        }
    }
}

async fn try_join(consumer: &Consumer, store: &Store, pipeline: &str) -> Result<(Claim, Joined), JoinError> {
    let incarnation = store.incarnation().await.map_err(JoinError::Database)?;
    let claim = Claim { pipeline: pipeline.to_owned(), incarnation };
    let joined = consumer.join(&claim).await?;
    Ok((claim, joined))
}

/// A step that is tried until it succeeds.
struct Waiting {
    action: &'static str,
    backoff: Backoff,
    trouble: Trouble,
}

// === impl Waiting ===

impl Waiting {
    fn new(action: &'static str) -> Self {
        Self { action, backoff: Backoff::new(PAUSES.0, PAUSES.1), trouble: Trouble::default() }
    }

    async fn failed(&mut self, check: &CheckHandle, error: String) {
        if self.trouble.failed(Instant::now()).is_some() {
            warn!(action = self.action, error, "not possible yet, waiting");
        }
        check.failing(format!("cannot {} yet: {error}", self.action));
        tokio::time::sleep(self.backoff.fail()).await;
    }

    fn over(&mut self) {
        if let Some(after) = self.trouble.over(Instant::now()) {
            info!(action = self.action, after = ?after, "works now");
        }
    }
}
