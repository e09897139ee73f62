//! The dashboard over HTTP, on a real Redis.

mod activity;
mod admin;
mod api;
mod behind_proxy;
mod client;
mod dead_letters;
mod letters;
mod live;
mod messages;
mod pooled;
mod record;
mod repos;
mod routes;
mod rows;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use penstock_core::keys::Keys;
use penstock_core::redis;
use penstock_core::settings::{Layers, Secret, Settings};
use penstock_local::testing::TestRedis;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::DashboardError;
use crate::serve::Limits;

/// The admin token of a dashboard that is given no token.
const ADMIN: &str = "of the tests";

/// Among the flags: no token is set.
const NO_TOKEN: (&str, &str) = ("", "");

/// A dashboard that runs.
struct Dashboard {
    address: SocketAddr,
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), DashboardError>>,
}

impl Dashboard {
    /// Starts one that looks at Redis 20 times a second.
    async fn start(redis_url: &str, flags: &[(&str, &str)]) -> Self {
        Self::start_with(redis_url, flags, Limits::default()).await
    }

    async fn start_with(redis_url: &str, flags: &[(&str, &str)], limits: Limits) -> Self {
        let layers = Layers::default()
            .flag("redis.url", redis_url)
            .flag("redis.commandTimeout", "1s")
            .flag("dashboard.address", "127.0.0.1:0")
            .flag("dashboard.metricsInterval", "50ms");
        let is_given = flags.iter().any(|(path, _)| path.is_empty() || path.ends_with("Token"));
        let layers = if is_given { layers } else { layers.flag("dashboard.adminToken", ADMIN) };
        let flags = flags.iter().filter(|(path, _)| !path.is_empty());
        let layers = flags.fold(layers, |layers, (path, value)| layers.flag(path, *value));
        let settings = Arc::new(Settings::load(&layers).unwrap());
        let mut server = crate::bind(Arc::clone(&settings)).unwrap();
        server.limits = limits;
        let (metrics, health, cancel) = (Metrics::new(), Health::new(), CancellationToken::new());
        let address = server.local_addr();
        let task = tokio::spawn(server.run(metrics.clone(), health.clone(), cancel.clone()));
        Self { address, settings, metrics, health, cancel, task }
    }

    /// Starts one with a Redis of its own, and waits until it has looked at it.
    async fn with_redis(flags: &[(&str, &str)]) -> (Self, TestRedis, Client) {
        let redis = TestRedis::start().await.unwrap();
        let dashboard = Self::start(&redis.url(), flags).await;
        let client = dashboard.redis().await;
        dashboard.until_seen().await;
        (dashboard, redis, client)
    }

    fn keys(&self) -> &Keys {
        &self.settings.keys
    }

    async fn redis(&self) -> Client {
        redis::connect(&self.settings).await.unwrap()
    }

    async fn until_seen(&self) {
        let token = self.settings.dashboard.read_token.as_ref();
        let bearer = format!("Bearer {}", token.map(Secret::expose).unwrap_or_default());
        let headers = [("authorization", bearer.as_str())];
        until("the metrics are there", async || {
            client::ask(self.address, "GET", "/api/metrics", &headers).await.status == 200
        })
        .await;
    }
}

/// Asks until it is so, for at most 10 s.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
