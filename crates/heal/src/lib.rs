//! Brings the database to what repos hold.
//!
//! In: `penstock.repairs`, repos that are known to be incomplete, asked for, or covered by a backfill. Out: rows as their hosts have
//! them, written beside live events. The way through the crate is `queue → read`, with `listing` and `schedule` filling the queue
//! and `engine` around them; `routes` is how others ask for backfills.

mod backfills;
mod carried;
mod engine;
mod error;
mod events;
mod foreground;
mod hosts;
mod listing;
mod policy;
mod queue;
mod read;
mod routes;
mod schedule;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use penstock_core::settings::Settings;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::tasks::Tasks;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use backfills::{Backfills, PutError};
pub use engine::Engine;
pub use error::HealError;
pub use queue::{Closed, Queue, Taken, Written};
pub use read::{Outcome, ReadError};
pub use routes::Routes;
pub use startup::open;

/// How long all tasks together may take to end; what has no place in it ends with the process.
const DRAIN: Duration = Duration::from_secs(8);

/// Runs the healer until it is cancelled, then gives back what it has in hand within ten seconds.
///
/// PostgreSQL may be away at any time, and the tables may be missing: it waits for them and logs that it does.
///
/// # Errors
/// The settings name no database, repos cannot be read with them, or one of its tasks died.
pub async fn run(
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    routes: Routes,
    cancel: CancellationToken,
) -> Result<(), HealError> {
    let check = health.check("postgres");
    let store = penstock_worker::store_settings(&settings).ok_or(HealError::NoDatabase)?;
    let opened = cancel.run_until_cancelled(startup::open_patiently(&store, &check)).await;
    let Some(store) = opened else { return Ok(()) };
    let engine = Engine::new(Arc::clone(&settings), store, &metrics, None)?;
    routes.open(engine.clone());
    info!(parallelism = settings.heal.parallelism.get(), holder = &*engine.shared.holder, "healer started");
    let mut tasks = Tasks::default();
    let (one, stop) = (engine.clone(), cancel.clone());
    tasks.spawn_fallible("repairs", async move { one.run(stop, Some(check)).await });
    let (one, stop) = (engine.clone(), cancel.clone());
    tasks.spawn("leases", async move { one.renew(stop).await });
    let (one, stop) = (engine.clone(), cancel.clone());
    tasks.spawn("listing", async move { one.list(stop).await });
    let (one, stop) = (engine.clone(), cancel.clone());
    tasks.spawn("audits", async move { one.schedule_audits(stop).await });
    let (one, stop) = (engine.clone(), cancel.clone());
    tasks.spawn("figures", async move { one.read_figures(stop).await });
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(()),
        error = tasks.first_to_end() => Err(error.into()),
    };
    cancel.cancel();
    let drained = tokio::time::timeout(DRAIN, tasks.all_to_end()).await;
    tasks.end(Duration::from_millis(500)).await;
    ended.and(drained.unwrap_or(Ok(())).map_err(HealError::from))
}
