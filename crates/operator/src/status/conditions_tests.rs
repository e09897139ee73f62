use jiff::Timestamp;
use penstock_autoscale::{Decision, Lag, LagGap, Reason};
use penstock_core::live::{Claim, Status};
use penstock_core::redis::Memory;
use penstock_core::trouble::Trouble;

use super::super::facts::{ImageProof, Reading, Snapshot};
use super::super::pods::PodTrouble;
use super::super::rollout::Rollout;
use super::*;
use crate::crd::{ConditionStatus, PipelineStatus};

fn part(ready: i32, wanted: i32) -> PartFacts {
    let rollout = Rollout { wanted, replicas: wanted, ready, available: ready, ..Rollout::default() };
    PartFacts { enabled: true, rollout: Some(rollout) }
}

fn snapshot() -> Snapshot {
    Snapshot {
        status: Some(Status { connected: true, url: "wss://relay".into(), current_cursor: Some("7".into()) }),
        ours: "ns/p".into(),
        claim_key: "firehose:pipeline".into(),
        state_key: "firehose:ingest:state".into(),
        ..Snapshot::default()
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
        redis: Some(Reading::Read(Box::new(snapshot()))),
        ..Facts::default()
    }
}

fn seeing(snapshot: Snapshot) -> Facts {
    Facts { redis: Some(Reading::Read(Box::new(snapshot))), ..well() }
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
        unsettled_since: None,
        overdue: false,
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
    let (phase, conditions) = judge(facts, decision, &[]);
    let of = kinds.map(|kind| {
        let found = conditions.iter().find(|condition| condition.kind == kind).unwrap();
        assert!(!found.message.is_empty());
        (found.status, found.reason.clone())
    });
    (phase, of)
}

#[test]
fn a_pipeline_that_runs_is_ready() {
    let (phase, conditions) = judge(&well(), Some(&decision()), &[]);
    let expected = [
        ("Ready", True, "Running"),
        ("Reconciling", False, "Reconciled"),
        ("RedisReachable", True, "Reachable"),
        ("DatabaseReachable", True, "Reachable"),
        ("Migrated", True, "Migrated"),
        ("IngestConnected", True, "Connected"),
        ("WorkersAvailable", True, "AllReady"),
        ("LagKnown", True, "Known"),
        ("Progressing", True, "Flowing"),
        ("DataLoss", False, "NoneKnown"),
        ("Verified", Unknown, "NotReported"),
        ("Healed", Unknown, "SwitchedOff"),
    ];
    assert_eq!(phase, Phase::Running);
    let conditions: Vec<_> = conditions.iter().map(|one| (one.kind, one.status, one.reason.as_str())).collect();
    assert_eq!(conditions, expected);
}

#[test]
fn nothing_is_claimed_before_redis_was_looked_at() {
    let facts = Facts { redis: None, ..well() };
    let (phase, conditions) = told(&facts, None, ["Ready", "IngestConnected", "LagKnown", "Progressing", "DataLoss"]);
    assert_eq!(phase, Phase::Pending);
    assert!(conditions.iter().all(|(status, reason)| *status == Unknown && reason == "Reconciling"), "{conditions:?}");
}

#[test]
fn a_redis_that_is_away_is_said_and_nothing_is_known() {
    let facts = Facts { redis: Some(Reading::Unreachable("connection refused".into())), ..well() };
    let kinds = ["Ready", "IngestConnected", "LagKnown", "Progressing", "DataLoss"];
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
    let other = seeing(Snapshot { claim: claim("ns/other"), ..snapshot() });
    let (phase, [ready]) = told(&other, Some(&decision()), ["Ready"]);
    assert_eq!((phase, ready), (Phase::Failed, (False, "RedisShared".to_owned())));
    let ours = seeing(Snapshot { claim: claim("ns/p"), ..snapshot() });
    assert_eq!(told(&ours, Some(&decision()), ["Ready"]).1[0].0, True);
}

