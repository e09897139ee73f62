//! Failures that may go on for long: each action has a check of its own, and a line of log now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use penstock_telemetry::admin::{CheckHandle, Health};

use crate::events::{Events, chain};

/// How often a failure that goes on is logged again: an outage is to write some lines, not thousands.
const REMIND: Duration = Duration::from_secs(5);

/// What a worker asks of Redis and PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reading new entries.
    Read,
    /// Taking over idle entries.
    Claim,
    /// Saying what is held.
    Refresh,
    /// Acknowledging what was applied.
    Acknowledge,
    /// Putting an entry among the dead letters.
    Bury,
    /// Noting how often an entry was tried alone.
    Note,
    /// Asking how far behind the group is.
    Backlog,
    /// Publishing counts.
    Publish,
    /// Asking which entry is the oldest that can still come.
    Oldest,
    /// Applying a batch.
    Apply,
    /// Keeping a dead letter.
    Keep,
    /// Reading counts.
    Count,
    /// Removing the rows of deleted accounts.
    Sweep,
    /// Giving counts to posts that another program made.
    Settle,
    /// Removing the traces of old deletes.
    Prune,
    /// Making the group again.
    Join,
    /// Looking what is settled.
    Survey,
    /// Keeping the checkpoint.
    Checkpoint,
    /// Taking queued messages.
    TakeMessages,
    /// Removing messages that are settled.
    SettleMessages,
    /// Showing who takes messages, and taking them from who shows nothing.
    AnnounceMessages,
    /// Telling the statistics of messages.
    ShowMessages,
    /// Writing messages.
    WriteMessages,
}

/// The troubles of one worker, one for each action.
#[derive(Debug)]
pub(crate) struct Troubles {
    /// In the order of [`Action::ALL`].
    of: Vec<(CheckHandle, Mutex<Trouble>)>,
}

/// One failure that goes on.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    began: Option<Instant>,
    told: Option<Instant>,
    failures: u64,
}

// === impl Action ===

impl Action {
    const ALL: [Self; 23] = [
        Self::Read,
        Self::Claim,
        Self::Refresh,
        Self::Acknowledge,
        Self::Bury,
        Self::Note,
        Self::Backlog,
        Self::Publish,
        Self::Oldest,
        Self::Apply,
        Self::Keep,
        Self::Count,
        Self::Sweep,
        Self::Settle,
        Self::Prune,
        Self::Join,
        Self::Survey,
        Self::Checkpoint,
        Self::TakeMessages,
        Self::SettleMessages,
        Self::AnnounceMessages,
        Self::ShowMessages,
        Self::WriteMessages,
    ];

    /// Says it in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Read => "read new entries",
            Self::Claim => "claim idle entries",
            Self::Refresh => "refresh held entries",
            Self::Acknowledge => "acknowledge entries",
            Self::Bury => "add a dead letter",
            Self::Note => "note a suspect",
            Self::Backlog => "ask for the backlog",
            Self::Publish => "publish counts",
            Self::Oldest => "find the oldest entry",
            Self::Apply => "apply a batch",
            Self::Keep => "keep a dead letter",
            Self::Count => "read the counts",
            Self::Sweep => "remove rows of deleted accounts",
            Self::Settle => "settle waiting counts",
            Self::Prune => "remove traces of old deletes",
            Self::Join => "join the consumer group",
            Self::Survey => "see what is settled",
            Self::Checkpoint => "keep the checkpoint",
            Self::TakeMessages => "take queued messages",
            Self::SettleMessages => "settle messages",
            Self::AnnounceMessages => "announce who takes messages",
            Self::ShowMessages => "tell the statistics of messages",
            Self::WriteMessages => "write messages",
        }
    }

    /// Names what it is asked of, as the check is called.
    pub(crate) fn of(self) -> &'static str {
        match self {
            Self::Apply
            | Self::Keep
            | Self::Count
            | Self::Sweep
            | Self::Settle
            | Self::Prune
            | Self::Checkpoint
            | Self::WriteMessages => "postgres",
            _ => "redis",
        }
    }
}

// === impl Troubles ===

impl Troubles {
    /// Begins without any.
    pub(crate) fn new(health: &Health) -> Self {
        let quiet = |action: Action| {
            let check = health.check(action.of());
            check.ok();
            (check, Mutex::default())
        };
        Self { of: Action::ALL.map(quiet).into() }
    }

    /// Notes a failure; a success must follow for the worker to be ready again.
    pub(crate) fn failed(&self, action: Action, error: &dyn std::error::Error, events: &Events) {
        let Some((check, trouble)) = self.of.get(action as usize) else { return };
        let error = chain(error);
        check.failing(format!("could not {}: {error}", action.words()));
        if let Some(failures) = lock(trouble).failed(Instant::now()) {
            events.failed(action, failures, &error);
        }
    }

    /// Notes a success.
    pub(crate) fn over(&self, action: Action, events: &Events) {
        let Some((check, trouble)) = self.of.get(action as usize) else { return };
        if let Some(after) = lock(trouble).over(Instant::now()) {
            check.ok();
            events.recovered(action, after);
        }
    }
}

fn lock(trouble: &Mutex<Trouble>) -> MutexGuard<'_, Trouble> {
    trouble.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Trouble ===

impl Trouble {
    /// Notes a failure; returns how many there were so far when a line is due.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.began.get_or_insert(now);
        self.failures += 1;
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= REMIND);
        if due {
            self.told = Some(now);
        }
        due.then_some(self.failures)
    }

    /// Notes a success; returns how long the failure went on, if there was one.
    pub(crate) fn over(&mut self, now: Instant) -> Option<Duration> {
        let began = std::mem::take(self).began?;
        Some(now.saturating_duration_since(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_stand_where_they_are_looked_up() {
        for (place, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, place, "{action:?}");
        }
    }

    #[test]
    fn an_outage_is_told_at_once_then_now_and_then_then_as_over() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        assert_eq!(trouble.over(start), None);
        assert_eq!(trouble.failed(start), Some(1));
        assert_eq!(trouble.failed(start + Duration::from_secs(1)), None);
        assert_eq!(trouble.failed(start + Duration::from_secs(5)), Some(3));
        assert_eq!(trouble.over(start + Duration::from_secs(6)), Some(Duration::from_secs(6)));
        assert_eq!(trouble.failed(start + Duration::from_secs(7)), Some(1));
    }
}
