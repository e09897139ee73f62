//! Runs one service in this process, with its admin server around it.

use std::sync::Arc;

use axum::Router;
use penstock_core::settings::Settings;
use penstock_core::trouble;
use penstock_heal::Routes;
use penstock_ingest::Ingest;
use penstock_telemetry::admin::{self, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::shutdown;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::error::Error;

/// What every service is given.
struct Around {
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
}

pub(super) async fn ingest(settings: Settings) -> Result<(), Error> {
    around(settings, "ingest", async |around| {
        let ingest = Ingest::new(around.settings, &around.metrics, &around.health);
        Ok(Box::pin(ingest.run(around.cancel)).await?)
    })
    .await
}

pub(super) async fn worker(settings: Settings) -> Result<(), Error> {
    if settings.postgres.url.is_none() {
        return Err(Error::NO_DATABASE);
    }
    around(settings, "worker", async |around| {
        let running = penstock_worker::run(around.settings, around.metrics, around.health, around.cancel);
        Ok(Box::pin(running).await?)
    })
    .await
}

pub(super) async fn heal(settings: Settings) -> Result<(), Error> {
    if settings.postgres.url.is_none() {
        return Err(Error::NO_DATABASE);
    }
    let routes = Routes::new(&settings.heal);
    around_with(settings, "heal", routes.router(), async |around| {
        let Around { settings, metrics, health, cancel } = around;
        Ok(Box::pin(penstock_heal::run(settings, metrics, health, routes, cancel)).await?)
    })
    .await
}

pub(super) async fn dashboard(settings: Settings) -> Result<(), Error> {
    around(settings, "dashboard", async |around| {
        Ok(penstock_dashboard::run(around.settings, around.metrics, around.health, around.cancel).await?)
    })
    .await
}

pub(super) async fn operator(settings: Settings) -> Result<(), Error> {
    around(settings, "operator", async |around| {
        let Around { settings, metrics, health, cancel } = around;
        let client = penstock_operator::connect().await?;
        let schema = penstock_worker::schema::hash();
        Ok(penstock_operator::run(settings, client, schema, metrics, health, cancel).await?)
    })
    .await
}

/// Starts logs, signals and the admin server, runs the service, and lets probes be answered until it has drained.
async fn around(
    settings: Settings,
    name: &'static str,
    service: impl AsyncFnOnce(Around) -> Result<(), Error>,
) -> Result<(), Error> {
    around_with(settings, name, Router::new(), service).await
}

/// As [`around`], with routes of the service's own on the admin server.
async fn around_with(
    settings: Settings,
    name: &'static str,
    routes: Router,
    service: impl AsyncFnOnce(Around) -> Result<(), Error>,
) -> Result<(), Error> {
    let (metrics, health) = (Metrics::new(), Health::new());
    let exporting = super::telemetry::init(&settings, name, &metrics)?;
    let cancel = shutdown::on_signals()?;
    let drained = CancellationToken::new();
    let address = settings.telemetry.admin_address;
    let (_address, server) =
        admin::serve_with(address, health.clone(), metrics.clone(), routes, drained.clone()).await?;
    info!(service = name, version = env!("CARGO_PKG_VERSION"), redis = %settings.redis_url, "starting");
    let settings = Arc::new(settings);
    let troubles = tokio::spawn(report_troubles(Arc::clone(&settings), name, health.clone()));
    let ended = service(Around { settings, metrics, health, cancel }).await;
    troubles.abort();
    info!(service = name, "ended");
    exporting.shutdown().await;
    drained.cancel();
    let _ = server.await;
    ended
}

/// Leaves in Redis what troubles the process with PostgreSQL, for the operator: where there is none, nobody reads it.
async fn report_troubles(settings: Arc<Settings>, part: &'static str, health: Health) {
    if matches!(part, "operator" | "heal") {
        return;
    }
    let process = settings.worker.consumer_id.clone().or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    trouble::report(&settings, part, &process, || health.failure_of("postgres")).await;
}
