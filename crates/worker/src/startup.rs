//! Waits for Redis, PostgreSQL and the tables, and logs what it waits for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use penstock_core::causes::chain;
use penstock_core::live::Claim;
use penstock_core::permissions::{self, Part};
use penstock_core::redis;
use penstock_core::servers::{Circumstances, Failing, Server};
use penstock_core::settings::Settings;
use penstock_core::units::seconds;
use penstock_telemetry::admin::{CheckHandle, Health};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::consumer::{Consumer, JoinError, Joined};
use crate::events::Events;
use crate::state::servers::{Servers, is_unanswered};
use crate::store::{Store, StoreSettings};
use penstock_core::backoff::Backoff;

/// The pauses between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The checks of what the worker depends on.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    pub(crate) redis: CheckHandle,
    pub(crate) postgres: CheckHandle,
    pub(crate) schema: CheckHandle,
    pub(crate) permissions: CheckHandle,
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
        let check = |name| health.check(name);
        Self {
            redis: check("redis"),
            postgres: check("postgres"),
            schema: check("schema"),
            permissions: check("permissions"),
        }
    }
}

/// Connects to everything, however long it takes; `None` if it is cancelled first.
pub(crate) async fn connect(
    settings: &Arc<Settings>,
    store: &StoreSettings,
    name: &str,
    checks: &Checks,
    events: &Events,
    servers: &Servers,
    cancel: &CancellationToken,
) -> Option<Connections> {
    let connect = async {
        let client = connect_redis(settings, servers, &checks.redis).await;
        let consumer = Consumer::new(client, settings, name);
        let reader = consumer.over(connect_redis(settings, servers, &checks.redis).await);
        let store = connect_store(store, servers, checks).await;
        let claim = join(&consumer, &store, settings, servers, checks, events).await;
        Connections { consumer, reader, store, claim }
    };
    tokio::select! {
        connections = connect => Some(connections),
        () = cancel.cancelled() => None,
    }
}

/// Lists what this worker is of.
pub(crate) fn parts(settings: &Settings) -> &'static [Part] {
    if settings.message_buffer.enabled { &[Part::Worker, Part::MessageBuffer] } else { &[Part::Worker] }
}

async fn connect_redis(settings: &Settings, servers: &Servers, check: &CheckHandle) -> Client {
    let mut step = RetriedStep::new("connect to redis");
    loop {
        let connected = async {
            let client = redis::connect_for(settings, &servers.redis).await?;
            match permissions::require(settings, &client, parts(settings)).await {
                Ok(()) => Ok(client),
                Err(error) => {
                    let _ = client.quit().await;
                    Err(error)
                }
            }
        };
        match connected.await {
            Ok(client) => {
                step.over();
                check.ok();
                return client;
            }
            Err(error) => step.failed(&servers.redis, check, &error).await,
        }
    }
}

async fn connect_store(settings: &StoreSettings, servers: &Servers, checks: &Checks) -> Store {
    let mut step = RetriedStep::new("connect to postgresql");
    let store = loop {
        match Store::connect(settings).await {
            Ok(store) => break store,
            Err(error) => {
                if is_unanswered(&error) {
                    servers.postgres.failed(&error);
                }
                step.failed(&servers.postgres, &checks.postgres, &error).await;
            }
        }
    };
    step.over();
    servers.postgres.answered();
    checks.postgres.ok();
    let mut step = RetriedStep::new("find the tables that penstock migrate creates");
    while let Err(error) = store.check_schema().await {
        step.failed(&servers.postgres, &checks.schema, &error).await;
    }
    step.over();
    checks.schema.ok();
    store
}

async fn join(
    consumer: &Consumer,
    store: &Store,
    settings: &Settings,
    servers: &Servers,
    checks: &Checks,
    events: &Events,
) -> Claim {
    let mut step = RetriedStep::new("join the consumer group");
    loop {
        match try_join(consumer, store, &settings.pipeline.name).await {
            Ok((claim, joined)) => {
                events.joined(consumer.group(), joined, false);
                step.over();
                checks.redis.ok();
                return claim;
            }
            Err(error) => step.failed(&servers.redis, &checks.redis, &error).await,
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
struct RetriedStep {
    action: &'static str,
    backoff: Backoff,
    trouble: Failing,
}

// === impl RetriedStep ===

impl RetriedStep {
    fn new(action: &'static str) -> Self {
        Self { action, backoff: Backoff::new(PAUSES.0, PAUSES.1), trouble: Failing::default() }
    }

    /// Records a failure; what it returns waits for the next try.
    fn failed(&mut self, server: &Server, check: &CheckHandle, error: &(dyn std::error::Error + 'static)) -> Sleep {
        let how = Circumstances { is_away: server.is_away(), is_unanswered: is_unanswered(error) };
        let error = chain(error);
        if self.trouble.failed(Instant::now(), how).is_some() {
            warn!(action = self.action, error, "startup step failed, retrying");
        }
        check.failing(server.failure().unwrap_or_else(|| format!("cannot {} yet: {error}", self.action)));
        sleep(self.backoff.fail())
    }

    fn over(&mut self) {
        if let Some(after) = self.trouble.over(Instant::now()) {
            info!(action = self.action, after_seconds = seconds(after), "startup step succeeded");
        }
    }
}
