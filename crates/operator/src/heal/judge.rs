//! The status of a backfill, from what was seen of it. Pure: no client, no clock.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_core::backfill::{BackfillState, BackfillStatus as Report};

use crate::crd::{BackfillPhase, BackfillStatus, Condition, ConditionStatus, FirehoseBackfill};
use crate::status::{Verdict, clip, text};

use ConditionStatus::{False, True, Unknown};

/// What was seen of a backfill.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    /// The resource is being deleted, and why it is not gone.
    Deleting(String),
    /// There is no pipeline of that name.
    NoPipeline,
    /// The pipeline has no healers yet, and why.
    NoHealers(String),
    /// The pipeline is suspended.
    PipelineSuspended,
    /// No healer answers, and how.
    Unreachable(String),
    /// The healer refuses the backfill, and why.
    Refused(String),
    /// What a healer reports.
    Report(Box<Report>),
}

/// Judges a backfill; `before` is its status so far.
pub(super) fn judge(object: &FirehoseBackfill, seen: &Seen, before: &BackfillStatus, now: Timestamp) -> BackfillStatus {
    let generation = object.metadata.generation;
    let counts = match seen {
        Seen::Report(report) => counted(report, before, now),
        // What was known stays; of what goes on, nothing is known.
        _ => BackfillStatus {
            running: None,
            records_per_second: None,
            estimated_end: None,
            left: None,
            ..before.clone()
        },
    };
    let (phase, verdicts) = verdicts(object, seen, &counts);
    let conditions: Vec<Condition> = verdicts
        .into_iter()
        .map(|verdict| Verdict { message: clip(verdict.message.clone()), ..verdict })
        .map(|verdict| verdict.into_condition(&before.conditions, generation, now))
        .collect();
    BackfillStatus { observed_generation: generation, phase: Some(phase), conditions, ..counts }
}

fn verdicts(object: &FirehoseBackfill, seen: &Seen, counts: &BackfillStatus) -> (BackfillPhase, [Verdict; 3]) {
    let pipeline = &object.spec.pipeline;
    let waits = |phase, reason: &str, message: String| {
        let complete = Verdict::new("Complete", False, reason, "Not every repo is done");
        let progressing = Verdict::new("Progressing", False, reason, message);
        (phase, [complete, progressing, Verdict::new("Degraded", False, "AsExpected", gone(counts))])
    };
    let wrong = |reason: &str, message: String| {
        let complete = Verdict::new("Complete", False, reason, "Not every repo is done");
        let progressing = Verdict::new("Progressing", False, reason, message.clone());
        (BackfillPhase::Pending, [complete, progressing, Verdict::new("Degraded", True, reason, message)])
    };
    match seen {
        Seen::Deleting(why) => waits(BackfillPhase::Deleting, "Deleting", why.clone()),
        Seen::NoPipeline => wrong(
            "PipelineMissing",
            format!("There is no FirehosePipeline {pipeline} in this namespace: create it, or delete this backfill"),
        ),
        Seen::NoHealers(why) => waits(BackfillPhase::Pending, "HealersStarting", why.clone()),
        Seen::PipelineSuspended => waits(
            BackfillPhase::Suspended,
            "PipelineSuspended",
            format!("spec.suspend of the pipeline {pipeline} is true: it goes on when the pipeline does"),
        ),
        Seen::Unreachable(why) => wrong(
            "HealerUnreachable",
            format!(
                "{why}. It is asked again every few seconds: see kubectl get pods and kubectl logs of {pipeline}-heal"
            ),
        ),
        Seen::Refused(why) => wrong("Refused", format!("{why}: correct the resource, or create another one")),
        Seen::Report(report) => reported(report, counts),
    }
}

