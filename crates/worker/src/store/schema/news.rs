//! What a command tells of its work while it goes on.

use std::time::Duration;

use tracing::info;

use super::plan::Plan;
use super::stage::Stage;

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// This is going to be done; what is not in it is as it should be.
    Planned(&'a Plan),
    /// A step begins.
    Begins(Stage),
    /// A step has come so far.
    Comes {
        /// The step.
        stage: Stage,
        /// What of it: a table, or what is done.
        what: &'a str,
        /// So many parts of it are done.
        done: u64,
        /// So many there are.
        all: u64,
        /// Whether a log should say so: it is told seldom.
        for_log: bool,
    },
    /// The tables are those of this version.
    Done {
        /// What tells them from those of another version.
        schema: &'a str,
        /// Whether anything had to be done.
        changed: bool,
    },
    /// A step ended.
    Ends {
        /// The step.
        stage: Stage,
        /// How long it took.
        took: Duration,
    },
}

/// How often a log is told how far a step has come.
pub(super) const SELDOM: Duration = Duration::from_secs(10);

/// Logs what happened: lines for what is planned and what is done, and every ten seconds how far it has come.
pub fn log(news: News<'_>) {
    match news {
        News::Planned(plan) => {
            for step in &plan.steps {
                let seconds = step.time().as_secs();
                let locks = step.locks();
                let (step, title) = (step.stage.number(), step.stage.title());
                info!(step, title, locks, about_seconds = seconds, "migration step planned");
            }
        }
        News::Begins(_) | News::Comes { for_log: false, .. } => {}
        News::Comes { stage: Stage::MoveColumns, what, done, all, .. } => {
            info!(table = what, block = done, blocks = all, "moving what an older version kept");
        }
        News::Comes { stage, what, done, all, .. } => {
            info!(step = stage.number(), what, done, all, "migration step in progress");
        }
        News::Ends { stage, took } => {
            let seconds = (took.as_secs_f64() * 1_000.0).round() / 1_000.0;
            info!(step = stage.number(), title = stage.title(), seconds, "migration step done");
        }
        News::Done { schema, changed: true } => info!(schema, "database migrated"),
        News::Done { schema, changed: false } => info!(schema, "database is up to date, nothing to do"),
    }
}
