//! What can go wrong around a service, rather than in it.

use std::io;

/// What a log level may be, as messages name it.
pub const LOG_LEVELS: &str = "error, warn, info, debug, trace, off, or a filter such as info,penstock_ingest=debug";

/// Names the action around logs, signals or the admin server that failed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log level or filter is not one.
    #[error("{filter:?} is no log level: {why}; use {LOG_LEVELS}")]
    ParseLogFilter {
        /// The value as it was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Logs were initialised twice in one process.
    #[error("could not install the log subscriber")]
    InstallLogs {
        /// What the subscriber said.
        source: tracing_subscriber::util::TryInitError,
    },
    /// The level was to be changed where no log was initialised.
    #[error("logging is not set up, so its level cannot be changed")]
    NoLogs,
    /// The process could not register for a signal.
    #[error("could not listen for {signal}")]
    ListenForSignal {
        /// The signal's name.
        signal: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The admin address could not be bound.
    #[error("could not bind the admin address {address}")]
    BindAdmin {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The admin server could not be reached, or did not answer as one.
    #[error("could not ask the admin server at {address}")]
    AskHealth {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The admin server answered, and did not do what was asked.
    #[error("{address} refused: {answer}")]
    Refused {
        /// The address as it was given.
        address: String,
        /// The status line and body of the answer.
        answer: String,
    },
    /// The service answered, and said that it is not well.
    #[error("{address} is not healthy: {answer}")]
    Unhealthy {
        /// The address as it was given.
        address: String,
        /// The status line and body of the answer.
        answer: String,
    },
    /// The collector's address cannot be used.
    #[error("could not use the collector {endpoint} (telemetry.otlpEndpoint)")]
    ExportEndpoint {
        /// The address as it was given.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A header for the collector is none.
    #[error("telemetry.otlpHeaders: {name} is not a valid header name, or its value is not a valid header value")]
    ExportHeader {
        /// The header's name; its value may be a secret.
        name: String,
    },
}
