//! The NetworkPolicies: only the ports that a part serves are let in; what it reaches is not limited.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::{labels, names};
use crate::plan::{Part, PartPlan, Plan};

pub(super) fn children(plan: &Plan) -> Vec<Child> {
    if !plan.spec.network_policy.enabled {
        return Vec::new();
    }
    plan.parts.iter().map(|own| policy(plan, own)).collect()
}

fn policy(plan: &Plan, own: &PartPlan) -> Child {
    let ports = match own.part {
        Part::Ingest | Part::Worker | Part::Heal => vec![own.admin_port],
        Part::Dashboard => vec![own.http_port, own.admin_port],
        Part::Migrate => Vec::new(),
    };
    let port = |port: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(port.into())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    let ports: Vec<NetworkPolicyPort> = ports.into_iter().map(port).collect();
    // A rule without ports would let in everything; no rule lets in nothing.
    let rules =
        if ports.is_empty() { Vec::new() } else { vec![NetworkPolicyIngressRule { ports: Some(ports), from: None }] };
    let policy = NetworkPolicy {
        metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::select(plan, own.part)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            egress: None,
        }),
    };
    Child::of(Stage::Before, &policy)
}
