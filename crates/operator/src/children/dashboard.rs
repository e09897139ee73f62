//! The Deployment of the dashboard, and the Service before it.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::labels::Texts;
use super::{deployment, labels, names, pod};
use crate::crd::ServiceType;
use crate::plan::{Part, PartPlan, Plan};

pub(super) fn children(plan: &Plan) -> Vec<Child> {
    let Some(own) = plan.part(Part::Dashboard) else { return Vec::new() };
    vec![Child::of(Stage::Before, &service(plan, own)), deployment(plan, own)]
}

fn deployment(plan: &Plan, own: &PartPlan) -> Child {
    let replicas = if plan.spec.suspend { 0 } else { plan.spec.dashboard.replicas };
    let strategy = deployment::rolling(IntOrString::Int(1), IntOrString::Int(0));
    let deployment = deployment::build(plan, own, Some(replicas), strategy);
    Child::with_pods(Stage::Before, &deployment, &plan.spec.dashboard.pod)
}

fn service(plan: &Plan, own: &PartPlan) -> Service {
    let written = &plan.spec.dashboard.service;
    let kind = match written.kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let name = names::dashboard(&plan.name);
    Service {
        metadata: labels::meta_with(plan, name, own.part.component(), &Texts::new(), &written.annotations),
        spec: Some(ServiceSpec {
            type_: Some(kind.to_owned()),
            selector: Some(labels::selector(&plan.name, own.part.component())),
            ports: Some(vec![ServicePort {
                name: Some(pod::HTTP.to_owned()),
                port: written.port,
                // Server-side apply tells ports apart by number and protocol.
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(pod::HTTP.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
