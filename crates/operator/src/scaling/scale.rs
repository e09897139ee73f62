//! Writes the number of workers, with an owner that managedFields show.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use penstock_autoscale::Decision;
use serde_json::json;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::context::{Context, SCALER};
use crate::name::Name;
use crate::recorder::Note;
use crate::state::{Pipeline, ScaledBy, Target};

/// Scales the workers of a pipeline, and announces it as an Event.
pub(super) async fn apply_scale(
    context: &Context,
    pipeline: &Pipeline,
    target: &Target,
    decision: &Decision,
    from: u16,
    to: u16,
) {
    // Signed: the bridge to traces writes unsigned numbers as text.
    let span = info_span!(
        "operator.scale",
        pipeline = %pipeline.name,
        penstock.decision.reason = decision.reason.name(),
        penstock.decision.text = %decision,
        penstock.workers.before = i64::from(from),
        penstock.workers.after = i64::from(to),
        penstock.backlog = decision.backlog.at_least().cast_signed(),
        penstock.rate.arrival = decision.arrival,
        penstock.rate.service = decision.service,
        otel.status_code = Empty,
    );
    write(context, pipeline, target, decision, from, to).instrument(span).await;
}

/// Writes the number of pods of a Deployment.
///
/// # Errors
/// The API server does not answer, or refuses it.
pub(crate) async fn patch_replicas(context: &Context, place: &Name, to: u16) -> Result<(), kube::Error> {
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &place.namespace);
    // Applied, the number has an owner that managedFields show; a merge patch of the subresource leaves none.
    let patch = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": { "name": place.name, "namespace": place.namespace },
        "spec": { "replicas": to },
    });
    let params = PatchParams::apply(SCALER).force();
    api.patch_scale(&place.name, &params, &Patch::Apply(&patch)).await?;
    context.index.record_scale(place, i32::from(to));
    Ok(())
}

async fn write(context: &Context, pipeline: &Pipeline, target: &Target, decision: &Decision, from: u16, to: u16) {
    match patch_replicas(context, &target.deployment, to).await {
        Ok(()) => {
            pipeline.state().scaled = Some(Timestamp::now());
            context.events.scaled(&pipeline.name, i32::from(from), i32::from(to));
        }
        Err(error) => {
            Span::current().record("otel.status_code", "error");
            context.events.scale_refused(&pipeline.name, &error);
            return;
        }
    }
    let text = match target.scaled_by {
        ScaledBy::Fixed(_) => format!("{from} to {to} workers, as set in the resource"),
        _ => decision.to_string(),
    };
    let note = Note { warning: false, reason: "Scaled".to_owned(), text, action: "Scale".to_owned() };
    context.record_event(note, &pipeline.reference).await;
}
