//! The Deployment of the workers. It never says how many there are: that is the autoscaler's field alone.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::{labels, names, pod};
use crate::plan::{Part, Plan};

pub(super) fn deployment(plan: &Plan) -> Option<Child> {
    let own = plan.part(Part::Worker)?;
    if !plan.makes_workers() {
        return None;
    }
    let quarter = || Some(IntOrString::String("25%".to_owned()));
    let deployment = Deployment {
        metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
        spec: Some(DeploymentSpec {
            selector: labels::select(plan, own.part),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment { max_surge: quarter(), max_unavailable: quarter() }),
            }),
            revision_history_limit: Some(pod::REVISIONS),
            template: pod::template(plan, own),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    Some(Child::with_pods(Stage::After, &deployment, &plan.spec.workers.pod))
}
