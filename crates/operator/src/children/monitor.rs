//! The ServiceMonitor by which the Prometheus operator finds every pod, and the Service without an address that it needs.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ApiResource;
use serde_json::json;

use super::child::{Child, Stage, foreign_kind};
use super::labels::Texts;
use super::{labels, names, pod};
use crate::plan::Plan;

/// The component of both.
const COMPONENT: &str = "metrics";

pub(super) fn children(plan: &Plan) -> Vec<Child> {
    let monitor = &plan.spec.telemetry.service_monitor;
    if !monitor.enabled || !plan.api.service_monitor {
        return Vec::new();
    }
    let name = names::metrics(&plan.name);
    let spec = json!({
        "selector": {"matchLabels": labels::selector(&plan.name, COMPONENT)},
        "namespaceSelector": {"matchNames": [plan.namespace]},
        "endpoints": [{
            "port": pod::METRICS,
            "path": "/metrics",
            "interval": monitor.interval,
            // What alerts and dashboards tell pipelines and parts apart by.
            "relabelings": [
                {"action": "replace", "targetLabel": "pipeline", "replacement": plan.name},
                {
                    "action": "replace",
                    "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
                    "targetLabel": "component",
                },
            ],
        }],
    });
    let meta = labels::meta_with(plan, name, COMPONENT, &monitor.labels, &Texts::new());
    vec![Child::of(Stage::Before, &service(plan)), Child::foreign(kind(), meta, &spec)]
}

pub(super) fn kind() -> ApiResource {
    foreign_kind("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors")
}

fn service(plan: &Plan) -> Service {
    Service {
        metadata: labels::meta(plan, names::metrics(&plan.name), COMPONENT),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            // A pod that is not ready is the one to look at.
            publish_not_ready_addresses: Some(true),
            selector: Some(pod::scraped(&plan.name)),
            ports: Some(vec![ServicePort {
                name: Some(pod::METRICS.to_owned()),
                port: 9464,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(pod::METRICS.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
