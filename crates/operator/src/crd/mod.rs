//! The `FirehosePipeline` resource: what a person writes, what the operator answers.
//!
//! The docs of the fields are what `kubectl explain` shows, so they are written for the person who writes the resource. Times are
//! texts such as `500ms`, `30s`, `5m` or `1h`.

mod access;
mod parts;
mod pod;
mod settings;
mod sources;
mod status;
mod values;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{Auth, HttpRoute, Ingress, NetworkPolicy, ParentRef, Service, ServiceType};
pub use parts::{Autoscaling, AutoscalingMode, Dashboard, Ingest, MessageBuffer, Workers};
pub use pod::{Free, Image, Pod, PullPolicy};
pub use settings::{LogFormat, Monitor, Otlp, OtlpProtocol, Telemetry};
pub use sources::{Postgres, Redis, Relay, SecretKey, Start};
pub use status::{
    Backlog, Condition, ConditionStatus, IngestStatus, MigrationStatus, Phase, PipelineStatus, WorkersStatus,
};
pub use values::Time;

/// The API group of the resource.
pub const GROUP: &str = "penstock.dev";

/// One firehose, from a relay through Redis into PostgreSQL: one ingest, a fleet of workers, a dashboard.
///
/// Least: `spec.redis.url` or `spec.redis.urlSecret`, and `spec.postgres.url` or `spec.postgres.urlSecret`.
#[derive(CustomResource, JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "FirehosePipeline",
    plural = "firehosepipelines",
    singular = "firehosepipeline",
    shortname = "fhp",
    category = "all",
    category = "penstock",
    namespaced,
    status = "PipelineStatus",
    derive = "PartialEq",
    doc = "One firehose, from a relay through Redis into PostgreSQL: one ingest, a fleet of workers, a dashboard.",
    validation = Rule::new("size(self.metadata.name) <= 50").message("metadata.name is longer than 50 characters: what is made from it must fit into 63, so give a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must begin with a letter and hold only a-z, 0-9 and -: Services are named after it, so give another name"),
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.workers.replicas",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Relay", type_ = "boolean", json_path = ".status.ingest.connected", description = "Whether ingest reads a relay"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.ingest.lag", description = "Event time against now"),
    printcolumn(name = "Backlog", type_ = "string", json_path = ".status.workers.backlog", description = "Entries that wait for a worker"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers.summary", description = "Ready of wanted"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.workers.reason", priority = "1", description = "Why there are as many workers"),
    printcolumn(name = "Cursor", type_ = "string", json_path = ".status.ingest.cursor", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FirehosePipelineSpec {
    /// Stops everything and keeps the cursor, the stream and the tables: no part has a pod while this is true. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the keys in Redis when the resource is deleted. `Retain` (default) keeps cursor, stream and group, so that the
    /// same resource applied again goes on where it ended. `Delete` removes them, but never a stream that other groups read. PostgreSQL
    /// is never touched.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The relay that is read.
    #[serde(default)]
    pub relay: Relay,
    /// The Redis that holds the stream.
    pub redis: Redis,
    /// The PostgreSQL that is written.
    pub postgres: Postgres,
    /// The one writer of the stream.
    #[serde(default)]
    pub ingest: Ingest,
    /// The fleet that writes PostgreSQL.
    #[serde(default)]
    pub workers: Workers,
    /// The HTTP API, the live streams and the page.
    #[serde(default)]
    pub dashboard: Dashboard,
    /// The message buffer: `POST /messages` of the dashboard, written to PostgreSQL by the workers.
    #[serde(default)]
    pub message_buffer: MessageBuffer,
    /// Logs, and what Prometheus is told.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The image of every part. Default: the operator's own.
    #[serde(default)]
    pub image: Image,
    /// Who may reach the pods over the network.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

/// What happens to the keys in Redis when the resource is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are removed, but for a stream that other groups read.
    Delete,
}

/// Returns the CustomResourceDefinition.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    FirehosePipeline::crd()
}

/// Returns the CustomResourceDefinition as YAML, as `penstock crd` prints it.
#[must_use]
pub fn yaml() -> String {
    #[expect(clippy::expect_used, reason = "every key of a definition is text, which is all that YAML could refuse")]
    let text = serde_saphyr::to_string(&definition()).expect("a definition is yaml");
    format!("# Made by `make generate` from crates/operator.\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_says_what_the_definition_says_and_fits_into_an_annotation() {
        let yaml = yaml();
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(definition()).unwrap());
        // `kubectl apply` on the client's side keeps the last text in an annotation, and those end at 256 KiB.
        assert!(yaml.len() < 250_000, "{}", yaml.len());
        assert!(!yaml.contains("helm.sh/"), "what concerns the chart stands in the chart's copy only");
    }
}
