//! Reads a relay and writes the Redis stream.
//!
//! ```text
//! relay: socket ─chunks─▶ decoders (every core) ─in order─▶ intake: judge by number and content ─batches─▶ stream: publisher ─▶ Redis
//! ```
//!
//! One process holds the lease and writes; the others stand by. Each batch is one script, fenced by the lease and the cursor.
//! After any doubt ingest drops the connection, reads the cursor again, and resumes from there.

mod control;
mod error;
mod events;
mod filter_events;
mod filter_watch;
mod filtered;
mod follow;
mod found;
mod hashed;
mod incidents;
mod intake;
mod owed;
mod progress;
mod relay;
mod resume;
mod scripts;
mod servers;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod verification_events;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, HashesInterface};
use jiff::Timestamp;
use penstock_core::backoff::Backoff;
use penstock_core::causes::chain;
use penstock_core::filter::Rules;
use penstock_core::live::state;
use penstock_core::permissions::{self, Part};
use penstock_core::redis::{self, RedisError};
use penstock_core::script;
use penstock_core::servers::Failing;
use penstock_core::settings::{Settings, Verification};
use penstock_core::starts::{self, Started};
use penstock_core::units::{seconds, tenths};
use penstock_identity::Identities;
use penstock_postgres::Address;
use penstock_telemetry::admin::{CheckHandle, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::summary::Rate;
use penstock_telemetry::tasks::{TaskError, Tasks};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use error::IngestError;
pub use progress::Progress;

use events::Events;
use filter_watch::Loaded;
use follow::LeaseEnd;
use found::Found;
use intake::Memory;
use intake::chain::Chain;
use intake::rates::Rates;
use intake::verify::Verify;
use owed::Debts;
use relay::signatures::Signatures;
use relay::states::States;
use resume::appview::AppviewCursor;
use resume::checkpoint::{self, Database};
use resume::lookup::Lookup;
use resume::standby::Standby;
use resume::unsettled::Settled;
use servers::Servers;
use session::{ProcessState, Session};
use stream::bulk::{Blocker, Bulk};
use stream::lease::Lease;
use stream::live::{Connection, Live, Sampler};
use stream::pressure::Hold;
use stream::requeue::Requeuer;
use stream::trim::Trimmer;
use throttle::Throttle;
use watchdog::Watchdog;

/// How many batches of live events may wait to be published.
const LIVE_BATCHES: usize = 64;

/// How often stopped checkpoints are logged at least.
const CHECKPOINTS_LOGGED: Duration = Duration::from_secs(60);

/// How long reading may stall, besides the time that Redis may take, before the lease is given up.
const STALL: Duration = Duration::from_secs(30);

/// How long the last status and the release of the lease may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The ingest service of one process.
pub struct Ingest {
    settings: Arc<Settings>,
    metrics: Metrics,
    events: Events,
    health: Health,
    redis: CheckHandle,
    role: CheckHandle,
    checkpoint: CheckHandle,
    permissions: CheckHandle,
}

// === impl Ingest ===

impl Ingest {
    /// Prepares the service; nothing is connected yet.
    #[must_use]
    pub fn new(settings: Arc<Settings>, metrics: &Metrics, health: &Health) -> Self {
        let found = Found::new(&settings.verify);
        let events = Events::new(metrics, Progress::default(), found, Servers::new(&settings));
        let check = |name| health.check(name);
        let (redis, role, checkpoint) = (check("redis"), check("ingest"), check("checkpoint"));
        let permissions = check("permissions");
        Self {
            settings,
            metrics: metrics.clone(),
            events,
            health: health.clone(),
            redis,
            role,
            checkpoint,
            permissions,
        }
    }

    /// Returns the running totals, for display.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.events.progress().clone()
    }

    /// Runs until cancelled, then writes what was received and releases the lease.
    ///
    /// # Errors
    /// Redis or PostgreSQL cannot be used as configured, or a task that must keep running has panicked.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), IngestError> {
        let database = Address::of(&self.settings.postgres).map(Database::new);
        let mut process = ProcessState { database, greatest: None };
        let loaded = Loaded::read(&self.settings).map_err(|source| IngestError::Filter { source })?;
        let (rules_out, rules) = watch::channel(Arc::clone(&loaded.rules));
        let Some(client) = self.connect(&cancel).await? else { return Ok(()) };
        let mut around = JoinSet::new();
        let reconnect = Arc::new(Notify::new());
        around.spawn(control::listen(
            Arc::clone(&self.settings),
            self.events.servers().clone(),
            Arc::clone(&reconnect),
        ));
        let (watched, settings, check) = (client.clone(), Arc::clone(&self.settings), self.permissions.clone());
        around.spawn(async move {
            permissions::watch(&settings, &watched, &[Part::Ingest], |lacking| {
                tokio::spawn(show_lacking(watched.clone(), settings.keys.ingest_state(), lacking.clone()));
                match lacking {
                    Some(lacking) => check.failing(lacking),
                    None => check.ok(),
                }
            })
            .await;
        });
        around.spawn(loaded.watch(Arc::clone(&self.settings), rules_out, self.events.filter().clone()));
        around.spawn(summary(self.events.clone(), self.settings.telemetry.summary_interval));
        loop {
            self.role.ok();
            self.checkpoint.ok();
            let lease_time = self.settings.ingest.lease_time;
            let key = self.settings.keys.ingest_lease();
            let Some(lease) =
                Lease::acquire(&client, key, lease_time, self.events.servers(), &self.redis, &cancel).await
            else {
                break;
            };
            self.events.lease(true);
            info!(key = lease.key(), "acquired the ingest lease");
            around.spawn(note_start(client.clone(), Arc::clone(&self.settings)));
            let left = self.hold(&client, &lease, &reconnect, &rules, &mut process, &cancel).await;
            self.events.lease(false);
            match left? {
                LeaseEnd::Shutdown => {
                    let _ = timeout(FAREWELL, lease.release()).await;
                    break;
                }
                LeaseEnd::Lost if self.events.servers().was_redis_away() => {
                    info!("the ingest lease expired while redis did not answer, acquiring it again");
                }
                LeaseEnd::Lost => {
                    error!("lost the ingest lease: it expired or another ingest took it; standing by");
                }
            }
        }
        around.shutdown().await;
        let _ = timeout(FAREWELL, client.quit()).await;
        Ok(())
    }

    /// Connects, however long it takes; fails only where waiting does not help.
    async fn connect(&self, cancel: &CancellationToken) -> Result<Option<Client>, IngestError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut log = Throttle::default();
        loop {
            let connected = async {
                let client = redis::connect_for(&self.settings, &self.events.servers().redis).await?;
                let fit = async {
                    permissions::require(&self.settings, &client, &[Part::Ingest]).await?;
                    redis::refuse_eviction(&self.settings, &client).await
                };
                match fit.await {
                    Ok(()) => Ok(client),
                    Err(error) => {
                        let _ = timeout(FAREWELL, client.quit()).await;
                        Err(error)
                    }
                }
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
                    let servers = self.events.servers();
                    self.redis.failing(servers.redis.failure().unwrap_or_else(|| chain(&source)));
                    if !servers.is_of_outage(&source) && log.permits() {
                        warn!(error = &source as &dyn std::error::Error, "waiting for redis");
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(None),
                () = sleep(backoff.fail()) => {}
            }
        }
    }

    /// Prepares the verification of commits, where it is on.
    fn verify(&self, database: Option<&Database>) -> Result<Option<Verify>, IngestError> {
        let verify = &self.settings.verify;
        if verify.mode == Verification::Off {
            return Ok(None);
        }
        let lookup = database.map(|database| Lookup::new(database.address())).transpose();
        let lookup = lookup.map_err(|source| IngestError::Database { source })?;
        let signatures = if verify.signatures == Verification::Off {
            None
        } else {
            let pool = lookup.as_ref().map(Lookup::pool);
            let identities = Identities::new(&self.settings, pool, &self.metrics);
            Some(Signatures {
                identities: identities.map_err(|source| IngestError::Identities { source })?,
                unresolved: verify.unresolved,
                is_enforced: verify.signatures == Verification::Enforce,
                events: self.events.clone(),
                is_holding: Arc::default(),
                allowance: Arc::default(),
            })
        };
        let chain = Chain::new(verify.memory, lookup.is_some());
        Ok(Some(Verify { states: States::new(chain, lookup), mode: verify.mode, signatures }))
    }

    /// Runs everything that only the lease's holder does.
    async fn hold(
        &self,
        client: &Client,
        lease: &Lease,
        reconnect: &Arc<Notify>,
        rules: &watch::Receiver<Arc<Rules>>,
        process: &mut ProcessState,
        cancel: &CancellationToken,
    ) -> Result<LeaseEnd, IngestError> {
        let settings = &self.settings;
        if let Some(database) = &mut process.database {
            database.forget();
        }
        let url = settings.relay.urls.first().map(ToString::to_string).unwrap_or_default();
        let (connection, watching) = watch::channel(Connection { connected: false, url });
        let (lives, live_events) = mpsc::channel(LIVE_BATCHES);
        let (pause, paused) = watch::channel(false);
        let (hold, held) = watch::channel(Hold::default());
        let (readers, bulk) = watch::channel(Bulk::Closed(Blocker::Unknown));
        let live = Live {
            client: client.clone(),
            keys: settings.keys.clone(),
            lease: lease.clone(),
            events: self.events.clone(),
            interval: settings.ingest.status_interval,
            activity_retention: settings.redis.activity_retention,
        };
        let live = tokio::spawn(live.run(live_events, watching.clone()));
        let mut tasks = Tasks::default();
        let trimmer = Trimmer {
            client: client.clone(),
            settings: Arc::clone(settings),
            lease: lease.clone(),
            events: self.events.clone(),
            paused: pause,
            hold: held,
            readers,
        };
        let standby = Standby {
            client: client.clone(),
            settings: Arc::clone(settings),
            events: self.events.clone(),
            connection: watching,
        };
        let requeuer = Requeuer {
            client: client.clone(),
            settings: Arc::clone(settings),
            lease: lease.clone(),
            events: self.events.clone(),
            paused: paused.clone(),
        };
        let mut row =
            AppviewCursor::new(client, settings, process.database.as_ref(), self.events.servers(), hold.subscribe());
        let watchdog = Watchdog::new(&self.health, STALL + settings.redis.command_timeout * 4);
        let (keeper, kept_alive) = (lease.clone(), watchdog.clone());
        let verify = self.verify(process.database.as_ref())?;
        if let Some(verify) = &verify {
            tasks.spawn("settled", settle(client.clone(), Arc::clone(settings), verify.clone(), self.events.clone()));
        }
        tasks.spawn("lease", async move { keeper.keep(&kept_alive).await });
        tasks.spawn("trimmer", trimmer.run());
        tasks.spawn("standby", standby.run());
        tasks.spawn("requeuer", requeuer.run());
        // Without a database there is nowhere to register anything.
        let debts = process.database.as_ref().map(|database| (Debts::default(), database.address()));
        if let Some((debts, address)) = debts.clone() {
            let (key, every) = (settings.keys.ingest_state(), settings.ingest.status_interval);
            tasks.spawn("backfills", owed::register(client.clone(), key, address, debts, every));
        }
        if process.database.is_none() {
            let every = CHECKPOINTS_LOGGED.min(settings.ingest.status_interval * 12);
            let watching_checkpoints =
                checkpoint::watch_checkpoints(client.clone(), settings.keys.clone(), every, self.events.clone());
            tasks.spawn("checkpoints", watching_checkpoints);
        }
        let mut session = Session {
            process,
            watchdog: watchdog.clone(),
            checkpoint: self.checkpoint.clone(),
            settings: Arc::clone(settings),
            client: client.clone(),
            hold,
            lease: lease.clone(),
            events: self.events.clone(),
            redis: self.redis.clone(),
            paused,
            connection,
            lives,
            reconnect: Arc::clone(reconnect),
            rules: rules.clone(),
            memory: Memory::new(
                settings.relay.data_timeout,
                Rates::new(settings.ingest.repo_events, settings.ingest.repo_bytes),
                verify,
                debts.map(|(debts, _)| debts),
            ),
            bulk,
            spare: None,
            sampler: Sampler::new(settings.ingest.broadcast_rate.get(), Instant::now()),
        };
        let left = tokio::select! {
            left = follow::follow(&mut session, cancel) => Ok(left),
            () = Box::pin(row.follow()) => Ok(LeaseEnd::Lost),
            ended = tasks.first_to_end() => task_ended(ended),
        };
        if matches!(left, Ok(LeaseEnd::Shutdown)) {
            let _ = timeout(FAREWELL, Box::pin(row.save())).await;
        }
        // The channels close with the session; the last status is written then.
        drop(session);
        watchdog.retire();
        let _ = timeout(FAREWELL, live).await;
        tasks.shutdown().await;
        left
    }
}

