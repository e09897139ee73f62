//! The HTTP API, the live streams and the page.
//!
//! However many clients there are, a process reads Redis once every `dashboard.metricsInterval`, subscribes once, and
//! writes each frame once. Without Redis it goes on serving: routes that have nothing to say answer 503, and `/health`,
//! `/ready` and the page say what is wrong.

mod database;
mod dead_letters;
mod error;
mod events;
mod live;
mod messages;
mod reading;
mod requests;
mod routes;
mod serve;
mod snapshot;
mod source;
mod system;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use penstock_core::settings::Settings;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::DashboardError;

use database::Database;
use events::Events;
use live::Hub;
use messages::Messages;
use requests::Requests;
use serve::{Ending, Limits};
use snapshot::{Snapshot, View};

/// How long taking leave of Redis may take.
const TAKING_LEAVE: Duration = Duration::from_secs(2);

/// A dashboard whose addresses are bound and not yet served.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    /// The first one is `dashboard.address`.
    listeners: Vec<(SocketAddr, TcpListener)>,
    limits: Limits,
}

/// What every task and every route shares.
#[derive(Debug)]
struct App {
    settings: Arc<Settings>,
    view: watch::Sender<View>,
    database: watch::Sender<Database>,
    hub: Hub,
    /// Absent where the message buffer is not enabled.
    messages: Option<Messages>,
    /// Asks for a look at Redis before its time.
    look_now: Notify,
    requests: Requests,
    activity: routes::ActivityCache,
    roster: routes::Roster,
    origins: routes::Origins,
    tokens: routes::Tokens,
    /// Where no address can be reached from elsewhere.
    loopback: Option<routes::Loopback>,
    rates: routes::Rates,
    live_clients: usize,
    events: Events,
    ending: CancellationToken,
}

/// Describes the HTTP API, as OpenAPI 3.1.
#[must_use]
pub fn openapi() -> serde_json::Value {
    routes::description()
}

/// Binds the addresses of the settings and serves until `cancel` is cancelled, then for at most 7 s more.
///
/// # Errors
/// An address cannot be bound, or a task fails. A Redis or PostgreSQL that is away is no error.
pub async fn run(
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
) -> Result<(), DashboardError> {
    bind(settings)?.run(metrics, health, cancel).await
}

/// Binds `dashboard.address` and `dashboard.extraAddresses`, within a Tokio runtime; port 0 is any free one.
///
/// # Errors
/// An address cannot be bound.
pub fn bind(settings: Arc<Settings>) -> Result<Server, DashboardError> {
    let addresses = [settings.dashboard.address].into_iter().chain(settings.dashboard.extra_addresses.iter().copied());
    let listeners = addresses
        .map(|address| {
            let bound = serve::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
            bound.map_err(|source| DashboardError::Bind { address, source })
        })
        .collect::<Result<_, _>>()?;
    Ok(Server { settings, listeners, limits: Limits::default() })
}

// === impl Server ===

