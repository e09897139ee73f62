//! The Deployment of the workers. It never says how many there are: that is the autoscaler's field alone.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::deployment;
use crate::plan::{Part, Plan};

pub(super) fn deployment(plan: &Plan) -> Option<Child> {
    let own = plan.part(Part::Worker)?;
    if !plan.makes_workers() {
        return None;
    }
    let quarter = || IntOrString::String("25%".to_owned());
    let deployment = deployment::build(plan, own, None, deployment::rolling(quarter(), quarter()));
    Some(Child::with_pods(Stage::After, &deployment, &plan.spec.workers.pod))
}
