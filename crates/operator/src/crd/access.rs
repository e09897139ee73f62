//! How the dashboard is reached, and by whom.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::SecretKey;

/// The Service before the dashboard.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// `ClusterIP` (default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// The port of the Service, 1 to 65535. Default: 8000.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Annotations of the Service, such as those that a cloud's load balancer reads.
    pub annotations: BTreeMap<String, String>,
}

/// The type of a Service.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reached within the cluster.
    #[default]
    ClusterIP,
    /// Reached at a port of each node.
    NodePort,
    /// Reached through a load balancer of the cloud.
    LoadBalancer,
}

/// An Ingress before the dashboard's Service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// The host name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// The IngressClass. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The path, matched as a prefix. Default: `/`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 512))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.startsWith('/')", "message": "dashboard.ingress.path begins with /" }]))]
    pub path: String,
    /// The Secret with the certificate, of type kubernetes.io/tls. Absent: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// Annotations of the Ingress.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An HTTPRoute of the Gateway API before the dashboard's Service.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateways it attaches to, 1 to 8.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// The host names it answers for. Default: those of the Gateway.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub hostnames: Vec<String>,
    /// Annotations of the HTTPRoute.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A Gateway.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: the pipeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its listener. Default: all that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// Who may read and who may administrate.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// The key of a Secret that holds the token for reading. Absent: reading is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_secret: Option<SecretKey>,
    /// The key of a Secret that holds the token for administration (replay, purge, reset, reconnect). Absent: administration is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_secret: Option<SecretKey>,
}

/// Who may reach the pods over the network.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether NetworkPolicies let in only the dashboard's port and the port of metrics and probes. What the pods reach is not limited.
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
