//! Writes the status of a pipeline when it changed, and announces changes as Events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Context, MANAGER, resource};
use crate::crd::{Condition, ConditionStatus, FirehosePipeline, Phase, PipelineStatus};
use crate::name::Name;
use crate::plan::Part;
use crate::recorder::Note;
use crate::state::Pipeline;
use crate::status::{Change, Outcome, clip};

/// Writes the status of a pipeline, if it changed and is due.
pub(crate) async fn publish(context: &Context, pipeline: &Pipeline) {
    let mut written = pipeline.written.lock().await;
    let status = {
        let mut state = pipeline.state();
        let facts = &mut state.facts;
        facts.ingest.rollout = context.index.rollout(pipeline, Part::Ingest);
        facts.workers.rollout = context.index.rollout(pipeline, Part::Worker);
        facts.dashboard.rollout = context.index.rollout(pipeline, Part::Dashboard);
        // An operator that has just started has not looked at everything yet: what its predecessor saw is nearer to the truth.
        let is_blind = facts.awaits_redis() || facts.outcome == Outcome::None && !facts.deleting;
        if written.status().observed_generation.is_some() && is_blind {
            return;
        }
        state.facts.status(state.decision.as_ref(), state.scaled, written.status(), Timestamp::now())
    };
    if written.is_due(&status, Instant::now()) {
        if let Err(error) = write(context, &pipeline.name, Some(&pipeline.uid), &status).await {
            context.events.status_refused(&pipeline.name, &error);
            return;
        }
        written.record(status, Instant::now());
    }
    let changes = written.changes(Instant::now());
    drop(written);
    for Change { warning, reason, note, action } in changes {
        context.record_event(Note { warning, reason, text: note, action }, &pipeline.reference).await;
    }
}

/// Reports why an object cannot be read, as far as the API server lets it: its schema may refuse even the status.
pub(crate) async fn publish_malformed(context: &Context, name: &Name, metadata: &ObjectMeta, error: &str) {
    let message = clip(format!("The resource cannot be parsed ({error}): correct it, or re-create it"));
    let condition = |kind: &str, status| Condition {
        kind: kind.to_owned(),
        status,
        reason: "Malformed".to_owned(),
        message: message.clone(),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: metadata.generation,
    };
    let status = PipelineStatus {
        observed_generation: metadata.generation,
        phase: Some(Phase::Failed),
        // As for any pipeline in this phase: whoever waits for it waits in vain.
        conditions: vec![condition("Ready", ConditionStatus::False), condition("Stalled", ConditionStatus::True)],
        ..PipelineStatus::default()
    };
    if let Err(error) = write(context, name, metadata.uid.as_deref(), &status).await {
        context.events.status_refused(name, &error);
    }
    let about = ObjectReference {
        api_version: Some(FirehosePipeline::api_version(&()).into_owned()),
        kind: Some(FirehosePipeline::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let note = Note { warning: true, reason: "Malformed".to_owned(), text: message, action: "Read".to_owned() };
    context.record_event(note, &about).await;
}

async fn write(context: &Context, name: &Name, uid: Option<&str>, status: &PipelineStatus) -> Result<(), kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &name.namespace, &resource());
    let patch = json!({
        "apiVersion": FirehosePipeline::api_version(&()),
        "kind": FirehosePipeline::kind(&()),
        // With the uid, a resource that was made anew under the name is not written to.
        "metadata": { "name": name.name, "uid": uid },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&name.name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => {
            context.events.status_written();
            Ok(())
        }
        // It is gone: nobody reads its status any more.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
