//! The image, and what a person may say of the pods of a part.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, Toleration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The image of every part.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// The image with its tag or digest, such as `ghcr.io/penstock/penstock:0.1.0`. Default: the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reference: Option<String>,
    /// `IfNotPresent` (default), `Always` or `Never`.
    pub pull_policy: PullPolicy,
    /// Names of Secrets of type kubernetes.io/dockerconfigjson for a private registry.
    #[schemars(length(max = 16))]
    pub pull_secrets: Vec<String>,
}

/// When an image is pulled.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The pods of a part. Everything is as in a Pod's own spec.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Labels of the pods besides those that the operator sets, which stay as they are.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// What the container asks for and may use at most. Default: requests and limits that fit the part; see the operations guide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    pub tolerations: Vec<Toleration>,
    /// Rules of scheduling, as `kubectl explain pod.spec.affinity` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Free>,
    /// How pods spread over zones and nodes, as `kubectl explain pod.spec.topologySpreadConstraints` shows. Default: over nodes, where they
    /// can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<Free>>,
    /// The PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// A ServiceAccount of one's own. Default: one that the operator makes, which may do nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Further environment variables. A variable that names a setting goes before the pipeline's own value; see the settings page.
    pub extra_env: Vec<EnvVar>,
    /// Further volumes, as `kubectl explain pod.spec.volumes` shows; such as a certificate authority of one's own.
    pub extra_volumes: Vec<Free>,
    /// Where they are mounted, as `kubectl explain pod.spec.containers.volumeMounts` shows.
    pub extra_volume_mounts: Vec<Free>,
    /// How long a pod may take to end, seconds, 5 to 3600. Default: 45.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub termination_grace_period_seconds: Option<i64>,
}

/// Something that Kubernetes itself checks when the pods are made: its schema is not repeated here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Free(pub Value);

// === impl Free ===

impl JsonSchema for Free {
    fn schema_name() -> Cow<'static, str> {
        "Free".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}
