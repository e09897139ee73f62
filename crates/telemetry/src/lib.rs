//! Logs, metrics and the admin server: one init, one shutdown.

pub mod admin;
mod error;
mod logs;
pub mod metrics;
pub mod shutdown;
pub mod summary;
pub mod tasks;
#[cfg(test)]
mod whole_process;

pub use error::TelemetryError;
pub use logs::{LogFormat, LogSettings, init_logs, is_log_filter, log_level, set_log_level};