impl Server {
    /// Returns the address that was bound for `dashboard.address`.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listeners.first().map_or(self.settings.dashboard.address, |(address, _)| *address)
    }

    /// Serves until `cancel` is cancelled, then for at most 7 s more: live streams end, other answers are finished.
    ///
    /// # Errors
    /// A task fails. A Redis or PostgreSQL that is away is no error.
    pub async fn run(self, metrics: Metrics, health: Health, cancel: CancellationToken) -> Result<(), DashboardError> {
        let Self { settings, listeners, limits } = self;
        // A token of our own, so that a task that fails ends the others without ending the caller's services.
        let cancel = cancel.child_token();
        let loopback = routes::Loopback::of(listeners.iter().map(|(address, _)| *address));
        let app = Arc::new(App::new(Arc::clone(&settings), &metrics, limits, loopback, cancel.clone()));
        let mut tasks = Tasks::default();

        let patience =
            settings.dashboard.metrics_interval + settings.redis.command_timeout * 4 + Duration::from_secs(30);
        let heartbeat = health.heartbeat("dashboard metrics", patience);
        tasks.spawn("metrics", source::watch_metrics(Arc::clone(&app), heartbeat.clone()));
        tasks.spawn("events", source::pass_events(Arc::clone(&app)));
        tasks.spawn("message statistics", messages::watch_stats(Arc::clone(&app)));
        tasks.spawn("message batches", messages::pass_batches(Arc::clone(&app)));
        tasks.spawn("keepalive", source::keep_alive(Arc::clone(&app)));
        if let Some(url) = settings.postgres.url.clone() {
            tasks.spawn("database", database::watch_database(Arc::clone(&app), url));
        }

        let router = routes::router(&app);
        let ending = Ending { soft: cancel.clone(), hard: CancellationToken::new() };
        let connections = TaskTracker::new();
        for (address, listener) in listeners {
            app.events.listening(address);
            let accept = serve::accept(
                listener,
                router.clone(),
                limits,
                app.events.clone(),
                connections.clone(),
                ending.clone(),
            );
            tasks.spawn("accept", accept);
        }
        // Redis is no condition: without it the page and `/health` tell more than a refused connection.
        health.check("dashboard").ok();

        let ended = tokio::select! {
            // First: told to end, tasks do.
            biased;
            () = cancel.cancelled() => Ok(()),
            ended = tasks.first_to_end() => Err(ended.into()),
        };
        ending.soft.cancel();
        app.hub.end();
        connections.close();
        let gone = async {
            connections.wait().await;
            if let Some(messages) = &app.messages {
                messages.sockets.gone().await;
            }
        };
        if timeout(limits.drain, gone).await.is_err() {
            ending.hard.cancel();
            connections.wait().await;
        }
        heartbeat.retire();
        let _ = timeout(TAKING_LEAVE, tasks.all_to_end()).await;
        tasks.shutdown().await;
        ended
    }
}

// === impl App ===

impl App {
    fn new(
        settings: Arc<Settings>,
        metrics: &Metrics,
        limits: Limits,
        loopback: Option<routes::Loopback>,
        ending: CancellationToken,
    ) -> Self {
        let events = Events::new(metrics);
        let database = if settings.postgres.url.is_some() { Database::Unknown } else { Database::NotUsed };
        Self {
            view: watch::Sender::new(View::Starting),
            database: watch::Sender::new(database),
            hub: Hub::new(format!("{:08x}", rand::random::<u32>()), settings.dashboard.client_buffer, events.clone()),
            messages: Messages::new(&settings, limits.ping, events.clone()),
            look_now: Notify::new(),
            requests: Requests::new(Instant::now()),
            activity: routes::ActivityCache::default(),
            roster: routes::Roster::default(),
            origins: routes::Origins::new(&settings.dashboard.allowed_origins),
            tokens: routes::Tokens::new(
                settings.dashboard.read_token.as_ref(),
                settings.dashboard.admin_token.as_ref(),
            ),
            loopback,
            rates: routes::Rates::new(settings.dashboard.post_rate),
            live_clients: limits.live_clients,
            events,
            ending,
            settings,
        }
    }

    /// Returns what Redis said at the last look, and the client to ask for more; `None` while it is away.
    fn client_and_snapshot(&self) -> Option<(Client, Arc<Snapshot>)> {
        match &*self.view.borrow() {
            View::Clear { client, snapshot } => Some((client.clone(), Arc::clone(snapshot))),
            View::Away | View::Starting => None,
        }
    }

    /// Says whether one more live client may come, of whatever kind.
    fn has_room(&self) -> bool {
        let sockets = self.messages.as_ref().map_or(0, |messages| messages.sockets.clients());
        self.hub.clients() + sockets < self.live_clients
    }

    /// Shows what was read.
    fn find(&self, view: View) {
        if !matches!(self.view.send_replace(view), View::Clear { .. }) {
            self.events.redis_found("metrics");
        }
    }

    /// Shows nothing rather than what was true some time ago.
    fn lose(&self, error: &dyn std::error::Error) {
        if !matches!(self.view.send_replace(View::Away), View::Away) {
            self.events.redis_lost("metrics", error);
        }
    }
}
