//! The ways to the dashboard from outside the cluster: an Ingress, an HTTPRoute.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::child::{Child, Stage, foreign_kind};
use super::labels::Texts;
use super::{labels, names, pod};
use crate::crd::{self, ParentRef};
use crate::plan::{Part, Plan};

pub(super) fn children(plan: &Plan) -> Vec<Child> {
    if plan.part(Part::Dashboard).is_none() {
        return Vec::new();
    }
    let written = &plan.spec.dashboard;
    let ingress = written.ingress.as_ref().map(|written| Child::of(Stage::Before, &ingress(plan, written)));
    let route = written.http_route.as_ref().filter(|_| plan.api.http_route).map(|written| http_route(plan, written));
    ingress.into_iter().chain(route).collect()
}

pub(super) fn http_route_kind() -> ApiResource {
    foreign_kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
}

fn ingress(plan: &Plan, written: &crd::Ingress) -> Ingress {
    let name = names::dashboard(&plan.name);
    let service = IngressServiceBackend {
        name: name.clone(),
        port: Some(ServiceBackendPort { name: Some(pod::HTTP.to_owned()), number: None }),
    };
    let path = if written.path == "/" { &plan.spec.dashboard.base_path } else { &written.path };
    let path = HTTPIngressPath {
        path: Some(path.clone()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend { service: Some(service), resource: None },
    };
    let tls = written
        .tls_secret_name
        .clone()
        .map(|secret| vec![IngressTLS { hosts: Some(vec![written.host.clone()]), secret_name: Some(secret) }]);
    Ingress {
        metadata: labels::meta_with(plan, name, Part::Dashboard.component(), &Texts::new(), &written.annotations),
        spec: Some(IngressSpec {
            ingress_class_name: written.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(written.host.clone()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls,
            default_backend: None,
        }),
        ..Ingress::default()
    }
}

fn http_route(plan: &Plan, written: &crd::HttpRoute) -> Child {
    let name = names::dashboard(&plan.name);
    let mut rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": plan.spec.dashboard.base_path}}],
        "backendRefs": [{"name": name, "port": plan.spec.dashboard.service.port}],
    });
    // An extended feature of the Gateway API: a gateway that lacks it refuses the route.
    if let Some(timeout) = &written.request_timeout {
        rule["timeouts"] = json!({ "request": timeout });
    }
    let spec = json!({
        "parentRefs": written.parent_refs.iter().map(parent).collect::<Vec<_>>(),
        "hostnames": written.hostnames,
        "rules": [rule],
    });
    let component = Part::Dashboard.component();
    let meta = labels::meta_with(plan, name, component, &Texts::new(), &written.annotations);
    Child::foreign(http_route_kind(), meta, &spec)
}

fn parent(gateway: &ParentRef) -> Value {
    let mut parent = json!({ "name": gateway.name });
    if let Some(namespace) = &gateway.namespace {
        parent["namespace"] = json!(namespace);
    }
    if let Some(section) = &gateway.section_name {
        parent["sectionName"] = json!(section);
    }
    parent
}
