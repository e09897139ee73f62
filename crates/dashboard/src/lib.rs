//! The HTTP API, the live streams and the page.
//!
//! However many clients there are, a process reads Redis once every `dashboard.metricsInterval`, subscribes once, and
//! writes each frame once. Without Redis it goes on serving: routes that have nothing to say answer 503, and `/health`,
//! `/ready` and the page say what is wrong.

mod activity;
mod connections;
mod database;
mod dead_letters;
mod error;
mod events;
mod filter;
mod live;
mod messages;
mod peer;
mod reading;
mod requests;
mod routes;
mod rows;
mod serve;
mod snapshot;
mod source;
mod stored;
mod system;
mod tables;
#[cfg(test)]
mod tests;
mod turn;
mod verification;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use penstock_core::settings::Settings;
use penstock_postgres::Address;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use error::DashboardError;

use connections::Connections;
use database::Database;
use dead_letters::{Head, IndexCache};
use events::Events;
use live::Hub;
use messages::Messages;
use requests::Requests;
use serve::{Ending, Limits};
use snapshot::{Snapshot, View};
use stored::Stored;

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
    /// Absent where no PostgreSQL is set.
    stored: Option<Stored>,
    letters: IndexCache,
    /// Asks for a look at Redis before its time.
    look_now: Notify,
    requests: Requests,
    activity: routes::ActivityCache,
    /// The totals of the latest looks.
    recent: std::sync::Mutex<activity::Recent>,
    /// The sizes of the tables; none before they are known.
    tables: watch::Sender<Option<Bytes>>,
    /// What the user of Redis lacks.
    lacking: watch::Sender<Option<String>>,
    roster: routes::Roster,
    origins: routes::Origins,
    tokens: routes::Tokens,
    guesses: routes::Guesses,
    heavy: routes::Heavy,
    lookups: routes::Lookups,
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
        let app = Arc::new(App::new(Arc::clone(&settings), &metrics, limits, cancel.clone()));
        let mut tasks = Tasks::default();

        let patience =
            settings.dashboard.metrics_interval + settings.redis.command_timeout * 4 + Duration::from_secs(30);
        let heartbeat = health.heartbeat("dashboard metrics", patience);
        tasks.spawn("metrics", source::watch_metrics(Arc::clone(&app), heartbeat.clone()));
        tasks.spawn("events", source::pass_events(Arc::clone(&app)));
        tasks.spawn("message statistics", messages::watch_stats(Arc::clone(&app)));
        tasks.spawn("message batches", messages::pass_batches(Arc::clone(&app)));
        tasks.spawn("permissions", source::watch_permissions(Arc::clone(&app), health.check("permissions")));
        tasks.spawn("keepalive", source::keep_alive(Arc::clone(&app)));
        if let Some(address) = Address::of(&settings.postgres) {
            let note = health.note("postgres");
            tasks.spawn("database", database::watch_database(Arc::clone(&app), address.clone(), note));
            tasks.spawn("tables", tables::watch_tables(Arc::clone(&app), address));
        }

        let router = routes::router(&app);
        let ending = Ending { soft: cancel.clone(), hard: CancellationToken::new() };
        let connections = Connections::new(&settings.dashboard);
        for (address, listener) in listeners {
            app.events.listening(address);
            let accept = serve::accept(
                listener,
                router.clone(),
                limits,
                settings.dashboard.keep_alive,
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
        connections.tracker.close();
        let gone = async {
            connections.tracker.wait().await;
            if let Some(messages) = &app.messages {
                messages.sockets.gone().await;
            }
        };
        if timeout(limits.drain, gone).await.is_err() {
            ending.hard.cancel();
            connections.tracker.wait().await;
        }
        heartbeat.retire();
        tasks.end(TAKING_LEAVE).await;
        ended
    }
}

// === impl App ===

impl App {
    fn new(settings: Arc<Settings>, metrics: &Metrics, limits: Limits, ending: CancellationToken) -> Self {
        let events = Events::new(metrics);
        let database = if settings.postgres.url.is_some() { Database::Unknown } else { Database::NotUsed };
        Self {
            view: watch::Sender::new(View::Starting),
            database: watch::Sender::new(database),
            hub: Hub::new(format!("{:08x}", rand::random::<u32>()), settings.dashboard.client_buffer, events.clone()),
            messages: Messages::new(&settings, limits.ping, events.clone()),
            stored: Stored::new(&settings.postgres),
            letters: IndexCache::default(),
            look_now: Notify::new(),
            requests: Requests::new(Instant::now()),
            activity: routes::ActivityCache::default(),
            recent: std::sync::Mutex::default(),
            tables: watch::Sender::new(None),
            lacking: watch::Sender::new(None),
            roster: routes::Roster::default(),
            origins: routes::Origins::new(&settings.dashboard.allowed_origins),
            tokens: routes::Tokens::new(
                settings.dashboard.read_token.as_ref(),
                settings.dashboard.admin_token.as_ref(),
            ),
            guesses: routes::Guesses::new(limits.guess),
            heavy: routes::Heavy::default(),
            lookups: routes::Lookups::new(&settings, metrics),
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

    /// Notes in PostgreSQL that these letters were replayed or deleted, and has the next look at letters be a new one.
    ///
    /// Where PostgreSQL is away they are listed again, as those that only it has.
    async fn settle_letters(&self, letters: &[Head]) {
        if let Some(stored) = self.stored.as_ref().filter(|_| !letters.is_empty())
            && let Err(error) = stored.settle(letters).await
        {
            self.events.postgres_refused("to note what became of dead letters", &error);
        }
        self.letters.forget().await;
    }

    /// Says whether one more live client may come, of whatever kind.
    fn has_room(&self) -> bool {
        let sockets = self.messages.as_ref().map_or(0, |messages| messages.sockets.clients());
        self.hub.clients() + sockets < self.live_clients
    }

    /// Shows what was read.
    fn find(&self, view: View) {
        match self.view.send_replace(view) {
            View::Clear { .. } => {}
            View::Starting => self.events.redis_found("metrics"),
            View::Away => self.events.redis_found_again("metrics"),
        }
    }

    /// Shows nothing rather than what was true some time ago.
    fn lose(&self, error: &(dyn std::error::Error + 'static)) {
        if !matches!(self.view.send_replace(View::Away), View::Away) {
            self.events.redis_lost("metrics", error);
        }
    }
}
