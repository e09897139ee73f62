//! Log, traces and metrics, as the settings say.

use penstock_core::settings::{LogFormat, Origin, OtlpProtocol, SettingError, Settings, SettingsError};
use penstock_telemetry::export::{ExportSettings, Exporting, Protocol};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::{LogSettings, TelemetryError};

use crate::error::Error;

/// Starts the log of a command that is done soon.
pub(super) fn init_logs(settings: &Settings) -> Result<(), Error> {
    penstock_telemetry::init_logs(&logs(settings)).map_err(|error| refused(settings, error))
}

/// Starts the log of a service, and sends its traces and metrics to the collector where there is one.
pub(super) fn init(settings: &Settings, service: &str, metrics: &Metrics) -> Result<Exporting, Error> {
    let started = penstock_telemetry::init(&logs(settings), export(settings, service).as_ref(), metrics);
    started.map_err(|error| refused(settings, error))
}

fn logs(settings: &Settings) -> LogSettings {
    let format = match settings.telemetry.log_format {
        LogFormat::Pretty => penstock_telemetry::LogFormat::Pretty,
        LogFormat::Json => penstock_telemetry::LogFormat::Json,
        LogFormat::Auto => penstock_telemetry::LogFormat::Auto,
    };
    LogSettings { format, filter: settings.telemetry.log_level.clone() }
}

fn export(settings: &Settings, service: &str) -> Option<ExportSettings> {
    let settings = &settings.telemetry;
    Some(ExportSettings {
        endpoint: settings.otlp_endpoint.as_ref()?.as_str().to_owned(),
        protocol: match settings.otlp_protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::HttpProtobuf => Protocol::HttpProtobuf,
        },
        headers: settings.otlp_headers.as_ref().map(|headers| headers.expose().to_vec()).unwrap_or_default(),
        timeout: settings.otlp_timeout,
        metrics_interval: settings.otlp_metrics.then_some(settings.otlp_metrics_interval),
        ratio: settings.sample_ratio.get(),
        slow: settings.slow_span,
        flush: settings.flush_timeout,
        service: settings.service_name.clone().unwrap_or_else(|| format!("penstock-{service}")),
        attributes: settings.resource_attributes.get().to_vec(),
    })
}

fn refused(settings: &Settings, error: TelemetryError) -> Error {
    match error {
        TelemetryError::ParseLogFilter { .. } => Error::Settings(SettingsError(vec![SettingError {
            field: "telemetry.logLevel".to_owned(),
            origin: Origin::Environment("LOG_LEVEL".to_owned()),
            value: settings.telemetry.log_level.clone(),
            allowed: "error, warn, info, debug, trace, off, or a filter such as info,penstock_ingest=debug".to_owned(),
        }])),
        error => error.into(),
    }
}
