//! The status that was written last: whether a new one is due, and which changes are worth an Event.

use std::time::Duration;

use tokio::time::Instant;

use crate::crd::{Condition, ConditionStatus, Phase, PipelineStatus};

/// How often numbers alone are worth a write.
const NUMBERS_EVERY: Duration = Duration::from_secs(10);

/// How long what is normal for pods that begin is not announced as an Event.
const BEGINNING: Duration = Duration::from_secs(120);

/// The longest note of an Event, in bytes.
const LONGEST_NOTE: usize = 1_000;

/// The status as it stands in the cluster.
pub(crate) struct Written {
    status: PipelineStatus,
    /// When this process wrote it; none before.
    at: Option<Instant>,
    announced: Announced,
}

/// The conditions that Events announced last.
struct Announced {
    conditions: Vec<Condition>,
    /// Since when the pipeline begins to run, for the first time or after a pause.
    begins: Option<Instant>,
}

/// A change that a person may want to know of.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) note: String,
    pub(crate) action: String,
}

// === impl Written ===

impl Written {
    pub(crate) fn new(status: PipelineStatus) -> Self {
        let announced = Announced { conditions: status.conditions.clone(), begins: None };
        Self { status, at: None, announced }
    }

    /// Returns the state in one word, as it was written last.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    /// Returns the status as it was written last.
    pub(crate) fn status(&self) -> &PipelineStatus {
        &self.status
    }

    /// Says whether a status is worth a write: at once, unless only numbers changed.
    pub(crate) fn is_due(&self, status: &PipelineStatus, now: Instant) -> bool {
        if *status == self.status {
            return false;
        }
        let rested = self.at.is_none_or(|at| now.duration_since(at) >= NUMBERS_EVERY);
        rested || without_numbers(status) != without_numbers(&self.status)
    }

    /// Remembers a status that was written just now.
    pub(crate) fn record(&mut self, status: PipelineStatus, now: Instant) {
        self.status = status;
        self.at = Some(now);
    }

    /// Lists what became better or worse since the last time.
    pub(crate) fn changes(&mut self, now: Instant) -> Vec<Change> {
        self.announced.changes(&self.status.conditions, now)
    }
}

// === impl Announced ===

impl Announced {
    /// Lists what became better or worse, and counts it as announced; the same twice is announced once.
    fn changes(&mut self, after: &[Condition], at: Instant) -> Vec<Change> {
        let ready = |conditions: &[Condition]| {
            conditions.iter().find(|one| one.kind == "Ready").map(|ready| ready.reason.clone()).unwrap_or_default()
        };
        let rested = matches!(ready(&self.conditions).as_str(), "" | "Suspended" | "Reconciling" | "Migrating");
        let begins = rested && !matches!(ready(after).as_str(), "Suspended" | "Migrating");
        self.begins = begins.then(|| self.begins.unwrap_or(at));
        let beginning = self.begins.is_some_and(|since| at.duration_since(since) < BEGINNING);
        let mut changes: Vec<Change> = Vec::new();
        // The details go before what follows from them.
        let deleting = ready(after) == "Deleting";
        // What tools read of Reconciling and Stalled, Ready tells people.
        let is_told = |now: &&Condition| match now.kind.as_str() {
            "Reconciling" | "Stalled" => false,
            kind => !deleting || kind == "Ready",
        };
        for now in after.iter().rev().filter(is_told) {
            let then = self.conditions.iter().position(|then| then.kind == now.kind);
            let then = then.map(|at| self.conditions.swap_remove(at));
            if beginning && is_bad(now) && is_usual_at_first(now) {
                // Announced when it stays.
                self.conditions.extend(then);
                continue;
            }
            self.conditions.push(now.clone());
            let same = then.as_ref().is_some_and(|then| then.status == now.status && then.reason == now.reason);
            if same
                || now.status == ConditionStatus::Unknown
                || changes.iter().any(|change| change.reason == now.reason)
            {
                continue;
            }
            let warning = is_bad(now);
            if warning || then.as_ref().is_some_and(is_bad) || now.kind == "Ready" {
                let (reason, note) = (now.reason.clone(), now.message.clone());
                changes.push(Change { warning, reason, note, action: now.kind.clone() });
            }
        }
        changes
    }
}

/// Leaves out what moves all the time.
fn without_numbers(status: &PipelineStatus) -> PipelineStatus {
    let mut status = status.clone();
    if let Some(ingest) = &mut status.ingest {
        ingest.cursor = None;
        ingest.lag = None;
        ingest.lag_seconds = None;
    }
    if let Some(workers) = &mut status.workers {
        workers.backlog = None;
        workers.pending = None;
        workers.arrival_rate = None;
        workers.service_rate = None;
        workers.message = None;
    }
    for condition in status.conditions.iter_mut().filter(|condition| condition.kind == "Verified") {
        condition.message.clear();
    }
    status
}

fn is_bad(condition: &Condition) -> bool {
    let expected = matches!(condition.reason.as_str(), "Suspended" | "Deleting" | "Migrating" | "NotCreated");
    let worse = if condition.kind == "DataLoss" { ConditionStatus::True } else { ConditionStatus::False };
    condition.status == worse && !expected
}

