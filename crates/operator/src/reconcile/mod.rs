//! Carries pipelines out: dereference, plan, apply, delete what nothing asks for any more, and say how it went.

pub(crate) mod apis;
mod apply;
mod cleanup;
mod deletion;
mod dereference;
mod index;
mod watch;

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use kube::Resource;
use kube::api::DeleteParams;
use kube::runtime::controller::{Action, Config};
use kube::runtime::{applier, reflector};
use penstock_core::backoff::Backoff;
use penstock_telemetry::admin::Heartbeat;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use crate::build::{self, Child, Stage, labels};
use crate::context::Context;
use crate::crd::{AutoscalingMode, FirehosePipeline};
use crate::error::chain;
use crate::pipelines::{Name, Pipeline};
use crate::plan::{Part, Plan, PlanError};
use crate::scaling::Target;
use crate::status::{self, Migration, Outcome, Why};

use apply::ApplyError;
use watch::{Guarded, Queue};

pub(crate) use apply::Applied;
pub(crate) use index::{Index, Rollout};

/// How many pipelines are carried out at once.
const AT_ONCE: u16 = 8;

/// How long the lists of children are waited for at the start: what is known to stand need not be asked for one by one.
const LISTS: Duration = Duration::from_secs(30);

/// How often everything is looked at although nothing happened.
const RESYNC: Duration = Duration::from_secs(600);

/// How soon something is tried again that nothing tells of: an API that may be installed, a name that may become free.
const RETRY: Duration = Duration::from_secs(30);

/// How long one pipeline may take. A request has no end of its own where an API server died without a word.
const PATIENCE: Duration = Duration::from_secs(60);

/// After how long a migration that failed is tried again: the database may have been away.
const MIGRATE_AGAIN: Duration = Duration::from_secs(600);

/// The pauses after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long work under way may take once the operator is asked to end.
const LAST_WORK: Duration = Duration::from_secs(5);

/// How often the loop shows that it turns.
const PULSE: Duration = Duration::from_secs(5);

/// Why a pipeline was not carried out to the end.
#[derive(Debug, Error)]
pub(crate) enum ReconcileError {
    /// The API server does not answer, or the operator may not read Secrets.
    #[error("could not read the secrets")]
    Dereference(#[source] Box<kube::Error>),
    /// A child is not as it should be.
    #[error(transparent)]
    Child(#[from] ApplyError),
    /// The finalizer was not written.
    #[error("could not write the finalizer")]
    Finalizer(#[source] Box<kube::Error>),
    /// Some request got no answer.
    #[error("the api server did not answer within {PATIENCE:?}")]
    Slow,
}

/// What the reconciler has besides the context.
struct Desk {
    context: Arc<Context>,
    backoffs: Mutex<HashMap<Name, Backoff>>,
}

/// Carries out the pipelines of a namespace, or of all, until cancelled.
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
    for kind in build::kinds() {
        let (context, namespace, queue) = (Arc::clone(&context), namespace.clone(), queue.clone());
        if apis::is_optional(&kind) {
            watches.spawn(watch::optional_children(context, namespace, kind, queue));
        } else {
            let (done, wait) = oneshot::channel();
            synced.push(wait);
            watches.spawn(watch::children(context, namespace, kind, queue, done));
        }
    }
    watches.spawn(watch::secrets(Arc::clone(&context), namespace.clone(), reader.clone(), queue.clone()));
    tokio::select! {
        _ = timeout(LISTS, join_all(synced)) => {}
        () = cancel.cancelled() => return,
    }
    watches.spawn(watch::pipelines(Arc::clone(&context), namespace, writer, queue));
    let desk = Arc::new(Desk { context, backoffs: Mutex::default() });
    let names = stream::poll_fn(move |cx| queued.poll_recv(cx)).map(Ok::<_, std::convert::Infallible>);
    let names = Box::pin(names.take_until(cancel.clone().cancelled_owned()));
    let config = Config::default().concurrency(AT_ONCE);
    let work = applier(reconcile, |object, error, desk| failed(&object, error, &desk), desk, reader, names, config)
        .for_each(|_| std::future::ready(()));
    let mut work = std::pin::pin!(work);
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut work => return,
            () = cancel.cancelled() => break,
            // A watch never ends by itself: the heart stops, and the process is started anew.
            Some(_) = watches.join_next() => return,
            _ = pulse.tick() => heartbeat.beat(),
        }
    }
    let _ = timeout(LAST_WORK, poll_fn(|cx| work.as_mut().poll(cx))).await;
}

