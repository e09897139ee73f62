//! Traces and metrics on their way to an OpenTelemetry collector.
//!
//! Whatever the collector does, the process goes on: spans wait in a queue that is bounded, what finds no place is
//! counted, and at the end a deadline cuts off what is not sent yet.

mod collector;
mod metrics;
mod outage;
mod spans;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use penstock_core::servers::{Kind, Server};
use penstock_core::units::seconds;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::TelemetryError;
use crate::metrics::Metrics;
use crate::traces::{self, ByRatio, Traces, threshold};

pub use collector::Protocol;

/// How often it is tried where only traces are sent.
const EVERY: Duration = Duration::from_secs(1);

/// What is exported, whereto and how.
#[derive(Clone)]
pub struct ExportSettings {
    /// Where traces are sent to; `None` for nowhere.
    pub traces: Option<Target>,
    /// Where metrics are sent to; `None` for nowhere.
    pub metrics: Option<Target>,
    /// How often metrics are sent.
    pub metrics_interval: Duration,
    /// How long a collector may take to answer.
    pub timeout: Duration,
    /// The share of events and requests that is traced, 0 to 1.
    pub ratio: f64,
    /// From which time on a span is slow, and exported in any case.
    pub slow: Duration,
    /// How long the last sending may take.
    pub flush: Duration,
    /// The name of the service.
    pub service: String,
    /// What else is told of the process.
    pub attributes: Vec<(String, String)>,
}

/// A collector, for one signal.
#[derive(Clone)]
pub struct Target {
    /// The address as it is told, `http://…` or `https://…`.
    pub collector: String,
    /// The same with the path that the signal is posted to where it goes over HTTP.
    pub url: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers of each request; never printed.
    pub headers: Vec<(String, String)>,
}

/// What goes on exporting until it is shut down.
#[derive(Debug, Default)]
pub struct Exporting {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    flush: Duration,
    /// Who is sent to, by address.
    servers: Vec<(String, Server)>,
    /// Owns the queue's end that spans go into.
    provider: Option<SdkTracerProvider>,
}

// === impl Exporting ===

impl Exporting {
    /// Starts to export the spans and metrics of this process; once in a process, in its runtime.
    ///
    /// What cannot be exported is left out, and the reason returned: it is no reason not to do the work.
    pub(crate) fn start(settings: &ExportSettings, metrics: &Metrics) -> (Self, Vec<TelemetryError>) {
        let mut exporting = Self { flush: settings.flush, ..Self::default() };
        let resource = resource(settings);
        let sends_metrics = settings.metrics.as_ref().map(|target| (target, settings.metrics_interval));
        let sends_traces =
            settings.traces.as_ref().map(|target| (target, sends_metrics.map_or(EVERY, |(_, every)| every)));
        let traces =
            sends_traces.map(|(target, every)| exporting.send_traces(target, every, settings, &resource, metrics));
        let measures =
            sends_metrics.map(|(target, every)| exporting.send_metrics(target, every, settings, &resource, metrics));
        let failed = [traces, measures].into_iter().flatten().filter_map(Result::err).collect();
        (exporting, failed)
    }

    fn send_traces(
        &mut self,
        target: &Target,
        every: Duration,
        settings: &ExportSettings,
        resource: &Resource,
        metrics: &Metrics,
    ) -> Result<(), TelemetryError> {
        let server = self.server(target, every);
        let (queue, sending) = spans::queue(target, settings, resource, &server, metrics)?;
        self.tasks.spawn(sending.run(self.stop.clone()));
        let threshold = threshold(settings.ratio);
        let provider = SdkTracerProvider::builder()
            .with_sampler(ByRatio { threshold })
            .with_resource(resource.clone())
            .with_span_processor(queue)
            .build();
        traces::install(Traces { tracer: provider.tracer("penstock"), threshold, slow: settings.slow });
        self.provider = Some(provider);
        Ok(())
    }

    fn send_metrics(
        &mut self,
        target: &Target,
        every: Duration,
        settings: &ExportSettings,
        resource: &Resource,
        metrics: &Metrics,
    ) -> Result<(), TelemetryError> {
        let server = self.server(target, every);
        let sending = metrics::Sending::new(target, settings, resource, &server, metrics)?;
        self.tasks.spawn(sending.run(every, self.stop.clone()));
        Ok(())
    }

    /// Returns the server of that address: whoever takes both signals is told of once.
    fn server(&mut self, target: &Target, every: Duration) -> Server {
        if let Some((_, server)) = self.servers.iter().find(|(address, _)| *address == target.collector) {
            return server.clone();
        }
        let means = "traces and metrics are dropped meanwhile";
        let server = Server::new(Kind::Collector, &target.collector, means, every);
        self.servers.push((target.collector.clone(), server.clone()));
        server
    }

    /// Returns what makes spans of the `tracing` crate those of traces; none where nothing is exported.
    pub(crate) fn tracer(&self) -> Option<opentelemetry_sdk::trace::SdkTracer> {
        self.provider.as_ref().map(|provider| provider.tracer("penstock"))
    }

    /// Sends what is left, as far as the deadline lets it.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.flush, all).await.is_err() {
            self.tasks.shutdown().await;
            if self.servers.iter().any(|(_, server)| server.is_away()) {
                return;
            }
            warn!(deadline_seconds = seconds(self.flush), "the last traces or metrics were not sent in time, dropped");
        }
    }
}

fn resource(settings: &ExportSettings) -> Resource {
    let given = settings.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let given: Vec<_> = given.collect();
    let is_given = |name: &str| settings.attributes.iter().any(|(given, _)| given == name);
    let mut resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    if !is_given("service.instance.id") {
        let host = host_name();
        resource =
            resource.with_attribute(KeyValue::new("service.instance.id", format!("{host}-{}", std::process::id())));
    }
    // Last, so that it goes before one among the attributes.
    resource.with_attributes(given).with_service_name(settings.service.clone()).build()
}

fn host_name() -> String {
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().or_else(kernel).map_or_else(|| "host".to_owned(), |name| name.trim().to_owned())
}
