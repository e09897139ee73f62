//! Log, traces and metrics, as the settings say.

use penstock_core::settings::{
    IgnoredVariable, LogFormat, Origin, OtlpEndpoint, OtlpProtocol, SecretPairs, SettingError, Settings, SettingsError,
    Telemetry, UnknownVariable,
};
use penstock_telemetry::export::{ExportSettings, Exporting, Protocol, Target};
use penstock_telemetry::metrics::Metrics;
use penstock_telemetry::{LOG_LEVELS, LogSettings, TelemetryError};
use tracing::warn;

use crate::error::Error;

/// Starts the log of a command that is done soon.
pub(super) fn init_logs(settings: &Settings) -> Result<(), Error> {
    penstock_telemetry::init_logs(&logs(settings)).map_err(|error| refused(settings, error))?;
    warn_of_variables(settings);
    Ok(())
}

/// Starts the log of a service, and sends its traces and metrics to the collector where there is one.
pub(super) fn init(settings: &Settings, service: &str, metrics: &Metrics) -> Result<Exporting, Error> {
    let started = penstock_telemetry::init(&logs(settings), export(settings, service).as_ref(), metrics);
    let exporting = started.map_err(|error| refused(settings, error))?;
    warn_of_variables(settings);
    Ok(exporting)
}

/// Tells of each variable that was meant to be a setting and is none, and of those of OpenTelemetry that cannot be used.
fn warn_of_variables(settings: &Settings) {
    for UnknownVariable { name, nearest } in &settings.unknown_variables {
        warn!(variable = name, did_you_mean = nearest, "a variable is not a setting and has no effect");
    }
    for parameter in settings.postgres.url.iter().flat_map(|url| &url.parts().ignored) {
        warn!(parameter, "a parameter of the database's URL is not known and has no effect");
    }
    for IgnoredVariable { name, value, reason } in &settings.ignored_variables {
        warn!(variable = name, value, reason, "a variable of OpenTelemetry cannot be used as it is");
    }
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
    let signal =
        |on: bool, own, protocol, headers, path| on.then(|| target(settings, own, protocol, headers, path)).flatten();
    let traces = signal(
        settings.otlp_traces,
        &settings.otlp_traces_endpoint,
        settings.otlp_traces_protocol,
        &settings.otlp_traces_headers,
        "/v1/traces",
    );
    let metrics = signal(
        settings.otlp_metrics,
        &settings.otlp_metrics_endpoint,
        settings.otlp_metrics_protocol,
        &settings.otlp_metrics_headers,
        "/v1/metrics",
    );
    if settings.otlp_disabled || (traces.is_none() && metrics.is_none()) {
        return None;
    }
    Some(ExportSettings {
        traces,
        metrics,
        metrics_interval: settings.otlp_metrics_interval,
        timeout: settings.otlp_timeout,
        ratio: settings.sample_ratio.get(),
        slow: settings.slow_span,
        flush: settings.flush_timeout,
        service: service_name(settings, service),
        attributes: settings.resource_attributes.get().to_vec(),
    })
}

/// Returns where one signal goes: what is set for it alone goes before what is set for all, each by itself.
fn target(
    settings: &Telemetry,
    own: &Option<OtlpEndpoint>,
    protocol: Option<OtlpProtocol>,
    headers: &Option<SecretPairs>,
    path: &str,
) -> Option<Target> {
    let protocol = match protocol.unwrap_or(settings.otlp_protocol) {
        OtlpProtocol::Grpc => Protocol::Grpc,
        OtlpProtocol::HttpProtobuf => Protocol::HttpProtobuf,
    };
    let collector = own.as_ref().or(settings.otlp_endpoint.as_ref())?.as_str().to_owned();
    let url = match (own, protocol) {
        (Some(own), _) => own.whole().to_owned(),
        (None, Protocol::Grpc) => collector.clone(),
        (None, Protocol::HttpProtobuf) => format!("{collector}{path}"),
    };
    let headers = headers.as_ref().or(settings.otlp_headers.as_ref());
    Some(Target { collector, url, protocol, headers: headers.map(|all| all.expose().to_vec()).unwrap_or_default() })
}

