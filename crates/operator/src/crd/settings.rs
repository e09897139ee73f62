//! Logs, traces, and what Prometheus is told.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sources::SecretKey;
use super::values::Time;

/// Logs, traces, and what Prometheus is told.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// The least level that is logged: `error`, `warn`, `info`, `debug`, `trace`, `off`, or a filter such as `info,penstock_ingest=debug`.
    /// Default: `info`.
    #[schemars(length(min = 1, max = 512))]
    pub log_level: String,
    /// `json` (default), one object a line, or `pretty`, for people.
    pub log_format: LogFormat,
    /// A ServiceMonitor for the Prometheus operator. Nothing happens where the cluster does not know that kind.
    pub service_monitor: Monitor,
    /// A PrometheusRule with the alerts. Nothing happens where the cluster does not know that kind.
    pub prometheus_rule: Monitor,
    /// An OpenTelemetry collector that is sent traces, and metrics where they are wanted.
    pub otlp: Otlp,
}

/// An OpenTelemetry collector that is sent traces, and metrics where they are wanted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Otlp {
    /// Its address, such as `http://collector.monitoring:4317`; `https://…` for TLS. Default: none, and then nothing is traced.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How it is spoken to: `grpc` (default), by custom on port 4317, or `http/protobuf`, on port 4318.
    pub protocol: OtlpProtocol,
    /// The Secret with headers for it, as text such as `authorization=Bearer%20…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers_secret: Option<SecretKey>,
    /// One event, or HTTP request, in so many is traced, 1 to 1000000; errors and what is slow are traced always. Default: 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: u32,
    /// Whether metrics are sent to it too. Default: false, Prometheus reads them.
    pub metrics: bool,
}

/// How a collector is spoken to.
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

/// How log lines look.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Pretty,
}

/// A resource that the Prometheus operator reads.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitor {
    /// Whether there is one. Default: false.
    pub enabled: bool,
    /// How often metrics are read (ServiceMonitor) or rules judged (PrometheusRule), 1s to 1h. Default: 30s.
    pub interval: Time,
    /// Labels by which Prometheus selects it, such as `release: prometheus`.
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