#[test]
fn what_is_wrong_first_is_what_ready_says() {
    let why = |reason: &str| Why { reason: reason.into(), message: "m".into() };
    let cases: [(Facts, Phase, &str); 9] = [
        (Facts { deleting: true, ..well() }, Phase::Deleting, "Deleting"),
        (Facts { outcome: Outcome::Refused(why("InvalidSpec")), ..well() }, Phase::Failed, "InvalidSpec"),
        (Facts { outcome: Outcome::Awaits(why("SecretMissing")), ..well() }, Phase::Degraded, "SecretMissing"),
        (Facts { outcome: Outcome::Awaits(why("SecretMissing")), ..Facts::default() }, Phase::Pending, "SecretMissing"),
        (Facts { outcome: Outcome::Failed(why("NameTaken")), ..well() }, Phase::Degraded, "NameTaken"),
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
    let first = Facts { migration: running(), workers: PartFacts { enabled: true, rollout: None }, ..well() };
    let (phase, [ready]) = told(&first, Some(&decision()), ["Ready"]);
    assert_eq!((phase, ready), (Phase::Pending, (False, "Migrating".to_owned())));
}

#[test]
fn a_part_that_is_switched_off_is_nobodys_fault() {
    let off = || PartFacts { enabled: false, rollout: None };
    let facts =
        Facts { ingest: off(), workers: off(), dashboard: off(), ..seeing(Snapshot { status: None, ..snapshot() }) };
    let (phase, [ready, ingest, workers]) =
        told(&facts, Some(&decision()), ["Ready", "IngestConnected", "WorkersAvailable"]);
    assert_eq!((phase, ready.0), (Phase::Running, True));
    assert_eq!([ingest.1, workers.1], ["SwitchedOff", "SwitchedOff"]);
}

#[test]
fn scaled_to_zero_is_available_and_what_settles_nothing_is_not_ready() {
    let facts = Facts { workers: part(0, 0), ..well() };
    assert_eq!(told(&facts, Some(&decision()), ["Ready"]).1[0].0, True);
    let (_, [ready, of]) = told(&well(), Some(&overdue()), ["Ready", "Progressing"]);
    assert_eq!((ready.0, of), (False, (False, "NothingSettled".to_owned())));
}

fn overdue() -> Decision {
    let since = Some(Timestamp::from_second(100).unwrap());
    Decision { unsettled_since: since, overdue: true, backlog: Lag::Exact(7), service: Some(0.0), ..decision() }
}

#[test]
fn nothing_settled_holds_until_something_is_and_says_since_when() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let of = |facts: &Facts, decision: &Decision, before: &PipelineStatus, now| {
        let status = facts.status(Some(decision), None, before, at(now));
        let progressing = status.conditions.iter().find(|one| one.kind == "Progressing").unwrap().clone();
        (status, progressing)
    };
    let (said, progressing) = of(&well(), &overdue(), &PipelineStatus::default(), 160);
    assert_eq!(progressing.status, False);
    assert!(progressing.message.contains("since 1970-01-01 00:01:40 UTC"), "{}", progressing.message);
    // No worker is ready any more, and all that waits is pending now.
    let gone = Facts { workers: part(0, 2), ..well() };
    let less = Decision { overdue: false, ..overdue() };
    let (said, progressing) = of(&gone, &less, &said, 170);
    assert_eq!((progressing.status, progressing.last_transition_time.0), (False, at(160)));
    // Redis is away for a moment.
    let (said, progressing) =
        of(&gone, &Decision { unsettled_since: less.unsettled_since, ..unknown(LagGap::RedisUnreachable) }, &said, 180);
    assert_eq!(progressing.status, False);
    // Another operator takes over: it has seen nothing yet, but that something waits.
    let first = Decision { unsettled_since: None, overdue: false, service: None, ..overdue() };
    let (said, progressing) = of(&well(), &first, &said, 190);
    assert_eq!((progressing.status, progressing.last_transition_time.0), (False, at(160)));
    let (_, progressing) = of(&well(), &Decision { backlog: Lag::Exact(6), ..decision() }, &said, 200);
    assert_eq!((progressing.status, progressing.reason.as_str()), (True, "Flowing"));
}

#[test]
fn a_full_redis_is_not_blamed_on_the_workers() {
    let memory = |used| Some(Memory { used, max: Some(1 << 30), policy: "noeviction".into() });
    let full = Facts {
        redis_address: "redis://cache:6379".into(),
        ..seeing(Snapshot { memory: memory(1 << 30), paused: true, status: None, ..snapshot() })
    };
    let (phase, conditions) = judge(&full, Some(&overdue()), &[]);
    let of = |kind: &str| conditions.iter().find(|one| one.kind == kind).unwrap();
    assert_eq!(phase, Phase::Degraded);
    for kind in ["Ready", "RedisReachable", "IngestConnected"] {
        assert_eq!((of(kind).status, of(kind).reason.as_str()), (False, "RedisFull"), "{kind}");
    }
    assert!(
        of("Ready")
            .message
            .starts_with("Redis redis://cache:6379 is full and refuses writes: it uses 1.0 GiB of maxmemory 1.0 GiB")
    );
    assert!(of("Progressing").message.contains("Redis redis://cache:6379 is full"), "{}", of("Progressing").message);
    let half = seeing(Snapshot { memory: memory(1 << 20), paused: true, status: None, ..snapshot() });
    assert_eq!(
        told(&half, Some(&decision()), ["RedisReachable", "IngestConnected"]).1.map(|(_, reason)| reason),
        ["Reachable", "Paused"]
    );
}

