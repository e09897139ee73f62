//! The conditions: each from facts, with a reason a person can act on.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use penstock_autoscale::{Decision, Lag, Reason};

use super::{Facts, Look, Migration, Outcome, Part};
use crate::crd::{Condition, ConditionStatus, Phase};

use ConditionStatus::{False, True, Unknown};

/// A condition without its times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    kind: &'static str,
    status: ConditionStatus,
    reason: String,
    message: String,
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn new(
        kind: &'static str,
        status: ConditionStatus,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, status, reason: reason.into(), message: message.into() }
    }

    /// Gives it its times: that of the last change stays while the status does.
    pub(super) fn into_condition(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let before = before.iter().find(|before| before.kind == self.kind);
        let since =
            before.filter(|before| before.status == self.status).map(|before| before.last_transition_time.clone());
        Condition {
            kind: self.kind.to_owned(),
            status: self.status,
            reason: self.reason,
            message: self.message,
            last_transition_time: since.unwrap_or(Time(now)),
            observed_generation: generation,
        }
    }
}

/// Judges the facts: the state in one word, and every condition.
pub(super) fn judge(facts: &Facts, decision: Option<&Decision>) -> (Phase, Vec<Verdict>) {
    let conditions = [
        ingest_connected(facts),
        workers_available(facts),
        lag_known(facts, decision),
        stalled(facts, decision),
        data_loss(facts),
    ];
    let (phase, ready) = ready(facts, &conditions);
    (phase, std::iter::once(ready).chain(conditions).collect())
}

fn ready(facts: &Facts, others: &[Verdict]) -> (Phase, Verdict) {
    let name = &facts.name;
    let verdict =
        |phase, status, reason: &str, message: String| (phase, Verdict::new("Ready", status, reason, message));
    if facts.deleting {
        let message =
            "The pipeline is being deleted: its pods end, then what it has in Redis is taken care of".to_owned();
        return verdict(Phase::Deleting, False, "Deleting", message);
    }
    match &facts.outcome {
        Outcome::None => {
            return verdict(Phase::Pending, Unknown, "Reconciling", "The operator has not been here yet".to_owned());
        }
        Outcome::Refused(why) => return verdict(Phase::Failed, False, &why.reason, why.message.clone()),
        Outcome::Failed(why) => return verdict(Phase::Degraded, False, &why.reason, why.message.clone()),
        Outcome::Applied => {}
    }
    if let Some(pulse) = facts.pulse()
        && let Some(holder) = pulse.other_holder()
    {
        let key = &pulse.claim_key;
        let message = format!(
            "{key} in Redis says that this prefix belongs to {holder}: give this pipeline another redis.keyPrefix (delete it \
             and apply it anew) or, if {holder} is gone for good, DEL {key}"
        );
        return verdict(Phase::Failed, False, "RedisShared", message);
    }
    if facts.suspend {
        let running = [&facts.ingest, &facts.workers, &facts.dashboard].iter().any(|part| part.pods() > 0);
        let message = match running {
            true => "spec.suspend is true: pods are ending".to_owned(),
            false => "spec.suspend is true: nothing runs, and cursor, stream and tables are kept".to_owned(),
        };
        return verdict(Phase::Suspended, False, "Suspended", message);
    }
    match &facts.migration {
        Migration::Failed { job } => {
            let message = format!(
                "The tables could not be made or completed: see kubectl logs job/{job}. It is tried again ten minutes after it \
                 failed, and at once after kubectl delete job {job}. Workers of the version before go on"
            );
            return verdict(Phase::Degraded, False, "MigrationFailed", message);
        }
        Migration::Running { job } if facts.workers.rollout.is_none() => {
            let message =
                format!("The tables are being made or completed, and workers start after that: see job/{job}");
            return verdict(Phase::Pending, False, "Migrating", message);
        }
        Migration::Running { .. } | Migration::NotOurs | Migration::Done => {}
    }
    match &facts.look {
        Some(Look::Away(why)) => {
            let message = format!("The operator cannot reach Redis, so it knows and changes nothing: {why}");
            return verdict(Phase::Degraded, False, "RedisUnreachable", message);
        }
        None => return verdict(Phase::Pending, Unknown, "Reconciling", "Redis has not been looked at yet".to_owned()),
        Some(Look::Seen(_)) => {}
    }
    for (part, title, component) in [(&facts.ingest, "Ingest", "ingest"), (&facts.dashboard, "Dashboard", "dashboard")]
    {
        if part.enabled && part.rollout.as_ref().is_none_or(|rollout| rollout.wanted > 0 && rollout.available == 0) {
            let message = format!("No pod of {component} is ready: see kubectl describe deployment {name}-{component}");
            return verdict(Phase::Degraded, False, &format!("{title}Unavailable"), message);
        }
    }
    let parts = [(&facts.ingest, "ingest"), (&facts.workers, "worker"), (&facts.dashboard, "dashboard")];
    let stuck = |part: &Part| part.enabled && part.rollout.as_ref().is_some_and(|rollout| rollout.stuck);
    if let Some((_, component)) = parts.iter().find(|(part, _)| stuck(part)) {
        let message = format!(
            "New pods of {component} do not become ready, and those of the version before go on: see kubectl describe deployment \
             {name}-{component} and the log of its newest pod"
        );
        return verdict(Phase::Degraded, False, "RolloutStuck", message);
    }
    let bad = others.iter().find(|other| match other.kind {
        "IngestConnected" => facts.ingest.enabled && other.status == False,
        "WorkersAvailable" => facts.workers.enabled && other.status == False,
        "Stalled" => other.status == True,
        _ => false,
    });
    if let Some(bad) = bad {
        return verdict(Phase::Degraded, False, &bad.reason, bad.message.clone());
    }
    if let Migration::Running { job } = &facts.migration {
        let message =
            format!("Everything runs, with workers of the version before until job/{job} has completed the tables");
        return verdict(Phase::Running, True, "Migrating", message);
    }
    if facts.left_out.is_empty() {
        verdict(Phase::Running, True, "Running", "Everything that is switched on runs".to_owned())
    } else {
        verdict(Phase::Running, True, "PartlyLeftOut", format!("Everything runs, but {}", facts.left_out.join("; ")))
    }
}

