//! Histograms whose buckets point at traces.

use std::time::SystemTime;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::traces::{Span, SpanContext};

/// Counts observations into buckets; each bucket keeps the last trace that fell into it. Clones share them.
#[derive(Clone, Debug)]
pub struct Histogram(HistogramWithExemplars<[(&'static str, String); 2]>);

// === impl Histogram ===

impl Histogram {
    /// Begins with nothing observed.
    pub(super) fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self(HistogramWithExemplars::new(bounds.into_iter()))
    }

    /// Observes a value.
    pub fn observe(&self, value: f64) {
        self.0.observe(value, None, None);
    }

    /// Observes a value, and notes a trace in which it came about.
    pub fn observe_in(&self, value: f64, trace: Option<&SpanContext>) {
        let labels =
            trace.map(|trace| [("trace_id", trace.trace_id().to_string()), ("span_id", trace.span_id().to_string())]);
        let time = trace.map(|_| SystemTime::now());
        self.0.observe(value, labels, time);
    }

    /// Observes a value, and notes the trace that covers the running task, if there is one.
    pub fn observe_here(&self, value: f64) {
        self.observe_in(value, Span::current().context().as_ref());
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}
