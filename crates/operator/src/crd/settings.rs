//! Logs, and what Prometheus is told.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Time;

/// Logs, and what Prometheus is told.
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
        }
    }
}

// === impl Monitor ===

impl Default for Monitor {
    fn default() -> Self {
        Self { enabled: false, interval: "30s".into(), labels: BTreeMap::new() }
    }
}
