//! Writes of the resource of a backfill: its status, its finalizer, its end.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use crate::context::{Context, MANAGER};
use crate::crd::{BackfillStatus, FirehoseBackfill, UNSEEN};
use crate::name::Name;
use crate::recorder::Note;
use crate::state::FINALIZER;

use super::judge::{self, Seen};

/// Judges a backfill, writes its status if that changed, and announces what changed as Events.
pub(super) async fn publish(context: &Context, object: &FirehoseBackfill, seen: &Seen) {
    let before = before(object);
    let status = judge::judge(object, seen, &before, Timestamp::now());
    if status == before {
        return;
    }
    if let Err(error) = write(context, object, &status).await {
        return context.events.backfill_refused(&Name::of(object), &error);
    }
    context.events.backfill_tended(&Name::of(object));
    for (warning, reason, text, action) in judge::changes(&before, &status) {
        context.record_event(Note { warning, reason, text, action }, &reference(object)).await;
    }
}

/// Notes that a change of what is over was seen.
pub(super) async fn acknowledge(context: &Context, object: &FirehoseBackfill) -> Result<(), kube::Error> {
    let before = before(object);
    if before.observed_generation == object.metadata.generation {
        return Ok(());
    }
    let generation = object.metadata.generation;
    let mut status = BackfillStatus { observed_generation: generation, ..before };
    for condition in &mut status.conditions {
        condition.observed_generation = generation;
    }
    write(context, object, &status).await
}

/// Sets or takes away the finalizer; returns whether it is as wanted, and not whether somebody else was faster.
pub(super) async fn keep_finalizer(
    context: &Context,
    object: &FirehoseBackfill,
    wanted: bool,
) -> Result<bool, kube::Error> {
    if has_finalizer(object) == wanted {
        return Ok(true);
    }
    let metadata = &object.metadata;
    let others = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).map(String::as_str);
    let finalizers: Vec<&str> = others.chain(wanted.then_some(FINALIZER)).collect();
    let patch = json!({
        "metadata": { "resourceVersion": metadata.resource_version, "uid": metadata.uid, "finalizers": finalizers }
    });
    match api(context, object).patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await
    {
        Ok(_) => Ok(true),
        // Written by somebody else, or gone: the watch reports it.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn has_finalizer(object: &FirehoseBackfill) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Deletes the resource, if it is still the one that was seen.
pub(super) async fn remove(context: &Context, object: &FirehoseBackfill) -> Result<(), kube::Error> {
    let still = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
    match api(context, object).delete(&object.name_any(), &DeleteParams::background().preconditions(still)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns what an Event is about.
pub(super) fn reference(object: &FirehoseBackfill) -> ObjectReference {
    object.object_ref(&())
}

/// Returns how long something has been.
pub(super) fn since(time: Option<&Time>) -> Duration {
    let since = time.map_or_else(Timestamp::now, |time| time.0);
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}

fn before(object: &FirehoseBackfill) -> BackfillStatus {
    let mut before = object.status.clone().unwrap_or_default();
    before.observed_generation = before.observed_generation.filter(|generation| *generation != UNSEEN);
    before
}

async fn write(context: &Context, object: &FirehoseBackfill, status: &BackfillStatus) -> Result<(), kube::Error> {
    let patch = json!({
        "apiVersion": FirehoseBackfill::api_version(&()),
        "kind": FirehoseBackfill::kind(&()),
        // With the uid, a resource that was made anew under the name is not written to.
        "metadata": { "name": object.name_any(), "uid": object.uid() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api(context, object).patch_status(&object.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(_) => {
            context.events.status_written();
            Ok(())
        }
        // It is gone: nobody reads its status any more.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

fn api(context: &Context, object: &FirehoseBackfill) -> Api<FirehoseBackfill> {
    Api::namespaced(context.client.clone(), object.metadata.namespace.as_deref().unwrap_or_default())
}
