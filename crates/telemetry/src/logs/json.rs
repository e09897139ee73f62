//! The JSON form of a log line.

use std::fmt::{self, Debug, Write};
use std::time::Instant;

use penstock_core::causes::chain;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::limit::Limit;
use super::{Clock, is_invisible, trace_of};

/// Writes an event as one JSON object: ts, level, target, msg, its fields, its trace, and the spans it is in, outermost
/// first.
pub(super) struct Line {
    pub(super) limit: Limit,
}

/// Writes fields as `,"name":value` each, for [`Line`] to put into an object.
pub(super) struct Fields;

/// A value as JSON, in which whatever a terminal would act on is escaped: JSON itself asks that of some controls only.
struct Escaped(Value);

/// Collects one event's or span's fields.
struct Collector<'a> {
    fields: &'a mut dyn Write,
    message: Option<String>,
    result: fmt::Result,
}

// === impl Line ===

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        for left_out in self.limit.left_out(Instant::now()) {
            start(&mut out, Level::WARN, left_out.target, "suppressed repeated lines")?;
            writeln!(out, ",\"like\":{},\"left_out\":{}}}", Escaped(left_out.like.into()), left_out.lines)?;
        }
        // Lines of the `log` crate carry their real target and level in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut fields = String::new();
        let mut collector = Collector { fields: &mut fields, message: None, result: Ok(()) };
        event.record(&mut collector);
        let message = collector.message.unwrap_or_default();
        collector.result?;

        start(&mut out, *metadata.level(), metadata.target(), &message)?;
        out.write_str(&fields)?;
        if let Some((trace, span)) = trace_of(metadata.level()) {
            write!(out, ",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"")?;
        }
        let mut separator = ",\"spans\":[";
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            write!(out, "{separator}{{\"name\":{}", Escaped(span.name().into()))?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                out.write_str(&fields.fields)?;
            }
            out.write_char('}')?;
            separator = ",";
        }
        if separator == "," {
            out.write_char(']')?;
        }
        out.write_str("}\n")
    }
}

/// Writes what every line begins with.
fn start(out: &mut Writer<'_>, level: Level, target: &str, message: &str) -> fmt::Result {
    out.write_str("{\"ts\":\"")?;
    Clock.format_time(out)?;
    let (level, target, message) = (level_name(level), Escaped(target.into()), Escaped(message.into()));
    write!(out, "\",\"level\":\"{level}\",\"target\":{target},\"msg\":{message}")
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

// === impl Fields ===

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'writer>, fields: R) -> fmt::Result {
        let mut collector = Collector { fields: &mut out, message: None, result: Ok(()) };
        fields.record(&mut collector);
        collector.result
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        self.format_fields(current.as_writer(), fields)
    }
}

// === impl Escaped ===

impl fmt::Display for Escaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        // They stand in strings only; none is beyond the basic plane.
        for piece in text.split_inclusive(is_invisible) {
            match piece.char_indices().next_back().filter(|(_, last)| is_invisible(*last)) {
                Some((end, last)) => write!(f, "{}\\u{:04x}", piece.get(..end).unwrap_or_default(), u32::from(last))?,
                None => f.write_str(piece)?,
            }
        }
        Ok(())
    }
}

// === impl Collector ===

impl Collector<'_> {
    fn write(&mut self, field: &Field, value: Value) {
        let name = match field.name() {
            // Where a line of the `log` crate came from is in `target` already.
            name if name.starts_with("log.") => return,
            // Names that the line itself uses: an object must not hold one twice.
            name @ ("ts" | "level" | "message" | "target" | "msg" | "spans" | "name" | "trace_id" | "span_id") => {
                Value::from(format!("{name}_"))
            }
            name => Value::from(name.strip_prefix("r#").unwrap_or(name)),
        };
        if self.result.is_ok() {
            self.result = write!(self.fields, ",{name}:{}", Escaped(value));
        }
    }
}

impl Collector<'_> {
    /// Writes text: the line's own comes first, and another field of its name is none of the line's.
    fn write_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" && self.message.is_none() {
            self.message = Some(text);
        } else {
            self.write(field, Value::from(text));
        }
    }
}

