//! The parts of a pipeline, each of which can be switched off so that another system's part stays in its place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{Auth, HttpRoute, Ingress, Service};
use super::pod::Pod;
use super::values::Time;

/// The one writer of the stream.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.lowWatermark < self.highWatermark", "message": "ingest.lowWatermark must be less than ingest.highWatermark: reading stops at the high one and goes on below the low one" }]))]
pub struct Ingest {
    /// Whether this pipeline has an ingest. False while another writer fills the stream. Default: true.
    pub enabled: bool,
    /// Whether a second pod stands by. Only one ever writes, whoever holds the lease in Redis; the other takes over within 10 s.
    /// Default: false.
    pub hot_standby: bool,
    /// At which share of `redis.maxStreamLength`, or of the memory of Redis, reading stops; percent, 1 to 100. Default: 80.
    #[schemars(range(min = 1, max = 100))]
    pub high_watermark: i32,
    /// Below which share reading goes on; percent, 1 to 100. Default: 50.
    #[schemars(range(min = 1, max = 100))]
    pub low_watermark: i32,
    /// How long another consumer group that shows no sign of life still holds its entries, 100ms to 30d. Default: 1h.
    pub foreign_group_hold: Time,
    /// The pods of ingest.
    pub pod: Pod,
}

/// The fleet that writes PostgreSQL.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workers {
    /// Whether this pipeline has workers. False while another system's workers read the stream. Default: true.
    pub enabled: bool,
    /// How many workers there are where `autoscaling.mode` is `fixed`; 0 to 1000. `kubectl scale` and a HorizontalPodAutoscaler write it.
    /// Default: 1.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How many workers there are otherwise.
    pub autoscaling: Autoscaling,
    /// The most entries of one batch, 1 to 10000. Default: 1000.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: i32,
    /// How long an entry waits for others of its batch, 1ms to 10s. Default: 50ms.
    pub batch_delay: Time,
    /// After how long without a sign of life an entry is taken from its worker, 50ms to 1h. Default: 60s.
    pub claim_time: Time,
    /// The pods of the workers.
    pub pod: Pod,
}

/// How many workers there are.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.minReplicas <= self.maxReplicas", "message": "workers.autoscaling.minReplicas must not be more than workers.autoscaling.maxReplicas" }]))]
pub struct Autoscaling {
    /// Who decides: `operator` (default) by backlog and measured rates; `keda` the same recommendation, carried out by a ScaledObject;
    /// `fixed` nobody: `workers.replicas` counts.
    pub mode: AutoscalingMode,
    /// The fewest workers, 0 to 1000. At 0 the fleet ends when nothing waits and starts with the first entry that does. Default: 1.
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,
    /// The most workers, 1 to 1000. Each holds up to `postgres.poolSize` connections. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// In what time a backlog should be worked off, 1s to 1d: the shorter, the more workers. Default: 30s.
    pub drain_target: Time,
    /// How busy a worker should be, percent, 10 to 100: what is left of it meets a rise. Default: 80.
    #[schemars(range(min = 10, max = 100))]
    pub target_utilization: i32,
    /// Over how long the greatest recommendation counts before workers are taken away, 0s to 1d. Default: 5m.
    pub stabilization_window: Time,
    /// The most workers that are added at once, 1 to 1000. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub max_step_up: i32,
    /// The most workers that are taken away at once, 1 to 1000. Default: 4.
    #[schemars(range(min = 1, max = 1000))]
    pub max_step_down: i32,
    /// What one worker is taken to write before it has been measured, entries a second, 1 to 1000000. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub capacity_per_worker: i32,
}

/// Who decides how many workers there are.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingMode {
    /// The operator.
    #[default]
    Operator,
    /// KEDA, by the operator's recommendation.
    Keda,
    /// Nobody: `workers.replicas` counts.
    Fixed,
}

/// The HTTP API, the live streams and the page.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dashboard {
    /// Whether this pipeline has a dashboard. Default: true.
    pub enabled: bool,
    /// How many pods serve it, 0 to 100. Default: 1.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// The Service before it.
    pub service: Service,
    /// An Ingress before the Service; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// An HTTPRoute of the Gateway API before the Service; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// Who may read and who may administrate. Without tokens reading is open and administration closed.
    pub auth: Auth,
    /// The origins whose pages may call the API from a browser, besides its own. Default: `http://localhost:3000` and
    /// `http://127.0.0.1:3000`.
    #[schemars(length(max = 32), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(o, o.matches('^https?://[^/ ,]+$'))", "message": "each of dashboard.allowedOrigins is scheme, host and port only, such as https://example.com" }]))]
    pub allowed_origins: Vec<String>,
    /// The pods of the dashboard.
    pub pod: Pod,
}

/// The message buffer.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageBuffer {
    /// Whether the dashboard takes the messages of `POST /messages` and the workers write them. Default: false.
    pub enabled: bool,
    /// The most messages of one batch, 1 to 10000. Default: 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: i32,
    /// How long a message waits for others of its batch, 1ms to 1m. Default: 2s.
    pub batch_delay: Time,
    /// Whether `POST /simulate` and `DELETE /reset` are open without the admin token, as the frontend of the message system calls
    /// them. Not together with `dashboard.auth.readTokenSecret`. Default: false.
    pub open_admin: bool,
}

// === impl Ingest ===

impl Default for Ingest {
    fn default() -> Self {
        Self {
            enabled: true,
            hot_standby: false,
            high_watermark: 80,
            low_watermark: 50,
            foreign_group_hold: "1h".into(),
            pod: Pod::default(),
        }
    }
}

// === impl Workers ===

impl Default for Workers {
    fn default() -> Self {
        Self {
            enabled: true,
            replicas: 1,
            autoscaling: Autoscaling::default(),
            batch_size: 1000,
            batch_delay: "50ms".into(),
            claim_time: "60s".into(),
            pod: Pod::default(),
        }
    }
}

// === impl Autoscaling ===

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: AutoscalingMode::Operator,
            min_replicas: 1,
            max_replicas: 10,
            drain_target: "30s".into(),
            target_utilization: 80,
            stabilization_window: "5m".into(),
            max_step_up: 10,
            max_step_down: 4,
            capacity_per_worker: 1000,
        }
    }
}

// === impl Dashboard ===

impl Default for Dashboard {
    fn default() -> Self {
        Self {
            enabled: true,
            replicas: 1,
            service: Service::default(),
            ingress: None,
            http_route: None,
            auth: Auth::default(),
            allowed_origins: ["http://localhost:3000", "http://127.0.0.1:3000"].map(str::to_owned).into(),
            pod: Pod::default(),
        }
    }
}

// === impl MessageBuffer ===

impl Default for MessageBuffer {
    fn default() -> Self {
        Self { enabled: false, batch_size: 50, batch_delay: "2s".into(), open_admin: false }
    }
}
