//! Whether events come in, and rows go out.

use penstock_autoscale::{Decision, Lag};

use crate::crd::{Condition, ConditionStatus};

use super::facts::{Facts, Migration, Reading};
use super::reach;
use super::verdict::Verdict;

use ConditionStatus::{False, True, Unknown};

pub(super) fn ingest_connected(facts: &Facts, decision: Option<&Decision>) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("IngestConnected", status, reason, message);
    let name = &facts.name;
    if facts.suspend {
        return verdict(False, "Suspended", "spec.suspend is true".to_owned());
    }
    let snapshot = match &facts.redis {
        None => return verdict(Unknown, "Reconciling", "Redis has not been read yet".to_owned()),
        Some(Reading::Unreachable(why)) => {
            return verdict(Unknown, "RedisUnreachable", format!("Redis is unreachable: {why}"));
        }
        Some(Reading::Read(snapshot)) => snapshot,
    };
    match &snapshot.status {
        Some(status) if status.connected => verdict(True, "Connected", format!("Receiving events from {}", status.url)),
        // While it pauses the socket is closed.
        _ if snapshot.paused && snapshot.is_short_of_memory() => {
            let message = format!(
                "Reading is paused because Redis {} is almost full; meanwhile the relay buffers. Raise its maxmemory, or remove what else \
                 is stored there; if it is the backlog that fills it, the workers have to catch up",
                facts.redis_address
            );
            verdict(False, "RedisFull", message)
        }
        // What the workers have settled is trimmed, unless somebody else has not read it.
        _ if snapshot.paused && decision.is_some_and(|decision| decision.backlog == Lag::Exact(0)) => {
            let message = "The stream is full, and reading is paused, though the workers have written everything: another consumer \
                group has not read it. See XINFO GROUPS; a group that nobody reads any more holds it until \
                ingest.foreignGroupHold is over, or until XGROUP DESTROY";
            verdict(False, "Paused", message.to_owned())
        }
        _ if snapshot.paused => {
            let message = format!(
                "The stream is full, and reading is paused until the workers have made room; meanwhile the relay buffers. See \
                 kubectl logs deployment/{name}-worker and check the database"
            );
            verdict(False, "Paused", message)
        }
        Some(status) => {
            let message = format!(
                "Ingest is not connected to {} and keeps retrying: see kubectl logs deployment/{name}-ingest",
                status.url
            );
            verdict(False, "Disconnected", message)
        }
        None if facts.ingest.enabled && facts.trouble_of("ingest").is_some() => {
            let trouble = facts.trouble_of("ingest");
            let reason = trouble.map_or("NoIngest", |trouble| trouble.reason.as_str());
            verdict(False, reason, trouble.map(|trouble| trouble.message.clone()).unwrap_or_default())
        }
        None if facts.ingest.enabled => {
            let message = format!(
                "No ingest reports a status in Redis: see kubectl describe deployment {name}-ingest and kubectl logs \
                 deployment/{name}-ingest"
            );
            verdict(False, "NoIngest", message)
        }
        None => verdict(
            Unknown,
            "SwitchedOff",
            "ingest.enabled is false, and the other writer reports no status".to_owned(),
        ),
    }
}

pub(super) fn workers_available(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("WorkersAvailable", status, reason, message);
    let name = &facts.name;
    if !facts.workers.enabled {
        return verdict(
            Unknown,
            "SwitchedOff",
            "workers.enabled is false: another system's workers read the stream".to_owned(),
        );
    }
    if facts.suspend {
        return verdict(False, "Suspended", "spec.suspend is true".to_owned());
    }
    let Some(rollout) = &facts.workers.rollout else {
        return match &facts.migration {
            Migration::Running { job } => verdict(False, "Migrating", format!("Workers start after job/{job}")),
            Migration::Failed { job } => {
                verdict(False, "MigrationFailed", format!("Workers start after job/{job}, which failed: see its log"))
            }
            Migration::NotOurs | Migration::Done => {
                verdict(False, "NotCreated", "Their Deployment has not been created yet".to_owned())
            }
        };
    };
    match (rollout.ready, rollout.wanted) {
        (_, 0) => verdict(True, "ScaledToZero", "No worker is needed, and none is running".to_owned()),
        (0, _) if facts.trouble_of("worker").is_some() => {
            let trouble = facts.trouble_of("worker");
            let reason = trouble.map_or("NoneReady", |trouble| trouble.reason.as_str());
            let message = trouble.map(|trouble| trouble.message.clone()).unwrap_or_default();
            verdict(False, reason, format!("No worker is ready. {message}"))
        }
        (0, _) => {
            let message = format!(
                "No worker is ready: see kubectl describe deployment {name}-worker and kubectl logs deployment/{name}-worker"
            );
            verdict(False, "NoneReady", message)
        }
        (ready, wanted) if ready < wanted || rollout.outdated => {
            let message = match facts.trouble_of("worker") {
                Some(trouble) => format!("Not all workers are ready. {}", trouble.message),
                None => format!("Not all workers are ready: see kubectl get pods -l app.kubernetes.io/instance={name}"),
            };
            verdict(True, "SomeReady", message)
        }
        _ => verdict(True, "AllReady", "All workers are ready".to_owned()),
    }
}

