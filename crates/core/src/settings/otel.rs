//! The variables of OpenTelemetry. Whoever runs a cluster sets them for every process in it, and for more than one kind of SDK:
//! what cannot be used here is ignored and told, and never keeps a process from starting.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use std::fmt;

use super::layers::{Layers, Origin};
use super::otlp::{OtlpEndpoint, OtlpProtocol, Pairs, Ratio, SecretPairs};
use super::value::Value;
use super::{Telemetry, environment_name};

const TRACES_EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const METRICS_EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
const DISABLED: &str = "OTEL_SDK_DISABLED";

const PROTOCOLS: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"];

/// The variables that are read as their settings are, once those before were translated.
const VARIABLES: [Variable; 12] = [
    Variable::of::<OtlpEndpoint>("OTEL_EXPORTER_OTLP_ENDPOINT"),
    Variable::of::<OtlpEndpoint>("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    Variable::of::<OtlpEndpoint>("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
    Variable::of::<OtlpProtocol>(PROTOCOLS[0]),
    Variable::of::<OtlpProtocol>(PROTOCOLS[1]),
    Variable::of::<OtlpProtocol>(PROTOCOLS[2]),
    Variable::of::<SecretPairs>("OTEL_EXPORTER_OTLP_HEADERS"),
    Variable::of::<SecretPairs>("OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    Variable::of::<SecretPairs>("OTEL_EXPORTER_OTLP_METRICS_HEADERS"),
    Variable::of::<Ratio>(RATIO),
    Variable::of::<Pairs>("OTEL_RESOURCE_ATTRIBUTES"),
    Variable::of::<String>("OTEL_SERVICE_NAME"),
];

/// Settings of ours for all signals, and the variables that set the same for one.
const FOR_ONE_SIGNAL: [(&str, [&str; 2]); 3] = [
    ("telemetry.otlpEndpoint", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]),
    ("telemetry.otlpProtocol", [PROTOCOLS[1], PROTOCOLS[2]]),
    ("telemetry.otlpHeaders", ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS"]),
];

/// A variable of OpenTelemetry that says what cannot be used, or only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredVariable {
    /// Its name.
    pub name: String,
    /// What it is set to, secrets masked.
    pub value: String,
    /// Why it is ignored, and what would be used.
    pub reason: String,
}

/// How a variable is read.
struct Variable {
    name: &'static str,
    is_usable: fn(&str) -> bool,
    mask: fn(&str) -> String,
    allowed: &'static str,
}

/// The variables as they are settled.
struct Settled {
    layers: Layers,
    ignored: Vec<IgnoredVariable>,
}

/// Translates the variables that have words of their own, and leaves out those that cannot be used.
pub(super) fn settle(layers: &Layers) -> (Layers, Vec<IgnoredVariable>) {
    let mut settled = Settled { layers: layers.clone(), ignored: Vec::new() };
    settled.disabled();
    settled.exporter(TRACES_EXPORTER, &[]);
    // Prometheus scrapes by itself.
    settled.exporter(METRICS_EXPORTER, &["prometheus"]);
    settled.protocols();
    settled.sampler();
    for variable in &VARIABLES {
        settled.check(variable);
    }
    settled.signals();
    (settled.layers, settled.ignored)
}

// === impl Variable ===

impl Variable {
    const fn of<T: Value>(name: &'static str) -> Self {
        Self { name, is_usable: |text| T::parse(text).is_some(), mask: T::mask, allowed: T::ALLOWED }
    }
}

// === impl Settled ===

impl Settled {
    fn get(&self, name: &str) -> Option<String> {
        self.layers.variable(name).map(|text| text.trim().to_owned())
    }

    fn ignore(&mut self, name: &str, value: String, reason: impl Into<String>) {
        self.ignored.push(IgnoredVariable { name: name.to_owned(), value, reason: reason.into() });
    }

    fn leave_out(&mut self, name: &str) {
        self.layers = std::mem::take(&mut self.layers).without(&[name]);
    }

    fn check(&mut self, variable: &Variable) {
        let Some(text) = self.get(variable.name) else { return };
        if !(variable.is_usable)(&text) {
            self.leave_out(variable.name);
            self.ignore(variable.name, (variable.mask)(&text), format!("use {}", variable.allowed));
        }
    }

    /// Only the word is true, in any case.
    fn disabled(&mut self) {
        let Some(text) = self.get(DISABLED) else { return };
        let lower = text.to_ascii_lowercase();
        if lower != "true" {
            self.leave_out(DISABLED);
        }
        if !["true", "false"].contains(&lower.as_str()) {
            self.ignore(DISABLED, String::mask(&text), "use true or false");
        }
    }

    /// Reads the names of exporters as whether there is ours among them.
    fn exporter(&mut self, name: &str, known: &[&str]) {
        let Some(text) = self.get(name) else { return };
        let lower = text.to_ascii_lowercase();
        let names: Vec<&str> = lower.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let is_known = |name: &str| name == "none" || known.contains(&name);
        if names.contains(&"otlp") {
            self.layers.read_as(name, "true");
        } else if !names.is_empty() && names.iter().all(|name| is_known(name)) {
            self.layers.read_as(name, "false");
        } else {
            self.leave_out(name);
        }
        if !names.iter().all(|name| *name == "otlp" || is_known(name)) {
            self.ignore(name, String::mask(&text), "no other exporter is supported: use otlp or none");
        }
    }

    /// A collector that takes JSON takes Protocol Buffers at the same address.
    fn protocols(&mut self) {
        for name in PROTOCOLS {
            if let Some(text) = self.get(name).filter(|text| text.eq_ignore_ascii_case("http/json")) {
                self.layers.read_as(name, "http/protobuf");
                self.ignore(name, text, "http/json is not supported: http/protobuf is used, at the same address");
            }
        }
    }

    /// Reads the sampler's name as the ratio that it means.
    fn sampler(&mut self) {
        let Some(text) = self.get(SAMPLER) else { return };
        match text.to_ascii_lowercase().as_str() {
            "always_on" | "parentbased_always_on" => self.layers.read_as(RATIO, "1"),
            "parentbased_always_off" => self.layers.read_as(RATIO, "0"),
            "always_off" => {
                self.layers.read_as(RATIO, "0");
                // With a ratio of 0 what fails or is slow is sent all the same; who asks for nothing means that too.
                if !self.is_set_by_us("telemetry.sampleRatio") {
                    self.layers.read_as(TRACES_EXPORTER, "false");
                }
            }
            "traceidratio" | "parentbased_traceidratio" => {
                let ratio = Variable::of::<Ratio>(RATIO);
                self.check(&ratio);
                if self.get(RATIO).is_none() {
                    self.layers.read_as(RATIO, "1");
                }
            }
            // Its argument is of another kind, and may be a number all the same.
            _ => {
                self.leave_out(RATIO);
                let use_instead = "no such sampler is supported: use traceidratio, always_on or always_off, each also with \
                    parentbased_ before it";
                self.ignore(SAMPLER, String::mask(&text), use_instead);
            }
        }
    }

    /// What is set for all signals by a name of ours goes before what OpenTelemetry's names set for one.
    fn signals(&mut self) {
        for (path, variables) in FOR_ONE_SIGNAL {
            if !self.is_set_by_us(path) {
                continue;
            }
            for name in variables {
                if let Some(variable) = VARIABLES.iter().find(|variable| variable.name == name)
                    && let Some(text) = self.get(name)
                {
                    self.leave_out(name);
                    self.ignore(name, (variable.mask)(&text), format!("{path} is set, which takes precedence"));
                }
            }
        }
    }

    /// Whether a flag or a variable of ours sets it.
    fn is_set_by_us(&self, path: &str) -> bool {
        let older_names =
            Telemetry::FIELDS.iter().find(|field| field.path == path).map_or(&[][..], |field| field.older_names);
        match self.layers.origin(path, older_names) {
            Some(Origin::Flag) => true,
            Some(Origin::Environment(name)) => name == environment_name(path),
            _ => false,
        }
    }
}

impl fmt::Display for IgnoredVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, reason } = self;
        write!(f, "{name} is ignored: {value:?}: {reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    fn load(variables: &[(&str, &str)]) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::load(&Layers::default().environment(variables)).unwrap()
    }

    fn names(settings: &Settings) -> Vec<&str> {
        settings.ignored_variables.iter().map(|ignored| ignored.name.as_str()).collect()
    }

    #[test]
    fn every_variable_of_opentelemetry_that_is_a_setting_is_settled() {
        let own = [TRACES_EXPORTER, METRICS_EXPORTER, DISABLED];
        for name in
            Telemetry::FIELDS.iter().flat_map(|field| field.older_names).filter(|name| name.starts_with("OTEL_"))
        {
            assert!(own.contains(name) || VARIABLES.iter().any(|variable| variable.name == *name), "{name}");
            let settings = load(&[(name, "\u{1}=\u{1}%")]);
            if *name != "OTEL_SERVICE_NAME" {
                assert_eq!(names(&settings), [*name]);
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_left_out_with_a_reason_and_no_secret() {
        for (name, value, shown, reason) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "collector:4317", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:hunter2@c:1", "http://u:***@c:1", "otlpHeaders"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/json", "http/protobuf is used"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "thrift", "thrift", "grpc or http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "***", "name=value"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=hunter2%0A", "***", "name=value"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "jaeger_remote", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "endpoint=http://j:1,pollingIntervalMs=5000", "endpoint=", "a fraction"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=a,flag", "team=a,flag", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "full=100%", "full=100%", "%25"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "zipkin", "otlp or none"),
            ("OTEL_METRICS_EXPORTER", "console", "console", "otlp or none"),
            ("OTEL_SDK_DISABLED", "1", "1", "true or false"),
        ] {
            let settings = load(&[(name, value)]);
            assert_eq!(names(&settings), [name]);
            let ignored = &settings.ignored_variables[0];
            assert!(ignored.value.starts_with(shown) && ignored.reason.contains(reason), "{ignored}");
            assert!(!ignored.to_string().contains("hunter2"), "{ignored}");
            let defaults = load(&[]).telemetry;
            let left = Telemetry { otlp_protocol: defaults.otlp_protocol, ..settings.telemetry };
            assert_eq!(left, defaults, "{name}");
        }
        assert_eq!(load(&[(PROTOCOLS[0], "http/json")]).telemetry.otlp_protocol, OtlpProtocol::HttpProtobuf);
    }

    #[test]
    fn the_sampler_says_what_its_argument_means() {
        let ours = 0.001;
        for (sampler, argument, ratio, traces, ignored) in [
            ("always_on", "", 1.0, true, false),
            ("parentbased_always_on", "0.5", 1.0, true, false),
            ("always_off", "", 0.0, false, false),
            ("parentbased_always_off", "", 0.0, true, false),
            ("traceidratio", "0.25", 0.25, true, false),
            ("parentbased_traceidratio", "0.25", 0.25, true, false),
            ("ParentBased_TraceIDRatio", "", 1.0, true, false),
            ("traceidratio", "lots", 1.0, true, true),
            ("", "0.25", 0.25, true, false),
            ("", "lots", ours, true, true),
            ("xray", "0.25", ours, true, true),
        ] {
            let settings = load(&[(SAMPLER, sampler), (RATIO, argument)]);
            let Telemetry { sample_ratio, otlp_traces, .. } = settings.telemetry;
            assert_eq!((sample_ratio.get(), otlp_traces), (ratio, traces), "{sampler} {argument}");
            assert_eq!(settings.ignored_variables.len(), usize::from(ignored), "{sampler} {argument}");
        }
        let ours = load(&[(SAMPLER, "always_off"), ("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "0.5")]).telemetry;
        assert_eq!((ours.sample_ratio.get(), ours.otlp_traces), (0.5, true));
    }

    #[test]
    fn exporters_are_named_and_the_word_true_disables() {
        let traces = |text| load(&[(TRACES_EXPORTER, text)]).telemetry.otlp_traces;
        assert_eq!(
            ["otlp", "none", "otlp,console", " NONE ", "zipkin", ""].map(traces),
            [true, false, true, false, true, true]
        );
        let metrics = |text| load(&[(METRICS_EXPORTER, text)]).telemetry.otlp_metrics;
        assert_eq!(
            ["otlp", "none", "prometheus", "prometheus,otlp", ""].map(metrics),
            [true, false, false, true, false]
        );
        assert_eq!(names(&load(&[(TRACES_EXPORTER, "otlp,console")])), [TRACES_EXPORTER]);
        assert!(load(&[(METRICS_EXPORTER, "prometheus")]).ignored_variables.is_empty());
        let disabled = |text| load(&[(DISABLED, text)]).telemetry.otlp_disabled;
        assert_eq!(["true", "TRUE", "false", "1", "yes", ""].map(disabled), [true, true, false, false, false, false]);
    }

    #[test]
    fn ours_is_strict_and_goes_before_what_is_set_for_one_signal() {
        let per_signal = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/here"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=hunter2"),
        ];
        let settings = load(&per_signal);
        let endpoint = settings.telemetry.otlp_traces_endpoint.unwrap();
        assert_eq!((endpoint.whole(), names(&load(&per_signal)).len()), ("http://traces:4318/here", 0));
        let ours = [&per_signal[..], &[("PENSTOCK_TELEMETRY_OTLP_ENDPOINT", "http://ours:1")]].concat();
        let settings = load(&ours);
        assert_eq!(settings.telemetry.otlp_endpoint.as_ref().map(OtlpEndpoint::as_str), Some("http://ours:1"));
        assert_eq!(settings.telemetry.otlp_traces_endpoint, None);
        assert_eq!(names(&settings), ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]);
        let layers =
            Layers::default().environment([("PENSTOCK_TELEMETRY_OTLP_ENDPOINT".to_owned(), "c:4317".to_owned())]);
        let refused = Settings::load(&layers).unwrap_err().to_string();
        assert!(refused.starts_with("telemetry.otlpEndpoint (PENSTOCK_TELEMETRY_OTLP_ENDPOINT)"), "{refused}");
    }
}
