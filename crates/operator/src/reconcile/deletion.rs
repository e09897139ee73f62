//! The deletion of a pipeline: its pods end, then its keys in Redis are removed, or its claim at least.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use penstock_core::causes::chain;
use serde_json::json;
use tokio::time::timeout;

use crate::children::{labels, names};
use crate::context::{Context, resource};
use crate::crd::{DeletionPolicy, FirehosePipeline};
use crate::name::Name;
use crate::plan::{Part, Plan};
use crate::recorder::Note;
use crate::state::{ObjectKey, Owned, Pipeline, Target};

use super::apply::{self, ApplyError};
use super::error::ReconcileError;
use super::{cleanup, dereference};

/// Keeps a pipeline until its keys in Redis are gone.
const FINALIZER: &str = "penstock.dev/redis";

/// How soon is checked again whether the pods have ended.
const AGAIN: Duration = Duration::from_secs(2);

/// How long a deletion waits for a Redis that does not answer. With it goes a namespace, whose Redis may be gone for good.
const REDIS_AWAY: Duration = Duration::from_secs(20);

/// Sets or takes away the finalizer, as the policy says. One that is being deleted gets none any more.
pub(super) async fn keep_finalizer(context: &Context, object: &FirehosePipeline) -> Result<(), ReconcileError> {
    let wanted = object.spec.deletion_policy == DeletionPolicy::Delete;
    if object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) == wanted {
        return Ok(());
    }
    set_finalizer(context, &object.metadata, wanted).await
}

/// Takes the next step of a deletion; without our finalizer there is none.
pub(super) async fn delete(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
) -> Result<Action, ReconcileError> {
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    // The resource may have been told to retain before anybody could take the finalizer away.
    if object.spec.deletion_policy != DeletionPolicy::Delete {
        set_finalizer(context, &object.metadata, false).await?;
        return Ok(Action::await_change());
    }
    let target = target(context, pipeline, object).await;
    let left = left(context, &object.metadata);
    let is_late = elapsed(&object.metadata) >= REDIS_AWAY;
    let (why, is_away) = match next_step(context, pipeline, target.as_deref(), left).await {
        Ok(Step::Done) => {
            set_finalizer(context, &object.metadata, false).await?;
            return Ok(Action::await_change());
        }
        Ok(Step::PodsEnd(why)) => match &target {
            Some(target) if is_late => match cleanup::ask(target).await {
                Ok(()) => (why, false),
                Err(error) => (chain(&error), true),
            },
            _ => (why, false),
        },
        Ok(Step::Unknown) => {
            ("the address of Redis is unknown: check the Secret that redis.urlSecret names".to_owned(), true)
        }
        Err(error) => {
            let is_away = matches!(&error, DeletionError::Redis(error) if error.is_away());
            (chain(&error), is_away)
        }
    };
    if left.is_zero() || (is_away && is_late) {
        give_up(context, pipeline, object, &why).await?;
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(AGAIN.min(left)))
}

/// Releases a resource that cannot be read at the deadline of its deletion: it says neither what is to be removed nor where.
pub(super) async fn release_malformed(
    context: &Context,
    name: &Name,
    metadata: &ObjectMeta,
) -> Result<Action, ReconcileError> {
    let ours = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_none() || !ours {
        return Ok(Action::await_change());
    }
    let left = left(context, metadata);
    if !left.is_zero() {
        return Ok(Action::requeue(left));
    }
    context.events.gave_up(name, "the resource cannot be parsed");
    set_finalizer(context, metadata, false).await?;
    Ok(Action::await_change())
}

/// Forgets a pipeline that is gone from the cluster, and gives back its claim on the prefix.
pub(super) fn forget(context: &Arc<Context>, name: &Name, uid: &str) {
    let workers = Name { namespace: name.namespace.clone(), name: names::part(&name.name, Part::Worker) };
    context.events.forget(name, &workers);
    context.applied.forget(&context.index.of(&name.namespace, uid));
    if let Some(pipeline) = context.pipelines.forget(name, uid) {
        release_claim(context, &pipeline);
    }
}

/// Returns where the pipeline's keys are, as it was planned last or can be planned now. What cannot be read or planned holds up no
/// deletion: at its deadline the resource is released.
async fn target(context: &Context, pipeline: &Pipeline, object: &FirehosePipeline) -> Option<Arc<Target>> {
    let known = pipeline.state().target.clone();
    if known.is_some() {
        return known;
    }
    let dereferenced = dereference::dereference(context, pipeline, object).await.ok()?;
    let plan = Plan::new(object, &dereferenced).ok()?;
    Some(Arc::new(Target::new(&plan)))
}

/// Returns how long a deletion may go on.
fn left(context: &Context, metadata: &ObjectMeta) -> Duration {
    context.settings.operator.deletion_deadline.saturating_sub(elapsed(metadata))
}

fn elapsed(metadata: &ObjectMeta) -> Duration {
    let since = metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}