impl Visit for Collector<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON knows no NaN and no infinity: null.
        self.write(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.write(field, Value::from(chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write_text(field, format!("{value:?}"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use opentelemetry::Context;
    use opentelemetry::trace::TraceContextExt;
    use tracing::{info, info_span, warn};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::metrics::Counter;

    /// What a relay or a record may hold, to look like a line or a part of one.
    pub(in super::super) const HOSTILE: [&str; 7] = [
        "",
        "a\n2026-01-01T00:00:00.000Z ERROR penstock: forged",
        "\",\"level\":\"error\",\"msg\":\"forged\",\"x\":\"",
        "\r\n{\"ts\":\"2026\",\"level\":\"error\"}\r\n",
        "\u{1b}[2K\u{1b}[1A\u{1b}[31mforged\u{1b}[0m",
        "\u{9b}31m\u{7}\u{8}\u{0}\u{7f}",
        "right \u{202e}to\u{2028} left\u{2066}\u{feff}",
    ];

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(in super::super) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Sink;

        fn make_writer(&'a self) -> Sink {
            self.clone()
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let line = Line { limit: Limit::new(Counter::default()) };
        let subscriber =
            tracing_subscriber::fmt().with_writer(sink.clone()).fmt_fields(Fields).event_format(line).finish();
        tracing::subscriber::with_default(subscriber, log);
        sink.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn a_line_is_one_flat_object() {
        let name = "a \"quoted\"\nname";
        let line = &lines(|| warn!(count = 3_u64, ratio = 0.5, up = true, %name, r#type = "x", "trim failed"))[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "trim failed");
        assert_eq!(line["target"], module_path!());
        assert_eq!((&line["count"], &line["ratio"], &line["up"]), (&3.into(), &0.5.into(), &true.into()));
        assert_eq!(line["type"], "x");
        let ts = line["ts"].as_str().unwrap();
        assert!(ts.len() == 24 && ts.ends_with('Z') && ts.parse::<jiff::Timestamp>().is_ok(), "{ts}");
    }

    #[test]
    fn a_line_within_a_sampled_span_tells_its_trace() {
        let trace = crate::traces::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let lines = lines(|| {
            let _covered = Context::new().with_remote_span_context(trace).attach();
            info!(span_id = "mine", "inside");
        });
        assert_eq!(lines[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((&lines[0]["span_id"], &lines[0]["span_id_"]), (&"b7ad6b7169203331".into(), &"mine".into()));
        assert_eq!(crate::logs::trace_of(&Level::INFO), None);
    }

    #[test]
    fn an_error_is_written_with_its_causes() {
        let cause = io::Error::other("connection refused");
        let error = crate::TelemetryError::BindAdmin { address: "x:1".to_owned(), source: cause };
        let line = &lines(|| info!(error = &error as &dyn std::error::Error, "no"))[0];
        assert_eq!(line["error"], "could not bind the admin address x:1: connection refused");
    }

    #[test]
    fn a_field_never_takes_the_place_of_the_lines_own() {
        let line = &lines(|| info!(level = 7, msg = "other", nan = f64::NAN, "said"))[0];
        assert_eq!((&line["level"], &line["msg"], &line["level_"]), (&"info".into(), &"said".into(), &7.into()));
        assert_eq!(line["nan"], Value::Null);
    }

    #[test]
    fn what_comes_from_outside_stands_in_its_field_whatever_it_holds() {
        for said in HOSTILE {
            let lines = lines(|| {
                let _span = info_span!("batch", did = said).entered();
                warn!(message = %said, level = %said, target = said, ts = said, timestamp = said, error = %said, "trim failed");
                warn!(said, msg = %said, "trim failed");
            });
            assert_eq!(lines.len(), 2, "{said:?}");
            for line in &lines {
                let own = ["msg", "level", "target"].map(|name| line[name].as_str().unwrap());
                assert_eq!(own, ["trim failed", "warn", module_path!()], "{said:?}");
                assert!(line["ts"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
                assert_eq!(line["spans"][0]["did"], said);
            }
            let first = ["message_", "level_", "target_", "ts_", "timestamp", "error"].map(|name| &lines[0][name]);
            assert!(first.iter().all(|value| *value == said), "{said:?}: {}", lines[0]);
            assert_eq!((&lines[1]["said"], &lines[1]["msg_"]), (&said.into(), &said.into()));
        }
    }

    #[test]
    fn a_json_line_holds_no_control_character() {
        for said in HOSTILE {
            let sink = Sink::default();
            let line = Line { limit: Limit::new(Counter::default()) };
            let subscriber =
                tracing_subscriber::fmt().with_writer(sink.clone()).fmt_fields(Fields).event_format(line).finish();
            tracing::subscriber::with_default(subscriber, || warn!(%said, "trim failed"));
            let text = sink.text();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_invisible), "{line:?}");
        }
    }

    #[test]
    fn spans_stand_beside_the_fields_with_what_was_recorded_later() {
        let lines = lines(|| {
            let span = info_span!("batch", entries = 5, rows = tracing::field::Empty);
            span.record("rows", 9);
            span.in_scope(|| info!(entries = 1, "inside"));
        });
        assert_eq!(lines[0]["entries"], 1);
        assert_eq!(lines[0]["spans"], serde_json::json!([{"name": "batch", "entries": 5, "rows": 9}]));
    }

    #[test]
    fn lines_of_the_log_crate_keep_their_target() {
        // The bridge is global: it is installed here only, and finds whatever subscriber is current.
        let _ = tracing_log::LogTracer::init();
        let line = &lines(|| log::warn!(target: "fred::pool", "lost {}", 1))[0];
        assert_eq!(
            (&line["target"], &line["msg"], &line["level"]),
            (&"fred::pool".into(), &"lost 1".into(), &"warn".into())
        );
        assert!(line.get("log.target").is_none());
    }
}
