//! The Deployment of ingest: one writer ever.

use k8s_openapi::api::apps::v1::DeploymentStrategy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::deployment;
use crate::plan::{Part, Plan};

pub(super) fn deployment(plan: &Plan) -> Option<Child> {
    let own = plan.part(Part::Ingest)?;
    let replicas = match (plan.spec.suspend, plan.spec.ingest.hot_standby) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    };
    let strategy = strategy(plan.spec.ingest.hot_standby);
    let deployment = deployment::build(plan, own, Some(replicas), strategy);
    Some(Child::with_pods(Stage::Before, &deployment, &plan.spec.ingest.pod))
}

/// The lease in Redis lets one write whatever happens here; so that it is let go in order, the old pod ends before a new one starts.
fn strategy(hot_standby: bool) -> DeploymentStrategy {
    if !hot_standby {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    deployment::rolling(IntOrString::Int(0), IntOrString::Int(1))
}