/// Releases the claim of a pipeline that is gone, if it still is this one's, for as long as a deletion may take.
fn release_claim(context: &Arc<Context>, pipeline: &Pipeline) {
    let Some(target) = pipeline.state().target.clone() else { return };
    let (context, name, uid) = (Arc::clone(context), pipeline.name.clone(), pipeline.uid.clone());
    tokio::spawn(async move {
        let release = async {
            let mut pause = AGAIN;
            while cleanup::release(&target, &uid).await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(15));
                // Applied again meanwhile, the claim is its own.
                if context.pipelines.get(&name).is_some() {
                    return;
                }
            }
        };
        let _ = timeout(context.settings.operator.deletion_deadline, release).await;
    });
}

/// How far a deletion is.
enum Step {
    /// Pods end, and which.
    PodsEnd(String),
    /// Where Redis is cannot be said.
    Unknown,
    Done,
}

/// Lists what has pods, or makes some, by the word of the API server: a watch may not have listed it yet, and does not see what has
/// lost its labels.
async fn with_pods(context: &Context, pipeline: &Pipeline) -> Result<Vec<(ObjectKey, Owned)>, kube::Error> {
    let (namespace, name) = (&pipeline.name.namespace, &pipeline.name.name);
    let mut found: Vec<_> =
        context.index.of(namespace, &pipeline.uid).into_iter().filter(|(key, _)| key.kind == "ScaledObject").collect();
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), namespace);
    for part in [Part::Ingest, Part::Worker, Part::Dashboard, Part::Heal] {
        let key = ObjectKey::deployment(namespace, name, part);
        let there = deployments.get_metadata_opt(&key.name).await?;
        if let Some(there) = there.filter(|there| apply::belongs(&there.metadata, pipeline)) {
            found.push((key, Owned::new(&there.metadata)));
        }
    }
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), namespace);
    let kind = ApiResource::erase::<Job>(&());
    for job in jobs.list_metadata(&ListParams::default().labels(&labels::owned_by(name))).await? {
        if apply::belongs(&job.metadata, pipeline) {
            found.push((ObjectKey::of(&kind, &job.metadata), Owned::new(&job.metadata)));
        }
    }
    Ok(found)
}

/// Takes the next step.
async fn next_step(
    context: &Context,
    pipeline: &Pipeline,
    target: Option<&Target>,
    left: Duration,
) -> Result<Step, DeletionError> {
    let with_pods = with_pods(context, pipeline).await.map_err(|source| DeletionError::Pods(Box::new(source)))?;
    if !with_pods.is_empty() {
        // Foreground: an object stays until its pods are gone, and so nobody writes to Redis any more.
        for (key, seen) in &with_pods {
            apply::delete(context, pipeline, key, seen, &DeleteParams::foreground()).await?;
        }
        let names: Vec<String> = with_pods.iter().map(|(key, _)| format!("{} {}", key.kind, key.name)).collect();
        return Ok(Step::PodsEnd(format!("waiting for pods to end: {}", names.join(", "))));
    }
    let Some(target) = target else {
        return Ok(Step::Unknown);
    };
    // Beyond the deadline one last try is worth a moment.
    let patience = left.clamp(Duration::from_secs(3), Duration::from_secs(20));
    let removed = cleanup::remove(target, &pipeline.uid, patience).await?;
    context.events.cleaned(&pipeline.name, removed.keys, removed.stream_kept);
    if !removed.ours {
        let note = "This pipeline has no claim on its prefix in Redis, so no keys were removed";
        record_event(context, pipeline, false, "RedisKept", note).await;
    }
    if removed.stream_kept {
        let note =
            "Other groups read the stream, so it was kept; all other keys of this pipeline were removed from Redis";
        record_event(context, pipeline, false, "StreamKept", note).await;
    }
    Ok(Step::Done)
}

async fn give_up(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
    why: &str,
) -> Result<(), ReconcileError> {
    context.events.gave_up(&pipeline.name, why);
    let note =
        format!("The deletion reached its deadline and the finalizer was removed; keys may be left in Redis: {why}");
    record_event(context, pipeline, true, "RedisNotCleaned", &note).await;
    set_finalizer(context, &object.metadata, false).await
}

async fn record_event(context: &Context, pipeline: &Pipeline, warning: bool, reason: &str, text: &str) {
    let note = Note { warning, reason: reason.to_owned(), text: text.to_owned(), action: "Delete".to_owned() };
    context.record_event(note, &pipeline.reference).await;
}

/// Writes the finalizers, those of others kept, unless somebody wrote the resource meanwhile.
async fn set_finalizer(context: &Context, metadata: &ObjectMeta, wanted: bool) -> Result<(), ReconcileError> {
    let finalizers = metadata.finalizers.iter().flatten().map(String::as_str);
    let mut finalizers: Vec<&str> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
    if wanted {
        finalizers.push(FINALIZER);
    }
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource());
    let patch = json!({
        "metadata": { "resourceVersion": metadata.resource_version, "uid": metadata.uid, "finalizers": finalizers }
    });
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if apply::code(&error) == 404 => Ok(()),
        Err(source) => Err(ReconcileError::Finalizer(Box::new(source))),
    }
}

/// Why a deletion does not go on.
#[derive(Debug, thiserror::Error)]
enum DeletionError {
    #[error("could not ask which pods there are")]
    Pods(#[source] Box<kube::Error>),
    #[error(transparent)]
    Child(#[from] ApplyError),
    #[error("could not remove the pipeline's keys from redis")]
    Redis(#[from] cleanup::CleanupError),
}
