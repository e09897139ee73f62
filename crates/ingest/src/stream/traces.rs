//! Traces of sampled events, from the frame to the entry in the stream, which carries the trace on.

use std::time::Instant;

use penstock_telemetry::traces::{self, KeyValue, Span, SpanBuilder, SpanContext, SpanKind, Take, wall_time};
use penstock_wire::{BadFrame, Event};

use crate::relay::decode::Decoding;
use crate::stream::error::PublishError;

/// The traces of a batch's events, each with the index of its entry.
#[derive(Debug, Default)]
pub(crate) struct BatchTraces(Vec<(usize, EventTrace)>);

/// The trace of one event.
#[derive(Debug)]
pub(crate) struct EventTrace {
    /// From the frame to the stream's answer.
    receive: Span,
    /// From sending the batch to the answer.
    publish: Span,
}

/// Where and when a frame arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    /// The relay's host.
    pub(crate) host: &'a str,
    /// When the first frame of its chunk was received.
    pub(crate) received: Instant,
    /// When its chunk was decoded.
    pub(crate) decoding: Decoding,
}

// === impl EventTrace ===

impl EventTrace {
    /// Starts the trace of an event, if it is sampled.
    pub(crate) fn of(event: &Event, arrival: Arrival<'_>) -> Option<Self> {
        traces::is_sampled(event.seq).then(|| {
            let receive = receive(arrival, event.seq);
            receive.set("penstock.event.kind", event.kind.as_str());
            receive.set("penstock.did", event.did.to_string());
            Self { receive, publish: Span::default() }
        })
    }

    /// Starts the publish span, and returns the traceparent for the entry.
    fn send(&mut self, stream: &str, entries: usize, sent: Instant) -> Option<String> {
        self.publish = self.receive.child(|| publish(stream, entries, sent));
        self.publish.traceparent()
    }

    fn end(self, result: Result<(), &PublishError>) {
        if let Err(error) = result {
            self.publish.fail(kind(error), error.to_string());
            self.receive.fail(kind(error), "not written to the stream");
        }
        self.publish.end();
        self.receive.end();
    }
}

/// Traces a frame that became a dead letter, whether it is sampled or not.
pub(crate) fn refused(bad: &BadFrame, arrival: Arrival<'_>) {
    if traces::are_on() {
        let receive = receive(arrival, bad.seq);
        receive.fail(bad.reason.name(), bad.reason.to_string());
        receive.end();
    }
}

fn receive(arrival: Arrival<'_>, seq: u64) -> Span {
    let Arrival { host, received, decoding } = arrival;
    let receive = Span::root(Take::Always, || {
        SpanBuilder::from_name("ingest.receive")
            .with_kind(SpanKind::Consumer)
            .with_start_time(wall_time(received))
            .with_attributes([
                KeyValue::new("server.address", host.to_owned()),
                KeyValue::new("penstock.seq", seq.cast_signed()),
            ])
    });
    let decode = receive.child(|| {
        SpanBuilder::from_name("ingest.decode")
            .with_start_time(wall_time(decoding.began))
            .with_attributes([KeyValue::new("penstock.chunk.frames", decoding.frames as i64)])
    });
    decode.end_at(wall_time(decoding.ended));
    receive
}

fn publish(stream: &str, entries: usize, sent: Instant) -> SpanBuilder {
    SpanBuilder::from_name("ingest.publish")
        .with_kind(SpanKind::Producer)
        .with_start_time(wall_time(sent))
        .with_attributes([
            KeyValue::new("messaging.system", "redis"),
            KeyValue::new("messaging.operation.name", "publish"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", stream.to_owned()),
            KeyValue::new("messaging.batch.message_count", entries as i64),
        ])
}

fn kind(error: &PublishError) -> &'static str {
    match error {
        PublishError::Lease => "lease",
        PublishError::Cursor { .. } => "cursor",
        PublishError::Incarnation { .. } => "incarnation",
        PublishError::Redis(_) => "redis",
        PublishError::Entry { .. } => "foreign",
        PublishError::Behind => "behind",
        PublishError::Answer(_) => "answer",
    }
}

// === impl BatchTraces ===

impl BatchTraces {
    /// Adds the trace of an entry.
    pub(crate) fn push(&mut self, place: usize, trace: EventTrace) {
        self.0.push((place, trace));
    }

    /// Starts the publish spans; returns the traceparents, each with the index of its entry.
    pub(crate) fn send(&mut self, stream: &str, entries: usize, sent: Instant) -> Vec<(usize, String)> {
        let parents = self.0.iter_mut();
        parents.filter_map(|(place, trace)| Some((*place, trace.send(stream, entries, sent)?))).collect()
    }

    /// Returns one of the traces, if there are any.
    pub(crate) fn first(&self) -> Option<SpanContext> {
        self.0.first()?.1.publish.context()
    }

    /// Ends them with the stream's answer. An error or a slow answer is traced even if no event is.
    pub(crate) fn end(self, stream: &str, entries: usize, sent: Instant, result: Result<(), &PublishError>) {
        if self.0.is_empty() && (result.is_err() || traces::is_slow(sent.elapsed())) {
            let span = Span::root(Take::Always, || publish(stream, entries, sent));
            EventTrace { receive: Span::default(), publish: span }.end(result);
        }
        for (_, trace) in self.0 {
            trace.end(result);
        }
    }
}
