//! Reads the Redis stream and writes PostgreSQL.
//!
//! Entries are read (and claimed from whoever let them lie), decoded on all cores, gathered into batches, applied each
//! in one transaction, and only then acknowledged. [`store`] is the PostgreSQL half; it decides what the rows become.

mod batch;
mod bisect;
mod checkpoint;
mod claims;
mod consumer;
mod counts;
mod dead_letters;
mod decode;
mod error;
mod events;
mod held;
mod housekeeping;
mod messages;
mod presence;
mod progress;
mod reader;
pub mod schema;
mod settings;
mod sizes;
mod startup;
pub mod store;
mod suspects;
mod tasks;
mod traces;
mod trouble;
mod waiting;
mod watch;
mod work;
mod writer;

#[cfg(test)]
mod pipeline_tests;

use std::sync::Arc;
use std::time::Duration;

use penstock_core::settings::Settings;
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use tokio::sync::{Mutex, Notify, RwLock, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use error::WorkerError;
pub use progress::{Progress, Snapshot};
pub use schema::migrate;

use claims::Outlets;
use events::Events;
use held::Held;
use startup::{Checks, Connections};
use tasks::Tasks;
use trouble::Troubles;
use work::Work;

/// How long a worker that is told to stop goes on settling what it holds.
const DRAIN: Duration = Duration::from_secs(5);

/// How long each of the last steps may take.
const LAST_STEP: Duration = Duration::from_secs(1);

/// Runs a worker until it is cancelled, and then ends it in order within ten seconds.
///
/// Redis and PostgreSQL may be away at any time, and the tables may be missing: it waits for them, and says so.
///
/// # Errors
/// The settings name no database or no usable consumer, or one of its tasks died.
pub async fn run(
    settings: Arc<Settings>,
    metrics: Metrics,
    health: Health,
    cancel: CancellationToken,
) -> Result<(), WorkerError> {
    run_observed(settings, metrics, health, Progress::default(), cancel).await
}

/// Runs a worker as [`run`] does, and shows in `progress` how far it has come.
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
    let events = Events::new(metrics, progress);
    let connections = Box::pin(startup::connect(&settings, &store, &name, &checks, &events, &cancel)).await;
    let Some(Connections { consumer, reader, store, claim }) = connections else { return Ok(()) };
    info!(consumer = name, stream = settings.keys.stream(), group = settings.keys.group(), "worker started");
    let work = Arc::new(Work {
        held: Held::new(settings.worker.batch_size * settings::HELD_BATCHES),
        settings,
        consumer,
        claim,
        store,
        events,
        floor: Arc::new(RwLock::new(())),
        deleted_account: Notify::new(),
        counts_gone: Notify::new(),
        stop: cancel.child_token(),
        abandon: CancellationToken::new(),
        troubles: Troubles::new(&health),
    });
    tokio::select! {
        _ = counts::adopt(&work) => {}
        () = cancel.cancelled() => {}
    }
    let mut tasks = start(&work, reader, &health);
    let ended = tokio::select! {
        // First, since tasks end by themselves once it is cancelled.
        biased;
        () = cancel.cancelled() => Ok(()),
        error = tasks.failure() => Err(error),
    };
    let drained = drain(&work, &mut tasks).await;
    finish(&work).await;
    ended.and(drained)
}

fn start(work: &Arc<Work>, reader: consumer::Consumer, health: &Health) -> Tasks {
    let (entries, decoded) = mpsc::unbounded_channel();
    let (to_suspects, suspects) = mpsc::unbounded_channel();
    let (to_writers, batches) = mpsc::channel(1);
    let batches = Arc::new(Mutex::new(batches));
    // A read waits for a command at most, and then for the pause after a failure.
    let heartbeat = health.heartbeat("reader", work.settings.redis.command_timeout * 3 + Duration::from_secs(10));
    let outlets = Outlets { entries: entries.clone(), suspects: to_suspects };

    let mut tasks = Tasks::default();
    let shared = || Arc::clone(work);
    tasks.spawn("read", reader::read(shared(), reader, heartbeat, entries));
    tasks.spawn("claim", claims::claim(shared(), outlets));
    tasks.spawn_fallible("gather", batch::gather(shared(), decoded, to_writers));
    for _ in 0..settings::WRITERS {
        tasks.spawn("write", writer::write(shared(), Arc::clone(&batches)));
    }
    tasks.spawn("suspects", suspects::try_alone(shared(), suspects));
    tasks.spawn("publish", counts::publish(shared()));
    tasks.spawn("announce", presence::announce(shared()));
    tasks.spawn("checkpoint", checkpoint::keep(shared()));
    tasks.spawn("count", counts::keep_whole(shared()));
    tasks.spawn("opt-outs", housekeeping::obey_opt_outs(shared()));
    tasks.spawn("sweep", housekeeping::sweep(shared()));
    tasks.spawn("prune", housekeeping::prune(shared()));
    tasks.spawn("settle", waiting::settle(shared()));
    tasks.spawn("backlog", watch::backlog(shared()));
    tasks.spawn("summary", watch::summarise(shared()));
    messages::start(work, &mut tasks);
    // The only one that goes on while the others drain.
    tasks.spawn_last("refresh", claims::refresh(shared()));
    tasks
}

/// Stops reading and settles what is held, as far as that can be done in time.
async fn drain(work: &Work, tasks: &mut Tasks) -> Result<(), WorkerError> {
    work.stop.cancel();
    let drained = tokio::time::timeout(DRAIN, tasks.drained()).await;
    work.abandon.cancel();
    tasks.end(LAST_STEP).await;
    match drained {
        Ok(result) => result,
        Err(_) => {
            warn!(entries = work.held.len(), "not everything could be ended in time, handing back what is held");
            Ok(())
        }
    }
}

/// Publishes the counts, hands back what is left and leaves the group; what fails is for other workers to do.
async fn finish(work: &Work) {
    let _ = tokio::time::timeout(LAST_STEP, counts::publish_once(work, false)).await;
    let left = work.held.older_than(Duration::ZERO, std::time::Instant::now());
    let leave = async {
        if !left.is_empty() {
            work.consumer.give_back(&left, work.settings.worker.claim_time, true).await?;
        }
        work.consumer.leave().await
    };
    match tokio::time::timeout(LAST_STEP, leave).await {
        Ok(Ok(true)) => info!(consumer = work.consumer.name(), "left the consumer group"),
        Ok(Ok(false)) => {
            warn!(entries = left.len(), "entries are still pending, the consumer stays until they are claimed");
        }
        Ok(Err(error)) => warn!(%error, "could not leave the consumer group"),
        Err(_) => warn!("could not leave the consumer group in time"),
    }
    let _ = tokio::time::timeout(LAST_STEP, work.consumer.quit()).await;
    work.events.stopped();
}
