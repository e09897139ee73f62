//! How far a backfill is: a bar for somebody who looks, lines of the log for everybody else.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_core::backfill::BackfillStatus;
use tracing::info;

/// How often a line is logged.
const EVERY: Duration = Duration::from_secs(10);

/// Tells how far a backfill is.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    logged: Mutex<Instant>,
}

// === impl Progress ===

impl Progress {
    /// Looks whether standard error is a terminal.
    pub(super) fn new(status: &BackfillStatus) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(status.total, ProgressDrawTarget::stderr());
            bar.set_style(style(status.total.is_some()));
            bar
        });
        Self { bar, logged: Mutex::new(Instant::now()) }
    }

    /// Tells how far it is now.
    pub(super) fn tell(&self, status: &BackfillStatus) {
        let over = status.done + status.failed;
        if let Some(bar) = &self.bar {
            if let (Some(total), true) = (status.total, bar.length() != status.total) {
                bar.set_length(total);
                bar.set_style(style(true));
            }
            bar.set_position(over);
            bar.set_message(message(status));
            return;
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.elapsed() < EVERY {
            return;
        }
        *logged = Instant::now();
        let BackfillStatus { done, failed, listed, records, records_per_second, .. } = *status;
        let ends_at = status.ends_at.as_deref().unwrap_or("not known yet");
        info!(done, failed, listed, records, records_per_second, ends_at, "backfill under way");
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(is_total_known: bool) -> ProgressStyle {
    let shape = if is_total_known {
        "[{bar:30}] {percent:>3}% {pos}/{len} repos, {wide_msg}"
    } else {
        "{spinner} {pos} repos, {wide_msg}"
    };
    ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Says what the bar does not.
fn message(status: &BackfillStatus) -> String {
    let mut text = format!("{} records, {}/s", HumanCount(status.records), status.records_per_second);
    if status.failed > 0 {
        text += &format!(", {} given up", HumanCount(status.failed));
    }
    match (&status.ends_at, status.total) {
        (Some(end), _) => text += &format!(", ends about {end}"),
        (None, None) => text += &format!(", {} listed so far", HumanCount(status.listed)),
        (None, Some(_)) => {}
    }
    text
}