pub(super) fn lag_known(facts: &Facts, decision: Option<&Decision>) -> Verdict {
    let verdict = |status, reason: &str, message: &str| Verdict::new("LagKnown", status, reason, message);
    let Some(decision) = decision else {
        return match &facts.redis {
            Some(Reading::Unreachable(why)) => Verdict::new("LagKnown", False, "RedisUnreachable", why.as_str()),
            _ => verdict(Unknown, "Reconciling", "Redis has not been read yet"),
        };
    };
    match decision.backlog {
        Lag::Exact(_) => verdict(True, "Known", "The backlog is known"),
        Lag::AtLeast(_) => {
            verdict(True, "AtLeast", "Only a lower bound of the backlog is known, so no worker is removed")
        }
        Lag::Unknown(gap) => {
            let message = format!("{gap}, so the backlog is unknown and autoscaling is on hold");
            Verdict::new("LagKnown", False, gap.name(), message)
        }
    }
}

/// Says whether entries get settled. It holds until one is, whatever becomes of the workers meanwhile, and says since when.
pub(super) fn progressing(facts: &Facts, decision: Option<&Decision>, before: &[Condition]) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("Progressing", status, reason, message);
    if facts.suspend {
        return verdict(Unknown, "Suspended", "spec.suspend is true".to_owned());
    }
    let Some(decision) = decision else {
        return verdict(Unknown, "Reconciling", "Redis has not been read yet".to_owned());
    };
    let told = before.iter().find(|one| one.kind == "Progressing" && one.status == False);
    let since = match (decision.unsettled_since, told) {
        (Some(since), None) => decision.overdue.then_some(since),
        (Some(since), Some(told)) => Some(told.last_transition_time.0.min(since)),
        // An operator that has just begun has seen nothing yet: what its predecessor saw holds.
        (None, Some(told)) if decision.service.is_none() && waits(facts, decision) => Some(told.last_transition_time.0),
        (None, _) => None,
    };
    if let Some(since) = since.filter(|_| facts.workers.enabled) {
        let since = since.strftime("%Y-%m-%d %H:%M:%S UTC");
        let message = format!("Entries are waiting, and none was acknowledged since {since}. {}", unsettled(facts));
        return verdict(False, "NothingSettled", message);
    }
    if !decision.lag_known {
        return verdict(Unknown, "LagUnknown", "The backlog is unknown".to_owned());
    }
    verdict(True, "Flowing", "Entries are being acknowledged, or none has waited for long".to_owned())
}

fn waits(facts: &Facts, decision: &Decision) -> bool {
    decision.backlog.at_least() > 0 || facts.pending.is_some_and(|pending| pending > 0)
}

/// Says what the reason may be that nothing is settled: the cause, where it is known.
fn unsettled(facts: &Facts) -> String {
    for cause in [reach::redis(facts), reach::database(facts)] {
        if cause.status == False {
            return cause.message;
        }
    }
    let name = &facts.name;
    match (&facts.workers.rollout, facts.trouble_of("worker")) {
        (Some(rollout), Some(trouble)) if rollout.ready == 0 => trouble.message.clone(),
        (Some(rollout), None) if rollout.ready == 0 && rollout.wanted > 0 => {
            format!("No worker is ready: see kubectl logs deployment/{name}-worker")
        }
        _ => format!(
            "Workers run and do not report why: see kubectl logs deployment/{name}-worker, and check the database for locks and \
             for statements that take long"
        ),
    }
}

pub(super) fn data_loss(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("DataLoss", status, reason, message);
    match (&facts.redis, facts.snapshot()) {
        (_, Some(snapshot)) if snapshot.data_loss > 0 => {
            let (times, key) = (snapshot.data_loss, &snapshot.state_key);
            let message = format!(
                "Events were lost {times} times: the log of ingest names each gap. Backfill the affected repos, then clear this \
                 condition with HDEL {key} dataLoss"
            );
            verdict(True, "EventsLost", message)
        }
        (_, Some(_)) => verdict(False, "NoneKnown", "No data loss is known".to_owned()),
        (Some(Reading::Unreachable(_)), None) => {
            verdict(Unknown, "RedisUnreachable", "Redis is unreachable".to_owned())
        }
        (_, None) => verdict(Unknown, "Reconciling", "Redis has not been read yet".to_owned()),
    }
}
