//! The PodDisruptionBudgets: a node can always be drained, and never takes everything at once.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::child::{Child, Stage};
use super::{labels, names};
use crate::plan::{Part, Plan};

pub(super) fn children(plan: &Plan) -> impl Iterator<Item = Child> {
    plan.parts.iter().filter_map(|own| {
        // With minAvailable the singleton's node could never be drained.
        let max_unavailable = match own.part {
            Part::Ingest | Part::Dashboard => IntOrString::Int(1),
            Part::Worker | Part::Heal => IntOrString::String("25%".to_owned()),
            Part::Migrate => return None,
        };
        let budget = PodDisruptionBudget {
            metadata: labels::meta(plan, names::part(&plan.name, own.part), own.part.component()),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(max_unavailable),
                selector: Some(labels::select(plan, own.part)),
                // A pod that does not run anyway holds up nobody.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        };
        Some(Child::of(Stage::Before, &budget))
    })
}