/// Says whether pods that begin bring this about: none is ready, nothing is read, and there is no stream or group yet.
fn is_usual_at_first(condition: &Condition) -> bool {
    let usual = ["NoIngest", "Disconnected", "IngestUnavailable", "DashboardUnavailable", "NoneReady"];
    usual.contains(&condition.reason.as_str()) || condition.reason.ends_with("Missing")
}

/// Cuts a text to what the note of an Event may hold.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::crd::WorkersStatus;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    fn announced(before: &[Condition], after: &[Condition]) -> Vec<(bool, String)> {
        announce(&mut Announced { conditions: before.to_vec(), begins: None }, after, Instant::now())
    }

    fn announce(announced: &mut Announced, after: &[Condition], now: Instant) -> Vec<(bool, String)> {
        announced.changes(after, now).into_iter().map(|change| (change.warning, change.reason)).collect()
    }

    #[test]
    fn an_event_announces_a_change_and_never_twice() {
        use ConditionStatus::{False, True};
        let good = [condition("Ready", True, "Running"), condition("IngestConnected", True, "Connected")];
        let bad = [condition("Ready", False, "Disconnected"), condition("IngestConnected", False, "Disconnected")];
        assert_eq!(announced(&[], &good), [(false, "Running".to_owned())]);
        assert_eq!(announced(&good, &good), []);
        assert_eq!(announced(&good, &bad), [(true, "Disconnected".to_owned())]);
        assert_eq!(announced(&bad, &good), [(false, "Connected".to_owned()), (false, "Running".to_owned())]);
    }

    #[test]
    fn what_is_expected_or_unknown_is_no_warning() {
        use ConditionStatus::{False, True, Unknown};
        let before = [condition("Ready", True, "Running"), condition("Progressing", True, "Flowing")];
        let after = [condition("Ready", True, "Suspended"), condition("Progressing", Unknown, "LagUnknown")];
        assert_eq!(announced(&before, &after), [(false, "Suspended".to_owned())]);
        assert_eq!(announced(&[], &[condition("DataLoss", False, "NoneKnown")]), []);
        assert_eq!(announced(&[], &[condition("DataLoss", True, "EventsLost")]), [(true, "EventsLost".to_owned())]);
    }

    #[test]
    fn what_is_usual_at_first_is_announced_only_when_it_stays() {
        use ConditionStatus::{False, True};
        let begun = Instant::now();
        let later = begun + BEGINNING;
        let starting = [condition("Ready", False, "NoneReady"), condition("LagKnown", False, "GroupMissing")];
        let running = [condition("Ready", True, "Running"), condition("LagKnown", True, "Known")];
        let missing = || vec![(true, "GroupMissing".to_owned()), (true, "NoneReady".to_owned())];
        for before in [vec![], vec![condition("Ready", False, "Suspended")]] {
            let mut fresh = Announced { conditions: before.clone(), begins: None };
            assert_eq!(announce(&mut fresh, &starting, begun), []);
            assert_eq!(announce(&mut fresh, &running, begun), [(false, "Running".to_owned())]);
            // Once it ran, the same is announced at once.
            assert_eq!(announce(&mut fresh, &starting, begun), missing());

            let mut stuck = Announced { conditions: before, begins: None };
            assert_eq!(announce(&mut stuck, &starting, begun), []);
            assert_eq!(announce(&mut stuck, &starting, later), missing());
            assert_eq!(announce(&mut stuck, &starting, later), []);
            // What is not usual is announced even then.
            let mut refused = Announced { conditions: vec![], begins: None };
            assert_eq!(
                announce(&mut refused, &[condition("Ready", False, "RedisShared")], begun),
                [(true, "RedisShared".to_owned())]
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_alone_wait_and_everything_else_is_written_at_once() {
        let status = |backlog: &str, ready: i32| PipelineStatus {
            workers: Some(WorkersStatus { backlog: Some(backlog.to_owned()), ready, ..WorkersStatus::default() }),
            ..PipelineStatus::default()
        };
        let now = Instant::now();
        let written = Written { at: Some(now), ..Written::new(status("5", 1)) };
        assert!(!written.is_due(&status("5", 1), now + NUMBERS_EVERY));
        assert!(!written.is_due(&status("6", 1), now));
        assert!(written.is_due(&status("6", 1), now + NUMBERS_EVERY));
        assert!(written.is_due(&status("5", 2), now));

        let verified = |reason: &str, message: &str| PipelineStatus {
            conditions: vec![Condition {
                message: message.to_owned(),
                ..condition("Verified", ConditionStatus::False, reason)
            }],
            ..PipelineStatus::default()
        };
        let written = Written { at: Some(now), ..Written::new(verified("CommitsFailed", "3 commits failed")) };
        assert!(!written.is_due(&verified("CommitsFailed", "4 commits failed"), now));
        assert!(written.is_due(&verified("CommitsFailed", "4 commits failed"), now + NUMBERS_EVERY));
        assert!(written.is_due(&verified("WaitingForKeys", "3 commits failed"), now));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let clipped = clip("é".repeat(900));
        assert!(clipped.len() <= LONGEST_NOTE + '…'.len_utf8() && clipped.ends_with('…'));
    }
}