fn ingest_connected(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("IngestConnected", status, reason, message);
    let name = &facts.name;
    if facts.suspend {
        return verdict(False, "Suspended", "spec.suspend is true".to_owned());
    }
    let pulse = match &facts.look {
        None => return verdict(Unknown, "Reconciling", "Redis has not been looked at yet".to_owned()),
        Some(Look::Away(why)) => return verdict(Unknown, "RedisUnreachable", format!("Redis gives no answer: {why}")),
        Some(Look::Seen(pulse)) => pulse,
    };
    match &pulse.status {
        Some(status) if status.connected => verdict(True, "Connected", format!("Events come from {}", status.url)),
        // While it pauses the socket is closed.
        _ if pulse.paused => {
            let message = format!(
                "The stream is full and reading pauses until the workers have made room; the relay keeps its window. See \
                 kubectl logs deployment/{name}-worker and the database"
            );
            verdict(False, "Paused", message)
        }
        Some(status) => {
            let message = format!(
                "{} is not connected; ingest tries again: see kubectl logs deployment/{name}-ingest",
                status.url
            );
            verdict(False, "Disconnected", message)
        }
        None if facts.ingest.enabled => {
            let message = format!(
                "No ingest says anything in Redis: see kubectl describe deployment {name}-ingest and kubectl logs \
                 deployment/{name}-ingest"
            );
            verdict(False, "NoIngest", message)
        }
        None => {
            verdict(Unknown, "SwitchedOff", "ingest.enabled is false, and the other writer tells no status".to_owned())
        }
    }
}

fn workers_available(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("WorkersAvailable", status, reason, message);
    let name = &facts.name;
    if !facts.workers.enabled {
        return verdict(Unknown, "SwitchedOff", "workers.enabled is false: another system's workers read".to_owned());
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
                verdict(False, "NotCreated", "Their Deployment has not been made yet".to_owned())
            }
        };
    };
    match (rollout.ready, rollout.wanted) {
        (_, 0) => verdict(True, "ScaledToZero", "None is needed, and none runs".to_owned()),
        (0, _) => {
            let message = format!(
                "None is ready: see kubectl describe deployment {name}-worker and kubectl logs deployment/{name}-worker"
            );
            verdict(False, "NoneReady", message)
        }
        (ready, wanted) if ready < wanted => verdict(
            True,
            "SomeReady",
            format!("Not all are ready: see kubectl get pods -l app.kubernetes.io/instance={name}"),
        ),
        _ => verdict(True, "AllReady", "All are ready".to_owned()),
    }
}

fn lag_known(facts: &Facts, decision: Option<&Decision>) -> Verdict {
    let verdict = |status, reason: &str, message: &str| Verdict::new("LagKnown", status, reason, message);
    let Some(decision) = decision else {
        return match &facts.look {
            Some(Look::Away(why)) => Verdict::new("LagKnown", False, "RedisUnreachable", why.as_str()),
            _ => verdict(Unknown, "Reconciling", "Redis has not been looked at yet"),
        };
    };
    match decision.backlog {
        Lag::Exact(_) => verdict(True, "Known", "What waits for a worker is known"),
        Lag::AtLeast(_) => {
            verdict(True, "AtLeast", "Of what waits for a worker only a lower bound is known: no worker is taken away")
        }
        Lag::Unknown(gap) => {
            let message = format!("{gap}, so what waits is not known and the number of workers is held");
            Verdict::new("LagKnown", False, gap.name(), message)
        }
    }
}

fn stalled(facts: &Facts, decision: Option<&Decision>) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("Stalled", status, reason, message);
    let name = &facts.name;
    match decision {
        Some(decision) if decision.stalled || decision.reason == Reason::Stalled => {
            let message = format!(
                "Entries wait, workers are ready, and nothing was settled for their claim time: see kubectl logs \
                 deployment/{name}-worker and whether the database is full, locked or read-only"
            );
            verdict(True, "NothingSettled", message)
        }
        Some(decision) if !decision.lag_known => verdict(Unknown, "LagUnknown", "What waits is not known".to_owned()),
        Some(_) => verdict(False, "Flowing", "What comes is settled, or nothing waits".to_owned()),
        None => verdict(Unknown, "Reconciling", "Redis has not been looked at yet".to_owned()),
    }
}

fn data_loss(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("DataLoss", status, reason, message);
    match (&facts.look, facts.pulse()) {
        (_, Some(pulse)) if pulse.data_loss > 0 => {
            let (times, key) = (pulse.data_loss, &pulse.state_key);
            let message = format!(
                "Events were lost {times} times at a seam: the log of ingest names each. Backfill the repos concerned, then \
                 HDEL {key} dataLoss ends this condition"
            );
            verdict(True, "EventsLost", message)
        }
        (_, Some(_)) => verdict(False, "NoneKnown", "No loss of events is known".to_owned()),
        (Some(Look::Away(_)), None) => verdict(Unknown, "RedisUnreachable", "Redis gives no answer".to_owned()),
        (_, None) => verdict(Unknown, "Reconciling", "Redis has not been looked at yet".to_owned()),
    }
}

// === impl Part ===

impl Part {
    fn pods(&self) -> i32 {
        self.rollout.as_ref().map_or(0, |rollout| rollout.replicas)
    }
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