/// Takes leave of a pipeline that is gone from the cluster.
fn gone(context: &Arc<Context>, name: &Name, uid: &str) {
    context.telemetry.forget(name);
    context.applied.forget(&context.index.of(&name.namespace, uid));
    if let Some(pipeline) = context.pipelines.forget(name, uid) {
        deletion::release_claim(context, &pipeline);
    }
}

fn reconcile(object: Arc<Guarded>, desk: Arc<Desk>) -> BoxFuture<'static, Result<Action, ReconcileError>> {
    async move {
        let context = &desk.context;
        let name = Name::of(&*object);
        let started = Instant::now();
        let span = info_span!("operator.reconcile", pipeline = %name, otel.status_code = Empty, "error.type" = Empty);
        let done = match &object.0 {
            Ok(pipeline) => {
                let carried = timeout(PATIENCE, carry_out(context, pipeline).instrument(span.clone())).await;
                carried.unwrap_or(Err(ReconcileError::Slow))
            }
            Err(invalid) => {
                context.telemetry.malformed(&name, &invalid.error);
                status::publish_malformed(context, &name, object.meta(), &invalid.error).await;
                deletion::let_go(context, &name, object.meta()).await
            }
        };
        if let Err(error) = &done {
            span.record("otel.status_code", "error");
            span.record("error.type", error.reason());
        }
        span.in_scope(|| context.telemetry.reconciled(started.elapsed()));
        if done.is_ok() {
            desk.backoffs.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        done
    }
    .boxed()
}

fn failed(object: &Guarded, error: &ReconcileError, desk: &Desk) -> Action {
    let name = Name::of(object);
    desk.context.telemetry.reconcile_failed(&name, error.reason(), &chain(error));
    let mut backoffs = desk.backoffs.lock().unwrap_or_else(PoisonError::into_inner);
    let pause = backoffs.entry(name).or_insert_with(|| Backoff::new(PAUSES.0, PAUSES.1)).fail();
    Action::requeue(pause.max(PAUSES.0 / 2))
}

/// Carries out one pipeline, and writes how that went.
async fn carry_out(context: &Arc<Context>, object: &FirehosePipeline) -> Result<Action, ReconcileError> {
    let pipeline = context.pipelines.ensure(object);
    let deleting = object.metadata.deletion_timestamp.is_some();
    note(&pipeline, object, deleting);
    if deleting {
        status::publish(context, &pipeline).await;
        let known = pipeline.state().target.clone();
        let target = match known {
            Some(target) => Some(target),
            // What cannot be read or planned holds up no deletion: at its deadline the resource is let go.
            None => plan(context, &pipeline, object)
                .await
                .ok()
                .and_then(Result::ok)
                .map(|plan| Arc::new(Target::new(&plan))),
        };
        return deletion::carry_out(context, &pipeline, object, target.as_deref()).await;
    }
    let outcome = match plan(context, &pipeline, object).await {
        Ok(Ok(plan)) => {
            adopt(&pipeline, &plan);
            apply_all(context, &pipeline, object, &plan).await
        }
        Ok(Err(refused)) => {
            context.telemetry.reconcile_failed(&pipeline.name, refused.reason(), &refused.to_string());
            let why = Why { reason: refused.reason().to_owned(), message: refused.to_string() };
            conclude(&pipeline, object, Outcome::Refused(why));
            status::publish(context, &pipeline).await;
            return Ok(Action::requeue(RESYNC));
        }
        Err(error) => Err(error),
    };
    let told = match &outcome {
        Ok(()) => {
            context.telemetry.carried_out(&pipeline.name);
            Outcome::Applied
        }
        Err(error) => Outcome::Failed(Why { reason: error.reason().to_owned(), message: chain(error) }),
    };
    conclude(&pipeline, object, told);
    status::publish(context, &pipeline).await;
    match outcome {
        Ok(()) => Ok(Action::requeue(RESYNC)),
        // Nothing tells when the name becomes free.
        Err(error @ ReconcileError::Child(ApplyError::Taken { .. })) => {
            context.telemetry.reconcile_failed(&pipeline.name, error.reason(), &chain(&error));
            Ok(Action::requeue(RETRY))
        }
        Err(error) => Err(error),
    }
}

async fn plan(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
) -> Result<Result<Plan, PlanError>, ReconcileError> {
    let seen = dereference::dereference(context, pipeline, object).await;
    let seen = seen.map_err(|source| ReconcileError::Dereference(Box::new(source)))?;
    Ok(Plan::new(object, &seen))
}