/// Returns what the service is called: as its own setting says, else as the attribute `service.name` says.
fn service_name(settings: &Telemetry, service: &str) -> String {
    let attribute = || {
        let named = settings.resource_attributes.get().iter().rev().find(|(name, _)| name == "service.name");
        named.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    settings.service_name.clone().or_else(attribute).unwrap_or_else(|| format!("penstock-{service}"))
}

fn refused(settings: &Settings, error: TelemetryError) -> Error {
    match error {
        TelemetryError::ParseLogFilter { why, .. } => Error::Settings(SettingsError(vec![SettingError {
            field: "telemetry.logLevel".to_owned(),
            origin: Origin::Environment("LOG_LEVEL".to_owned()),
            value: settings.telemetry.log_level.clone(),
            allowed: format!("{LOG_LEVELS} ({why})"),
        }])),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Layers;

    use super::*;

    fn exported(variables: &[(&str, &str)]) -> Option<ExportSettings> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        export(&Settings::load(&Layers::default().environment(variables)).unwrap(), "worker")
    }

    #[test]
    fn each_signal_goes_where_the_variables_of_opentelemetry_say() {
        const ALL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/");
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        const TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318");
        const METRICS: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4318/in");
        const ON: (&str, &str) = ("OTEL_METRICS_EXPORTER", "otlp");
        const OFF: (&str, &str) = ("OTEL_TRACES_EXPORTER", "none");
        const DISABLED: (&str, &str) = ("OTEL_SDK_DISABLED", "true");
        let urls = |variables: &[(&str, &str)]| {
            let settings = exported(variables);
            let url = |target: Option<Target>| target.map(|target| target.url);
            settings.map_or((None, None), |settings| (url(settings.traces), url(settings.metrics)))
        };
        let owned = |text: &str| Some(text.to_owned());
        for (variables, traces, metrics) in [
            (vec![], None, None),
            (vec![ALL], owned("http://all:4318/base"), None),
            (vec![ALL, HTTP], owned("http://all:4318/base/v1/traces"), None),
            (vec![ALL, HTTP, ON], owned("http://all:4318/base/v1/traces"), owned("http://all:4318/base/v1/metrics")),
            (vec![ALL, HTTP, ON, TRACES], owned("http://traces:4318/"), owned("http://all:4318/base/v1/metrics")),
            (vec![HTTP, ON, TRACES], owned("http://traces:4318/"), None),
            (vec![HTTP, ON, METRICS], None, owned("http://metrics:4318/in")),
            (vec![HTTP, METRICS], None, None),
            (vec![ALL, HTTP, ON, OFF], None, owned("http://all:4318/base/v1/metrics")),
            (vec![ALL, OFF], None, None),
            (vec![ALL, ON, DISABLED], None, None),
        ] {
            assert_eq!(urls(&variables), (traces, metrics), "{variables:?}");
        }
        let mixed = exported(&[
            ALL,
            ON,
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=all"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=traces"),
        ]);
        let mixed = mixed.unwrap();
        let (traces, metrics) = (mixed.traces.unwrap(), mixed.metrics.unwrap());
        assert_eq!((traces.protocol, metrics.protocol), (Protocol::HttpProtobuf, Protocol::Grpc));
        assert_eq!(traces.headers, [("b".to_owned(), "traces".to_owned())]);
        assert_eq!(metrics.headers, [("a".to_owned(), "all".to_owned())]);
    }

    #[test]
    fn a_service_is_called_by_its_variable_its_attribute_or_its_command() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        const ATTRIBUTES: (&str, &str) = ("OTEL_RESOURCE_ATTRIBUTES", "team=a,service.name=by-attribute");
        let name = |further: &[(&str, &str)]| exported(&[&[ENDPOINT], further].concat()).unwrap().service;
        assert_eq!(name(&[]), "penstock-worker");
        assert_eq!(name(&[ATTRIBUTES]), "by-attribute");
        assert_eq!(name(&[ATTRIBUTES, ("OTEL_SERVICE_NAME", "by-variable")]), "by-variable");
        assert_eq!(name(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=")]), "penstock-worker");
    }
}
