//! How far a migration has come: bars for somebody who looks, lines of the log for everybody else.

use std::fmt::Display;
use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_worker::schema::{News, log};

/// What is said where all is as it should be.
pub(super) const NOTHING: &str = "nothing to do: the database has the tables of this version";

/// How often a bar moves where nothing is known of how far it is.
const TICK: Duration = Duration::from_millis(120);

/// Tells how far a migration has come.
pub(super) enum Progress {
    /// Nobody looks: lines of the log, seldom.
    Lines,
    /// Somebody looks: the bar of the step that is being taken.
    Bars(Mutex<Option<ProgressBar>>),
}

// === impl Progress ===

impl Progress {
    /// Looks whether standard error is a terminal.
    pub(super) fn new() -> Self {
        if stderr().is_terminal() { Self::Bars(Mutex::default()) } else { Self::Lines }
    }

    /// Tells what happened.
    pub(super) fn tell(&self, news: News<'_>) {
        let Self::Bars(bar) = self else { return log(news) };
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::Planned(plan) => eprintln!("{plan}"),
            News::Begins(stage) => *bar = Some(begun(stage)),
            News::Comes { what, done, all, .. } => {
                if let Some(bar) = bar.as_ref() {
                    if bar.length().is_none() {
                        bar.set_style(style("{prefix} [{bar:30}] {percent:>3}% {wide_msg}"));
                    }
                    bar.set_length(all);
                    bar.set_position(done);
                    bar.set_message(what.to_owned());
                }
            }
            News::Ends { stage, took } => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                eprintln!("{stage}: done in {}", shown(took));
            }
            News::Done { schema, changed: true } => eprintln!("migrated to schema {schema}"),
            News::Done { schema, changed: false } => eprintln!("{NOTHING} (schema {schema})"),
        }
    }
}

fn begun(stage: impl Display) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_prefix(stage.to_string());
    bar.set_style(style("{spinner} {prefix} {elapsed} {wide_msg}"));
    bar.enable_steady_tick(TICK);
    bar
}

/// The default where a template is wrong, which the tests rule out.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Shows a time that was measured.
fn shown(time: Duration) -> String {
    match time.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_one_would_say() {
        let said = [5, 999, 1_250, 59_900, 61_000, 3_600_000].map(|millis| shown(Duration::from_millis(millis)));
        assert_eq!(said, ["5 ms", "999 ms", "1.2 s", "59.9 s", "1 min 1 s", "60 min 0 s"]);
    }
}
