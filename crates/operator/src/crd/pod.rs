//! The image, and the settings of the pods of a part.

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
    /// Names of Secrets of type kubernetes.io/dockerconfigjson, for a private registry.
    #[schemars(length(max = 16))]
    pub pull_secrets: Vec<String>,
}

/// When an image is pulled.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pulled if the node does not have it.
    #[default]
    IfNotPresent,
    /// Pulled at every start.
    Always,
    /// Never pulled.
    Never,
}

/// Settings of the pods of a part. Each works as in a pod spec.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Additional labels of the pods. Labels that the operator sets cannot be overridden.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// Resource requests and limits of the container. Default: sized for the part, see the operations guide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have to run the pods.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    pub tolerations: Vec<Toleration>,
    /// Scheduling rules, see `kubectl explain pod.spec.affinity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Free>,
    /// How pods spread over zones and nodes, see `kubectl explain pod.spec.topologySpreadConstraints`. Default: over nodes, if possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_spread_constraints: Option<Vec<Free>>,
    /// The PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Your own ServiceAccount. Default: one that the operator creates, with no permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Additional environment variables. A variable that names a setting overrides the pipeline's value, see the settings page.
    pub extra_env: Vec<EnvVar>,
    /// Additional volumes, for example with your own certificate authority, see `kubectl explain pod.spec.volumes`.
    pub extra_volumes: Vec<Free>,
    /// Where additional volumes are mounted, see `kubectl explain pod.spec.containers.volumeMounts`.
    pub extra_volume_mounts: Vec<Free>,
    /// The security context of the pods, see `kubectl explain pod.spec.securityContext`. Each key replaces the operator's. Default:
    /// `runAsNonRoot: true`, `seccompProfile: {type: RuntimeDefault}`; the user is the image's, or the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Free>,
    /// The security context of the container, see `kubectl explain pod.spec.containers.securityContext`. Each key replaces the
    /// operator's. Default: no privileges, no capabilities, a read-only root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_security_context: Option<Free>,
    /// How long a pod may take to terminate, in seconds, 5 to 3600. Default: 45.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub termination_grace_period_seconds: Option<i64>,
}

/// A value that Kubernetes itself validates when the pods are created: its schema is not repeated here.
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
