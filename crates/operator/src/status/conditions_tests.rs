use jiff::Timestamp;
use penstock_autoscale::{Decision, Lag, LagGap, Reason};
use penstock_core::live::{Claim, Status};

use super::super::{Pulse, Why};
use super::*;
use crate::crd::{ConditionStatus, PipelineStatus};
use crate::reconcile::Rollout;

fn part(ready: i32, wanted: i32) -> Part {
    let rollout = Rollout { wanted, replicas: wanted, ready, available: ready, ..Rollout::default() };
    Part { enabled: true, rollout: Some(rollout) }
}

fn pulse() -> Pulse {
    Pulse {
        status: Some(Status { connected: true, url: "wss://relay".into(), current_cursor: Some("7".into()) }),
        ours: "ns/p".into(),
        claim_key: "firehose:pipeline".into(),
        state_key: "firehose:ingest:state".into(),
        ..Pulse::default()
    }
}

fn well() -> Facts {
    Facts {
        generation: Some(3),
        name: "p".into(),
        ingest: part(1, 1),
        workers: part(2, 2),
        dashboard: part(1, 1),
        outcome: Outcome::Applied,
        migration: Migration::Done,
        look: Some(Look::Seen(Box::new(pulse()))),
        ..Facts::default()
    }
}

fn seeing(pulse: Pulse) -> Facts {
    Facts { look: Some(Look::Seen(Box::new(pulse))), ..well() }
}

fn decision() -> Decision {
    Decision {
        replicas: 2,
        from: 2,
        reason: Reason::AtTarget,
        recommended: 2,
        demand: 1.2,
        lag_known: true,
        stalled: false,
        arrival: Some(10.0),
        service: Some(10.0),
        backlog: Lag::Exact(0),
        capacity: 1_000.0,
        relay_lag: None,
    }
}

fn unknown(gap: LagGap) -> Decision {
    Decision { reason: Reason::LagUnknown(gap), lag_known: false, backlog: Lag::Unknown(gap), ..decision() }
}

/// The phase, then status and reason of the conditions that are asked for.
fn told<const N: usize>(
    facts: &Facts,
    decision: Option<&Decision>,
    kinds: [&str; N],
) -> (Phase, [(ConditionStatus, String); N]) {
    let (phase, conditions) = judge(facts, decision);
    let of = kinds.map(|kind| {
        let found = conditions.iter().find(|condition| condition.kind == kind).unwrap();
        assert!(!found.message.is_empty());
        (found.status, found.reason.clone())
    });
    (phase, of)
}

#[test]
fn a_pipeline_that_runs_is_ready() {
    let kinds = ["Ready", "IngestConnected", "WorkersAvailable", "LagKnown", "Stalled", "DataLoss"];
    let (phase, conditions) = told(&well(), Some(&decision()), kinds);
    let expected = [
        (True, "Running"),
        (True, "Connected"),
        (True, "AllReady"),
        (True, "Known"),
        (False, "Flowing"),
        (False, "NoneKnown"),
    ];
    assert_eq!(phase, Phase::Running);
    assert_eq!(conditions, expected.map(|(status, reason)| (status, reason.to_owned())));
}

#[test]
fn nothing_is_claimed_before_redis_was_looked_at() {
    let facts = Facts { look: None, ..well() };
    let (phase, conditions) = told(&facts, None, ["Ready", "IngestConnected", "LagKnown", "Stalled", "DataLoss"]);
    assert_eq!(phase, Phase::Pending);
    assert!(conditions.iter().all(|(status, reason)| *status == Unknown && reason == "Reconciling"), "{conditions:?}");
}

#[test]
fn a_redis_that_is_away_is_said_and_nothing_is_known() {
    let facts = Facts { look: Some(Look::Away("connection refused".into())), ..well() };
    let kinds = ["Ready", "IngestConnected", "LagKnown", "Stalled", "DataLoss"];
    let (phase, conditions) = told(&facts, Some(&unknown(LagGap::RedisUnreachable)), kinds);
    assert_eq!(phase, Phase::Degraded);
    let [ready, ingest, lag, stalled, loss] = conditions;
    assert_eq!(ready, (False, "RedisUnreachable".to_owned()));
    assert_eq!(ingest, (Unknown, "RedisUnreachable".to_owned()));
    assert_eq!(lag, (False, "RedisUnreachable".to_owned()));
    assert_eq!((stalled.0, loss.0), (Unknown, Unknown));
}

#[test]
fn another_pipelines_prefix_is_not_shared() {
    let claim = |pipeline: &str| Some(Claim { pipeline: pipeline.into(), incarnation: "i".into() });
    let other = seeing(Pulse { claim: claim("ns/other"), ..pulse() });
    let (phase, [ready]) = told(&other, Some(&decision()), ["Ready"]);
    assert_eq!((phase, ready), (Phase::Failed, (False, "RedisShared".to_owned())));
    let ours = seeing(Pulse { claim: claim("ns/p"), ..pulse() });
    assert_eq!(told(&ours, Some(&decision()), ["Ready"]).1[0].0, True);
}

