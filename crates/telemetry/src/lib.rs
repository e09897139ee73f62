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

pub use error::{LOG_LEVELS, TelemetryError};
pub use logs::{LogFormat, LogSettings, init_logs, is_log_filter, log_level, set_log_level};

use export::{ExportSettings, Exporting};
use metrics::{Metric, Metrics};
use penstock_core::causes::chain;
use tracing::warn;

/// Sends log lines to standard error, and traces and metrics to a collector where there is one; once in a process.
///
/// What cannot be exported is logged: a service does its work without.
///
/// # Errors
///
/// As [`init_logs`].
pub fn init(
    logs: &LogSettings,
    export: Option<&ExportSettings>,
    metrics: &Metrics,
) -> Result<Exporting, TelemetryError> {
    let (exporting, failed) = export.map(|settings| Exporting::start(settings, metrics)).unwrap_or_default();
    logs::install(logs, exporting.tracer(), metrics.counter(Metric::LogLinesSuppressed, None))?;
    for error in failed {
        warn!(error = chain(&error), "traces or metrics cannot be exported");
    }
    Ok(exporting)
}
