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
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::TelemetryError;
use crate::metrics::Metrics;
use crate::traces::{self, ByRatio, Traces, threshold};

pub use collector::Protocol;

/// What is exported, whereto and how.
#[derive(Clone)]
pub struct ExportSettings {
    /// The collector, `http://…` or `https://…` without a slash at the end.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers of each request; never printed.
    pub headers: Vec<(String, String)>,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// How often metrics are sent; `None` for never.
    pub metrics_interval: Option<Duration>,
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

/// What goes on exporting until it is shut down.
#[derive(Debug, Default)]
pub struct Exporting {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    flush: Duration,
    /// Owns the queue's end that spans go into.
    provider: Option<SdkTracerProvider>,
}

// === impl Exporting ===

impl Exporting {
    /// Starts to export the spans and metrics of this process; once in a process, in its runtime.
    pub(crate) fn start(settings: &ExportSettings, metrics: &Metrics) -> Result<Self, TelemetryError> {
        let resource = resource(settings);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (queue, sending) = spans::queue(settings, &resource, metrics)?;
        tasks.spawn(sending.run(stop.clone()));
        if let Some(every) = settings.metrics_interval {
            let sending = metrics::Sending::new(settings, &resource, metrics)?;
            tasks.spawn(sending.run(every, stop.clone()));
        }
        let threshold = threshold(settings.ratio);
        let provider = SdkTracerProvider::builder()
            .with_sampler(ByRatio { threshold })
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        traces::install(Traces { tracer: provider.tracer("penstock"), threshold, slow: settings.slow });
        Ok(Self { tasks, stop, flush: settings.flush, provider: Some(provider) })
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
            warn!(deadline = ?self.flush, "the last traces or metrics were not sent in time, they are dropped");
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
