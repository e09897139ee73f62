//! The form of a log line for a person.

use std::fmt;
use std::time::Instant;

use tracing::{Event, Level, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::limit::Limit;
use super::{Clock, trace_of};

/// Writes an event as time, level, target, the spans it is in, message, fields, and its trace.
pub(super) struct Pretty {
    pub(super) limit: Limit,
}

/// Text that a terminal shows in a colour, or dim.
struct Painted<'a> {
    /// The number of the ANSI sequence; none elsewhere.
    code: Option<u8>,
    text: &'a str,
}

// === impl Pretty ===

impl<S, N> FormatEvent<S, N> for Pretty
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        for left_out in self.limit.left_out(Instant::now()) {
            start(&mut out, Level::WARN, left_out.target)?;
            writeln!(out, "left out {} repeated lines: {}", left_out.lines, left_out.like)?;
        }
        // Lines of the `log` crate carry their real target and level in fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        start(&mut out, *metadata.level(), metadata.target())?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            out.write_str(span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(out, "{{{fields}}}")?;
            }
            out.write_str(": ")?;
        }
        context.format_fields(out.by_ref(), event)?;
        if let Some((trace, span)) = trace_of(metadata.level()) {
            let ids = format!(" trace_id={trace} span_id={span}");
            write!(out, "{}", dim(&out, &ids))?;
        }
        writeln!(out)
    }
}

/// Writes what every line begins with.
fn start(out: &mut Writer<'_>, level: Level, target: &str) -> fmt::Result {
    let (name, colour) = match level {
        Level::ERROR => ("ERROR", 31),
        Level::WARN => (" WARN", 33),
        Level::INFO => (" INFO", 32),
        Level::DEBUG => ("DEBUG", 34),
        Level::TRACE => ("TRACE", 35),
    };
    let mut time = String::new();
    Clock.format_time(&mut Writer::new(&mut time))?;
    let level = Painted { code: out.has_ansi_escapes().then_some(colour), text: name };
    let target = format!("{target}:");
    write!(out, "{} {level} {} ", dim(out, &time), dim(out, &target))
}

fn dim<'a>(out: &Writer<'_>, text: &'a str) -> Painted<'a> {
    Painted { code: out.has_ansi_escapes().then_some(2), text }
}

// === impl Painted ===

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "\x1b[{code}m{}\x1b[0m", self.text),
            None => f.write_str(self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info_span, warn};

    use super::super::json::tests::Sink;
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn a_line_tells_time_level_target_spans_message_and_fields() {
        let sink = Sink::default();
        let pretty = Pretty { limit: Limit::new(Counter::default()) };
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(sink.clone()).event_format(pretty).finish();
        tracing::subscriber::with_default(subscriber, || {
            info_span!("batch", entries = 5).in_scope(|| warn!(count = 3, "trim failed"));
        });
        let text = sink.text();
        let (time, line) = text.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{text}");
        assert_eq!(line, format!(" WARN {}: batch{{entries=5}}: trim failed count=3\n", module_path!()));
    }
}
