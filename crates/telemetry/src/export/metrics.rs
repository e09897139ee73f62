//! The metrics of a process as OTLP has them: what a scrape would show at that moment, name by name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER_PERMISSIVE;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use penstock_core::servers::Server;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::collector::MetricsClient;
use super::outage::Outage;
use super::{ExportSettings, Target};
use crate::TelemetryError;
use crate::metrics::Metrics;

/// Sends the metrics of this process.
pub(super) struct Sending {
    client: MetricsClient,
    resource: ProtoResource,
    metrics: Metrics,
    /// Since when the counters count.
    started: u64,
    outage: Outage,
}

/// One line of a scrape.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
    exemplar: Option<Exemplar>,
}

// === impl Sending ===

impl Sending {
    pub(super) fn new(
        target: &Target,
        settings: &ExportSettings,
        resource: &Resource,
        server: &Server,
        metrics: &Metrics,
    ) -> Result<Self, TelemetryError> {
        let attributes = ResourceAttributesWithSchema::from(resource).attributes.0;
        let resource = ProtoResource { attributes, ..ProtoResource::default() };
        let outage = Outage::new("metrics", server.clone(), metrics);
        let started = nanos(SystemTime::now());
        Ok(Self {
            client: MetricsClient::new(target, settings.timeout)?,
            resource,
            metrics: metrics.clone(),
            started,
            outage,
        })
    }

    /// Sends at intervals until it is stopped, and once more then.
    pub(super) async fn run(mut self, every: Duration, stop: CancellationToken) {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, when there is nothing to tell yet.
        tick.tick().await;
        while !stop.is_cancelled() {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => {}
            }
            let sent = self.client.send(self.request()).await;
            self.outage.record(sent);
        }
    }

    fn request(&self) -> ExportMetricsServiceRequest {
        let scope = InstrumentationScope { name: "penstock".to_owned(), ..InstrumentationScope::default() };
        let metrics = convert(&self.metrics.encode(), self.started, nanos(SystemTime::now()));
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
        ExportMetricsServiceRequest { resource_metrics }
    }
}

/// Reads the OpenMetrics text that this process writes itself; label values there hold neither quotes nor braces.
///
/// Out of the text, because the library lets nobody else look into its histograms.
fn convert(text: &str, started: u64, now: u64) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut help = "";
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map_or("", |(_, help)| help.trim_end_matches('.'));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' ')) {
            metrics.extend(family(name, kind, help));
        } else if let (Some(metric), Some(sample)) = (metrics.last_mut(), Sample::read(line)) {
            sample.add_to(metric, started, now);
        }
    }
    metrics.retain(|metric| !is_empty(metric));
    metrics
}

fn family(name: &str, kind: &str, help: &str) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let (name, data) = match kind {
        "counter" => {
            let sum = Sum { aggregation_temporality: cumulative, is_monotonic: true, ..Sum::default() };
            (name.to_owned(), Data::Sum(sum))
        }
        "gauge" => (name.to_owned(), Data::Gauge(Gauge::default())),
        // Prometheus calls the one sample of an info so, too.
        "info" => (format!("{name}_info"), Data::Gauge(Gauge::default())),
        "histogram" => {
            let histogram = Histogram { aggregation_temporality: cumulative, ..Histogram::default() };
            (name.to_owned(), Data::Histogram(histogram))
        }
        _ => return None,
    };
    let unit = match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    };
    let (description, unit) = (help.to_owned(), unit.to_owned());
    Some(Metric { name, description, unit, data: Some(data), ..Metric::default() })
}

fn is_empty(metric: &Metric) -> bool {
    match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.is_empty(),
        Some(Data::Gauge(gauge)) => gauge.data_points.is_empty(),
        Some(Data::Histogram(histogram)) => histogram.data_points.is_empty(),
        _ => true,
    }
}

