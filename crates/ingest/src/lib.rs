//! Reads a relay and writes the Redis stream.
//!
//! ```text
//! socket ─chunks─▶ decoders (both cores) ─in order─▶ intake (judges seq) ─batches─▶ publisher ─▶ Redis
//! ```
//!
//! One process holds the lease and writes; any other stands by. Each batch is one script behind the fence of lease and
//! cursor: after any doubt the connection is given up, the cursor read anew, and the relay asked from there.

mod appview;
mod checkpoint;
mod control;
mod decode;
mod error;
mod events;
mod follow;
mod intake;
mod lease;
mod live;
mod outcome;
mod position;
mod pressure;
mod publish;
mod pulse;
mod recent;
mod requeue;
mod revs;
mod scripts;
mod seam;
mod session;
mod skimmer;
mod socket;
mod standby;
mod takeover;
#[cfg(test)]
mod tests;
mod traces;
mod transport;
mod trim;

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use jiff::Timestamp;
use penstock_core::backoff::Backoff;
use penstock_core::redis::{self, RedisError};
use penstock_core::settings::Settings;
use penstock_telemetry::admin::{CheckHandle, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::summary::Rate;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use error::IngestError;
pub use events::Progress;

use appview::Cursor;
use checkpoint::Database;
use events::Telemetry;
use intake::Memory;
use lease::Lease;
use live::{Connection, Live, Sampler};
use pressure::Hold;
use pulse::Pulse;
use requeue::Requeuer;
use session::{Kept, Session};
use standby::Standby;
use trim::Trimmer;

/// How many batches of live events may wait to be shown.
const LIVE_BATCHES: usize = 64;

/// How often it is told that something is still not there.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How long reading may stand still, besides what Redis may take: then the lease is given up.
const STILL: Duration = Duration::from_secs(30);

/// How long the last status and the lease's release may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The ingest service of one process.
pub struct Ingest {
    settings: Arc<Settings>,
    telemetry: Telemetry,
    health: Health,
    redis: CheckHandle,
    role: CheckHandle,
    checkpoint: CheckHandle,
}

/// Why the lease is no longer used.
enum Left {
    Asked,
    Lost,
}

// === impl Ingest ===

impl Ingest {
    /// Prepares the service; nothing is connected yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, metrics: &Metrics, health: &Health) -> Self {
        let telemetry = Telemetry::new(metrics, Progress::default());
        let check = |name| health.check(name);
        let (redis, role, checkpoint) = (check("redis"), check("ingest"), check("checkpoint"));
        Self { settings, telemetry, health: health.clone(), redis, role, checkpoint }
    }

    /// Returns the running totals, for whoever shows them.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.telemetry.progress().clone()
    }

    /// Runs until cancelled: what was received is written, the lease given back.
    ///
    /// # Errors
    /// Redis or PostgreSQL cannot be used as they are set up, or a task that must run ended.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), IngestError> {
        let url = self.settings.postgres.url.as_ref().map(|url| Database::new(url.expose()));
        let database = url.transpose().map_err(|source| IngestError::Database { source })?;
        let mut kept = Kept { database, greatest: None };
        let Some(client) = self.connect(&cancel).await? else { return Ok(()) };
        let mut around = JoinSet::new();
        let reconnect = Arc::new(Notify::new());
        around.spawn(control::listen(Arc::clone(&self.settings), Arc::clone(&reconnect)));
        around.spawn(summary(self.telemetry.clone(), self.settings.telemetry.summary_interval));
        loop {
            self.role.ok();
            self.checkpoint.ok();
            let lease_time = self.settings.ingest.lease_time;
            let key = self.settings.keys.ingest_lease();
            let Some(lease) = Lease::acquire(&client, key, lease_time, &cancel).await else { break };
            self.telemetry.lease(true);
            info!(key = lease.key(), "holding the lease");
            let left = self.hold(&client, &lease, &reconnect, &mut kept, &cancel).await;
            self.telemetry.lease(false);
            match left? {
                Left::Asked => {
                    let _ = timeout(FAREWELL, lease.release()).await;
                    break;
                }
                Left::Lost => error!("the lease is no longer ours: it ran out, or another ingest took it; standing by"),
            }
        }
        around.shutdown().await;
        let _ = timeout(FAREWELL, client.quit()).await;
        Ok(())
    }

    /// Connects, however long it takes; what no waiting mends is an error.
    async fn connect(&self, cancel: &CancellationToken) -> Result<Option<Client>, IngestError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut told: Option<Instant> = None;
        loop {
            let connected = async {
                let client = redis::connect(&self.settings).await?;
                redis::refuse_eviction(&self.settings, &client).await?;
                Ok::<_, RedisError>(client)
            };
            match connected.await {
                Ok(client) => {
                    self.redis.ok();
                    return Ok(Some(client));
                }
                Err(source @ (RedisError::Evicts { .. } | RedisError::Address { .. })) => {
                    return Err(IngestError::Redis { source });
                }
                Err(source) => {
                    self.redis.failing(source.to_string());
                    if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                        told = Some(Instant::now());
                        warn!(error = &source as &dyn std::error::Error, "redis is not there yet");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                () = sleep(backoff.fail()) => {}
            }
        }
    }

    /// Runs everything that only the lease's holder does.
    async fn hold(
        &self,
        client: &Client,
        lease: &Lease,
        reconnect: &Arc<Notify>,
        kept: &mut Kept,
        cancel: &CancellationToken,
    ) -> Result<Left, IngestError> {
        let settings = &self.settings;
        let url = settings.relay.urls.first().map(ToString::to_string).unwrap_or_default();
        let (connection, watching) = watch::channel(Connection { connected: false, url });
        let (lives, live_events) = mpsc::channel(LIVE_BATCHES);
        let (pause, paused) = watch::channel(false);
        let (hold, held) = watch::channel(Hold::default());
        let live = Live {
            client: client.clone(),
            keys: settings.keys.clone(),
            lease: lease.clone(),
            telemetry: self.telemetry.clone(),
            interval: settings.ingest.status_interval,
        };
        let live = tokio::spawn(live.run(live_events, watching.clone()));
        let mut tasks: JoinSet<&'static str> = JoinSet::new();
        let trimmer = Trimmer {
            client: client.clone(),
            settings: Arc::clone(settings),
            lease: lease.clone(),
            telemetry: self.telemetry.clone(),
            paused: pause,
            hold: held,
        };
        let standby = Standby {
            client: client.clone(),
            settings: Arc::clone(settings),
            telemetry: self.telemetry.clone(),
            connection: watching,
        };
        let requeuer = Requeuer {
            client: client.clone(),
            settings: Arc::clone(settings),
            lease: lease.clone(),
            telemetry: self.telemetry.clone(),
            paused: paused.clone(),
        };
        let mut row = Cursor::new(client, settings, kept.database.as_ref(), hold.subscribe());
        let pulse = Pulse::new(&self.health, STILL + settings.redis.command_timeout * 4);
        let (keeper, kept_alive) = (lease.clone(), pulse.clone());
        tasks.spawn(async move {
            keeper.keep(&kept_alive).await;
            "lease"
        });
        tasks.spawn(async move {
            trimmer.run().await;
            "trimmer"
        });
        tasks.spawn(async move {
            standby.run().await;
            "standby"
        });
        tasks.spawn(async move {
            requeuer.run().await;
            "requeuer"
        });
        let mut session = Session {
            kept,
            pulse: pulse.clone(),
            checkpoint: self.checkpoint.clone(),
            settings: Arc::clone(settings),
            client: client.clone(),
            hold,
            lease: lease.clone(),
            telemetry: self.telemetry.clone(),
            redis: self.redis.clone(),
            paused,
            connection,
            lives,
            reconnect: Arc::clone(reconnect),
            memory: Memory::default(),
            sampler: Sampler::new(settings.ingest.broadcast_rate.get(), Instant::now()),
        };
        let left = tokio::select! {
            left = follow::follow(&mut session, cancel) => Ok(left),
            () = Box::pin(row.follow()) => Ok(Left::Lost),
            Some(ended) = tasks.join_next() => gone(ended),
        };
        if matches!(left, Ok(Left::Asked)) {
            let _ = timeout(FAREWELL, Box::pin(row.save())).await;
        }
        // The channels close with the session; the last status is written then.
        drop(session);
        pulse.retire();
        let _ = timeout(FAREWELL, live).await;
        tasks.shutdown().await;
        left
    }
}

fn gone(ended: Result<&'static str, JoinError>) -> Result<Left, IngestError> {
    match ended {
        // The keeper returns only when the lease is somebody else's; the others never do.
        Ok(_) => Ok(Left::Lost),
        Err(source) => Err(IngestError::Task { name: "ingest", source }),
    }
}

/// Logs one line an interval.
async fn summary(telemetry: Telemetry, every: Duration) {
    let progress = telemetry.progress().clone();
    let mut rate = Rate::new(progress.published(), std::time::Instant::now());
    let mut last_line = Instant::now();
    let mut tick = interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let lag = progress.lag(Timestamp::now());
        if let Some(lag) = lag {
            telemetry.lag(lag);
        }
        if every.is_zero() || last_line.elapsed() < every {
            continue;
        }
        last_line = Instant::now();
        let total = progress.published();
        let per_second = rate.look(total, std::time::Instant::now());
        info!(
            total,
            events_per_second = format_args!("{per_second:.1}"),
            lag_seconds = lag.map(|lag| lag.as_secs_f64()),
            cursor = progress.cursor(),
            connected = progress.connected(),
            "ingest"
        );
    }
}
