//! How far an import has come: a bar for somebody who looks, lines of the log for everybody else.

use std::io::{IsTerminal as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_identity::import::{Source, Told, Totals};
use tracing::{info, warn};

/// How often a line is logged.
const EVERY: Duration = Duration::from_secs(10);

/// Tells how far an import has come.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    logged: Mutex<Instant>,
}

// === impl Progress ===

impl Progress {
    /// Looks whether standard error is a terminal.
    pub(super) fn new(source: &Source) -> Self {
        let length = match source {
            Source::File(path) => {
                std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
            }
            Source::Stdin => None,
        };
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
            let shape = if length.is_some() {
                "[{bar:30}] {percent:>3}% {eta} left, {wide_msg}"
            } else {
                "{spinner} {wide_msg}"
            };
            let style = ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        let now = Instant::now();
        Self { bar, began: now, logged: Mutex::new(now) }
    }

    /// Tells what happened.
    pub(super) fn tell(&self, told: Told<'_>) {
        match (told, &self.bar) {
            (Told::Resumed { bytes, lines }, None) => {
                info!(bytes, lines, "the import goes on where an earlier one ended");
            }
            (Told::Resumed { lines, .. }, Some(bar)) => {
                bar.println(format!("goes on after {} lines, where an earlier import ended", HumanCount(lines)));
            }
            (Told::Bad(bad), None) => {
                let (line, error) = (bad.line, &bad.why as &dyn std::error::Error);
                warn!(line, error, "a line of the export cannot be read");
            }
            (Told::Bad(bad), Some(bar)) => bar.println(format!("line {}: {}", bad.line, bad.why)),
            (Told::Came(totals), Some(bar)) => {
                bar.set_position(totals.taken);
                let rate = HumanCount(per_second(totals.operations, self.began.elapsed()));
                bar.set_message(format!(
                    "{} operations, {rate}/s, {} read",
                    HumanCount(totals.operations),
                    HumanBytes(totals.bytes)
                ));
            }
            (Told::Came(totals), None) => {
                let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
                if logged.elapsed() >= EVERY {
                    *logged = Instant::now();
                    self.log(totals, false);
                }
            }
        }
    }

    /// Tells the end: of an import that failed nothing, its error does.
    pub(super) fn end(&self, totals: Option<&Totals>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        match (totals, &self.bar) {
            (Some(totals), Some(_)) => eprintln!("{}", text(totals)),
            (Some(totals), None) => self.log(totals, true),
            (None, _) => {}
        }
    }

    fn log(&self, totals: &Totals, ended: bool) {
        let Totals { bytes, lines, operations, nullified, written, bad, .. } = *totals;
        let per_second = per_second(operations, self.began.elapsed());
        if ended {
            info!(bytes, lines, operations, nullified, written, bad_lines = bad, per_second, "imported");
        } else {
            info!(bytes, lines, operations, nullified, written, bad_lines = bad, per_second, "importing");
        }
    }
}

/// Says what an import came to.
fn text(totals: &Totals) -> String {
    let mut text =
        format!("imported {} operations into {} rows", HumanCount(totals.operations), HumanCount(totals.written));
    for (many, what) in [(totals.nullified, "made void by a later one"), (totals.bad, "lines could not be read")] {
        if many > 0 {
            text += &format!(", {} {what}", HumanCount(many));
        }
    }
    text
}

fn per_second(operations: u64, time: Duration) -> u64 {
    (u128::from(operations) * 1000 / time.as_millis().max(1)).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_happen_is_not_said() {
        let totals = Totals { operations: 1_234_567, written: 1_000_000, ..Totals::default() };
        assert_eq!(text(&totals), "imported 1,234,567 operations into 1,000,000 rows");
        let totals = Totals { nullified: 12, bad: 3, ..totals };
        let expected =
            "imported 1,234,567 operations into 1,000,000 rows, 12 made void by a later one, 3 lines could not be read";
        assert_eq!(text(&totals), expected);
        assert_eq!(per_second(500, Duration::from_millis(250)), 2000);
    }
}
