//! The way of one pipeline, from its resource to its status.

use std::time::Duration;

use kube::runtime::controller::Action;
use penstock_core::causes::chain;

use crate::children::{self, Child, labels};
use crate::context::Context;
use crate::crd::{AutoscalingMode, FirehosePipeline, FirehosePipelineSpec};
use crate::pause::is_paused;
use crate::plan::{Part, Plan, PlanError};
use crate::recorder::Note;
use crate::report;
use crate::state::{Healers, Pipeline, Target};
use crate::status::{Outcome, Why};

use super::apply::ApplyError;
use super::error::ReconcileError;
use super::{deletion, dereference, proof, stages};

/// How often everything is checked although nothing happened.
const RESYNC: Duration = Duration::from_secs(600);

/// The same while the tables are migrated: no watch reports the containers of its pods, and a Job whose database is back is made
/// anew soon.
const MIGRATING: Duration = Duration::from_secs(5);

/// How soon something is tried again of which no watch reports a change, such as a name that may become free.
const RETRY: Duration = Duration::from_secs(30);

/// Reconciles one pipeline, and writes the outcome into its status.
pub(super) async fn reconcile(context: &Context, object: &FirehosePipeline) -> Result<Action, ReconcileError> {
    let pipeline = context.pipelines.ensure(object);
    if let Some(note) = record_spec(&pipeline, object) {
        context.record_event(note, &pipeline.reference).await;
    }
    if object.metadata.deletion_timestamp.is_some() {
        // Before the first step: the resource may be gone after the last.
        report::publish(context, &pipeline).await;
        return deletion::delete(context, &pipeline, object).await;
    }
    let outcome = apply(context, &pipeline, object).await;
    record_outcome(&pipeline, object, &outcome);
    report::publish(context, &pipeline).await;
    match outcome {
        Ok(()) => {
            context.events.reconciled(&pipeline.name);
            Ok(Action::requeue(if pipeline.state().facts.migrating().is_some() { MIGRATING } else { RESYNC }))
        }
        // Only a change of the resource or of a Secret can mend it, and both are watched.
        Err(error @ ReconcileError::Invalid(_)) => {
            context.events.reconcile_failed(&pipeline.name, error.reason(), &error);
            Ok(Action::requeue(RESYNC))
        }
        // It will be deleted with its namespace: nothing is wrong.
        Err(ReconcileError::Child(ApplyError::Terminating { .. })) => Ok(Action::requeue(RETRY)),
        // No watch reports when the name becomes free.
        Err(error @ ReconcileError::Child(ApplyError::Taken { .. })) => {
            context.events.reconcile_failed(&pipeline.name, error.reason(), &error);
            Ok(Action::requeue(RETRY))
        }
        Err(error) => Err(error),
    }
}

/// Goes the way up to the status: dereference → validate → build → apply.
async fn apply(context: &Context, pipeline: &Pipeline, object: &FirehosePipeline) -> Result<(), ReconcileError> {
    let dereferenced = dereference::dereference(context, pipeline, object).await?;
    // From here until the children are applied there is no I/O.
    let plan = Plan::new(object, &dereferenced)?;
    record_plan(context, pipeline, &plan);
    // It is watched, and its numbers go on; its children are a person's for now.
    if is_paused(&object.metadata) {
        return Ok(());
    }
    let mut children: Vec<Child> = children::build(&plan);
    deletion::keep_finalizer(context, object).await?;
    let proof = proof::prove(context, &plan, &mut children).await?;
    stages::apply(context, pipeline, &plan, &children, &proof).await?;
    Ok(())
}

/// Records what the resource itself says; returns what a person should know of what changed in it.
fn record_spec(pipeline: &Pipeline, object: &FirehosePipeline) -> Option<Note> {
    let spec = &object.spec;
    let mut state = pipeline.state();
    let asked = state.asked.replace(spec.workers.replicas);
    let news = asked.filter(|asked| *asked != spec.workers.replicas).and_then(|_| ignored_scale(spec));
    state.facts.paused = is_paused(&object.metadata);
    let facts = &mut state.facts;
    facts.deleting = object.metadata.deletion_timestamp.is_some();
    if facts.deleting {
        facts.generation = object.metadata.generation;
    }
    facts.name.clone_from(&pipeline.name.name);
    facts.suspend = spec.suspend;
    facts.fixed = spec.workers.autoscaling.mode == AutoscalingMode::Fixed;
    facts.ingest.enabled = spec.ingest.enabled;
    facts.workers.enabled = spec.workers.enabled;
    facts.dashboard.enabled = spec.dashboard.enabled;
    facts.selector = spec.workers.enabled.then(|| labels::pods_of(&pipeline.name.name, Part::Worker));
    news
}

/// Says that a number of workers that somebody just set does not count, where it does not.
fn ignored_scale(spec: &FirehosePipelineSpec) -> Option<Note> {
    let mode = match spec.workers.autoscaling.mode {
        AutoscalingMode::Fixed => return None,
        AutoscalingMode::Operator => "operator",
        AutoscalingMode::Keda => "keda",
    };
    let text = format!(
        "workers.replicas is now {}, which counts only with workers.autoscaling.mode fixed; it is {mode}: set the mode to fixed, or set \
         minReplicas and maxReplicas",
        spec.workers.replicas
    );
    Some(Note { warning: true, reason: "ScaleIgnored".to_owned(), text, action: "Scale".to_owned() })
}

/// Records what follows from the plan: what is scaled, and what this cluster cannot have.
fn record_plan(context: &Context, pipeline: &Pipeline, plan: &Plan) {
    let mut state = pipeline.state();
    state.facts.schema.clone_from(&plan.schema);
    state.facts.left_out = plan.left_out.iter().map(|left| format!("{} ({})", left.field, left.why)).collect();
    state.facts.redis_address = plan.settings.redis_url.to_string();
    state.target = Some(Target::new(plan).into());
    state.healers = Healers::new(plan, &context.settings.operator);
}

/// Records how the reconcile ended, and of which generation: the status reports none before it was reconciled.
fn record_outcome(pipeline: &Pipeline, object: &FirehosePipeline, outcome: &Result<(), ReconcileError>) {
    let why = |error: &ReconcileError| Why { reason: error.reason().to_owned(), message: chain(error) };
    let mut state = pipeline.state();
    // What was changed while it is paused was not carried out.
    if !state.facts.paused || state.facts.generation.is_none() {
        state.facts.generation = object.metadata.generation;
    }
    state.facts.outcome = match outcome {
        Ok(()) => Outcome::Applied,
        Err(error @ ReconcileError::Invalid(PlanError::Secrets(_))) => Outcome::Awaits(why(error)),
        Err(error @ ReconcileError::Invalid(_)) => Outcome::Refused(why(error)),
        Err(error) => Outcome::Failed(why(error)),
    };
}
