//! The ScaledObject: KEDA applies what the operator recommends.

use kube::core::ApiResource;
use serde_json::json;

use super::child::{Child, Stage, foreign_kind};
use super::labels::Texts;
use super::{labels, names};
use crate::plan::{Part, Plan};

/// How often KEDA asks, seconds: as often as the operator decides.
const POLLING: u32 = 5;

/// How long after the last entry KEDA waits before it takes the last worker away, seconds.
const COOLDOWN: u32 = 30;

/// How often KEDA may ask in vain before it goes by itself.
const FAILURES: u32 = 3;

pub(super) fn scaled_object(plan: &Plan) -> Option<Child> {
    let url = plan.recommendation_url.as_ref().filter(|_| plan.by_keda() && plan.makes_workers())?;
    let scaling = &plan.spec.workers.autoscaling;
    // The recommendation is calm already: what the HPA added to it would only be late.
    let at_once = |select: &str| {
        json!({
            "stabilizationWindowSeconds": 0,
            "selectPolicy": select,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15},
                         {"type": "Pods", "value": scaling.max_replicas, "periodSeconds": 15}],
        })
    };
    let spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names::part(&plan.name, Part::Worker)},
        "pollingInterval": POLLING,
        // Only for the last worker, and that it may go was recommended over the whole window already.
        "cooldownPeriod": COOLDOWN,
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        // While the operator does not answer, there are as many as there are.
        "fallback": {
            "failureThreshold": FAILURES,
            "replicas": scaling.min_replicas.max(1),
            "behavior": "currentReplicasIfHigher",
        },
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleUp": at_once("Max"), "scaleDown": at_once("Max")}}},
        "triggers": [{
            "type": "metrics-api",
            "metricType": "AverageValue",
            "metadata": {"url": url, "valueLocation": "replicas", "targetValue": "1", "activationTargetValue": "0"},
        }],
    });
    let mut annotations = Texts::new();
    if plan.spec.suspend {
        annotations.insert("autoscaling.keda.sh/paused-replicas".to_owned(), "0".to_owned());
    }
    let name = names::part(&plan.name, Part::Worker);
    let meta = labels::meta_with(plan, name, Part::Worker.component(), &Texts::new(), &annotations);
    // It asks for the Deployment, so it comes with it.
    Some(Child::foreign(kind(), meta, &spec).at(Stage::After))
}

pub(super) fn kind() -> ApiResource {
    foreign_kind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
}