/// Judges what a healer reports.
fn reported(report: &Report, counts: &BackfillStatus) -> (BackfillPhase, [Verdict; 3]) {
    let progress = counts.progress.clone().unwrap_or_default();
    let trouble = report.error.as_ref().map(|error| format!(" The last failure: {error}")).unwrap_or_default();
    let degraded = match (report.state, report.failed) {
        (BackfillState::Failed, _) => Verdict::new(
            "Degraded",
            True,
            "ListingFailed",
            report.error.clone().unwrap_or_else(|| "The repos could not be listed".to_owned()),
        ),
        (_, 0) => Verdict::new("Degraded", False, "AsExpected", gone(counts)),
        (_, failed) => Verdict::new(
            "Degraded",
            True,
            "ReposFailed",
            format!("{}{trouble}", repos(failed, "was given up", "were given up")),
        ),
    };
    let (phase, complete, progressing) = match report.state {
        BackfillState::Complete => (
            BackfillPhase::Complete,
            Verdict::new(
                "Complete",
                True,
                "Complete",
                format!("{} with {} records", repos(report.done, "was read", "were read"), report.records),
            ),
            Verdict::new("Progressing", False, "Complete", "Nothing is left to be read"),
        ),
        BackfillState::Failed => (
            BackfillPhase::Failed,
            Verdict::new("Complete", False, "ListingFailed", "Not every repo is done"),
            Verdict::new(
                "Progressing",
                False,
                "ListingFailed",
                "The repos could not be listed: create another backfill when what Degraded says is mended",
            ),
        ),
        BackfillState::Paused if report.running == 0 => (
            BackfillPhase::Suspended,
            Verdict::new("Complete", False, "Suspended", "Not every repo is done"),
            Verdict::new(
                "Progressing",
                False,
                "Suspended",
                format!("spec.suspend is true: {progress} repos are done, and none is begun"),
            ),
        ),
        BackfillState::Paused => (
            BackfillPhase::Running,
            Verdict::new("Complete", False, "Suspending", "Not every repo is done"),
            Verdict::new(
                "Progressing",
                True,
                "Suspending",
                format!("spec.suspend is true: {} under way", repos(report.running, "is", "are")),
            ),
        ),
        // What waits for its host goes on by itself.
        BackfillState::Listing | BackfillState::Running => (
            BackfillPhase::Running,
            Verdict::new("Complete", False, "Running", "Not every repo is done"),
            match report.state {
                BackfillState::Listing => Verdict::new(
                    "Progressing",
                    True,
                    "Listing",
                    format!("{progress} repos are done, and the relay lists more{}", pace(report)),
                ),
                _ => Verdict::new("Progressing", True, "Running", format!("{progress} repos are done{}", pace(report))),
            },
        ),
    };
    (phase, [complete, progressing, degraded])
}

/// Takes the numbers of a report.
fn counted(report: &Report, before: &BackfillStatus, now: Timestamp) -> BackfillStatus {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let is_over = report.state.is_over();
    let ends = report.ends_at.as_deref().and_then(time).filter(|_| !is_over);
    let known = report.total.map_or_else(|| format!("{}+", report.listed), |total| total.to_string());
    let reads = matches!(report.state, BackfillState::Listing | BackfillState::Running);
    BackfillStatus {
        total: report.total.map(number),
        listed: Some(number(report.listed)),
        done: Some(number(report.done)),
        failed: Some(number(report.failed)),
        running: Some(number(report.running)).filter(|_| !is_over),
        records: Some(number(report.records)),
        progress: Some(format!("{}/{known}", report.done)),
        records_per_second: reads.then(|| text::rate(report.records_per_second)),
        start_time: before.start_time.clone().or_else(|| time(&report.created_at).map(Time)).or(Some(Time(now))),
        estimated_end: ends.map(Time),
        left: ends.map(|end| text::seconds(end.duration_since(now).as_secs().max(0))),
        completion_time: report.finished_at.as_deref().and_then(time).map(Time),
        ..BackfillStatus::default()
    }
}

fn pace(report: &Report) -> String {
    match report.repos_per_second {
        pace if pace > 0.0 => {
            format!(", {} repos and {} records a second", text::rate(pace), text::rate(report.records_per_second))
        }
        _ => String::new(),
    }
}

fn gone(counts: &BackfillStatus) -> String {
    match counts.failed.unwrap_or(0) {
        0 => "Nothing is wrong".to_owned(),
        failed => repos(failed.unsigned_abs(), "was given up", "were given up"),
    }
}

