//! What the dashboard counts and logs: one call, one log line and its metrics.

use std::net::{IpAddr, SocketAddr};

use penstock_core::causes::chain;
use penstock_core::servers::is_unanswered;
use penstock_telemetry::metrics::{Counter, Gauge, Metric, Metrics};
use tracing::{debug, info, warn};

use crate::connections::Full;

/// The routes that are counted each by itself; all others are counted as `other`.
pub(crate) const ROUTES: [&str; 15] = [
    "/",
    "/api/metrics",
    "/api/metrics/activity-history",
    "/api/activity",
    "/api/tables",
    "/api/events/stream",
    "/api/events/recent",
    "/api/ingest",
    "/api/workers",
    "/api/redis/dead-letters",
    "/messages",
    "/queue/status",
    "/ws/stats",
    "/health",
    "/ready",
];

/// Holds the handles of every metric of the dashboard; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    requests: [Counter; ROUTES.len()],
    other: Counter,
    sse_clients: Gauge,
    sockets: Gauge,
    fanned_out: Counter,
    slow_clients_cut: Counter,
    rows_age: Gauge,
    refused_full: Counter,
    refused_peer: Counter,
    wrong_tokens: Counter,
    guesses_refused: Counter,
}

// === impl Events ===

impl Events {
    /// Takes all handles.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let rows_age = metrics.gauge(Metric::RowsAgeSeconds, None);
        // Not known yet is not young.
        rows_age.set(f64::NAN);
        Self {
            rows_age,
            requests: ROUTES.map(|route| metrics.counter(Metric::HttpRequests, route)),
            other: metrics.counter(Metric::HttpRequests, "other"),
            sse_clients: metrics.gauge(Metric::SseClients, None),
            sockets: metrics.gauge(Metric::WebSocketClients, None),
            fanned_out: metrics.counter(Metric::EventsFannedOut, None),
            slow_clients_cut: metrics.counter(Metric::SlowClientsCut, None),
            refused_full: metrics.counter(Metric::ConnectionsRefused, "full"),
            refused_peer: metrics.counter(Metric::ConnectionsRefused, "peer"),
            wrong_tokens: metrics.counter(Metric::WrongTokens, "wrong"),
            guesses_refused: metrics.counter(Metric::WrongTokens, "refused"),
        }
    }

    /// An address is served.
    pub(crate) fn listening(&self, address: SocketAddr) {
        info!(%address, "dashboard listening");
    }

    /// A request came in; `route` is the route that matched.
    pub(crate) fn request(&self, route: Option<&str>) {
        let known = route.and_then(|route| ROUTES.iter().position(|known| *known == route));
        known.map_or(&self.other, |index| &self.requests[index]).inc();
    }

    /// PostgreSQL is so far behind the relay, in seconds; none: it was never known.
    pub(crate) fn rows_age(&self, age: Option<f64>) {
        self.rows_age.set(age.unwrap_or(f64::NAN));
    }

    /// A live client came.
    pub(crate) fn client_came(&self) {
        self.sse_clients.inc();
    }

    /// A live client went.
    pub(crate) fn client_went(&self) {
        self.sse_clients.dec();
    }

    /// A client of a WebSocket came.
    pub(crate) fn socket_came(&self) {
        self.sockets.inc();
    }

    /// A client of a WebSocket went.
    pub(crate) fn socket_went(&self) {
        self.sockets.dec();
    }

    /// Somebody removed all messages.
    pub(crate) fn messages_reset(&self, written: u64, queued: u64) {
        info!(written, queued, "messages removed");
    }

    /// PostgreSQL did not do what a client asked for.
    pub(crate) fn postgres_refused(&self, what: &'static str, error: &sqlx::Error) {
        match crate::database::is_unanswered(error) {
            // That it is away is told once, by whoever asks every few seconds.
            true => debug!(what, error = chain(error), "postgres query failed"),
            false => warn!(what, error = chain(error), "postgres query failed"),
        }
    }

    /// The sizes of the tables could not be read; why PostgreSQL does not answer is told elsewhere.
    pub(crate) fn tables_not_read(&self, error: &str) {
        debug!(error, "could not read the sizes of the tables");
    }

    /// The sizes of the tables could not be kept for the growth per day.
    pub(crate) fn table_sizes_not_kept(&self, error: &fred::error::Error) {
        debug!(error = chain(error), "could not keep the sizes of the tables");
    }

    /// Events were handed to every live client.
    pub(crate) fn fanned_out(&self, events: u64, clients: usize) {
        self.fanned_out.inc_by(events.saturating_mul(clients as u64));
    }

    /// A client did not get so many events, because it took the ones before too slowly.
    pub(crate) fn client_fell_behind(&self, missed: u64) {
        debug!(missed, "client fell behind");
    }

    /// A client was cut: it took no byte for too long.
    pub(crate) fn slow_client_cut(&self, why: &'static str) {
        self.slow_clients_cut.inc();
        debug!(why, "slow client disconnected");
    }

    /// Redis answers, at first or again.
    pub(crate) fn redis_found(&self, what: &'static str) {
        info!(what, "redis connected");
    }

    /// Redis cannot be used; that it does not answer is told once, for all that it is asked.
    pub(crate) fn redis_lost(&self, what: &'static str, error: &(dyn std::error::Error + 'static)) {
        match is_unanswered(error) {
            true => debug!(what, error = chain(error), "redis unavailable"),
            false => warn!(what, error = chain(error), "redis unavailable"),
        }
    }

    /// Redis is used again.
    pub(crate) fn redis_found_again(&self, what: &'static str) {
        debug!(what, "redis used again");
    }

    /// Redis did not do what a client asked for.
    pub(crate) fn redis_refused(&self, what: &'static str, error: &(dyn std::error::Error + 'static)) {
        match is_unanswered(error) {
            true => debug!(what, error = chain(error), "redis command failed"),
            false => warn!(what, error = chain(error), "redis command failed"),
        }
    }

    /// Somebody put dead letters back into the stream.
    pub(crate) fn dead_letters_replayed(&self, count: u64) {
        info!(count, "dead letters replayed");
    }

    /// Somebody deleted dead letters.
    pub(crate) fn dead_letters_deleted(&self, count: u64) {
        info!(count, "dead letters deleted");
    }

    /// Somebody asked ingest for a new connection.
    pub(crate) fn reconnect_asked(&self) {
        info!("requested a new relay connection");
    }

    /// The subscription received more than was taken from it.
    pub(crate) fn broadcasts_missed(&self, count: u64) {
        warn!(count, "live events missed");
    }

    /// PostgreSQL answers, at first or again.
    pub(crate) fn postgres_found(&self) {
        info!("postgres connected");
    }

    /// PostgreSQL does not answer.
    pub(crate) fn postgres_lost(&self, error: &str) {
        warn!(error, "postgres unavailable");
    }

    /// No connection could be accepted, most often for want of file descriptors.
    pub(crate) fn accept_failed(&self, error: &std::io::Error) {
        warn!(error = chain(error), "could not accept a connection");
    }

    /// There was no place for a connection.
    pub(crate) fn connection_refused(&self, full: Full) {
        match full {
            Full::Process { first } => {
                self.refused_full.inc();
                if first {
                    warn!("no further connections are accepted, because there are too many");
                }
            }
            Full::Peer => {
                self.refused_peer.inc();
                debug!("connection refused: its address has too many");
            }
        }
    }

    /// A client showed a token or session that is nobody's, for the first time.
    pub(crate) fn wrong_token(&self, client: IpAddr, exhausted: bool) {
        self.wrong_tokens.inc();
        if exhausted {
            warn!(address = %client, "a client guesses tokens, and is refused for a while");
        }
    }

    /// What a client showed was not looked at, as it guessed too often.
    pub(crate) fn guess_refused(&self) {
        self.guesses_refused.inc();
    }
}
