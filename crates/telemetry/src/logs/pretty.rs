//! The form of a log line for a person.

use std::error::Error;
use std::fmt::{self, Debug, Write};
use std::time::Instant;

use penstock_core::causes::chain;
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

/// Writes an event as time, level, target, the spans it is in, message, fields, and its trace.
pub(super) struct Pretty {
    pub(super) limit: Limit,
}

/// Writes the text, then fields as ` name=value` each. Whatever they hold, it stays one line and paints nothing.
pub(super) struct Fields;

/// Writes one event's or span's fields.
struct Writing<'a, 'w> {
    out: &'a mut Writer<'w>,
    is_first: bool,
    has_message: bool,
    result: fmt::Result,
}

/// Text whose control characters are escaped, and those that turn its direction; in quotes by `Debug`.
struct Visible<T>(T);

/// Takes what is written into it to pieces for [`Visible`].
struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

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
            writeln!(out, "suppressed repeated lines like={:?} left_out={}", Visible(&left_out.like), left_out.lines)?;
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

// === impl Fields ===

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'writer>, fields: R) -> fmt::Result {
        let mut writing = Writing { out: &mut out, is_first: true, has_message: false, result: Ok(()) };
        fields.record(&mut writing);
        writing.result
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let is_first = current.fields.is_empty();
        let mut out = current.as_writer();
        let mut writing = Writing { out: &mut out, is_first, has_message: false, result: Ok(()) };
        fields.record(&mut writing);
        writing.result
    }
}

// === impl Writing ===

impl Writing<'_, '_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let name = field.name();
        // Where a line of the `log` crate came from is in its target already.
        if self.result.is_err() || name.starts_with("log.") {
            return;
        }
        let separator = if std::mem::take(&mut self.is_first) { "" } else { " " };
        // The line's own text comes first; another field of its name is none of the line's.
        self.result = if name == "message" && !std::mem::replace(&mut self.has_message, true) {
            write!(self.out, "{separator}{value}")
        } else {
            let name = format!("{}=", name.strip_prefix("r#").unwrap_or(name));
            write!(self.out, "{separator}{}{value}", dim(self.out, &name))
        };
    }
}

impl Visit for Writing<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.write(field, format_args!("{}", Visible(value)));
        } else {
            self.write(field, format_args!("{:?}", Visible(value)));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.write(field, format_args!("{:?}", Visible(chain(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, format_args!("{}", Visible(format_args!("{value:?}"))));
    }
}

// === impl Visible ===

impl<T: fmt::Display> fmt::Display for Visible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

impl<T: AsRef<str>> Debug for Visible<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // This escapes control and format characters too.
        write!(f, "{:?}", self.0.as_ref())
    }
}

// === impl Escaping ===

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(is_invisible) {
            match piece.char_indices().next_back().filter(|(_, last)| is_invisible(*last)) {
                Some((end, last)) => write!(self.0, "{}{}", piece.get(..end).unwrap_or_default(), last.escape_debug())?,
                None => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
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

    use super::super::json::tests::{HOSTILE, Sink};
    use super::*;
    use crate::metrics::Counter;

    fn written(ansi: bool, log: impl FnOnce()) -> String {
        let sink = Sink::default();
        let pretty = Pretty { limit: Limit::new(Counter::default()) };
        let builder = tracing_subscriber::fmt().with_ansi(ansi).with_writer(sink.clone());
        let subscriber = builder.fmt_fields(Fields).event_format(pretty).finish();
        tracing::subscriber::with_default(subscriber, log);
        sink.text()
    }

    #[test]
    fn a_line_tells_time_level_target_spans_message_and_fields() {
        let error =
            crate::TelemetryError::BindAdmin { address: "x:1".to_owned(), source: std::io::Error::other("in use") };
        let error = &error as &dyn Error;
        let text = written(false, || {
            let span = info_span!("batch", entries = 5, rows = tracing::field::Empty);
            span.record("rows", 9);
            span.in_scope(|| warn!(count = 3, did = "did:plc:a", id = %"1-0", error, "trim failed"));
        });
        let (time, line) = text.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{text}");
        let fields = r#"count=3 did="did:plc:a" id=1-0 error="could not bind the admin address x:1: in use""#;
        let expected = format!(" WARN {}: batch{{entries=5 rows=9}}: trim failed {fields}\n", module_path!());
        assert_eq!(line, expected);
    }

    #[test]
    fn what_comes_from_outside_stays_in_its_line_and_paints_nothing() {
        for said in HOSTILE {
            let log = || {
                let _span = info_span!("batch", did = %said).entered();
                warn!(message = %said, count = 3, %said, quoted = said, error = ?said, "trim failed");
            };
            let text = written(false, log);
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_invisible), "{line:?}");
            let (before, _) = line.split_once(": trim failed message=").unwrap();
            let (_, begin) = before.split_once(' ').unwrap();
            assert!(begin.starts_with(&format!(" WARN {}: batch{{did=", module_path!())), "{line}");
            // With colours, the only escapes are ours.
            let painted = written(true, log);
            let ours = painted.replace("\u{1b}[33m", "").replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
            let (_, ours) = ours.trim_end_matches('\n').split_once(' ').unwrap();
            assert_eq!(ours, line.split_once(' ').unwrap().1);
        }
    }
}
