//! The loop: takes the names that the watches queue, and reconciles some pipelines at once.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use kube::Resource;
use kube::runtime::controller::{Action, Config};
use kube::runtime::{applier, reflector};
use penstock_core::backoff::Backoff;
use penstock_telemetry::admin::Heartbeat;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use crate::children;
use crate::context::Context;
use crate::name::Name;
use crate::report;

use super::error::{PATIENCE, ReconcileError};
use super::watch::{self, Guarded, Queue};
use super::{apis, deletion, pipeline};

/// How many pipelines are reconciled at once.
const AT_ONCE: u16 = 8;

/// How long the lists of children are waited for at the start: what is known to exist need not be asked for one by one.
const LISTS: Duration = Duration::from_secs(30);

/// The pauses after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long work under way may take once the operator is asked to end.
const LAST_WORK: Duration = Duration::from_secs(5);

/// How often the loop shows that it turns.
const BEAT: Duration = Duration::from_secs(5);

/// What the loop has besides the context.
struct Reconciler {
    context: Arc<Context>,
    backoffs: Mutex<HashMap<Name, Backoff>>,
}

/// Reconciles the pipelines of a namespace, or of all, until cancelled.
pub(crate) async fn run(
    context: Arc<Context>,
    namespace: Option<String>,
    heartbeat: Heartbeat,
    cancel: CancellationToken,
) {
    let (reader, writer) = reflector::store();
    let (queue, mut queued) = Queue::new();
    let mut watches = JoinSet::new();
    let mut synced = Vec::new();
    for kind in children::kinds() {
        let (context, namespace, queue) = (Arc::clone(&context), namespace.clone(), queue.clone());
        if apis::is_optional(&kind) {
            watches.spawn(watch::optional_children(context, namespace, kind, queue));
        } else {
            let (done, wait) = oneshot::channel();
            synced.push(wait);
            watches.spawn(watch::children(context, namespace, kind, queue, done));
        }
    }
    watches.spawn(watch::backfills(Arc::clone(&context), namespace.clone(), queue.clone()));
    watches.spawn(watch::secrets(Arc::clone(&context), namespace.clone(), reader.clone(), queue.clone()));
    tokio::select! {
        _ = timeout(LISTS, join_all(synced)) => {}
        () = cancel.cancelled() => return,
    }
    watches.spawn(watch::pipelines(Arc::clone(&context), namespace, writer, queue));
    let reconciler = Arc::new(Reconciler { context, backoffs: Mutex::default() });
    let names = stream::poll_fn(move |cx| queued.poll_recv(cx)).map(Ok::<_, std::convert::Infallible>);
    let names = Box::pin(names.take_until(cancel.clone().cancelled_owned()));
    let config = Config::default().concurrency(AT_ONCE);
    let failed = |object: Arc<Guarded>, error: &ReconcileError, of: Arc<Reconciler>| of.pause(&object, error);
    let work = applier(reconcile, failed, reconciler, reader, names, config).for_each(|_| std::future::ready(()));
    let mut work = std::pin::pin!(work);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut work => return,
            () = cancel.cancelled() => break,
            // A watch never ends by itself: the heart stops, and the process is started anew.
            Some(_) = watches.join_next() => return,
            _ = beat.tick() => heartbeat.beat(),
        }
    }
    let _ = timeout(LAST_WORK, poll_fn(|cx| work.as_mut().poll(cx))).await;
}

/// Reconciles one pipeline for a bounded time, in a span; one that cannot be read is only reported, or released at the deadline of
/// its deletion.
fn reconcile(object: Arc<Guarded>, reconciler: Arc<Reconciler>) -> BoxFuture<'static, Result<Action, ReconcileError>> {
    async move {
        let context = &reconciler.context;
        let name = Name::of(&*object);
        let started = Instant::now();
        let span = info_span!("operator.reconcile", pipeline = %name, otel.status_code = Empty, "error.type" = Empty);
        let done = match &object.0 {
            Ok(object) => {
                let done = timeout(PATIENCE, pipeline::reconcile(context, object).instrument(span.clone())).await;
                done.unwrap_or(Err(ReconcileError::Slow))
            }
            Err(invalid) => {
                context.events.malformed(&name, &invalid.error);
                report::publish_malformed(context, &name, object.meta(), &invalid.error).await;
                deletion::release_malformed(context, &name, object.meta()).await
            }
        };
        if let Err(error) = &done {
            span.record("otel.status_code", "error");
            span.record("error.type", error.reason());
        }
        span.in_scope(|| context.events.reconcile_took(started.elapsed()));
        if done.is_ok() {
            reconciler.backoffs.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        done
    }
    .boxed()
}

// === impl Reconciler ===

impl Reconciler {
    /// Reports a failure, and returns when to try again.
    fn pause(&self, object: &Guarded, error: &ReconcileError) -> Action {
        let name = Name::of(object);
        self.context.events.reconcile_failed(&name, error.reason(), error);
        let mut backoffs = self.backoffs.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of pipelines that are gone are never asked for again.
        backoffs.retain(|known, _| *known == name || self.context.pipelines.get(known).is_some());
        let pause = backoffs.entry(name).or_insert_with(|| Backoff::new(PAUSES.0, PAUSES.1)).fail();
        Action::requeue(pause.max(PAUSES.0 / 2))
    }
}
