//! The Deployment of the healers, and the Service by which the operator reaches one of them. While they run, the operator's scaling
//! alone says how many there are.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::{deployment, labels, names, pod};
use crate::plan::{Part, PartPlan, Plan};

pub(super) fn children(plan: &Plan) -> Vec<Child> {
    let Some(own) = plan.part(Part::Heal) else { return Vec::new() };
    vec![Child::of(Stage::Before, &service(plan, own)), deployment(plan, own)]
}

fn deployment(plan: &Plan, own: &PartPlan) -> Child {
    let strategy = deployment::rolling(IntOrString::Int(1), IntOrString::Int(0));
    let deployment = deployment::build(plan, own, plan.spec.suspend.then_some(0), strategy);
    Child::with_pods(Stage::After, &deployment, &plan.spec.heal.pod)
}

fn service(plan: &Plan, own: &PartPlan) -> Service {
    Service {
        metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(labels::selector(&plan.name, own.part.component())),
            ports: Some(vec![ServicePort {
                name: Some(pod::METRICS.to_owned()),
                port: own.admin_port.into(),
                // Server-side apply tells ports apart by number and protocol.
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(pod::METRICS.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
