//! The status that the operator reports.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of the pipeline.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineStatus {
    /// The generation of the resource that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary of the state, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Ready, Reconciling, RedisReachable, DatabaseReachable, Migrated, IngestConnected, WorkersAvailable, LagKnown, Progressing,
    /// DataLoss, Verified and Healed, in this order, each with a reason and an actionable message. In the phase Failed, and only then, there is Stalled
    /// too: tools that wait for the resource (Helm, Flux) read in it that they wait in vain.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// State of ingest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestStatus>,
    /// State of the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,
    /// State of the migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
}

/// Summary of the state, in one word.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waiting for something that is needed: a Secret, the tables, the pods, Redis.
    Pending,
    /// All enabled parts are running.
    Running,
    /// An enabled part is not working as it should; the conditions say which.
    Degraded,
    /// `spec.suspend` is true and nothing is running.
    Suspended,
    /// Somebody has to change something: the resource is invalid, or its Redis prefix is another pipeline's. The condition Ready says what.
    Failed,
    /// The resource is being deleted.
    Deleting,
}

/// One condition, in the form common to Kubernetes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// Reason in one word.
    pub reason: String,
    /// Reason in a sentence, and what to do.
    pub message: String,
    /// When the status last changed.
    pub last_transition_time: Time,
    /// The generation of the resource that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Whether a condition holds.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known whether it holds.
    Unknown,
}

/// State of ingest, as it reports it in Redis.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestStatus {
    /// Whether ingest is connected to a relay. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// URL of the relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Sequence number of the last event in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Age of the newest event in the stream, in seconds. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// The same in readable form, such as `3s` or `5h12m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Whether reading is paused because the stream is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// State of the workers.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// Number of worker pods.
    pub replicas: i32,
    /// Number of ready worker pods.
    pub ready: i32,
    /// Desired number of workers.
    pub desired: i32,
    /// Ready of desired, such as `3/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Entries waiting for a worker: a number, `>= N` if only a lower bound is known, or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// Entries read but not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Entries arriving per second, such as `420.5`. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_rate: Option<String>,
    /// Entries acknowledged per second. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_rate: Option<String>,
    /// Reason for the number of workers, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence, with the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the number of workers last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
}

/// Entries waiting, as text: a number, `>= N` or `unknown`.
pub type Backlog = String;

/// State of the migration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationStatus {
    /// Hash of the schema that this version of the workers needs.
    pub schema: String,
    /// Whether the tables have that schema.
    pub done: bool,
}
