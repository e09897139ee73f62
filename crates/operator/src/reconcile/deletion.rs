//! What becomes of a pipeline that is deleted: its pods end, then what it has in Redis goes, or its claim at least.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::timeout;

use crate::context::{Context, resource};
use crate::crd::{DeletionPolicy, FirehosePipeline};
use crate::error::chain;
use crate::pipelines::{Name, Pipeline};
use crate::scaling::Target;

use super::apply::{self, ApplyError};
use super::{ReconcileError, cleanup};

/// Keeps a pipeline until its keys in Redis are gone.
pub(super) const FINALIZER: &str = "penstock.dev/redis";

/// How soon one looks again whether the pods have ended.
const AGAIN: Duration = Duration::from_secs(2);

/// Sets or takes away the finalizer, as the policy says. One that is being deleted gets none any more.
pub(super) async fn keep_finalizer(context: &Context, object: &FirehosePipeline) -> Result<(), ReconcileError> {
    let wanted = object.spec.deletion_policy == DeletionPolicy::Delete;
    if object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) == wanted {
        return Ok(());
    }
    set_finalizer(context, &object.metadata, wanted).await
}

/// Carries out a deletion as far as it has come; where there is nothing to wait for, nothing is done.
pub(super) async fn carry_out(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
    target: Option<&Target>,
) -> Result<Action, ReconcileError> {
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(Action::await_change());
    }
    // The resource may have been told to retain before anybody could take the finalizer away.
    if object.spec.deletion_policy != DeletionPolicy::Delete {
        set_finalizer(context, &object.metadata, false).await?;
        return Ok(Action::await_change());
    }
    let left = left(context, &object.metadata);
    let why = match progress(context, pipeline, target, left).await {
        Ok(None) => {
            set_finalizer(context, &object.metadata, false).await?;
            return Ok(Action::await_change());
        }
        Ok(Some(why)) => why,
        Err(error) => chain(&error),
    };
    if left.is_zero() {
        give_up(context, pipeline, object, &why).await?;
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(AGAIN.min(left)))
}

/// Lets a resource go at its deadline that cannot be read, and so says neither what is to be removed nor where.
pub(super) async fn let_go(context: &Context, name: &Name, metadata: &ObjectMeta) -> Result<Action, ReconcileError> {
    let ours = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_none() || !ours {
        return Ok(Action::await_change());
    }
    let left = left(context, metadata);
    if !left.is_zero() {
        return Ok(Action::requeue(left));
    }
    context.telemetry.gave_up(name, "the resource cannot be read");
    set_finalizer(context, metadata, false).await?;
    Ok(Action::await_change())
}

/// Returns how long a deletion may go on.
fn left(context: &Context, metadata: &ObjectMeta) -> Duration {
    let since = metadata.deletion_timestamp.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let elapsed = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    context.settings.operator.deletion_deadline.saturating_sub(elapsed)
}

/// Releases the claim of a pipeline that is gone, if it still is this one's, for as long as a deletion may take.
pub(super) fn release_claim(context: &Arc<Context>, pipeline: &Pipeline) {
    let Some(target) = pipeline.state().target.clone() else { return };
    let (context, name) = (Arc::clone(context), pipeline.name.clone());
    tokio::spawn(async move {
        let release = async {
            let mut pause = AGAIN;
            while cleanup::release(&target).await.is_err() {
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

/// Does the next step; says what is still to be waited for.
async fn progress(
    context: &Context,
    pipeline: &Pipeline,
    target: Option<&Target>,
    left: Duration,
) -> Result<Option<String>, DeletionError> {
    let owned = context.index.of(&pipeline.name.namespace, &pipeline.uid);
    let with_pods: Vec<_> = owned
        .into_iter()
        .filter(|(key, _)| matches!(key.kind.as_str(), "Deployment" | "Job" | "ScaledObject"))
        .collect();
    if !with_pods.is_empty() {
        // Foreground: an object stays until its pods are gone, and so nobody writes to Redis any more.
        for (key, seen) in &with_pods {
            apply::delete(context, pipeline, key, seen, &DeleteParams::foreground()).await?;
        }
        let names: Vec<String> = with_pods.iter().map(|(key, _)| format!("{} {}", key.kind, key.name)).collect();
        return Ok(Some(format!("pods have not ended: {}", names.join(", "))));
    }
    let Some(target) = target else {
        return Ok(Some("the address of redis is not known: see the Secret that redis.urlSecret names".to_owned()));
    };
    // Beyond the deadline one last try is worth a moment.
    let patience = left.clamp(Duration::from_secs(3), Duration::from_secs(20));
    let removed = timeout(patience, cleanup::remove(target)).await.unwrap_or(Err(cleanup::CleanupError::Slow))?;
    context.telemetry.cleaned(&pipeline.name, removed.keys, removed.stream_kept);
    if !removed.ours {
        let note = "No worker of this pipeline holds the prefix in Redis, so nothing was removed there";
        tell(context, pipeline, EventType::Normal, "RedisKept", note).await;
    }
    if removed.stream_kept {
        let note = "Other groups read the stream, so it stays; everything else of this pipeline is gone from Redis";
        tell(context, pipeline, EventType::Normal, "StreamKept", note).await;
    }
    Ok(None)
}

async fn give_up(
    context: &Context,
    pipeline: &Pipeline,
    object: &FirehosePipeline,
    why: &str,
) -> Result<(), ReconcileError> {
    context.telemetry.gave_up(&pipeline.name, why);
    let note = format!("Let go at the deadline of a deletion, and keys may be left in Redis: {why}");
    tell(context, pipeline, EventType::Warning, "RedisNotCleaned", &note).await;
    set_finalizer(context, &object.metadata, false).await
}

async fn tell(context: &Context, pipeline: &Pipeline, type_: EventType, reason: &str, note: &str) {
    let (reason, note) = (reason.to_owned(), Some(note.chars().take(1_000).collect()));
    let event = Event { type_, reason, note, action: "Delete".to_owned(), secondary: None };
    context.tell(event, &pipeline.reference).await;
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
    #[error(transparent)]
    Child(#[from] ApplyError),
    #[error("could not remove what the pipeline has in redis")]
    Redis(#[from] cleanup::CleanupError),
}
