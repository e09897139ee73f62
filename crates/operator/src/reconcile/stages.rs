//! Applies the children in their stages: the migration before what writes the tables.

use std::collections::HashSet;

use crate::children::{Child, Stage};
use crate::context::Context;
use crate::plan::{Part, Plan};
use crate::state::{ObjectKey, Pipeline};
use crate::status::{ImageProof, Migration};

use super::apply::{self, ApplyError};
use super::proof::Proof;
use super::{migration, sidecar};

/// Applies every child whose time has come, and deletes what the pipeline owns and the plan does not have.
///
/// # Errors
/// The first child that could not be applied; most others are applied nevertheless.
pub(super) async fn apply(
    context: &Context,
    pipeline: &Pipeline,
    plan: &Plan,
    children: &[Child],
    proof: &Proof,
) -> Result<(), ApplyError> {
    let of = |stage| children.iter().filter(move |child| child.stage == stage && !proof.holds(child));
    let mut failed = None;
    for child in of(Stage::Before) {
        if let Err(error) = apply::apply(context, pipeline, child).await {
            // An Ingress that a webhook refuses is no reason to leave the workers as they are; settings that are not there are.
            if matches!(child.resource.kind.as_str(), "ConfigMap" | "ServiceAccount") {
                return Err(error);
            }
            failed.get_or_insert(error);
        }
    }
    let awaits = proof.awaits.as_ref();
    pipeline.state().facts.image =
        awaits.map(|awaits| ImageProof { failed: awaits.failed, message: awaits.message.clone() });
    migration::retry(context, pipeline, children).await?;
    if let Some(job) = migration::job(children) {
        sidecar::settle(context, pipeline, job).await?;
    }
    let migration = migration::progress(context, children);
    let migrated = matches!(migration, Migration::NotOurs | Migration::Done);
    pipeline.state().facts.migration = migration;
    if migrated {
        for child in of(Stage::After) {
            if let Err(error) = apply::apply(context, pipeline, child).await {
                failed.get_or_insert(error);
            }
        }
    }
    // What waits for the tables is wanted too: the previous version runs meanwhile.
    let mut wanted: HashSet<_> = children.iter().map(apply::key_of).collect();
    if plan.spec.suspend && plan.spec.workers.enabled && !plan.workers_exist {
        // It may have come into being since the plan was made.
        wanted.insert(ObjectKey::deployment(&plan.namespace, &plan.name, Part::Worker));
    }
    apply::delete_orphans(context, pipeline, &wanted, plan.spec.suspend).await?;
    failed.map_or(Ok(()), Err)
}
