//! What the dashboard counts and logs: one call, one log line and its metrics.

use std::net::SocketAddr;

use penstock_telemetry::metrics::{Counter, Gauge, Metric, Metrics};
use tracing::{debug, info, warn};

/// The routes that are counted each by itself; all others are counted as `other`.
pub(crate) const ROUTES: [&str; 13] = [
    "/",
    "/api/metrics",
    "/api/metrics/activity-history",
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
}

// === impl Events ===

impl Events {
    /// Takes all handles.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: ROUTES.map(|route| metrics.counter(Metric::HttpRequests, route)),
            other: metrics.counter(Metric::HttpRequests, "other"),
            sse_clients: metrics.gauge(Metric::SseClients, None),
            sockets: metrics.gauge(Metric::WebSocketClients, None),
            fanned_out: metrics.counter(Metric::EventsFannedOut, None),
            slow_clients_cut: metrics.counter(Metric::SlowClientsCut, None),
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
        warn!(what, error = %Chain(error), "postgres did not do it");
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
        debug!(why, "slow client cut");
    }

    /// Redis answers, at first or again.
    pub(crate) fn redis_found(&self, what: &'static str) {
        info!(what, "redis connected");
    }

    /// Redis does not answer any more.
    pub(crate) fn redis_lost(&self, what: &'static str, error: &dyn std::error::Error) {
        warn!(what, error = %Chain(error), "redis away");
    }

    /// Redis did not do what a client asked for.
    pub(crate) fn redis_refused(&self, what: &'static str, error: &dyn std::error::Error) {
        warn!(what, error = %Chain(error), "redis did not do it");
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
        info!("ingest asked for a new connection");
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
        warn!(error, "postgres away");
    }

    /// No connection could be accepted, most often for want of file descriptors.
    pub(crate) fn accept_failed(&self, error: &std::io::Error) {
        warn!(%error, "connection not accepted");
    }
}

/// Writes an error and all its sources.
pub(crate) struct Chain<'e>(pub(crate) &'e dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut error = self.0;
        while let Some(source) = error.source() {
            write!(f, ": {source}")?;
            error = source;
        }
        Ok(())
    }
}