/// Notes again and again up to where the workers have settled the streams, until dropped.
async fn settle(client: Client, settings: Arc<Settings>, verify: Verify, events: Events) {
    let mut failing = Failing::default();
    let mut tick = interval(settings.ingest.trim_interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let asked = verify.states.lock().marks_written();
        match Settled::read(&client, &settings.keys).await {
            Ok(settled) => {
                failing.over(std::time::Instant::now());
                let mut chain = verify.states.lock();
                if let Some(through) = settled.through() {
                    chain.settle(through, (settled.marks == 0).then_some(asked));
                }
                events.verification().repos(chain.repos());
            }
            Err(error) => {
                if events.is_due(&mut failing, &error) {
                    warn!(error = chain(&error), "could not read up to where the stream is settled");
                }
            }
        }
    }
}

fn task_ended(ended: TaskError) -> Result<LeaseEnd, IngestError> {
    match ended {
        // The keeper returns only when the lease is somebody else's; the others never do.
        TaskError::Ended { .. } => Ok(LeaseEnd::Lost),
        TaskError::Failed { .. } => Err(ended.into()),
    }
}

/// Shows the dashboard what the user of ingest lacks; nothing depends on it.
async fn show_lacking(client: Client, key: String, lacking: Option<String>) {
    let shown = match lacking {
        Some(lacking) => script::set_field(&client, key, state::LACKING, &lacking).await,
        None => client.hdel::<(), _, _>(key, state::LACKING).await,
    };
    if let Err(error) = shown {
        debug!(error = chain(&error), "could not show what permissions are missing");
    }
}

/// Tells the dashboard when this ingest began to write; nothing depends on it.
async fn note_start(client: Client, settings: Arc<Settings>) {
    let started = Started::now("ingest", &starts::host_name());
    if let Err(error) = starts::note(&client, &settings.keys, &started).await {
        debug!(error = chain(&error), "could not note the start");
    }
}

/// Logs one line an interval.
async fn summary(events: Events, every: Duration) {
    let progress = events.progress().clone();
    let mut rate = Rate::new(progress.published(), std::time::Instant::now());
    let mut last_line = Instant::now();
    let mut tick = interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let lag = progress.lag(Timestamp::now());
        if let Some(lag) = lag {
            events.lag(lag);
        }
        if every.is_zero() || last_line.elapsed() < every {
            continue;
        }
        last_line = Instant::now();
        let total = progress.published();
        let per_second = rate.look(total, std::time::Instant::now());
        info!(
            total,
            events_per_second = tenths(per_second),
            lag_seconds = lag.map(seconds),
            cursor = progress.cursor(),
            connected = progress.connected(),
            "ingest"
        );
    }
}
