//! What the Deployments of all parts have in common.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{labels, names, pod};
use crate::plan::{PartPlan, Plan};

/// Builds the Deployment of a part; without `replicas` their number is somebody else's field.
pub(super) fn build(plan: &Plan, own: &PartPlan, replicas: Option<i32>, strategy: DeploymentStrategy) -> Deployment {
    Deployment {
        metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
        spec: Some(DeploymentSpec {
            replicas,
            selector: labels::select(plan, own.part),
            strategy: Some(strategy),
            revision_history_limit: Some(pod::REVISIONS),
            template: pod::template(plan, own),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// Pods are replaced one after the other: so many more than there are to be, so many fewer.
pub(super) fn rolling(max_surge: IntOrString, max_unavailable: IntOrString) -> DeploymentStrategy {
    let rolling = RollingUpdateDeployment { max_surge: Some(max_surge), max_unavailable: Some(max_unavailable) };
    DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) }
}
