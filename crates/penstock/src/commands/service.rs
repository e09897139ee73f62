//! Runs one service in this process, with its admin server around it.

use std::sync::Arc;

use penstock_core::settings::Settings;
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
        Ok(ingest.run(around.cancel).await?)
    })
    .await
}

pub(super) async fn worker(settings: Settings) -> Result<(), Error> {
    if settings.postgres.url.is_none() {
        return Err(Error::Missing {
            field: "postgres.url",
            how: "give the database, such as DATABASE_URL=postgres://user:password@host/database",
        });
    }
    around(settings, "worker", async |around| {
        Ok(penstock_worker::run(around.settings, around.metrics, around.health, around.cancel).await?)
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
    let (metrics, health) = (Metrics::new(), Health::new());
    let exporting = super::telemetry::init(&settings, name, &metrics)?;
    let cancel = shutdown::on_signals()?;
    let drained = CancellationToken::new();
    let (_address, server) =
        admin::serve(settings.telemetry.admin_address, health.clone(), metrics.clone(), drained.clone()).await?;
    info!(service = name, version = env!("CARGO_PKG_VERSION"), redis = %settings.redis_url, "starting");
    let ended = service(Around { settings: Arc::new(settings), metrics, health, cancel }).await;
    info!(service = name, "ended");
    exporting.shutdown().await;
    drained.cancel();
    let _ = server.await;
    ended
}
