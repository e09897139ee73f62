//! The traces of batches: each in a trace of its own, and in those of the sampled entries that are in it.

use std::sync::Arc;

use penstock_core::keys::Keys;
use penstock_core::stream::StreamId;
use penstock_telemetry::traces::{self, KeyValue, Link, Span, SpanBuilder, SpanContext, SpanKind, Take};

use super::gather::Batch;
use crate::events::waited;

tokio::task_local! {
    /// The traces of the batch that the running task settles.
    static BATCH: Arc<BatchTraces>;
}

/// The traces of one batch; nothing where traces are off.
#[derive(Debug)]
pub(crate) struct BatchTraces {
    batch: Span,
    /// The spans of this batch in the traces of its entries.
    entries: Vec<(StreamId, Span)>,
}

/// A step of settling a batch, in all its traces.
#[derive(Debug, Default)]
pub(crate) struct StepSpans(Vec<Span>);

// === impl BatchTraces ===

impl BatchTraces {
    /// Begins them with a batch that is full; `None` where traces are off.
    pub(crate) fn begin(batch: &Batch, keys: &Keys) -> Option<Arc<Self>> {
        if !traces::are_on() {
            return None;
        }
        let unreadable = batch.unreadable.iter().map(|(delivery, _)| delivery);
        let sampled = |delivery: &crate::consumer::Delivery| {
            Some((delivery.raw.id, traces::parse(delivery.raw.traceparent.as_deref()?)?))
        };
        let sampled: Vec<(StreamId, SpanContext)> =
            batch.origins.iter().chain(unreadable).filter_map(sampled).collect();
        let links = sampled.iter().map(|(_, entry)| Link::with_context(entry.clone())).collect();
        let span = Span::root(Take::Linked, || {
            let count = KeyValue::new("messaging.batch.message_count", batch.len() as i64);
            message("worker.batch", SpanKind::Consumer, keys, "process", "process").with_links(links).attribute(count)
        });
        let link = span.context();
        let entries = sampled.into_iter().map(|(id, parent)| {
            let links = link.iter().cloned().map(Link::with_context).collect();
            let span = Span::under(&parent, || {
                message("worker.process", SpanKind::Consumer, keys, "process", "process")
                    .with_links(links)
                    .attribute(KeyValue::new("messaging.message.id", id.to_string()))
                    .attribute(KeyValue::new("penstock.stream.wait_seconds", waited(id)))
            });
            (id, span)
        });
        let entries = entries.collect();
        Some(Arc::new(Self { batch: span, entries }))
    }

    /// Settles the batch, so that what happens meanwhile is recorded in its traces.
    pub(crate) async fn cover<T>(self: &Arc<Self>, task: impl Future<Output = T>) -> T {
        BATCH.scope(Arc::clone(self), self.batch.cover(task)).await
    }

    /// Returns the batch's own trace, if it is taken from the start.
    pub(crate) fn context(&self) -> Option<SpanContext> {
        self.batch.context()
    }

    fn step(&self, builder: impl Fn() -> SpanBuilder) -> StepSpans {
        let entries = self.entries.iter().map(|(_, entry)| entry);
        StepSpans(std::iter::once(&self.batch).chain(entries).map(|span| span.child(&builder)).collect())
    }
}

/// Begins the span of a transaction.
pub(crate) fn transaction(entries: usize) -> StepSpans {
    step(|| {
        SpanBuilder::from_name("worker.transaction").with_kind(SpanKind::Client).with_attributes([
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", "apply"),
            KeyValue::new("db.operation.batch.size", entries as i64),
        ])
    })
}

/// Begins the span of an acknowledgement.
pub(crate) fn acknowledgement(keys: &Keys) -> StepSpans {
    step(|| message("worker.ack", SpanKind::Client, keys, "ack", "settle"))
}

/// Records that the batch met a problem.
pub(crate) fn trouble(kind: &'static str, said: &str) {
    let _ = BATCH.try_with(|traces| traces.batch.fail(kind, said.to_owned()));
}

/// Records that an entry of the batch became a dead letter.
pub(crate) fn buried(id: StreamId, error: &str) {
    trouble("dead_letter", error);
    let _ = BATCH.try_with(|traces| {
        for (_, span) in traces.entries.iter().filter(|(entry, _)| *entry == id) {
            span.fail("dead_letter", error.to_owned());
        }
    });
}

fn step(builder: impl Fn() -> SpanBuilder) -> StepSpans {
    BATCH.try_with(|traces| traces.step(builder)).unwrap_or_default()
}

/// A span of messaging, as the semantic conventions describe it.
fn message(
    name: &'static str,
    kind: SpanKind,
    keys: &Keys,
    operation: &'static str,
    operation_type: &'static str,
) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind).with_attributes([
        KeyValue::new("messaging.system", "redis"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", operation_type),
        KeyValue::new("messaging.destination.name", keys.stream().to_owned()),
        KeyValue::new("messaging.consumer.group.name", keys.group().to_owned()),
    ])
}

// === impl StepSpans ===

impl StepSpans {
    /// Ends it well, with what it did.
    pub(crate) fn done(self, key: &'static str, count: u64) {
        for span in &self.0 {
            span.set(key, count.cast_signed());
            span.end();
        }
    }

    /// Ends it as failed.
    pub(crate) fn failed(self, kind: &'static str, said: &str) {
        for span in &self.0 {
            span.fail(kind, said.to_owned());
            span.end();
        }
        if !self.0.is_empty() {
            trouble(kind, said);
        }
    }
}

/// Adds to what a builder already has.
trait Attribute {
    fn attribute(self, attribute: KeyValue) -> Self;
}

impl Attribute for SpanBuilder {
    fn attribute(mut self, attribute: KeyValue) -> Self {
        self.attributes.get_or_insert_default().push(attribute);
        self
    }
}