#[test]
fn what_services_say_of_postgresql_goes_before_what_follows_from_it() {
    let trouble = |text: &str| Some(Trouble { part: "worker".into(), process: "p-worker-1".into(), text: text.into() });
    let away = "postgresql postgres://app:***@db/app does not answer: connection refused";
    let cases = [
        (away, "DatabaseUnreachable"),
        ("postgresql postgres://app:***@db/app: could not apply a batch: read-only", "DatabaseRefuses"),
    ];
    for (text, reason) in cases {
        let facts = Facts { workers: part(0, 2), ..seeing(Snapshot { database: trouble(text), ..snapshot() }) };
        let (_, conditions) = judge(&facts, Some(&overdue()), &[]);
        let of = |kind: &str| conditions.iter().find(|one| one.kind == kind).unwrap();
        for kind in ["Ready", "DatabaseReachable"] {
            assert_eq!((of(kind).status, of(kind).reason.as_str()), (False, reason));
            assert_eq!(
                of(kind).message,
                format!("P{} (as seen by worker p-worker-1)", &text.replace("postgresql", "PostgreSQL")[1..])
            );
        }
        assert!(of("Progressing").message.contains(&of("Ready").message));
    }
}

fn pod_trouble(component: &str, reason: &str) -> Vec<PodTrouble> {
    vec![PodTrouble {
        component: component.into(),
        reason: reason.into(),
        message: "Because".into(),
        is_of_database: reason == "Database",
    }]
}

#[test]
fn a_migration_that_fails_says_why_before_it_is_given_up() {
    let fresh = || Facts {
        migration: Migration::Running { job: "p-migrate-1".into() },
        workers: PartFacts { enabled: true, rollout: None },
        ..well()
    };
    let kinds = ["Ready", "Reconciling", "DatabaseReachable", "Migrated"];
    let (phase, [ready, reconciling, _, migrated]) = told(&fresh(), Some(&decision()), kinds);
    assert_eq!(
        (phase, ready.1.as_str(), migrated.1.as_str(), reconciling.0),
        (Phase::Pending, "Migrating", "Migrating", True)
    );
    for (reason, expected) in [("Database", "DatabaseUnreachable"), ("FailedCreate", "FailedCreate")] {
        let facts = Facts { pods: pod_trouble("migrate", reason), ..fresh() };
        let (_, [ready, _, database, migrated]) = told(&facts, Some(&decision()), kinds);
        assert_eq!((ready.0, ready.1.as_str(), migrated.1.as_str()), (False, expected, expected));
        assert_eq!(database.0 == False, reason == "Database");
    }
}

#[test]
fn a_rollout_that_is_held_up_is_not_ready() {
    let outdated = || {
        let mut workers = part(2, 2);
        workers.rollout.as_mut().unwrap().outdated = true;
        Facts { workers, ..well() }
    };
    let kinds = ["Ready", "Reconciling", "WorkersAvailable"];
    let (phase, [ready, reconciling, workers]) = told(&outdated(), Some(&decision()), kinds);
    assert_eq!((phase, ready, reconciling.0), (Phase::Running, (True, "RollingOut".to_owned()), True));
    assert_eq!(workers.1, "SomeReady");
    for component in ["worker", "ingest"] {
        let mut facts = Facts { pods: pod_trouble(component, "Unschedulable"), ..outdated() };
        if component == "ingest" {
            facts.ingest.rollout.as_mut().unwrap().available = 0;
        }
        let (phase, [ready, reconciling, _]) = told(&facts, Some(&decision()), kinds);
        assert_eq!((phase, ready, reconciling.0), (Phase::Degraded, (False, "Unschedulable".to_owned()), True));
    }
    let none = Facts { workers: part(0, 2), pods: pod_trouble("worker", "ImagePullBackOff"), ..well() };
    assert_eq!(told(&none, Some(&decision()), ["WorkersAvailable"]).1[0], (False, "ImagePullBackOff".to_owned()));
}