// === impl Sample ===

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (sample, exemplar) = match line.split_once(" # ") {
            Some((sample, exemplar)) => (sample, read_exemplar(exemplar)),
            None => (line, None),
        };
        let (series, value) = sample.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels.strip_suffix('}')?)),
            None => (series, Vec::new()),
        };
        Some(Self { name, labels, value: value.parse().ok()?, exemplar })
    }

    fn add_to(self, metric: &mut Metric, started: u64, now: u64) {
        match &mut metric.data {
            Some(Data::Sum(sum)) => sum.data_points.push(self.number(started, now)),
            Some(Data::Gauge(gauge)) => gauge.data_points.push(self.number(0, now)),
            Some(Data::Histogram(histogram)) => self.add_to_histogram(&mut histogram.data_points, started, now),
            _ => {}
        }
    }

    fn number(self, start_time_unix_nano: u64, time_unix_nano: u64) -> NumberDataPoint {
        let value = Some(number_data_point::Value::AsDouble(self.value));
        let attributes = attributes(&self.labels);
        NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, value, ..NumberDataPoint::default() }
    }

    /// A histogram is written as its sum, its count, and its buckets, each with what the ones before it hold.
    fn add_to_histogram(mut self, points: &mut Vec<HistogramDataPoint>, started: u64, now: u64) {
        if self.name.ends_with("_sum") {
            let (attributes, sum) = (attributes(&self.labels), Some(self.value));
            points.push(HistogramDataPoint {
                attributes,
                sum,
                start_time_unix_nano: started,
                time_unix_nano: now,
                ..HistogramDataPoint::default()
            });
            return;
        }
        let Some(point) = points.last_mut() else { return };
        let count = self.value as u64;
        if self.name.ends_with("_count") {
            point.count = count;
        } else if let Some(bound) = self.labels.iter().find(|(name, _)| *name == "le").map(|(_, bound)| *bound) {
            let below: u64 = point.bucket_counts.iter().sum();
            point.bucket_counts.push(count.saturating_sub(below));
            if bound != "+Inf" {
                point.explicit_bounds.extend(bound.parse::<f64>().ok());
            }
            point.exemplars.extend(self.exemplar.take());
        }
    }
}

fn read_labels(text: &str) -> Vec<(&str, &str)> {
    let labels = text.split(',').filter_map(|label| label.split_once('='));
    labels.map(|(name, value)| (name, value.trim_matches('"'))).collect()
}

/// Reads `{trace_id="…",span_id="…"} value seconds`.
fn read_exemplar(text: &str) -> Option<Exemplar> {
    let (labels, rest) = text.strip_prefix('{')?.split_once("} ")?;
    let (value, seconds) = rest.split_once(' ')?;
    let labels = read_labels(labels);
    let id = |name: &str| {
        labels
            .iter()
            .find(|(label, _)| *label == name)
            .and_then(|(_, id)| HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok())
    };
    Some(Exemplar {
        time_unix_nano: (seconds.parse::<f64>().ok()? * 1e9) as u64,
        trace_id: id("trace_id")?,
        span_id: id("span_id")?,
        value: Some(exemplar::Value::AsDouble(value.parse().ok()?)),
        ..Exemplar::default()
    })
}

fn attributes(labels: &[(&str, &str)]) -> Vec<KeyValue> {
    let attribute = |(name, value): &(&str, &str)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue((*value).to_owned())) }),
        ..KeyValue::default()
    };
    labels.iter().filter(|(name, _)| *name != "le").map(attribute).collect()
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metric as Name;

    #[test]
    fn every_series_of_a_scrape_is_sent_with_name_help_and_unit() {
        let metrics = Metrics::new();
        metrics.counter(Name::EventsReceived, "commit").inc_by(3);
        metrics.counter(Name::EventsReceived, "account").inc_by(2);
        metrics.gauge(Name::IngestLagSeconds, None).set(1.5);
        let trace = crate::traces::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let histogram = metrics.histogram(Name::PublishSeconds, None);
        histogram.observe_in(0.003, Some(&trace));
        histogram.observe(0.004);
        histogram.observe(70.0);
        let sent = convert(&metrics.encode(), 1, 2);
        let of = |name: &str| sent.iter().find(|metric| metric.name == name).expect(name);

        let events = of("penstock_ingest_events");
        assert_eq!(events.description, "Events received from the relay");
        let Some(Data::Sum(sum)) = &events.data else { panic!("{events:?}") };
        assert!(sum.is_monotonic && sum.data_points.len() == 2, "{sum:?}");
        let value = |point: &NumberDataPoint| point.value;
        assert_eq!(value(&sum.data_points[1]), Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!(sum.data_points[1].attributes, attributes(&[("kind", "commit")]));
        assert_eq!((sum.data_points[1].start_time_unix_nano, sum.data_points[1].time_unix_nano), (1, 2));

        assert_eq!(of("penstock_ingest_lag_seconds").unit, "s");
        let Some(Data::Histogram(publish)) = &of("penstock_ingest_publish_duration_seconds").data else { panic!() };
        let [point] = &publish.data_points[..] else { panic!("{publish:?}") };
        assert_eq!((point.count, point.bucket_counts.iter().sum()), (3, 3));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.last(), Some(&1));
        assert_eq!(point.exemplars[0].trace_id, trace.trace_id().to_bytes());
        assert_eq!(point.exemplars[0].value, Some(exemplar::Value::AsDouble(0.003)));

        assert_eq!(of("process_resident_memory_bytes").unit, "By");
        of("penstock_build_info");
        assert!(!sent.iter().any(|metric| metric.name.starts_with("penstock_worker")), "of another service");
    }
}
