//! Traces: what a service makes spans with. Where they go is [`crate::export`]'s business.
//!
//! While traces are off nothing here costs more than a look at one static.

mod sampling;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::context::FutureExt;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt, Tracer};
use opentelemetry::{Context, Key, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind, TraceId};
pub use sampling::Take;
pub(crate) use sampling::{ByRatio, threshold};

/// What the process makes spans with; unset while traces are off.
static TRACES: OnceLock<Traces> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Traces {
    /// Makes the spans.
    pub(crate) tracer: SdkTracer,
    /// Up to which hash an event is traced.
    pub(crate) threshold: u64,
    /// From which time on something is slow.
    pub(crate) slow: Duration,
}

/// A span under way, or nothing where traces are off; clones are the same span, which ends with the last of them.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

/// The header of that name, or the field of an entry.
struct TraceParent<'a>(&'a str);

/// Lets this process make spans, from here on.
pub(crate) fn install(traces: Traces) {
    // A second one would be of a second service in this process; they share the first.
    let _ = TRACES.set(traces);
}

/// Says whether traces are on.
pub fn are_on() -> bool {
    TRACES.get().is_some()
}

/// Says whether the event of that number is traced: every process that sees it says the same.
pub fn is_sampled(number: u64) -> bool {
    TRACES.get().is_some_and(|traces| sampling::hash(number) < traces.threshold)
}

/// Says whether what took that long is slow enough to be traced in any case; never while traces are off.
pub fn is_slow(took: Duration) -> bool {
    TRACES.get().is_some_and(|traces| took >= traces.slow)
}

/// Reads a W3C `traceparent`; `None` unless it is one, and sampled.
pub fn parse(traceparent: &[u8]) -> Option<SpanContext> {
    let text = str::from_utf8(traceparent).ok()?;
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(text));
    let parent = context.span().span_context().clone();
    (parent.is_valid() && parent.is_sampled()).then_some(parent)
}

/// Puts a span of the `tracing` crate, not entered yet, under the span of another process that a W3C `traceparent` names,
/// sampled or not; leaves it alone where the text is none.
pub fn adopt(span: &tracing::Span, traceparent: &[u8]) {
    let Ok(text) = str::from_utf8(traceparent) else { return };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(text));
    if context.span().span_context().is_valid() {
        // Refused where nothing makes traces of such spans.
        let _ = span.set_parent(context);
    }
}

/// Links a span of the `tracing` crate, not entered yet, to the span that a W3C `traceparent` names: the trace stays its own,
/// and so does whether it is taken.
pub fn link(span: &tracing::Span, traceparent: &[u8]) {
    let Ok(text) = str::from_utf8(traceparent) else { return };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(text));
    let caller = context.span().span_context().clone();
    if caller.is_valid() {
        span.add_link(caller);
    }
}

/// Tells what the clock on the wall showed at an instant.
pub fn wall_time(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

// === impl Span ===

impl Span {
    /// Begins a trace; nothing where traces are off, and then `builder` is not called.
    pub fn root(take: Take, builder: impl FnOnce() -> SpanBuilder) -> Self {
        Self::begin(|| Context::new().with_value(take), builder)
    }

    /// Begins a span in the trace of a span that may be another process's.
    pub fn under(parent: &SpanContext, builder: impl FnOnce() -> SpanBuilder) -> Self {
        Self::begin(|| Context::new().with_remote_span_context(parent.clone()), builder)
    }

    /// Begins a span within this one; nothing where this one is.
    pub fn child(&self, builder: impl FnOnce() -> SpanBuilder) -> Self {
        match &self.0 {
            Some(parent) => Self::begin(|| parent.clone(), builder),
            None => Self(None),
        }
    }

    /// Returns the span that [covers](Self::cover) the running task; nothing where none does.
    pub fn current() -> Self {
        if !are_on() {
            return Self(None);
        }
        let context = Context::current();
        let is_covered = context.span().span_context().is_valid();
        Self(is_covered.then_some(context))
    }

    /// Runs a task as part of the span: its log lines tell the trace, and [`Self::current`] finds the span.
    pub async fn cover<T>(&self, task: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(context) => task.with_context(context.clone()).await,
            None => task.await,
        }
    }

    /// Returns what names the span in other traces and processes, if it is taken from the start.
    pub fn context(&self) -> Option<SpanContext> {
        let context = self.0.as_ref()?.span().span_context().clone();
        context.is_sampled().then_some(context)
    }

    /// Returns the W3C `traceparent` that names the span, if it is taken from the start.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.context()?;
        Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
    }

    /// Adds an attribute.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed, with a word of a fixed set and, if it helps, what was said; so it is taken in any case.
    pub fn fail(&self, kind: &'static str, said: impl Into<Cow<'static, str>>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", kind));
            context.span().set_status(Status::error(said));
        }
    }

    /// Ends the span; later calls change nothing.
    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }

    /// Ends the span at a time that may be in the past.
    pub fn end_at(&self, time: SystemTime) {
        if let Some(context) = &self.0 {
            context.span().end_with_timestamp(time);
        }
    }

    fn begin(parent: impl FnOnce() -> Context, builder: impl FnOnce() -> SpanBuilder) -> Self {
        let Some(traces) = TRACES.get() else { return Self(None) };
        let parent = parent();
        let span = traces.tracer.build_with_context(builder(), &parent);
        Self(Some(parent.with_span(span)))
    }
}

// === impl TraceParent ===

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sampled_traceparent_is_one() {
        let parent = parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span_id().to_string(), "b7ad6b7169203331");
        for other in [
            "",
            "x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "\u{ff}",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn while_traces_are_off_nothing_is_made() {
        assert!(!are_on() && !is_sampled(1) && !is_slow(Duration::MAX));
        let span = Span::root(Take::Always, || unreachable!("no span is built"));
        assert_eq!((span.traceparent(), span.child(SpanBuilder::default).context()), (None, None));
    }
}
