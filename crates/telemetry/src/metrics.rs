//! The metrics of a process: counted through handles, read as text.

mod definitions;
mod format;
mod histogram;
mod process;
mod series;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use series::{Label, Series};

pub use definitions::{Definition, Kind, Metric};
pub use format::Format;
pub use histogram::Histogram;
pub use prometheus_client::metrics::counter::Counter;

/// A value that rises and falls; exact for integers up to 2^53.
pub type Gauge = prometheus_client::metrics::gauge::Gauge<f64, AtomicU64>;

/// Holds the metrics of one process; clones share them.
///
/// A metric appears in the text once its first handle was taken, so a service takes all its handles at start and each
/// process shows what it does and nothing else.
#[derive(Debug, Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    /// Indexed by `Metric as usize`.
    series: Vec<AnySeries>,
}

#[derive(Debug)]
enum AnySeries {
    Counter(Series<Counter>),
    Gauge(Series<Gauge>),
    Histogram(Series<Histogram>, &'static [f64]),
}

// === impl Metrics ===

impl Metrics {
    /// Registers every metric, the build's version, and the process's own figures.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let series = Metric::ALL.iter().map(|metric| AnySeries::register(metric.definition(), &mut registry)).collect();
        registry.register(
            "penstock_build",
            "The version that runs",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register_collector(Box::new(process::ProcessCollector::new()));
        Self { shared: Arc::new(Shared { registry, series }) }
    }

    /// Returns the counter of `metric`; the label's value is required exactly if its definition names a label.
    ///
    /// A definition of another kind or label is a mistake of the caller: it stops a debug build, and counts into a
    /// handle that nobody reads in a release build.
    pub fn counter(&self, metric: Metric, label: impl Into<Option<&'static str>>) -> Counter {
        match self.series(metric) {
            AnySeries::Counter(series) => series.handle(label_of(metric, label.into()), Counter::default),
            _ => {
                debug_assert!(false, "{metric:?} is not a counter");
                Counter::default()
            }
        }
    }

    /// Returns the gauge of `metric`; label and mistakes as for [`Metrics::counter`].
    pub fn gauge(&self, metric: Metric, label: impl Into<Option<&'static str>>) -> Gauge {
        match self.series(metric) {
            AnySeries::Gauge(series) => series.handle(label_of(metric, label.into()), Gauge::default),
            _ => {
                debug_assert!(false, "{metric:?} is not a gauge");
                Gauge::default()
            }
        }
    }

    /// Returns the histogram of `metric`; label and mistakes as for [`Metrics::counter`].
    pub fn histogram(&self, metric: Metric, label: impl Into<Option<&'static str>>) -> Histogram {
        match self.series(metric) {
            AnySeries::Histogram(series, bounds) => {
                series.handle(label_of(metric, label.into()), || Histogram::new(bounds.iter().copied()))
            }
            _ => {
                debug_assert!(false, "{metric:?} is not a histogram");
                Histogram::new([])
            }
        }
    }

    /// Writes every metric in use in one of the formats.
    pub fn encode_as(&self, format: Format) -> String {
        format.of_openmetrics(self.encode())
    }

    /// Writes every metric in use as OpenMetrics.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        if let Err(error) = text::encode(&mut out, &self.shared.registry) {
            // Writing to a String does not fail; a scrape of half the metrics must not look whole.
            out.clear();
            let _ = writeln!(out, "# could not encode: {error}");
        }
        out
    }

    fn series(&self, metric: Metric) -> &AnySeries {
        &self.shared.series[metric as usize]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

// === impl AnySeries ===

impl AnySeries {
    fn register(definition: &'static Definition, registry: &mut Registry) -> Self {
        // The encoder appends a counter's suffix by itself.
        let name = definition.name.strip_suffix("_total").unwrap_or(definition.name);
        match definition.kind {
            Kind::Counter => {
                let series = Series::new();
                registry.register(name, definition.help, series.clone());
                Self::Counter(series)
            }
            Kind::Gauge => {
                let series = Series::new();
                registry.register(name, definition.help, series.clone());
                Self::Gauge(series)
            }
            Kind::Histogram(bounds) => {
                let series = Series::new();
                registry.register(name, definition.help, series.clone());
                Self::Histogram(series, bounds)
            }
        }
    }
}

fn label_of(metric: Metric, value: Option<&'static str>) -> Label {
    let key = metric.definition().label;
    debug_assert_eq!(key.is_some(), value.is_some(), "{metric:?} has the label {key:?}, given {value:?}");
    key.zip(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_of_one_series_count_together() {
        let metrics = Metrics::new();
        metrics.counter(Metric::EventsReceived, "commit").inc_by(2);
        metrics.clone().counter(Metric::EventsReceived, Some("commit")).inc();
        metrics.counter(Metric::EventsReceived, "identity").inc();
        let text = metrics.encode();
        assert!(text.contains("penstock_ingest_events_total{kind=\"commit\"} 3\n"), "{text}");
        assert!(text.contains("penstock_ingest_events_total{kind=\"identity\"} 1\n"), "{text}");
    }

    #[test]
    fn series_without_a_label_have_no_braces() {
        let metrics = Metrics::new();
        metrics.counter(Metric::BytesReceived, None).inc_by(7);
        metrics.gauge(Metric::Cursor, None).set(9_007_199_254_740_991_i64 as f64);
        metrics.histogram(Metric::PublishSeconds, None).observe(0.003);
        let text = metrics.encode();
        assert!(text.contains("penstock_ingest_received_bytes_total 7\n"), "{text}");
        assert!(text.contains("penstock_ingest_cursor 9007199254740991"), "{text}");
        assert!(text.contains("penstock_ingest_publish_duration_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("penstock_ingest_publish_duration_seconds_count 1\n"), "{text}");
    }

    #[test]
    fn a_bucket_points_at_the_last_trace_in_it() {
        let metrics = Metrics::new();
        let trace = crate::traces::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let histogram = metrics.histogram(Metric::PublishSeconds, None);
        histogram.observe_in(0.003, Some(&trace));
        histogram.observe(0.003);
        let text = metrics.encode();
        let exemplar =
            "{le=\"0.005\"} 2 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\",span_id=\"b7ad6b7169203331\"} 0.003 ";
        assert!(text.contains(exemplar), "{text}");
    }

    #[test]
    fn metrics_that_nobody_took_are_not_shown() {
        let text = Metrics::new().encode();
        assert!(!text.contains("penstock_ingest"), "{text}");
        assert!(
            text.contains(concat!("penstock_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_figures_are_those_of_this_process() {
        let text = Metrics::new().encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        let now = jiff::Timestamp::now().as_second() as f64;
        let started = value("process_start_time_seconds ");
        assert!((now - 3600.0..=now + 2.0).contains(&started), "{started} against {now}");
    }

    #[test]
    #[should_panic(expected = "has the label")]
    fn a_missing_label_stops_a_debug_build() {
        Metrics::new().counter(Metric::EventsReceived, None);
    }
}
