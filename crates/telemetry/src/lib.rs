//! Logs, traces, metrics and the admin server: one init, one shutdown.

pub mod admin;
mod error;
pub mod export;
mod logs;
pub mod metrics;
pub mod shutdown;
pub mod summary;
pub mod tasks;
pub mod traces;
#[cfg(test)]
mod whole_process;

pub use error::TelemetryError;
pub use logs::{LogFormat, LogSettings, init_logs, is_log_filter, log_level, set_log_level};

use export::{ExportSettings, Exporting};
use metrics::{Metric, Metrics};

/// Sends log lines to standard error, and traces and metrics to a collector where there is one; once in a process.
///
/// # Errors
///
/// As [`init_logs`], and [`TelemetryError::ExportEndpoint`] or [`TelemetryError::ExportHeader`] for what the collector
/// cannot be reached with.
pub fn init(
    logs: &LogSettings,
    export: Option<&ExportSettings>,
    metrics: &Metrics,
) -> Result<Exporting, TelemetryError> {
    let exporting = export.map(|settings| Exporting::start(settings, metrics)).transpose()?.unwrap_or_default();
    logs::install(logs, exporting.tracer(), metrics.counter(Metric::LogLinesSuppressed, None))?;
    Ok(exporting)
}
