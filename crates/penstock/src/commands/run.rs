//! Runs everything on one machine: servers of its own where none are given, ingest, one worker, the dashboard.

mod recording;

use std::fmt::Arguments;
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use penstock_core::redis;
use penstock_core::settings::{Layers, Settings};
use penstock_ingest::Ingest;
use penstock_local::{Persistence, Postgres, PostgresOptions, Redis, RedisOptions};
use penstock_telemetry::admin::{self, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::shutdown;
use penstock_telemetry::summary::Rate;
use tokio::task::{Id, JoinSet};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cli::Run;
use crate::error::Error;

/// The dashboard's port where none is set and it is free.
const DASHBOARD_PORT: u16 = 8000;

/// The parts, in the order in which they are told to end: what writes before what is written to.
const PARTS: [&str; 4] = ["ingest", "worker", "dashboard", "recording"];

/// The servers of our own.
#[derive(Default)]
struct Servers {
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

/// The running parts, each with what ends it.
struct Parts {
    tasks: JoinSet<Result<(), Error>>,
    ids: Vec<(Id, usize)>,
    ends: [CancellationToken; PARTS.len()],
}

/// Runs until a signal, then ends everything in order.
pub(super) async fn run(args: &Run, layers: Layers) -> Result<(), Error> {
    let layers = quiet(layers, args);
    // Checked before anything starts; what is filled in below are addresses of our own.
    let given = Settings::load(&layers).map_err(Error::Settings)?;
    let metrics = Metrics::new();
    let exporting = super::telemetry::init(&given, "run", &metrics)?;
    let cancel = shutdown::on_signals()?;
    let mut servers = Servers::default();
    let started = tokio::select! {
        started = servers.start(&args.data, layers, &given) => started.map(Some),
        () = cancel.cancelled() => Ok(None),
    };
    let ended = match started {
        Ok(Some(layers)) => pipeline(args, layers, &servers, metrics, &cancel).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    exporting.shutdown().await;
    servers.stop().await;
    ended
}

/// Runs the parts until a signal, or until one of them ends.
async fn pipeline(
    args: &Run,
    layers: Layers,
    servers: &Servers,
    metrics: Metrics,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let settings = Settings::load(&layers).map_err(Error::Settings)?;
    if let Some(url) = &settings.postgres.url {
        penstock_worker::migrate(url.expose(), settings.message_buffer.enabled).await?;
    }
    let relay_given = layers.sets("relay.urls", Some("RELAY_URL"));
    let mut parts = Parts::new();
    let layers = if relay_given {
        layers
    } else {
        let relay = recording::bind(&args.data, args.rate, &redis::connect(&settings).await?, &settings).await?;
        let url = format!("ws://{}", relay.local_addr());
        let end = parts.end(3);
        parts.spawn(3, async move { Ok(relay.run(end).await?) });
        layers.flag("relay.urls", url)
    };
    let settings = Arc::new(Settings::load(&layers).map_err(Error::Settings)?);
    let health = Health::new();
    let drained = CancellationToken::new();
    let (admin, admin_server) =
        admin::serve(settings.telemetry.admin_address, health.clone(), metrics.clone(), drained.clone()).await?;
    let dashboard = penstock_dashboard::bind(Arc::clone(&settings))?;
    let page = dashboard.local_addr();
    let ingest = Ingest::new(Arc::clone(&settings), &metrics, &health);
    let (from_ingest, from_worker) = (ingest.progress(), penstock_worker::Progress::default());
    let end = parts.end(0);
    parts.spawn(0, async move { Ok(ingest.run(end).await?) });
    let end = parts.end(1);
    let worker =
        penstock_worker::run_observed(Arc::clone(&settings), metrics.clone(), health.clone(), from_worker.clone(), end);
    parts.spawn(1, async move { Ok(worker.await?) });
    let end = parts.end(2);
    parts.spawn(2, async move { Ok(dashboard.run(metrics, health, end).await?) });
    say(format_args!("relay      {}", settings.relay.urls.first().map(ToString::to_string).unwrap_or_default()));
    say(format_args!("redis      {}", settings.redis_url));
    say(format_args!("postgres   {}", shown(&settings)));
    if servers.postgres.is_some() {
        say(format_args!("           its password is in {}", args.data.join("postgres/password").display()));
    }
    say(format_args!("metrics    http://{admin}/metrics"));
    say(format_args!("dashboard  http://{}", reachable(page)));
    let mut tick = interval(Duration::from_secs(1));
    let mut rate = Rate::new(0, Instant::now());
    tick.tick().await;
    let ended = loop {
        tokio::select! {
            () = cancel.cancelled() => break Ok(()),
            Some(ended) = parts.tasks.join_next_with_id() => break parts.gone(ended),
            _ = tick.tick() => {
                let worker = from_worker.snapshot();
                say(format_args!(
                    "{:>7.0} events/s   lag {:>7}   cursor {:>11}   applied {:>9}   rows {:>9}   dead letters {}",
                    rate.look(from_ingest.published(), Instant::now()),
                    from_ingest.lag(Timestamp::now()).map_or_else(|| "-".to_owned(), |lag| format!("{:.1}s", lag.as_secs_f64())),
                    from_ingest.cursor().map_or_else(|| "-".to_owned(), |cursor| cursor.to_string()),
                    worker.applied,
                    worker.rows,
                    worker.dead_letters,
                ));
            }
        }
    };
    say(format_args!("stopping"));
    let stopped = parts.stop().await;
    drained.cancel();
    let _ = admin_server.await;
    ended.and(stopped)
}

// === impl Servers ===

impl Servers {
    /// Starts what is not given, and fills in its address.
    async fn start(&mut self, data: &Path, mut layers: Layers, given: &Settings) -> Result<Layers, Error> {
        let folder = |name: &str| {
            let path = data.join(name);
            std::fs::create_dir_all(&path).map_err(|source| Error::DataFolder { path: path.clone(), source })?;
            std::path::absolute(&path).map_err(|source| Error::DataFolder { path, source })
        };
        if given.redis.url.is_none() && given.redis.host == "localhost" {
            info!("starting a redis of our own");
            let options = RedisOptions { persistence: Persistence::Aof, ..RedisOptions::default() };
            let redis = self.redis.insert(Redis::start(&folder("redis")?, options).await?);
            layers = layers.flag("redis.url", redis.url());
        }
        if given.postgres.url.is_none() {
            info!("starting a postgresql of our own");
            let postgres =
                self.postgres.insert(Postgres::start(&folder("postgres")?, PostgresOptions::default()).await?);
            layers = layers.flag("postgres.url", postgres.url());
        }
        Ok(layers)
    }

    async fn stop(&mut self) {
        if let Some(postgres) = &mut self.postgres
            && let Err(error) = postgres.stop().await
        {
            warn!(%error, "could not stop postgresql in order");
        }
        if let Some(redis) = &mut self.redis
            && let Err(error) = redis.stop().await
        {
            warn!(%error, "could not stop redis in order");
        }
    }
}

// === impl Parts ===

impl Parts {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), ids: Vec::new(), ends: std::array::from_fn(|_| CancellationToken::new()) }
    }

    fn end(&self, part: usize) -> CancellationToken {
        self.ends.get(part).cloned().unwrap_or_default()
    }

    fn spawn(&mut self, part: usize, task: impl Future<Output = Result<(), Error>> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.ids.push((id, part));
    }

    /// Says what a part that ended means.
    fn gone(&self, ended: Result<(Id, Result<(), Error>), tokio::task::JoinError>) -> Result<(), Error> {
        match ended {
            Ok((_, ended)) => ended,
            Err(source) => {
                let part = self.ids.iter().find(|(id, _)| *id == source.id());
                let part = part.and_then(|(_, part)| PARTS.get(*part)).copied().unwrap_or("a part");
                Err(Error::Part { part, source })
            }
        }
    }

    /// Ends one part after the other, and waits for each.
    async fn stop(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for (part, end) in self.ends.clone().into_iter().enumerate() {
            end.cancel();
            while self.ids.iter().any(|(_, running)| *running == part) {
                let Some(ended) = self.tasks.join_next_with_id().await else { break };
                let id = match &ended {
                    Ok((id, _)) => *id,
                    Err(error) => error.id(),
                };
                outcome = outcome.and(self.gone(ended));
                self.ids.retain(|(running, _)| *running != id);
            }
        }
        outcome
    }
}

/// Fills in what suits a laptop, below everything that is set.
fn quiet(layers: Layers, args: &Run) -> Layers {
    let mut layers = layers
        .below("telemetry.logLevel", "warn")
        .below("relay.start", "oldest")
        .below("messageBuffer.enabled", "true")
        .below("telemetry.adminAddress", "127.0.0.1:0")
        .below("dashboard.address", dashboard_address().to_string());
    if let Some(relay) = &args.relay {
        layers = layers.flag("relay.urls", relay);
    }
    layers
}

/// Takes the usual port where it is free.
fn dashboard_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, DASHBOARD_PORT));
    let free = std::net::TcpListener::bind(usual).is_ok();
    if free { usual } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

/// Says something to whoever reads; the pipeline goes on where nobody does any more, as behind `| head -1`.
fn say(line: Arguments<'_>) {
    let _ = writeln!(stdout(), "{line}");
}

fn shown(settings: &Settings) -> String {
    settings.postgres.url.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())) } else { bound }
}
