//! Finished spans: into a bounded queue, and from there in batches to the collector.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::Status;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use penstock_core::servers::Server;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::collector::span_exporter;
use super::outage::{NotSent, Outage};
use super::{ExportSettings, Target};
use crate::TelemetryError;
use crate::metrics::{Counter, Metric, Metrics};

/// How many finished spans may wait; about 2 MB.
const QUEUE: usize = 4096;

/// How many spans are sent together at most.
const BATCH: usize = 512;

/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// Takes spans as they end; never waits.
///
/// In the place of the library's batch processor, which does not tell how many spans it drops, and decides by the sampled
/// flag alone.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    slow: Duration,
    dropped: Counter,
}

/// Sends what the queue holds.
#[derive(Debug)]
pub(super) struct Sending {
    spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    exported: Counter,
    outage: Outage,
}

/// Makes a queue and what empties it.
pub(super) fn queue(
    target: &Target,
    settings: &ExportSettings,
    resource: &Resource,
    server: &Server,
    metrics: &Metrics,
) -> Result<(Queue, Sending), TelemetryError> {
    let mut exporter = span_exporter(target, settings.timeout)?;
    exporter.set_resource(resource);
    let (sender, spans) = mpsc::channel(QUEUE);
    let exported = metrics.counter(Metric::SpansExported, None);
    let dropped = metrics.counter(Metric::SpansDropped, None);
    let queue = Queue { spans: sender, slow: settings.slow, dropped };
    Ok((queue, Sending { spans, exporter, exported, outage: Outage::new("traces", server.clone(), metrics) }))
}

// === impl Queue ===

impl Queue {
    fn is_notable(&self, span: &SpanData) -> bool {
        let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
        matches!(span.status, Status::Error { .. }) || took >= self.slow
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let is_taken = span.span_context.is_sampled() || self.is_notable(&span);
        if is_taken && self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

// === impl Sending ===

impl Sending {
    /// Sends until it is stopped, and then what is left.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.spans.is_closed() => self.spans.close(),
                received = self.spans.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.fill(&mut batch, &stop).await;
                    self.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).await;
                }
            }
        }
    }

    /// Waits a little for more spans.
    async fn fill(&mut self, batch: &mut Vec<SpanData>, stop: &CancellationToken) {
        let until = Instant::now() + DELAY;
        while batch.len() < BATCH {
            tokio::select! {
                biased;
                received = self.spans.recv_many(batch, BATCH - batch.len()) => if received == 0 { return },
                () = stop.cancelled() => return,
                () = sleep_until(until) => return,
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        if sent.is_ok() {
            self.exported.inc_by(spans);
        }
        self.outage.record(sent.map_err(|error| NotSent::in_library(&error)));
    }
}
