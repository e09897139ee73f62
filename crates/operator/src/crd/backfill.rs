//! The `FirehoseBackfill` resource: repos that are read whole from their hosts and written to a pipeline's tables.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as Moment;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::Condition;
use super::values::Time;

/// Repos that are read whole from their hosts and written to a pipeline's tables, beside its live events.
///
/// Required: `spec.pipeline` and one of `spec.scope.repos`, `spec.scope.collection` and `spec.scope.all`.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "FirehoseBackfill",
    plural = "firehosebackfills",
    singular = "firehosebackfill",
    shortname = "fhb",
    category = "all",
    category = "penstock",
    namespaced,
    status = "BackfillStatus",
    derive = "PartialEq",
    doc = "Repos that are read whole from their hosts and written to a pipeline's tables, beside its live events.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name must have at most 63 characters"),
    validation = Rule::new("(has(self.spec.relay) ? self.spec.relay : '') == (has(oldSelf.spec.relay) ? oldSelf.spec.relay : '')").message("relay is immutable, because each relay lists repos in an order of its own: create another FirehoseBackfill"),
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipeline"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.progress", description = "Repos done, of those that are known so far"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed", description = "Repos given up"),
    printcolumn(name = "Records/s", type_ = "string", json_path = ".status.recordsPerSecond"),
    printcolumn(name = "Left", type_ = "string", json_path = ".status.left", description = "Estimated time to the end"),
    printcolumn(name = "Records", type_ = "integer", json_path = ".status.records", priority = "1", description = "Records written"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Progressing")].reason"#, priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FirehoseBackfillSpec {
    /// Name of the FirehosePipeline in the same namespace whose tables are written. While the backfill is at work, the pipeline runs healers
    /// (`spec.heal` there). Immutable.
    #[schemars(length(min = 1, max = 50))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self == oldSelf", "message": "pipeline is immutable: create another FirehoseBackfill" }]))]
    pub pipeline: String,
    /// Which repos are read. Immutable.
    pub scope: Scope,
    /// URL of the relay that lists the repos, for `scope.collection` and `scope.all`, such as `wss://bsky.network`. Immutable. Default:
    /// the pipeline's first relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^wss?://[A-Za-z0-9.\\\\[\\\\]:_-]+(/.*)?$')", "message": "relay must be wss://host or ws://host:port, such as wss://bsky.network" }]))]
    pub relay: Option<String>,
    /// Maximum repos begun per second by all healers together, 1 to 100000. Default: no limit but those of the hosts and of
    /// the pipeline's `heal.hostRate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub rate: Option<i32>,
    /// Maximum repos of this backfill that are read at once by all healers together, 1 to 10000. Default: `heal.parallelism` of the pipeline
    /// for each healer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub parallelism: Option<i32>,
    /// `Last` (default): repos that are desynchronized or were asked for come first. `First`: this backfill goes before every other repair.
    #[serde(default)]
    pub order: Order,
    /// Whether only what a signature proves is written: repos whose host offers them record by record only are given up then. Default: false.
    #[serde(default)]
    pub verify: bool,
    /// Pauses the backfill: repos under way are finished, and no others are begun while this is true. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// How long the resource is kept after the backfill is complete, such as `7d`; then it is deleted. The rows stay. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Time>,
}

/// Which repos are read: exactly one of these.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "(has(self.repos) ? 1 : 0) + (has(self.collection) ? 1 : 0) + (has(self.all) ? 1 : 0) == 1", "message": "set exactly one of scope.repos (DIDs), scope.collection (the NSID of a collection) and scope.all (true)" },
    { "rule": "self == oldSelf", "message": "scope is immutable, because what was done counts for it: create another FirehoseBackfill" },
]))]
pub struct Scope {
    /// DIDs, 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(did, did.matches('^did:(plc|web):[A-Za-z0-9._:%-]+$'))", "message": "each of scope.repos must be a DID, such as did:plc:z72i7hdynmk6r22z27h6tvur" }]))]
    pub repos: Option<Vec<String>>,
    /// All repos that have records of a collection, such as `app.bsky.feed.post`, as the relay lists them (`listReposByCollection`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^[a-zA-Z][a-zA-Z0-9-]*([.][a-zA-Z0-9][a-zA-Z0-9-]*)+[.][a-zA-Z][a-zA-Z0-9]*$')", "message": "scope.collection must be the NSID of a collection, such as app.bsky.feed.post" }]))]
    pub collection: Option<String>,
    /// `true`: all repos that the relay lists (`listRepos`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self", "message": "scope.all must be true, or not be set" }]))]
    pub all: Option<bool>,
}

/// When the repos of a backfill are read, beside other repairs.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// After every other repair.
    #[default]
    Last,
    /// Before every other repair.
    First,
}

/// Observed state of the backfill.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackfillStatus {
    /// The generation of the resource that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary of the state, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackfillPhase>,
    /// Complete, Progressing and Degraded, in this order, each with a reason and an actionable message. Progressing says whether repos are
    /// being read and, if not, why; Degraded whether something is wrong, such as repos that were given up. There is never Stalled: tools
    /// that wait for the resource would read in it that it has failed.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many repos there are. Absent: the relay has not listed all yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<i64>,
    /// How many repos were listed so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<i64>,
    /// How many repos were read and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<i64>,
    /// How many repos were given up, because they are gone or no host has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<i64>,
    /// How many repos are being read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<i64>,
    /// How many records were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<i64>,
    /// Repos done of those known, such as `1200/2000`; `1200/2000+` while the relay still lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Records written per second over the last minutes, such as `4310`. Absent: nothing is being read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<String>,
    /// When the first healer took it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Moment>,
    /// When it will be complete at the pace of the last minutes. Absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_end: Option<Moment>,
    /// The time until then, such as `2h10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// When it was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Moment>,
}

/// Summary of the state of a backfill, in one word.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackfillPhase {
    /// Waiting for the pipeline or for a healer.
    Pending,
    /// Repos are read.
    Running,
    /// `spec.suspend` is true, here or in the pipeline.
    Suspended,
    /// Every repo is done or was given up.
    Complete,
    /// The repos could not be listed; the condition Degraded says why.
    Failed,
    /// The resource is being deleted.
    Deleting,
}

/// Returns the CustomResourceDefinition.
pub(super) fn definition() -> CustomResourceDefinition {
    FirehoseBackfill::crd()
}