fn repos(count: u64, one: &str, more: &str) -> String {
    if count == 1 { format!("1 repo {one}") } else { format!("{count} repos {more}") }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What became of a condition, for an Event: whether it is a warning, the reason, the message and the condition.
pub(super) fn changes(before: &BackfillStatus, after: &BackfillStatus) -> Vec<(bool, String, String, String)> {
    let then = |kind: &str| before.conditions.iter().find(|then| then.kind == kind);
    let changed =
        |now: &&Condition| then(&now.kind).is_none_or(|then| (then.status, &then.reason) != (now.status, &now.reason));
    let told = after.conditions.iter().filter(changed).filter(|now| match now.kind.as_str() {
        "Complete" => now.status == True,
        // What is wrong Degraded tells.
        "Progressing" => {
            now.status != Unknown
                && !after
                    .conditions
                    .iter()
                    .any(|other| other.kind != now.kind && other.status == True && other.reason == now.reason)
        }
        _ => now.status == True || then("Degraded").is_some_and(|then| then.status == True),
    });
    told.map(|now| {
        let warning = now.kind == "Degraded" && now.status == True;
        (warning, now.reason.clone(), now.message.clone(), now.kind.clone())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use penstock_core::backfill::Scope;
    use serde_json::json;

    use super::*;

    fn backfill() -> FirehoseBackfill {
        serde_json::from_value(json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehoseBackfill",
            "metadata": { "name": "b", "namespace": "ns", "generation": 3 },
            "spec": { "pipeline": "p", "scope": { "all": true } },
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn report(state: BackfillState) -> Report {
        Report {
            name: "b".to_owned(),
            scope: Scope::All(true),
            reason: "backfill".to_owned(),
            relay: None,
            rate: None,
            parallelism: None,
            priority: 0,
            verify: false,
            state,
            listed: 2_000,
            total: Some(2_000),
            done: 1_200,
            failed: 0,
            waiting: 800,
            running: 8,
            records: 345_678,
            records_per_second: 4_312.7,
            repos_per_second: 12.5,
            ends_at: Some("2026-01-01T14:10:30Z".to_owned()),
            created_at: "2026-01-01T10:00:00Z".to_owned(),
            updated_at: "2026-01-01T11:59:59Z".to_owned(),
            finished_at: None,
            error: None,
        }
    }

    fn judged(seen: &Seen) -> BackfillStatus {
        judge(&backfill(), seen, &BackfillStatus::default(), now())
    }

    fn told(status: &BackfillStatus) -> Vec<(String, ConditionStatus, String)> {
        let told = status.conditions.iter().map(|one| (one.kind.clone(), one.status, one.reason.clone()));
        told.collect()
    }

    fn of(seen: &Seen) -> (Option<BackfillPhase>, Vec<(String, ConditionStatus, String)>) {
        let status = judged(seen);
        assert!(status.conditions.iter().all(|one| !one.message.is_empty()), "{status:?}");
        (status.phase, told(&status))
    }

    fn expected(
        complete: (ConditionStatus, &str),
        progressing: (ConditionStatus, &str),
        degraded: (ConditionStatus, &str),
    ) -> Vec<(String, ConditionStatus, String)> {
        [("Complete", complete), ("Progressing", progressing), ("Degraded", degraded)]
            .map(|(kind, (status, reason))| (kind.to_owned(), status, reason.to_owned()))
            .to_vec()
    }

    #[test]
    fn every_state_has_its_phase_and_its_three_conditions() {
        let boxed = |report| Seen::Report(Box::new(report));
        let failed =
            Report { failed: 2, error: Some("did:plc:a: no such repo".to_owned()), ..report(BackfillState::Running) };
        let idle = Report { running: 0, ..report(BackfillState::Paused) };
        use BackfillPhase::{Complete, Deleting, Failed, Pending, Running, Suspended};
        let well = (False, "AsExpected");
        let table = [
            (
                Seen::NoPipeline,
                Pending,
                expected((False, "PipelineMissing"), (False, "PipelineMissing"), (True, "PipelineMissing")),
            ),
            (
                Seen::NoHealers("w".into()),
                Pending,
                expected((False, "HealersStarting"), (False, "HealersStarting"), well),
            ),
            (
                Seen::PipelineSuspended,
                Suspended,
                expected((False, "PipelineSuspended"), (False, "PipelineSuspended"), well),
            ),
            (
                Seen::Unreachable("no".into()),
                Pending,
                expected((False, "HealerUnreachable"), (False, "HealerUnreachable"), (True, "HealerUnreachable")),
            ),
            (Seen::Refused("no".into()), Pending, expected((False, "Refused"), (False, "Refused"), (True, "Refused"))),
            (Seen::Deleting("w".into()), Deleting, expected((False, "Deleting"), (False, "Deleting"), well)),
            (boxed(report(BackfillState::Listing)), Running, expected((False, "Running"), (True, "Listing"), well)),
            (boxed(report(BackfillState::Running)), Running, expected((False, "Running"), (True, "Running"), well)),
            (boxed(failed), Running, expected((False, "Running"), (True, "Running"), (True, "ReposFailed"))),
            (
                boxed(report(BackfillState::Paused)),
                Running,
                expected((False, "Suspending"), (True, "Suspending"), well),
            ),
            (boxed(idle), Suspended, expected((False, "Suspended"), (False, "Suspended"), well)),
            (boxed(report(BackfillState::Complete)), Complete, expected((True, "Complete"), (False, "Complete"), well)),
            (
                boxed(report(BackfillState::Failed)),
                Failed,
                expected((False, "ListingFailed"), (False, "ListingFailed"), (True, "ListingFailed")),
            ),
        ];
        for (seen, phase, conditions) in table {
            assert_eq!(of(&seen), (Some(phase), conditions), "{seen:?}");
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_healer_and_the_time_left_is_told() {
        let status = judged(&Seen::Report(Box::new(report(BackfillState::Running))));
        assert_eq!(
            (status.total, status.listed, status.done, status.failed),
            (Some(2_000), Some(2_000), Some(1_200), Some(0))
        );
        assert_eq!((status.running, status.records, status.observed_generation), (Some(8), Some(345_678), Some(3)));
        assert_eq!(
            (status.progress.as_deref(), status.records_per_second.as_deref()),
            (Some("1200/2000"), Some("4310"))
        );
        assert_eq!(status.left.as_deref(), Some("2h10m"));
        assert_eq!(status.start_time.unwrap().0.to_string(), "2026-01-01T10:00:00Z");
        let listing = Report { total: None, ..report(BackfillState::Listing) };
        assert_eq!(judged(&Seen::Report(Box::new(listing))).progress.as_deref(), Some("1200/2000+"));
        let over = Report {
            finished_at: Some("2026-01-01T12:00:00Z".to_owned()),
            running: 0,
            ..report(BackfillState::Complete)
        };
        let status = judged(&Seen::Report(Box::new(over)));
        assert_eq!((status.left, status.records_per_second, status.running), (None, None, None));
        assert!(status.completion_time.is_some());
    }

    #[test]
    fn what_was_counted_stays_while_no_healer_answers() {
        let before = judged(&Seen::Report(Box::new(report(BackfillState::Running))));
        let later = now() + jiff::SignedDuration::from_secs(60);
        let status = judge(&backfill(), &Seen::Unreachable("refused".into()), &before, later);
        assert_eq!((status.done, status.records, status.total), (before.done, before.records, before.total));
        assert_eq!((&status.records_per_second, &status.left), (&None, &None));
        let since = |status: &BackfillStatus, kind: &str| {
            status.conditions.iter().find(|one| one.kind == kind).unwrap().last_transition_time.0
        };
        assert_eq!((since(&status, "Complete"), since(&status, "Degraded")), (now(), later));
    }

    #[test]
    fn an_event_tells_what_begins_fails_recovers_and_ends() {
        let of = |state| judged(&Seen::Report(Box::new(report(state))));
        let reasons = |before: &BackfillStatus, after: &BackfillStatus| -> Vec<(bool, String)> {
            changes(before, after).into_iter().map(|(warning, reason, ..)| (warning, reason)).collect()
        };
        let (fresh, running) = (BackfillStatus::default(), of(BackfillState::Running));
        let away = judged(&Seen::Unreachable("refused".into()));
        assert_eq!(reasons(&fresh, &running), [(false, "Running".to_owned())]);
        assert_eq!(reasons(&running, &running), []);
        assert_eq!(reasons(&running, &away), [(true, "HealerUnreachable".to_owned())]);
        assert_eq!(reasons(&away, &running), [(false, "Running".to_owned()), (false, "AsExpected".to_owned())]);
        assert_eq!(reasons(&running, &of(BackfillState::Complete)), [(false, "Complete".to_owned())]);
    }
}
