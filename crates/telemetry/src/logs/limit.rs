//! Warnings and errors that repeat: a few of each are written, the others counted and told of later.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

use crate::metrics::Counter;

/// How many lines of one place in the code are written in one period.
const LINES: u32 = 10;

/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets at most ten warnings or errors of one place in the code through in ten seconds; clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    shared: Arc<Shared>,
}

/// What was left out of one period.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The target of the lines.
    pub(super) target: &'static str,
    /// The message of the first of them.
    pub(super) like: String,
    /// How many there were.
    pub(super) lines: u64,
}

#[derive(Debug)]
struct Shared {
    windows: Mutex<HashMap<Identifier, Window>>,
    /// Something was left out and not told yet.
    owes: AtomicBool,
    suppressed: Counter,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    left_out: Option<LeftOut>,
}

#[derive(Default)]
struct Message(String);

// === impl Limit ===

impl Limit {
    /// Begins with nothing written; what is left out is counted.
    pub(super) fn new(suppressed: Counter) -> Self {
        Self { shared: Arc::new(Shared { windows: Mutex::default(), owes: AtomicBool::new(false), suppressed }) }
    }

    /// Says whether a line is to be written.
    fn admit(&self, metadata: &'static Metadata<'static>, now: Instant, message: impl FnOnce() -> String) -> bool {
        let mut windows = self.windows();
        let new = || Window { began: now, written: 0, left_out: None };
        let window = windows.entry(metadata.callsite()).or_insert_with(new);
        if now.saturating_duration_since(window.began) >= PERIOD {
            // The line that is written tells first what is owed, and with that the count begins anew.
            if window.left_out.is_some() {
                return true;
            }
            *window = new();
        }
        if window.written < LINES {
            window.written += 1;
            return true;
        }
        let target = metadata.target();
        window.left_out.get_or_insert_with(|| LeftOut { target, like: message(), lines: 0 }).lines += 1;
        self.shared.owes.store(true, Ordering::Relaxed);
        self.shared.suppressed.inc();
        false
    }

    /// Returns what was left out of the periods that are over.
    pub(super) fn left_out(&self, now: Instant) -> Vec<LeftOut> {
        if !self.shared.owes.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut windows = self.windows();
        let over = windows.values_mut().filter(|window| now.saturating_duration_since(window.began) >= PERIOD);
        let told = over.filter_map(|window| {
            let left_out = window.left_out.take()?;
            (window.began, window.written) = (now, 0);
            Some(left_out)
        });
        let told = told.collect();
        self.shared.owes.store(windows.values().any(|window| window.left_out.is_some()), Ordering::Relaxed);
        told
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.shared.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for Limit {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    /// Bounds no level, and says so: of two filters side by side the library takes no hint where one of them gives none. Then every
    /// line of a library, at whatever level, goes all the way here before it is dropped.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let message = || {
            let mut message = Message::default();
            event.record(&mut message);
            message.0
        };
        *event.metadata().level() > Level::WARN || self.admit(event.metadata(), Instant::now(), message)
    }
}

// === impl Message ===

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::callsite::Callsite;

    use super::*;

    fn place() -> &'static Metadata<'static> {
        static __CALLSITE: tracing::callsite::DefaultCallsite = tracing::callsite2! {
            name: "place", kind: tracing::metadata::Kind::EVENT, target: "a::b", level: Level::WARN, fields: message
        };
        __CALLSITE.metadata()
    }

    #[test]
    fn what_repeats_is_left_out_counted_and_told_when_the_period_is_over() {
        let suppressed = Counter::default();
        let limit = Limit::new(suppressed.clone());
        let start = Instant::now();
        let said = (0..25).filter(|_| limit.admit(place(), start, || "bad frame".to_owned())).count();
        assert_eq!((said, suppressed.get()), (10, 15));
        assert_eq!(limit.left_out(start + PERIOD / 2), []);
        let told = limit.left_out(start + PERIOD);
        assert_eq!(told, [LeftOut { target: "a::b", like: "bad frame".to_owned(), lines: 15 }]);
        assert_eq!(limit.left_out(start + PERIOD), [], "told once");
        assert!(limit.admit(place(), start + PERIOD, String::new), "a new period begins");
    }

    #[test]
    fn a_place_that_alone_has_something_to_say_is_heard_again() {
        let limit = Limit::new(Counter::default());
        let start = Instant::now();
        let said = (0..25).filter(|_| limit.admit(place(), start, String::new)).count();
        assert_eq!(said, 10);
        // Nobody else wrote a line meanwhile, so nothing was told.
        assert!(limit.admit(place(), start + PERIOD, String::new));
        assert_eq!(limit.left_out(start + PERIOD)[0].lines, 15);
        let said = (0..25).filter(|_| limit.admit(place(), start + PERIOD, String::new)).count();
        assert_eq!(said, 10);
    }
}
