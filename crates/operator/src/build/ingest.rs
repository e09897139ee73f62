//! The Deployment of ingest: one writer ever.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::{labels, names, pod};
use crate::plan::{Part, Plan};

pub(super) fn deployment(plan: &Plan) -> Option<Child> {
    let own = plan.part(Part::Ingest)?;
    let replicas = match (plan.spec.suspend, plan.spec.ingest.hot_standby) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => 2,
    };
    let deployment = Deployment {
        metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: labels::select(plan, own.part),
            strategy: Some(strategy(plan.spec.ingest.hot_standby)),
            revision_history_limit: Some(pod::REVISIONS),
            template: pod::template(plan, own),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    Some(Child::with_pods(Stage::Before, &deployment, &plan.spec.ingest.pod))
}

/// The lease in Redis lets one write whatever happens here; so that it is let go in order, the old pod ends before a new one starts.
fn strategy(hot_standby: bool) -> DeploymentStrategy {
    if !hot_standby {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    let rolling =
        RollingUpdateDeployment { max_surge: Some(IntOrString::Int(0)), max_unavailable: Some(IntOrString::Int(1)) };
    DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) }
}
