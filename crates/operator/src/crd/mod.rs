//! The resources `FirehosePipeline` and `FirehoseBackfill`: what a person writes, and the status that the operator reports.
//!
//! The docs of the fields are what `kubectl explain` shows, so they are written for the person who writes the resource. Durations
//! are strings such as `500ms`, `30s`, `5m` or `1h`.

mod access;
mod backfill;
mod filter;
mod heal;
mod parts;
mod pod;
mod settings;
mod sources;
mod status;
mod values;
mod verify;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{Auth, HttpRoute, Ingress, NetworkPolicy, ParentRef, Service, ServiceType};
pub use backfill::{BackfillPhase, BackfillStatus, FirehoseBackfill, FirehoseBackfillSpec, Order, Scope};
pub use filter::Filter;
pub use heal::Heal;
pub use parts::{Autoscaling, AutoscalingMode, Dashboard, Ingest, MessageBuffer, Workers};
pub use pod::{Free, Image, Pod, PullPolicy};
pub use settings::{LogFormat, Monitor, Otlp, OtlpProtocol, Telemetry};
pub use sources::{MigrationJob, Postgres, Redis, RedisTls, Relay, SecretKey, Start};
pub use status::{
    Backlog, Condition, ConditionStatus, IngestStatus, MigrationStatus, Phase, PipelineStatus, WorkersStatus,
};
pub use values::{Memory, Time};
pub use verify::{Identity, Unresolved, Verification, Verify};

/// The observed generation of a resource that no operator has looked at; the definition gives it to each.
pub(crate) const UNSEEN: i64 = -1;

/// The API group of the resource.
pub const GROUP: &str = "penstock.dev";

/// One firehose, from a relay through Redis into PostgreSQL: one ingest, a fleet of workers, a dashboard.
///
/// Required: `spec.redis.url` or `spec.redis.urlSecret`, and `spec.postgres.url` or `spec.postgres.urlSecret`.
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
    validation = Rule::new("size(self.metadata.name) <= 50").message("metadata.name must have at most 50 characters: names derived from it must fit into 63"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must begin with a letter, contain only a-z, 0-9 and -, and not end with -: Services are named after it"),
    validation = Rule::new("self.spec.verify.signatures == 'off' || self.spec.identity.enabled").message("verify.signatures needs identity.enabled: signatures are checked against keys that have to be resolved"),
    scale(
        spec_replicas_path = ".spec.workers.replicas",
        status_replicas_path = ".status.workers.replicas",
        label_selector_path = ".status.workers.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Relay", type_ = "boolean", json_path = ".status.ingest.connected", description = "Whether ingest is connected to a relay"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.ingest.lag", description = "Age of the newest event in the stream"),
    printcolumn(name = "Backlog", type_ = "string", json_path = ".status.workers.backlog", description = "Entries waiting for a worker"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers.summary", description = "Ready of desired"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.workers.reason", priority = "1", description = "Reason for the number of workers"),
    printcolumn(name = "Cursor", type_ = "string", json_path = ".status.ingest.cursor", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct FirehosePipelineSpec {
    /// Stops every part: none has a pod while this is true. The cursor, the stream and the tables are kept. Default: false.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the keys in Redis when the resource is deleted. `Retain` (default) keeps the cursor, the stream and the group, so
    /// that re-creating the resource resumes where it stopped. `Delete` removes them, but never a stream that other groups read.
    /// PostgreSQL is never touched.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The relay to read from.
    #[serde(default)]
    pub relay: Relay,
    /// The Redis that holds the stream.
    pub redis: Redis,
    /// The PostgreSQL to write to.
    pub postgres: Postgres,
    /// Reads the relay and writes the stream: one writer per pipeline.
    #[serde(default)]
    pub ingest: Ingest,
    /// The workers, which read the stream and write to PostgreSQL.
    #[serde(default)]
    pub workers: Workers,
    /// The dashboard: HTTP API, live streams and web page.
    #[serde(default)]
    pub dashboard: Dashboard,
    /// What is verified of the commits that the relay sends.
    #[serde(default)]
    pub verify: Verify,
    /// Which records are carried. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Where accounts' keys, hosts and handles come from.
    #[serde(default)]
    pub identity: Identity,
    /// The healers, which read repos from their hosts and bring the tables to what they hold.
    #[serde(default)]
    pub heal: Heal,
    /// The message buffer: `POST /messages` of the dashboard, written to PostgreSQL by the workers.
    #[serde(default)]
    pub message_buffer: MessageBuffer,
    /// Logging, tracing and monitoring.
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
    /// The keys stay.
    #[default]
    Retain,
    /// The keys are removed, except for a stream that other groups read.
    Delete,
}

/// Returns the CustomResourceDefinition of pipelines.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    unseen(FirehosePipeline::crd())
}

/// Returns every CustomResourceDefinition: of pipelines, and of backfills.
#[must_use]
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [definition(), unseen(backfill::definition())]
}

/// Returns the CustomResourceDefinitions as YAML, one document each, as `penstock crd` prints them.
#[must_use]
pub fn yaml() -> String {
    definitions().iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// Gives each new resource the status of one that no operator has looked at: one without a status counts as done where somebody waits
/// for it, before anybody has looked at it.
fn unseen(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(status) = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status")) {
            let unseen = serde_json::json!({ "observedGeneration": UNSEEN });
            status.default = Some(JSON(unseen));
        }
    }
    definition
}

fn document(definition: &CustomResourceDefinition) -> String {
    #[expect(clippy::expect_used, reason = "every key of a definition is text, which is all that YAML could refuse")]
    let text = serde_saphyr::to_string(definition).expect("a definition is yaml");
    format!("# Made by `make generate` from crates/operator.\n{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_says_what_the_definition_says_and_fits_into_an_annotation() {
        let yaml = yaml();
        let documents: Vec<&str> = yaml.split("---\n").collect();
        assert_eq!(documents.len(), definitions().len());
        for (yaml, definition) in documents.into_iter().zip(definitions()) {
            let read: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
            assert_eq!(read, serde_json::to_value(definition).unwrap());
            // `kubectl apply` on the client's side keeps the last text in an annotation, and those end at 256 KiB.
            assert!(yaml.len() < 250_000, "{}", yaml.len());
            assert!(!yaml.contains("helm.sh/"), "what concerns the chart stands in the chart's copy only");
        }
    }
}
