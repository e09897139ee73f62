//! Whether a new image may take the place of the one that runs: only once a pod of it has run.
//!
//! An image that does not exist would otherwise end the running ingest, which has one pod at a time. The migration Job is the proof,
//! or, where nothing is migrated, a Job that prints the version.

use std::collections::HashSet;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;

use crate::children::{self, Child};
use crate::context::Context;
use crate::name::Name;
use crate::plan::Plan;
use crate::state::image_of;
use crate::status::JobEnd;

use super::apply::{self, ApplyError};

/// What becomes of the children that run another image than the plan's.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// The Deployments that keep the pods that they have.
    held: HashSet<Name>,
    /// What is waited for, in a sentence, where no migration says it.
    pub(super) awaits: Option<Awaits>,
}

/// A Job that shows whether an image runs.
#[derive(Debug)]
pub(super) struct Awaits {
    pub(super) failed: bool,
    pub(super) message: String,
}

// === impl Proof ===

impl Proof {
    /// Returns whether a child is left as it is for now.
    pub(super) fn holds(&self, child: &Child) -> bool {
        child.resource.kind == "Deployment" && self.held.contains(&Name::of(&child.object))
    }
}

/// Finds out which Deployments must wait, and adds the Job that proves the image where no migration does.
///
/// # Errors
/// The API server does not say which image runs.
pub(super) async fn prove(context: &Context, plan: &Plan, children: &mut Vec<Child>) -> Result<Proof, ApplyError> {
    let mut held = HashSet::new();
    // Without pods there is nothing to lose.
    for child in children.iter().filter(|child| child.resource.kind == "Deployment" && !plan.spec.suspend) {
        if runs_another(context, plan, child).await? {
            held.insert(Name::of(&child.object));
        }
    }
    if held.is_empty() {
        return Ok(Proof::default());
    }
    let of_migration = children.iter().find(|child| child.resource.kind == "Job").map(|job| Name::of(&job.object));
    if let Some(job) = of_migration {
        return Ok(if context.index.has_run(&job) { Proof::default() } else { Proof { held, awaits: None } });
    }
    let Some(job) = children::image_proof(plan) else { return Ok(Proof::default()) };
    let name = Name::of(&job.object);
    // It is wanted until no Deployment needs it.
    children.push(job);
    if context.index.has_run(&name) {
        return Ok(Proof::default());
    }
    let failed = matches!(context.index.job(&name), Some(JobEnd::Failed { .. }));
    let (image, job) = (&plan.image, &name.name);
    let message = match failed {
        true => format!(
            "No pod of the image {image} has run, so pods of the previous one keep running: see kubectl describe job/{job}, and \
             correct spec.image. It is tried again ten minutes after the failure, or at once after kubectl delete job {job}"
        ),
        false => format!(
            "The image {image} is tried by job/{job} first, and pods of the previous one keep running until its pod has run"
        ),
    };
    Ok(Proof { held, awaits: Some(Awaits { failed, message }) })
}

/// Returns whether a Deployment has pods of another image. One that the watch has not reported is asked for.
async fn runs_another(context: &Context, plan: &Plan, child: &Child) -> Result<bool, ApplyError> {
    let name = Name::of(&child.object);
    let seen = match context.index.image(&name) {
        Some(image) => Some(image),
        None => {
            let api: Api<Deployment> = Api::namespaced(context.client.clone(), &name.namespace);
            let there = api.get_opt(&name.name).await;
            let there = there.map_err(|source| ApplyError::of(&apply::key_of(child), source))?;
            there.as_ref().and_then(image_of).map(str::to_owned)
        }
    };
    Ok(seen.is_some_and(|image| image != plan.image))
}
