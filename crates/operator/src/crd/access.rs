//! How the dashboard is reached, and by whom.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::SecretKey;

/// The Service for the dashboard.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// `ClusterIP` (default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// The port of the Service, 1 to 65535. Default: 8000.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Annotations of the Service, for example for a cloud load balancer.
    pub annotations: BTreeMap<String, String>,
}

/// The type of a Service.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reachable from within the cluster.
    #[default]
    ClusterIP,
    /// Reachable at a port of every node.
    NodePort,
    /// Reachable through a cloud load balancer.
    LoadBalancer,
}

/// An Ingress for the dashboard's Service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The host name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// The IngressClass. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The path, matched as a prefix. `/`, the default, stands for `dashboard.basePath`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 512))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.startsWith('/')", "message": "dashboard.ingress.path must begin with /" }]))]
    pub path: String,
    /// The Secret with the certificate, of type kubernetes.io/tls. Default: none, and no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// Annotations of the Ingress.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An HTTPRoute of the Gateway API for the dashboard's Service. It matches `dashboard.basePath` as a prefix.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateways that the route attaches to, 1 to 8.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// The host names that the route matches. Default: those of the Gateway.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<String>,
    /// `timeouts.request` of the route; `0s` means none. Default: not set, since some gateways refuse routes that set it. Live streams
    /// stay open for hours: where the gateway limits requests by itself, set this to `0s`, or the streams reconnect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')", "message": "dashboard.httpRoute.requestTimeout must be a duration of the Gateway API, such as 0s or 1h30m" }]))]
    pub request_timeout: Option<String>,
    /// Annotations of the HTTPRoute.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A Gateway that the route attaches to.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The namespace of the Gateway. Default: the pipeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The listener of the Gateway. Default: all that match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Who may read and who may administer.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// The Secret key that holds the read token. Default: none, and reading is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_secret: Option<SecretKey>,
    /// The Secret key that holds the admin token (replay, purge, reset, reconnect). Default: none, and administration is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_secret: Option<SecretKey>,
}

/// Who may reach the pods over the network.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether NetworkPolicies admit traffic only to the dashboard's port and to the port of metrics and probes. Egress is not limited.
    /// Default: true.
    pub enabled: bool,
}

// === impl Service ===

impl Default for Service {
    fn default() -> Self {
        Self { kind: ServiceType::ClusterIP, port: 8000, annotations: BTreeMap::new() }
    }
}

// === impl NetworkPolicy ===

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true }
    }
}

fn root() -> String {
    "/".to_owned()
}
