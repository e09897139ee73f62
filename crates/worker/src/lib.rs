//! Reads the Redis stream and writes PostgreSQL.
//!
//! Entries are read, or claimed from dead consumers, decoded on all cores, gathered into batches, applied in one transaction
//! each, and only then acknowledged. The way through the crate is `read → apply → store`; `upkeep` and `messages` run beside
//! it, `streams` starts them all, and `state` is what they share.

mod action;
mod apply;
mod consumer;
mod error;
mod events;
mod messages;
mod progress;
mod read;
mod settings;
mod startup;
mod state;
pub mod store;
mod streams;
mod upkeep;

#[cfg(test)]
mod pipeline_tests;

use std::sync::Arc;
use std::time::Duration;

use penstock_core::causes::chain;
use penstock_core::permissions;
use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_telemetry::admin::{CheckHandle, Health};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::tasks::Tasks;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use error::WorkerError;
pub use progress::{Progress, Snapshot};
pub use settings::store as store_settings;
pub use store::check_statements;
pub use store::schema;
pub use store::schema::migrate;

use consumer::Answer;
use events::Events;
use startup::{Checks, Connections};
use state::servers::{Servers, is_unanswered};
use state::work::Work;
use upkeep::publish_counts;

/// How long a worker that is asked to stop may take to settle what it holds.
const DRAIN: Duration = Duration::from_secs(5);

/// How long each of the last steps may take.
const LAST_STEP: Duration = Duration::from_secs(1);

/// Runs a worker until it is cancelled, then shuts it down gracefully within ten seconds.
///
/// Redis and PostgreSQL may be unavailable at any time, and the tables may be missing: it waits for them and logs that it does.
///
/// # Errors
/// The settings name no database or no valid consumer, or one of its tasks died.
pub async fn run(
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
) -> Result<(), WorkerError> {
    run_observed(settings, metrics, health, Progress::default(), cancel).await
}

/// Runs a worker as [`run`] does, and keeps `progress` up to date.
///
/// # Errors
/// As [`run`].
pub async fn run_observed(
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<(), WorkerError> {
    let name = settings::consumer_name(&settings.worker)?;
    let store = settings::store(&settings).ok_or(WorkerError::NoDatabase)?;
    let checks = Checks::new(&health);
    let servers = Arc::new(Servers::new(&settings, &progress));
    let shared_metrics = metrics.clone();
    let events = Events::new(metrics, progress);
    let connections = Box::pin(startup::connect(&settings, &store, &name, &checks, &events, &servers, &cancel)).await;
    let Some(Connections { consumer, reader, store, claim }) = connections else { return Ok(()) };
    let identities = if settings.identity.enabled {
        Some(Identities::new(&settings, Some(store.shared_pool()), &shared_metrics)?)
    } else {
        None
    };
    info!(consumer = name, stream = settings.keys.stream(), group = settings.keys.group(), "worker started");
    tokio::select! {
        () = consumer.note_start() => {}
        () = cancel.cancelled() => {}
    }
    let (work, in_parts) = streams::first(settings, (consumer, store, claim), events, servers, &health, &cancel);
    tokio::select! {
        _ = publish_counts::accept_public_counts(&work) => {}
        () = cancel.cancelled() => {}
    }
    let (second, second_in_parts) = streams::second(&work, &health);
    let mut tasks = Tasks::default();
    tasks.spawn("permissions", watch_permissions(Arc::clone(&work), checks.permissions));
    streams::start_first((Arc::clone(&work), in_parts), reader, identities, &health, &mut tasks);
    streams::start_second((Arc::clone(&second), second_in_parts), &mut tasks);
    let ended = tokio::select! {
        // First, since tasks end by themselves once it is cancelled.
        biased;
        () = cancel.cancelled() => Ok(()),
        error = tasks.first_to_end() => Err(error.into()),
    };
    let drained = drain(&work, &mut tasks).await;
    finish(&work, &second).await;
    ended.and(drained)
}

/// Tells in the log and in `/readyz` what the user of Redis lacks, until asked to stop.
async fn watch_permissions(work: Arc<Work>, check: CheckHandle) {
    let parts = startup::parts(&work.settings);
    let watch = permissions::watch(&work.settings, work.consumer.client(), parts, |lacking| match lacking {
        Some(lacking) => check.failing(lacking),
        None => check.ok(),
    });
    work.stop.run_until_cancelled(watch).await;
}

/// Stops reading and settles what is held, as far as that can be done in time.
async fn drain(work: &Work, tasks: &mut Tasks) -> Result<(), WorkerError> {
    work.stop.cancel();
    let drained = tokio::time::timeout(DRAIN, tasks.all_to_end()).await;
    work.abandon.cancel();
    tasks.end(LAST_STEP).await;
    match drained {
        Ok(result) => Ok(result?),
        Err(_) => {
            let entries = work.held.len() + work.held_beside.len();
            if work.servers.redis.is_away() || work.servers.postgres.is_away() {
                info!(entries, "drain timed out because a server does not answer, handing back held entries");
                return Ok(());
            }
            warn!(entries, "drain timed out, handing back held entries");
            Ok(())
        }
    }
}

/// Publishes the counts, hands back what is left and leaves the group; what fails is for other workers to do.
async fn finish(work: &Work, second: &Work) {
    let _ = tokio::time::timeout(LAST_STEP, publish_counts::publish_once(work, false)).await;
    let left = work.held.len() + second.held.len();
    let leave = async { Answer::Ok(leave(second).await? & leave(work).await?) };
    match tokio::time::timeout(LAST_STEP, leave).await {
        Ok(Ok(true)) => info!(consumer = work.consumer.name(), "left the consumer group"),
        Ok(Ok(false)) => {
            warn!(entries = left, "entries still pending, the consumer remains until they are claimed");
        }
        // Told already; other workers claim what is left.
        Ok(Err(error)) if is_unanswered(&error) => {
            debug!(error = chain(&error), "could not leave the consumer group");
        }
        Ok(Err(error)) => warn!(error = chain(&error), "could not leave the consumer group"),
        Err(_) if work.servers.redis.is_away() => debug!("could not leave the consumer group in time"),
        Err(_) => warn!("could not leave the consumer group in time"),
    }
    let _ = tokio::time::timeout(LAST_STEP, work.consumer.quit()).await;
    work.events.stopped();
}

/// Hands back what is left of one stream and leaves its group; says whether that was possible.
async fn leave(work: &Work) -> Answer<bool> {
    let left = work.held.older_than(Duration::ZERO, std::time::Instant::now());
    if !left.is_empty() {
        work.consumer.give_back(&left, work.settings.worker.claim_time, true).await?;
    }
    work.consumer.leave().await
}