#[test]
fn suspended_is_as_it_should_be_once_no_pod_is_left() {
    let facts = Facts { suspend: true, ..well() };
    let (phase, [ready, reconciling]) = told(&facts, None, ["Ready", "Reconciling"]);
    assert_eq!(
        (phase, ready, reconciling),
        (Phase::Suspended, (True, "Suspended".to_owned()), (True, "Terminating".to_owned()))
    );
    let facts = Facts { ingest: part(0, 0), workers: part(0, 0), dashboard: part(0, 0), ..facts };
    let (_, [ready, reconciling]) = told(&facts, None, ["Ready", "Reconciling"]);
    assert_eq!((ready.0, reconciling.0), (True, False));
}

#[test]
fn a_new_image_is_on_its_way_until_it_ran_or_failed() {
    let proof = |failed| Facts { image: Some(ImageProof { failed, message: "m".into() }), ..well() };
    let kinds = ["Ready", "Reconciling"];
    let proving = [(True, "ProvingImage".to_owned()), (True, "ProvingImage".to_owned())];
    assert_eq!(told(&proof(false), None, kinds), (Phase::Running, proving));
    let failed = [(False, "ImageFailed".to_owned()), (False, "Reconciled".to_owned())];
    assert_eq!(told(&proof(true), None, kinds), (Phase::Degraded, failed));
}

#[test]
fn what_only_somebody_can_mend_is_failed_and_nothing_else_is_called_stalled() {
    let why = || Why { reason: "InvalidSpec".into(), message: "m".into() };
    let (phase, conditions) = judge(&Facts { outcome: Outcome::Refused(why()), ..well() }, Some(&decision()), &[]);
    let kinds: Vec<_> = conditions.iter().map(|one| one.kind).collect();
    assert_eq!((phase, kinds.last()), (Phase::Failed, Some(&"Stalled")));
    assert_eq!(conditions.iter().find(|one| one.kind == "Reconciling").unwrap().status, False);
    let others = [
        Facts { outcome: Outcome::Awaits(why()), ..well() },
        Facts { outcome: Outcome::Failed(why()), ..well() },
        Facts { migration: Migration::Failed { job: "j".into() }, ..well() },
        Facts { redis: Some(Reading::Unreachable("refused".into())), ..well() },
        Facts { suspend: true, ..well() },
        Facts { deleting: true, ..well() },
        Facts::default(),
    ];
    for facts in others {
        for decision in [decision(), overdue()] {
            let (phase, conditions) = judge(&facts, Some(&decision), &[]);
            assert!(conditions.iter().all(|one| one.kind != "Stalled"), "{phase:?}");
            assert_eq!(conditions.iter().map(|one| one.kind).collect::<Vec<_>>(), kinds[..kinds.len() - 1]);
        }
    }
}

#[test]
fn a_pause_is_told_apart_from_a_lost_relay() {
    let closed = || Some(Status { connected: false, url: "wss://relay".into(), current_cursor: None });
    let paused = seeing(Snapshot { status: closed(), paused: true, ..snapshot() });
    let why = |decision: &Decision| {
        let (_, conditions) = judge(&paused, Some(decision), &[]);
        let one = conditions.into_iter().find(|one| one.kind == "IngestConnected").unwrap();
        (one.reason, one.message)
    };
    for (backlog, says) in
        [(Lag::Exact(0), "XINFO GROUPS"), (Lag::Exact(1), "deployment/"), (Lag::AtLeast(0), "deployment/")]
    {
        let (reason, message) = why(&Decision { backlog, ..decision() });
        assert!(reason == "Paused" && message.contains(says), "{backlog:?}: {message}");
    }
    let lost = seeing(Snapshot { status: closed(), ..snapshot() });
    assert_eq!(told(&lost, Some(&decision()), ["IngestConnected"]).1[0].1, "Disconnected");
    let silent = seeing(Snapshot { status: None, ..snapshot() });
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
    let facts = seeing(Snapshot { data_loss: 2, ..snapshot() });
    let (_, conditions) = judge(&facts, Some(&decision()), &[]);
    let loss = conditions.iter().find(|condition| condition.kind == "DataLoss").unwrap();
    assert_eq!(loss.status, True);
    assert!(loss.message.contains("HDEL firehose:ingest:state dataLoss"), "{}", loss.message);
}