#[test]
fn what_is_wrong_first_is_what_ready_says() {
    let why = |reason: &str| Why { reason: reason.into(), message: "m".into() };
    let cases: [(Facts, Phase, &str); 8] = [
        (Facts { deleting: true, ..well() }, Phase::Deleting, "Deleting"),
        (Facts { outcome: Outcome::Refused(why("InvalidSpec")), ..well() }, Phase::Failed, "InvalidSpec"),
        (Facts { outcome: Outcome::Failed(why("NameTaken")), ..well() }, Phase::Degraded, "NameTaken"),
        (Facts { suspend: true, ..well() }, Phase::Suspended, "Suspended"),
        (Facts { migration: Migration::Failed { job: "j".into() }, ..well() }, Phase::Degraded, "MigrationFailed"),
        (Facts { ingest: part(0, 1), ..well() }, Phase::Degraded, "IngestUnavailable"),
        (Facts { dashboard: part(0, 1), ..well() }, Phase::Degraded, "DashboardUnavailable"),
        (Facts { workers: part(0, 2), ..well() }, Phase::Degraded, "NoneReady"),
    ];
    for (facts, phase, reason) in cases {
        let (told_phase, [(status, told_reason)]) = told(&facts, Some(&decision()), ["Ready"]);
        assert_eq!((told_phase, status, told_reason.as_str()), (phase, False, reason));
    }
}

#[test]
fn workers_of_the_version_before_go_on_while_the_tables_are_completed() {
    let running = || Migration::Running { job: "p-migrate-1".into() };
    let facts = Facts { migration: running(), ..well() };
    let (phase, [ready]) = told(&facts, Some(&decision()), ["Ready"]);
    assert_eq!((phase, ready), (Phase::Running, (True, "Migrating".to_owned())));
    let first = Facts { migration: running(), workers: Part { enabled: true, rollout: None }, ..well() };
    let (phase, [ready]) = told(&first, Some(&decision()), ["Ready"]);
    assert_eq!((phase, ready), (Phase::Pending, (False, "Migrating".to_owned())));
}

#[test]
fn a_part_that_is_switched_off_is_nobodys_fault() {
    let off = || Part { enabled: false, rollout: None };
    let facts = Facts { ingest: off(), workers: off(), dashboard: off(), ..seeing(Pulse { status: None, ..pulse() }) };
    let (phase, [ready, ingest, workers]) =
        told(&facts, Some(&decision()), ["Ready", "IngestConnected", "WorkersAvailable"]);
    assert_eq!((phase, ready.0), (Phase::Running, True));
    assert_eq!([ingest.1, workers.1], ["SwitchedOff", "SwitchedOff"]);
}

#[test]
fn scaled_to_zero_is_available_and_stalled_is_not_ready() {
    let facts = Facts { workers: part(0, 0), ..well() };
    assert_eq!(told(&facts, Some(&decision()), ["Ready"]).1[0].0, True);
    let stalled = Decision { stalled: true, reason: Reason::Stalled, ..decision() };
    let (_, [ready, of]) = told(&well(), Some(&stalled), ["Ready", "Stalled"]);
    assert_eq!((ready.0, of), (False, (True, "NothingSettled".to_owned())));
}

#[test]
fn a_pause_is_told_apart_from_a_lost_relay() {
    let closed = || Some(Status { connected: false, url: "wss://relay".into(), current_cursor: None });
    let paused = seeing(Pulse { status: closed(), paused: true, ..pulse() });
    assert_eq!(told(&paused, Some(&decision()), ["IngestConnected"]).1[0].1, "Paused");
    let lost = seeing(Pulse { status: closed(), ..pulse() });
    assert_eq!(told(&lost, Some(&decision()), ["IngestConnected"]).1[0].1, "Disconnected");
    let silent = seeing(Pulse { status: None, ..pulse() });
    assert_eq!(told(&silent, Some(&decision()), ["IngestConnected"]).1[0].1, "NoIngest");
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let then = Timestamp::from_second(100).unwrap();
    let now = Timestamp::from_second(200).unwrap();
    let first = well().status(Some(&decision()), None, &PipelineStatus::default(), then);
    let second = well().status(Some(&unknown(LagGap::StreamMissing)), None, &first, now);
    let since = |status: &PipelineStatus, kind: &str| {
        status.conditions.iter().find(|condition| condition.kind == kind).unwrap().last_transition_time.0
    };
    assert_eq!(since(&second, "Ready"), then);
    assert_eq!(since(&second, "LagKnown"), now);
    assert_eq!(second.conditions[0].observed_generation, Some(3));
}

#[test]
fn data_loss_is_said_with_how_to_end_it() {
    let facts = seeing(Pulse { data_loss: 2, ..pulse() });
    let (_, conditions) = judge(&facts, Some(&decision()));
    let loss = conditions.iter().find(|condition| condition.kind == "DataLoss").unwrap();
    assert_eq!(loss.status, True);
    assert!(loss.message.contains("HDEL firehose:ingest:state dataLoss"), "{}", loss.message);
}
