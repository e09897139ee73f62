//! The two text formats of a scrape, and which of them a client asks for.
//!
//! <https://prometheus.io/docs/instrumenting/content_negotiation/>

use std::fmt::Write;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4: what every reader of metrics understands. Without exemplars.
    Text,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

/// A media range of an `Accept` header, as far as it means one of the formats.
struct Range {
    format: Format,
    /// Whether it names the format, in its version too; the more, the higher.
    exact: u8,
    quality: f32,
}

// === impl Format ===

impl Format {
    /// Returns the media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Chooses by an `Accept` header; text where it asks for neither, as whoever scrapes would rather read that than an error.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let ranges: Vec<Range> = header.split(',').filter_map(Range::read).collect();
        // Of two ranges for one format the more exact one counts.
        let quality = |format: Format| {
            let own = ranges.iter().filter(|range| range.format == format);
            own.max_by(|a, b| {
                (a.exact, a.quality).partial_cmp(&(b.exact, b.quality)).unwrap_or(std::cmp::Ordering::Equal)
            })
            .map_or((0.0, 0), |range| (range.quality, range.exact))
        };
        if quality(Self::OpenMetrics) > quality(Self::Text) { Self::OpenMetrics } else { Self::Text }
    }

    /// Writes in this format what is given as OpenMetrics.
    pub(super) fn of_openmetrics(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Text => prometheus_text(&text),
        }
    }
}

// === impl Range ===

impl Range {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let (mut version, mut quality) = (None, 1.0);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => version = Some(value),
                "q" => quality = value.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0),
                _ => {}
            }
        }
        let (format, exact) = match (media.as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0")) => (Format::OpenMetrics, 2),
            ("text/plain", None | Some("0.0.4")) => (Format::Text, 2),
            ("text/*", None) => (Format::Text, 1),
            ("*/*", None) => (Format::Text, 0),
            _ => return None,
        };
        Some(Self { format, exact, quality })
    }
}

/// Rewrites OpenMetrics as Prometheus text: a family is called as its samples are, an info is a gauge, and there are neither
/// units, nor exemplars, nor an end. Label values hold no ` # `, as all are our own.
fn prometheus_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    let mut help = None;
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            let sample = line.split_once(" # ").map_or(line, |(sample, _)| sample);
            let _ = writeln!(out, "{sample}");
            continue;
        };
        match comment.split_once(' ') {
            // The type says what the family is called; it follows.
            Some(("HELP", described)) => help = described.split_once(' '),
            Some(("TYPE", family)) => {
                let (name, kind) = family.split_once(' ').unwrap_or((family, "untyped"));
                let (suffix, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                // A family without samples is not written by others either.
                if lines.peek().is_some_and(|next| !next.starts_with("# ") || next.starts_with("# UNIT ")) {
                    if let Some((_, help)) = help.take() {
                        let _ = writeln!(out, "# HELP {name}{suffix} {help}");
                    }
                    let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
                }
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metric, Metrics};

    #[test]
    fn the_format_is_what_the_header_asks_for_most() {
        use Format::{OpenMetrics, Text};
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Text),
            ("application/json", Text),
            ("text/plain", Text),
            ("text/plain;version=0.0.4", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", OpenMetrics),
            // A version that is none of ours.
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;version=2.0.0,*/*;q=0.1", Text),
            // Prometheus 2.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // Prometheus 3, and with native histograms.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;\
                 q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                 application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // scrape_protocols: [PrometheusText0.0.4, OpenMetricsText1.0.0].
            ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2", Text),
            ("application/openmetrics-text;q=0,*/*;q=0.1", Text),
            ("application/openmetrics-text;q=0.2, */*;q=0.9, text/plain;q=0.1", OpenMetrics),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.5", Text),
            ("application/openmetrics-text;q=much, text/*;q=0.1", Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn text_names_a_family_as_its_samples_and_has_no_exemplars_and_no_end() {
        let metrics = Metrics::new();
        metrics.counter(Metric::EventsReceived, "commit").inc_by(3);
        let trace = crate::traces::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        metrics.histogram(Metric::PublishSeconds, None).observe_in(0.003, Some(&trace));
        let open = metrics.encode();
        assert!(
            open.contains("# TYPE penstock_ingest_events counter\n") && open.contains("# {trace_id=\"0af7651916cd43dd")
        );
        assert!(open.ends_with("# EOF\n"), "{open}");
        let text = metrics.encode_as(Format::Text);
        let help = "# HELP penstock_ingest_events_total Events received from the relay.\n";
        let family = "# TYPE penstock_ingest_events_total counter\npenstock_ingest_events_total{kind=\"commit\"} 3\n";
        assert!(text.contains(&format!("{help}{family}")), "{text}");
        assert!(text.contains("# TYPE penstock_build_info gauge\npenstock_build_info{version="), "{text}");
        assert!(
            text.contains("# TYPE penstock_ingest_batch_entries") == open.contains("penstock_ingest_batch_entries_sum")
        );
        assert!(text.contains("penstock_ingest_publish_duration_seconds_count 1\n"), "{text}");
        for absent in ["# EOF", "# UNIT", "trace_id", " # "] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("process_"));
            lines.map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(samples(&text), samples(&open));
    }
}
