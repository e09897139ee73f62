//! What the operator answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator has seen and done.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineStatus {
    /// The generation of the resource that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Ready, IngestConnected, WorkersAvailable, LagKnown, Stalled and DataLoss, each with a reason a person can act on.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What ingest does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestStatus>,
    /// What the workers do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<WorkersStatus>,
    /// What became of the tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
}

/// The state in one word.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// What is needed is not there yet: the tables, the pods, Redis.
    Pending,
    /// Everything that is switched on runs.
    Running,
    /// Something that is switched on does not run as it should; the conditions say what.
    Degraded,
    /// `spec.suspend` is true and nothing runs.
    Suspended,
    /// The resource cannot be carried out as it is written; the condition Ready says why.
    Failed,
    /// The resource is being deleted.
    Deleting,
}

/// One condition, as everywhere in Kubernetes.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence, and what to do.
    pub message: String,
    /// Since when it has this status.
    pub last_transition_time: Time,
    /// The generation of the resource that it speaks of.
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
    /// That is not known.
    Unknown,
}

/// What ingest does, by its own words in Redis.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngestStatus {
    /// Whether it reads a relay. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// The relay that it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The number of the last event in the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Event time against now, seconds. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// The same for people, such as `3s` or `5h12m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
    /// Whether it has stopped reading because the stream is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// What the workers do.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersStatus {
    /// How many pods there are.
    pub replicas: i32,
    /// How many of them are ready.
    pub ready: i32,
    /// How many there should be.
    pub desired: i32,
    /// Ready of wanted, such as `3/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The label selector of the pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Entries that wait for a worker: a number, `>= N` where only a lower bound is known, or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// Entries read and not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// Entries that arrive, a second, such as `420.5`. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_rate: Option<String>,
    /// Entries that are acknowledged, a second. Absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_rate: Option<String>,
    /// Why there are as many as there are, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence, with the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When their number was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
}

/// Entries that wait, as text: a number, `>= N` or `unknown`.
pub type Backlog = String;

/// What became of the tables.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationStatus {
    /// The hash of the schema that the workers of this version need.
    pub schema: String,
    /// Whether the tables are as they need them.
    pub done: bool,
}
