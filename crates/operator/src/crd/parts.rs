//! The parts of a pipeline. Each can be disabled while another system does its work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::{Auth, HttpRoute, Ingress, Service};
use super::pod::Pod;
use super::values::Time;

/// Reads the relay and writes the stream: one writer per pipeline.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.lowWatermark < self.highWatermark", "message": "ingest.lowWatermark must be less than ingest.highWatermark: reading pauses at the high one and resumes below the low one" }]))]
pub struct Ingest {
    /// Whether this pipeline runs ingest. Set to false while another system writes the stream. Default: true.
    pub enabled: bool,
    /// Whether a second pod stands by. Only the holder of the lease in Redis writes; the standby takes over within 10 s. Default: false.
    pub hot_standby: bool,
    /// Share of `redis.maxStreamLength`, or of the memory of Redis, at which reading pauses; percent, 1 to 100. Default: 80.
    #[schemars(range(min = 1, max = 100))]
    pub high_watermark: i32,
    /// Share below which reading resumes; percent, 1 to 100. Default: 50.
    #[schemars(range(min = 1, max = 100))]
    pub low_watermark: i32,
    /// How long entries are kept for another consumer group that shows no activity, 100ms to 30d. Default: 1h.
    pub foreign_group_hold: Time,
    /// Settings of the ingest pods.
    pub pod: Pod,
}

/// The workers, which read the stream and write to PostgreSQL.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workers {
    /// Whether this pipeline runs workers. Set to false while another system's workers consume the stream. Default: true.
    pub enabled: bool,
    /// Number of workers if `autoscaling.mode` is `fixed`, 0 to 1000. `kubectl scale` and a HorizontalPodAutoscaler set it. Default: 1.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// How the number of workers is chosen.
    pub autoscaling: Autoscaling,
    /// Maximum entries per batch, 1 to 10000. Default: 1000.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: i32,
    /// How long to wait for a batch to fill, 1ms to 10s. Default: 50ms.
    pub batch_delay: Time,
    /// How long a worker may be silent before its entries are taken over, 50ms to 1h. Default: 60s.
    pub claim_time: Time,
    /// How long after an account's deletion its rows are hidden before they are removed, 0s to 30d: an account that comes back in time
    /// has lost nothing. Default: 24h.
    pub delete_grace: Time,
    /// Whether workers and healers record the CIDs of likes, reposts, follows and blocks too, at about 120 bytes each: then audits prove
    /// most repos by two small requests each. Default: false.
    pub record_cids: bool,
    /// Settings of the worker pods.
    pub pod: Pod,
}

/// How the number of workers is chosen.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.minReplicas <= self.maxReplicas", "message": "workers.autoscaling.minReplicas must not be greater than workers.autoscaling.maxReplicas" }]))]
pub struct Autoscaling {
    /// `operator` (default): the operator scales by backlog and measured rates. `keda`: a ScaledObject applies the same recommendation.
    /// `fixed`: `workers.replicas` applies.
    pub mode: AutoscalingMode,
    /// Minimum number of workers, 0 to 1000. At 0, workers stop when no entry is waiting and start with the next one. Default: 1.
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,
    /// Maximum number of workers, 1 to 1000. Each opens up to `postgres.poolSize` connections. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Target time to clear a backlog, 1s to 1d. A shorter time takes more workers. Default: 30s.
    pub drain_target: Time,
    /// Target utilization of a worker, percent, 10 to 100; the rest absorbs spikes. Default: 80.
    #[schemars(range(min = 10, max = 100))]
    pub target_utilization: i32,
    /// How far to look back before scaling down, 0s to 1d: the highest recommendation wins. Default: 5m.
    pub stabilization_window: Time,
    /// Maximum number of workers added at once, 1 to 1000. Default: 10.
    #[schemars(range(min = 1, max = 1000))]
    pub max_step_up: i32,
    /// Maximum number of workers removed at once, 1 to 1000. Default: 4.
    #[schemars(range(min = 1, max = 1000))]
    pub max_step_down: i32,
    /// Assumed throughput of a worker until it has been measured, entries per second, 1 to 1000000. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub capacity_per_worker: i32,
}

/// Who sets the number of workers.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingMode {
    /// The operator.
    #[default]
    Operator,
    /// KEDA, from the operator's recommendation.
    Keda,
    /// `workers.replicas` applies.
    Fixed,
}

/// The dashboard: HTTP API, live streams and web page.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dashboard {
    /// Whether this pipeline runs a dashboard. Default: true.
    pub enabled: bool,
    /// Number of dashboard pods, 0 to 100. Default: 1.
    #[schemars(range(min = 0, max = 100))]
    pub replicas: i32,
    /// The Service for the dashboard.
    pub service: Service,
    /// An Ingress for the Service. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// An HTTPRoute of the Gateway API for the Service. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// The path under which a proxy offers the dashboard, such as `/firehose`: no trailing slash, and not starting with a route of the
    /// dashboard such as `/api`. The proxy may strip it or pass it on. Default: `/`.
    #[schemars(length(min = 1, max = 200))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self == '/' || self.matches('^(/[A-Za-z0-9._~-]+)+$')", "message": "dashboard.basePath must be a path such as /firehose, without a trailing slash" }]))]
    pub base_path: String,
    /// Who may read and who may administer. Without tokens, reading is open and administration is disabled.
    pub auth: Auth,
    /// Origins allowed to call the API from a browser, besides the dashboard's own. Default: `http://localhost:3000` and
    /// `http://127.0.0.1:3000`.
    #[schemars(length(max = 32), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(o, o.matches('^https?://[^/ ,]+$'))", "message": "each of dashboard.allowedOrigins must be scheme, host and port only, such as https://example.com" }]))]
    pub allowed_origins: Vec<String>,
    /// Maximum number of open connections of a pod, 16 to 1000000. Default: 12000.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub max_connections: i32,
    /// Maximum number of open connections of a pod per peer address, 1 to 1000000; those of `trustedProxies` are exempt. Default: 6000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_peer: i32,
    /// Reverse proxies whose `X-Forwarded-For` is believed, as addresses or networks such as `10.0.0.0/8`: limits per client then count the
    /// clients behind them. An ingress controller is one. Default: none.
    #[schemars(length(max = 32), inner(length(max = 64)))]
    pub trusted_proxies: Vec<String>,
    /// Settings of the dashboard pods.
    pub pod: Pod,
}

/// The message buffer.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageBuffer {
    /// Whether the dashboard accepts `POST /messages` and the workers write the messages. Default: false.
    pub enabled: bool,
    /// Maximum messages per batch, 1 to 10000. Default: 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub batch_size: i32,
    /// How long to wait for a batch to fill, 1ms to 1m. Default: 2s.
    pub batch_delay: Time,
    /// Whether `POST /simulate` and `DELETE /reset` need no admin token, which the frontend of the message system expects. Cannot be
    /// combined with `dashboard.auth.readTokenSecret`. Default: false.
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
            delete_grace: "24h".into(),
            record_cids: false,
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
            base_path: "/".to_owned(),
            auth: Auth::default(),
            allowed_origins: ["http://localhost:3000", "http://127.0.0.1:3000"].map(str::to_owned).into(),
            max_connections: 12_000,
            max_connections_per_peer: 6_000,
            trusted_proxies: Vec::new(),
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
