//! Log lines on standard error, for a machine (JSON) or a person (pretty).

mod filter;
mod json;
mod limit;
mod panics;
mod pretty;

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Level, Metadata};
use tracing_log::AsLog;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::TelemetryError;
use crate::metrics::Counter;
use limit::Limit;

pub use filter::is_log_filter;
pub(crate) use filter::parse as parse_filter;

/// Says which log lines are written, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The form of a line; default [`LogFormat::Auto`].
    pub format: LogFormat,
    /// A level in any case (error, warn, info, debug, trace, off; WARNING and CRITICAL too), without lines of libraries (debug
    /// and trace: with those at warn), or a filter such as `info,penstock_ingest=debug`, taken as it is; default `info`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Pretty if standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// One flat JSON object a line: ts, level, target, msg, then the fields.
    Json,
    /// One line of text for a person, coloured on a terminal unless NO_COLOR is set.
    Pretty,
}

/// RFC 3339, UTC, milliseconds.
struct Clock;

/// The filter of this process while it runs; none before [`init_logs`].
static LEVEL: Mutex<Option<InUse>> = Mutex::new(None);

struct InUse {
    /// As it was given last.
    text: String,
    /// Puts another filter in the place of the one in use; false where there is no subscriber any more.
    replace: Box<dyn Fn(EnvFilter) -> bool + Send>,
}

/// Sends log lines to standard error, and each panic as one of them.
///
/// # Errors
///
/// [`TelemetryError::ParseLogFilter`] for a filter that is none; [`TelemetryError::InstallLogs`] when called twice.
pub fn init_logs(settings: &LogSettings) -> Result<(), TelemetryError> {
    install(settings, None, Counter::default())
}

/// Sends log lines to standard error, and spans of our code to a tracer where there is one.
pub(crate) fn install(
    settings: &LogSettings,
    tracer: Option<SdkTracer>,
    suppressed: Counter,
) -> Result<(), TelemetryError> {
    let terminal = io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
        LogFormat::Pretty => true,
    };
    let ansi = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let limit = Limit::new(suppressed);
    let (filter, handle) = reload::Layer::new(filter::parse(&settings.filter)?);
    let filter = filter.and(limit.clone());
    // A line that cannot be written is dropped: saying so on the same closed pipe would panic.
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = if pretty {
        lines
            .with_ansi(ansi)
            .fmt_fields(pretty::Fields)
            .event_format(pretty::Pretty { limit })
            .with_filter(filter)
            .boxed()
    } else {
        lines.fmt_fields(json::Fields).event_format(json::Line { limit }).with_filter(filter).boxed()
    };
    let spans = tracer.map(|tracer| {
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        layer.with_filter(filter_fn(is_for_traces).with_max_level_hint(LevelFilter::INFO))
    });
    let installed = Registry::default().with(lines).with(spans).try_init();
    installed.map_err(|source| TelemetryError::InstallLogs { source })?;
    let replace = Box::new(move |filter| handle.reload(filter).is_ok());
    *level() = Some(InUse { text: settings.filter.clone(), replace });
    panics::install();
    Ok(())
}

/// Takes the spans of our code, and what goes wrong in them; libraries, and lines of every day, stay out.
fn is_for_traces(metadata: &Metadata<'_>) -> bool {
    let level = if metadata.is_span() { Level::INFO } else { Level::WARN };
    metadata.target().starts_with("penstock") && *metadata.level() <= level
}

/// Returns the trace that covers the running task, for a line of that level: where it is taken from the start, or for a
/// warning, because of what went wrong it may be taken in the end.
fn trace_of(level: &Level) -> Option<(TraceId, SpanId)> {
    Context::map_current(|context| {
        let span = context.span();
        let context = span.span_context();
        let is_told = context.is_valid() && (context.is_sampled() || *level <= Level::WARN);
        is_told.then(|| (context.trace_id(), context.span_id()))
    })
}

/// Returns the level or filter in use, as it was given last; empty before [`init_logs`].
pub fn log_level() -> String {
    level().as_ref().map(|level| level.text.clone()).unwrap_or_default()
}

/// Puts another level or filter in the place of the one in use, until the process ends.
///
/// # Errors
///
/// [`TelemetryError::ParseLogFilter`] for a filter that is none; [`TelemetryError::NoLogs`] before [`init_logs`].
pub fn set_log_level(text: &str) -> Result<(), TelemetryError> {
    let filter = filter::parse(text)?;
    let mut level = level();
    let level = level.as_mut().ok_or(TelemetryError::NoLogs)?;
    if !(level.replace)(filter) {
        return Err(TelemetryError::NoLogs);
    }
    // Libraries that use `log` ask this first, and do no more for a line below it.
    tracing_log::log::set_max_level(LevelFilter::current().as_log());
    text.trim().clone_into(&mut level.text);
    Ok(())
}

/// Says whether a character is a control, ends a line, or turns the direction of the text around it.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn level() -> std::sync::MutexGuard<'static, Option<InUse>> {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Clock ===

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{:.3}", Timestamp::now())
    }
}
