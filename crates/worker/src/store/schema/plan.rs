//! What a migration will change, which locks it will take, and roughly for how long.

use std::fmt;
use std::time::Duration;

use super::stage::Stage;

/// What will be done; nothing where all is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps that will change something.
    pub steps: Vec<Planned>,
}

/// A step that will change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub stage: Stage,
    /// What it changes.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub what: String,
    /// The lock that it takes.
    pub lock: Lock,
    /// How many bytes of a table are read or written for it.
    pub bytes: u64,
    /// How many of them a second.
    pub(super) rate: u64,
}

/// A lock, by whom it holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// Only new tables: nobody uses them.
    New,
    /// Rows, some thousand at a time.
    Rows,
    /// A table, beside its readers and writers.
    Beside,
    /// A table for itself, but only for an instant, and tried again where somebody uses it.
    Instant,
    /// A table against writers, while an index is built.
    Share,
    /// Tables against writers, as long as it takes.
    Writers,
}

// === impl Plan ===

impl Plan {
    /// Returns whether all is as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns whether a step will change something.
    #[must_use]
    pub fn has(&self, stage: Stage) -> bool {
        self.steps.iter().any(|step| step.stage == stage)
    }

    /// Adds a step, unless it changes nothing.
    pub(super) fn add(&mut self, stage: Stage, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.steps.push(Planned { stage, changes });
        }
    }
}

impl fmt::Display for Plan {
    /// Writes a line for each step, and below it one for each change, but one for all new tables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{}: {}; locks {}", step.stage, about(step.time()), step.locks())?;
            let created: Vec<_> =
                step.changes.iter().filter_map(|change| change.what.strip_prefix("create table ")).collect();
            if !created.is_empty() {
                let s = if created.len() == 1 { "" } else { "s" };
                writeln!(f, "     create table{s} {}", created.join(", "))?;
            }
            for change in step.changes.iter().filter(|change| !change.what.starts_with("create table ")) {
                let size = if change.bytes == 0 { String::new() } else { format!(" ({})", size(change.bytes)) };
                writeln!(f, "     {}{size}: {}; {}", change.what, about(change.time()), change.lock)?;
            }
        }
        Ok(())
    }
}

// === impl Planned ===

impl Planned {
    /// Returns roughly how long it takes.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.changes.iter().map(Change::time).sum()
    }

    /// Names the strongest of its locks.
    #[must_use]
    pub fn locks(&self) -> &'static str {
        self.changes.iter().map(|change| change.lock).max().unwrap_or(Lock::New).mode()
    }
}

// === impl Change ===

impl Change {
    /// One that takes no time.
    pub(super) fn new(what: String, lock: Lock) -> Self {
        Self { what, lock, bytes: 0, rate: 1 }
    }

    /// Returns roughly how long it takes.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.bytes.saturating_mul(1_000) / self.rate.max(1))
    }
}

// === impl Lock ===

impl Lock {
    /// Returns what PostgreSQL calls it.
    #[must_use]
    pub fn mode(self) -> &'static str {
        match self {
            Self::New => "only new tables",
            Self::Rows => "rows",
            Self::Beside => "SHARE UPDATE EXCLUSIVE",
            Self::Instant => "ACCESS EXCLUSIVE for an instant",
            Self::Share => "SHARE",
            Self::Writers => "SHARE ROW EXCLUSIVE",
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "nobody waits",
            Self::Rows => "writers of the same rows wait for a part of a second",
            Self::Beside => "readers and writers go on",
            Self::Instant => "readers and writers wait less than half a second in all",
            Self::Share | Self::Writers => "readers go on, writers wait until it ends",
        })
    }
}

/// Says a time that is only a guess.
fn about(time: Duration) -> String {
    match time.as_secs() {
        0 => "less than 1 s".to_owned(),
        secs @ 1..90 => format!("about {secs} s"),
        secs @ 90..5_400 => format!("about {} min", (secs + 30) / 60),
        secs => format!("about {} h", (secs + 1_800) / 3_600),
    }
}

/// Says a size.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_round() {
        let secs = Duration::from_secs;
        let said = [0, 1, 89, 90, 600, 5_399, 5_400, 90_000].map(|all| about(secs(all)));
        assert_eq!(
            said,
            [
                "less than 1 s",
                "about 1 s",
                "about 89 s",
                "about 2 min",
                "about 10 min",
                "about 90 min",
                "about 2 h",
                "about 25 h"
            ]
        );
        assert_eq!([8_192, 25_000_000, 25_000_000_000].map(size), ["8 kB", "25 MB", "25 GB"]);
    }

    #[test]
    fn a_plan_says_each_change_its_time_and_who_waits() {
        let mut plan = Plan::default();
        let create = ["a", "b"].map(|table| Change::new(format!("create table {table}"), Lock::New));
        plan.add(Stage::Own, create.to_vec());
        plan.add(Stage::Messages, Vec::new());
        let what = "build index on c (d)".to_owned();
        plan.add(Stage::Indexes, vec![Change { what, lock: Lock::Beside, bytes: 4_000_000_000, rate: 40_000_000 }]);
        assert_eq!(
            plan.to_string(),
            "3. create or complete Penstock's own tables: less than 1 s; locks only new tables\n     create tables a, b\n\
             7. build missing indexes: about 2 min; locks SHARE UPDATE EXCLUSIVE\n     \
             build index on c (d) (4000 MB): about 2 min; readers and writers go on\n"
        );
        assert!(plan.has(Stage::Own) && !plan.has(Stage::Messages));
    }
}