/// Notes what the resource itself says.
fn note(pipeline: &Pipeline, object: &FirehosePipeline, deleting: bool) {
    let spec = &object.spec;
    let mut state = pipeline.state();
    let facts = &mut state.facts;
    if deleting {
        facts.generation = object.metadata.generation;
    }
    facts.name.clone_from(&pipeline.name.name);
    facts.deleting = deleting;
    facts.suspend = spec.suspend;
    facts.fixed = spec.workers.autoscaling.mode == AutoscalingMode::Fixed;
    facts.ingest.enabled = spec.ingest.enabled;
    facts.workers.enabled = spec.workers.enabled;
    facts.dashboard.enabled = spec.dashboard.enabled;
    facts.selector = spec.workers.enabled.then(|| labels::pods_of(&pipeline.name.name, Part::Worker));
}

/// Notes how it went, and with which generation: one that is not carried out yet is not told as seen.
fn conclude(pipeline: &Pipeline, object: &FirehosePipeline, outcome: Outcome) {
    let mut state = pipeline.state();
    state.facts.outcome = outcome;
    state.facts.generation = object.metadata.generation;
}

/// Takes a plan over for scaling.
fn adopt(pipeline: &Pipeline, plan: &Plan) {
    let target = Arc::new(Target::new(plan));
    let mut state = pipeline.state();
    state.facts.schema.clone_from(&plan.schema);
    state.facts.left_out = plan.left_out.iter().map(|left| format!("not {}: {}", left.field, left.why)).collect();
    state.target = Some(target);
}

async fn apply_all(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
    plan: &Plan,
) -> Result<(), ReconcileError> {
    deletion::keep_finalizer(context, object).await?;
    let children = build::children(plan);
    let of = |stage| children.iter().filter(move |child| child.stage == stage);
    let mut failed = None;
    for child in of(Stage::Before) {
        if let Err(error) = apply::apply(context, pipeline, child).await {
            // An Ingress that a webhook refuses is no reason to leave the workers as they are; settings that are not there are.
            if matches!(child.resource.kind.as_str(), "ConfigMap" | "ServiceAccount") {
                return Err(error.into());
            }
            failed.get_or_insert(error);
        }
    }
    retry_migration(context, pipeline, &children).await?;
    let migration = migration(context, &children);
    let migrated = matches!(migration, Migration::NotOurs | Migration::Done);
    pipeline.state().facts.migration = migration;
    if migrated {
        for child in of(Stage::After) {
            if let Err(error) = apply::apply(context, pipeline, child).await {
                failed.get_or_insert(error);
            }
        }
    }
    // What waits for the tables is wanted too: the version before goes on meanwhile.
    let mut wanted: HashSet<_> = children.iter().map(key_of).collect();
    if plan.spec.suspend && plan.spec.workers.enabled && !plan.workers_exist {
        // It may have come into being since the plan was made.
        wanted.insert(index::ObjectKey::deployment(&plan.namespace, &plan.name, Part::Worker));
    }
    apply::delete_orphans(context, pipeline, &wanted, plan.spec.suspend).await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Deletes a Job that failed some time ago, so that it is made anew once it is gone.
async fn retry_migration(context: &Context, pipeline: &Pipeline, children: &[Child]) -> Result<(), ApplyError> {
    let Some(job) = migration_job(children) else { return Ok(()) };
    let Some(index::JobEnd::Failed { since }) = context.index.job(&Name::of(&job.object)) else { return Ok(()) };
    let rested = Duration::try_from(Timestamp::now().duration_since(since)).is_ok_and(|rested| rested >= MIGRATE_AGAIN);
    let key = key_of(job);
    match context.index.get(&key).filter(|_| rested) {
        Some(seen) => apply::delete(context, pipeline, &key, &seen, &DeleteParams::background()).await,
        None => Ok(()),
    }
}

/// Says how far the Job among the children is.
fn migration(context: &Context, children: &[Child]) -> Migration {
    let Some(job) = migration_job(children) else { return Migration::NotOurs };
    let name = Name::of(&job.object);
    match context.index.job(&name) {
        Some(index::JobEnd::Complete) => Migration::Done,
        Some(index::JobEnd::Failed { .. }) => Migration::Failed { job: name.name },
        // Made just now, or not seen yet.
        Some(index::JobEnd::Running) | None => Migration::Running { job: name.name },
    }
}

fn migration_job(children: &[Child]) -> Option<&Child> {
    children.iter().find(|child| child.resource.kind == "Job")
}

fn key_of(child: &Child) -> index::ObjectKey {
    index::ObjectKey::of(&child.resource, &child.object.metadata)
}

// === impl ReconcileError ===

impl ReconcileError {
    /// Returns the reason for the condition Ready, in one word.
    fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(source) if matches!(apply::code(source), 401 | 403) => "Forbidden",
            Self::Dereference(_) => "SecretsUnreadable",
            Self::Child(error) => error.reason(),
            Self::Finalizer(_) => "FinalizerFailed",
            Self::Slow => "ApiServerSlow",
        }
    }
}
