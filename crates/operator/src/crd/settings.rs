//! Logging, tracing and monitoring.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::SecretKey;
use super::values::Time;

/// Logging, tracing and monitoring.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Minimum level that is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `info,penstock_ingest=debug`.
    /// Default: `info`.
    #[schemars(length(min = 1, max = 512))]
    pub log_level: String,
    /// `json` (default), one object per line, or `pretty`, for people.
    pub log_format: LogFormat,
    /// A ServiceMonitor for the Prometheus operator. Ignored if the cluster does not have that kind.
    pub service_monitor: Monitor,
    /// A PrometheusRule with the alerts. Ignored if the cluster does not have that kind.
    pub prometheus_rule: Monitor,
    /// The OpenTelemetry collector that receives traces, and metrics if enabled.
    pub otlp: Otlp,
}

/// The OpenTelemetry collector that receives traces, and metrics if enabled.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Otlp {
    /// URL of the collector, such as `http://collector.monitoring:4317`; `https://…` for TLS. Default: none, and tracing is off.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Protocol used to reach the collector: `grpc` (default), usually on port 4317, or `http/protobuf`, usually on port 4318.
    pub protocol: OtlpProtocol,
    /// The Secret key that holds request headers for the collector, such as `authorization=Bearer%20…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_secret: Option<SecretKey>,
    /// Traces one in this many events or HTTP requests, 1 to 1000000; errors and slow ones are always traced. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: u32,
    /// Whether metrics are sent to the collector too. Default: false, Prometheus scrapes them.
    pub metrics: bool,
}

/// The protocol used to reach a collector.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtlpProtocol {
    /// gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// Protocol buffers over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// The format of log lines.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// A resource that the Prometheus operator reads.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitor {
    /// Whether to create it. Default: false.
    pub enabled: bool,
    /// How often metrics are scraped (ServiceMonitor) or rules evaluated (PrometheusRule), 1s to 1h. Default: 30s.
    pub interval: Time,
    /// Labels by which Prometheus selects the object, such as `release: prometheus`.
    pub labels: BTreeMap<String, String>,
}

// === impl Telemetry ===

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            log_format: LogFormat::Json,
            service_monitor: Monitor::default(),
            prometheus_rule: Monitor::default(),
            otlp: Otlp::default(),
        }
    }
}

// === impl Otlp ===

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, protocol: OtlpProtocol::Grpc, headers_secret: None, sample_one_in: 1000, metrics: false }
    }
}

// === impl Monitor ===

impl Default for Monitor {
    fn default() -> Self {
        Self { enabled: false, interval: "30s".into(), labels: BTreeMap::new() }
    }
}
