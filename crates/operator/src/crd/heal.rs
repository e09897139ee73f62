//! The healers, which read repos from their hosts and bring the tables to what they hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::Pod;
use super::values::Memory;

/// The healers, which read repos from their hosts and bring the tables to what they hold. Their pods need a way out over HTTPS. While a
/// FirehoseBackfill of this pipeline is at work, healers run whatever `enabled` says.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    { "rule": "self.minReplicas <= self.maxReplicas", "message": "heal.minReplicas must not be greater than heal.maxReplicas" },
    { "rule": "self.auditRate == 0 || self.enabled", "message": "heal.auditRate needs heal.enabled: repos are compared by healers that always run" },
]))]
pub struct Heal {
    /// Whether healers always run, so that a repo that becomes desynchronized is repaired at once. If false, they run for the time of a
    /// FirehoseBackfill, and repair what else waits meanwhile. Default: false.
    pub enabled: bool,
    /// Minimum number of healers while there are any, 1 to 100. Default: 1.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Maximum number of healers, 1 to 100: one is added for each 20 × `parallelism` repos that wait. Each opens up to
    /// `postgres.poolSize` connections. Default: 4.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// Maximum number of repos that one healer reads at once, 1 to 256. Default: 8.
    #[schemars(range(min = 1, max = 256))]
    pub parallelism: i32,
    /// Maximum number of connections of one healer to one host at once, 1 to 64. Default: 2.
    #[schemars(range(min = 1, max = 64))]
    pub of_host: i32,
    /// Maximum requests per second of one healer to one host, 1 to 10000. Hosts that state limits of their own are asked within those.
    /// Default: 10.
    #[schemars(range(min = 1, max = 10_000))]
    pub host_rate: i32,
    /// Hosts that are asked for a repo where its own does not answer, in their order, such as `https://mirror.example.com`. What they send
    /// is verified all the same. Default: none.
    #[schemars(length(max = 16), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(host, host.matches('^https?://[^/@ ?#,]+$'))", "message": "each of heal.mirrors must be scheme, host and port only, such as https://mirror.example.com" }]))]
    pub mirrors: Vec<String>,
    /// How many repos are compared with their hosts per hour, 0 to 1000000, those whose last proof is oldest first; what differs is
    /// repaired. Needs `enabled`. Default: 0.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub audit_rate: i32,
    /// Memory of one healer for repos while they are read, 64Ki to 16Gi; what does not fit lies in `storage`. It is added to the memory of the
    /// healers' default resources. Default: 64Mi.
    pub memory: Memory,
    /// Maximum size of the temporary volume of one healer for repos that do not fit into `memory`. Default: 10Gi.
    pub storage: Memory,
    /// Settings of the healer pods.
    pub pod: Pod,
}

// === impl Heal ===

impl Default for Heal {
    fn default() -> Self {
        Self {
            enabled: false,
            min_replicas: 1,
            max_replicas: 4,
            parallelism: 8,
            of_host: 2,
            host_rate: 10,
            mirrors: Vec::new(),
            audit_rate: 0,
            memory: "64Mi".into(),
            storage: "10Gi".into(),
            pod: Pod::default(),
        }
    }
}
