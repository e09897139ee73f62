//! The conditions: each from facts, with a reason a person can act on, and always in the same order.
//!
//! `Reconciling` and `Stalled` mean what kstatus reads in them (Helm's `--wait`, Flux): the first, that the cluster is on its way to
//! what is written; the second, that it will not get there before somebody changes something. So `Stalled` is there only in the phase
//! Failed: a server that is away is no reason to fail a release.

use penstock_autoscale::Decision;

use crate::crd::{Condition, ConditionStatus, Phase};

use super::facts::{Facts, Migration, Outcome, PartFacts, Why};
use super::healed::healed;
use super::verdict::Verdict;
use super::verified::verified;
use super::{flow, reach};

use ConditionStatus::{False, True, Unknown};

/// Judges the facts: the state in one word, and every condition. `before` are those of the last time.
pub(super) fn judge(facts: &Facts, decision: Option<&Decision>, before: &[Condition]) -> (Phase, Vec<Verdict>) {
    let others = [
        reach::redis(facts),
        reach::database(facts),
        reach::migrated(facts),
        flow::ingest_connected(facts, decision),
        flow::workers_available(facts),
        flow::lag_known(facts, decision),
        flow::progressing(facts, decision, before),
        flow::data_loss(facts),
        verified(facts),
        healed(facts),
    ];
    let (phase, ready) = ready(facts, &others);
    let reconciling = reconciling(facts, phase, &ready);
    let failed =
        (phase == Phase::Failed).then(|| Verdict::new("Stalled", True, ready.reason.clone(), ready.message.clone()));
    (phase, [ready, reconciling].into_iter().chain(others).chain(failed).collect())
}

fn ready(facts: &Facts, others: &[Verdict]) -> (Phase, Verdict) {
    let verdict =
        |phase, status, reason: &str, message: String| (phase, Verdict::new("Ready", status, reason, message));
    if facts.deleting {
        let message =
            "The pipeline is being deleted: its pods end, then its keys in Redis are kept or removed as deletionPolicy says".to_owned();
        return verdict(Phase::Deleting, False, "Deleting", message);
    }
    match &facts.outcome {
        Outcome::None => {
            return verdict(
                Phase::Pending,
                Unknown,
                "Reconciling",
                "The operator has not reconciled this pipeline yet".to_owned(),
            );
        }
        Outcome::Refused(why) => return verdict(Phase::Failed, False, &why.reason, why.message.clone()),
        Outcome::Awaits(Why { reason, message }) => {
            let runs = facts.parts().iter().any(|(part, _)| part.pods() > 0);
            let phase = if runs { Phase::Degraded } else { Phase::Pending };
            return verdict(phase, False, reason, message.clone());
        }
        Outcome::Failed(why) => return verdict(Phase::Degraded, False, &why.reason, why.message.clone()),
        Outcome::Applied => {}
    }
    if let Some(snapshot) = facts.snapshot()
        && let Some(holder) = snapshot.other_holder()
    {
        let key = &snapshot.claim_key;
        let message = format!(
            "{key} in Redis shows that {holder} has claimed this prefix: give this pipeline another redis.keyPrefix (delete it \
             and create it again) or, if {holder} is gone for good, DEL {key}"
        );
        return verdict(Phase::Failed, False, "RedisShared", message);
    }
    if facts.suspend {
        // On purpose, and so as it should be: a tool that waits for Ready must not wait for its end.
        let message = match is_ending(facts) {
            true => "spec.suspend is true: pods are terminating".to_owned(),
            false => "spec.suspend is true: nothing runs; the cursor, the stream and the tables are kept".to_owned(),
        };
        return verdict(Phase::Suspended, True, "Suspended", message);
    }
    // The cause goes before what follows from it.
    let of = |kind: &str| others.iter().find(|other| other.kind == kind && other.status == False);
    if let Some(bad) = of("RedisReachable").or_else(|| of("DatabaseReachable")) {
        return verdict(Phase::Degraded, False, &bad.reason, bad.message.clone());
    }
    match &facts.migration {
        Migration::Failed { .. } => {
            if let Some(bad) = of("Migrated") {
                return verdict(Phase::Degraded, False, &bad.reason, bad.message.clone());
            }
        }
        Migration::Running { .. } if facts.workers.rollout.is_none() || facts.trouble_of("migrate").is_some() => {
            if let Some(bad) = of("Migrated") {
                let phase = if facts.workers.rollout.is_none() { Phase::Pending } else { Phase::Degraded };
                return verdict(phase, False, &bad.reason, bad.message.clone());
            }
        }
        Migration::Running { .. } | Migration::NotOurs | Migration::Done => {}
    }
    if let Some(proof) = facts.image.as_ref().filter(|proof| proof.failed) {
        return verdict(Phase::Degraded, False, "ImageFailed", proof.message.clone());
    }
    if facts.redis.is_none() {
        return verdict(Phase::Pending, Unknown, "Reconciling", "Redis has not been read yet".to_owned());
    }
    if let Some((reason, message)) = facts.parts().iter().find_map(|(part, component)| held_up(facts, part, component))
    {
        return verdict(Phase::Degraded, False, &reason, message);
    }
    let bad = others.iter().find(|other| match other.kind {
        "IngestConnected" => facts.ingest.enabled && other.status == False,
        "WorkersAvailable" => facts.workers.enabled && other.status == False,
        "Progressing" => other.status == False,
        _ => false,
    });
    if let Some(bad) = bad {
        return verdict(Phase::Degraded, False, &bad.reason, bad.message.clone());
    }
    if let Migration::Running { job } = &facts.migration {
        let message = format!(
            "All enabled parts are running, with workers of the previous version until job/{job} has migrated the tables"
        );
        return verdict(Phase::Running, True, "Migrating", message);
    }
    if facts.paused {
        let message = "penstock.dev/paused is set: all enabled parts are running, and the operator changes nothing until the \
                       annotation is removed";
        return verdict(Phase::Running, True, "Paused", message.to_owned());
    }
    if let Some(proof) = &facts.image {
        return verdict(Phase::Running, True, "ProvingImage", proof.message.clone());
    }
    if let Some(component) = rolling(facts) {
        let message = format!(
            "All enabled parts are running; new pods of {component} take over from those of the previous version"
        );
        return verdict(Phase::Running, True, "RollingOut", message);
    }
    if facts.left_out.is_empty() {
        verdict(Phase::Running, True, "Running", "All enabled parts are running".to_owned())
    } else {
        verdict(
            Phase::Running,
            True,
            "PartlyLeftOut",
            format!("All enabled parts are running, but without {}", facts.left_out.join("; ")),
        )
    }
}

/// Says why a part has no pod that works, or no new one although there should be; of workers none is said here, for they have a
/// condition of their own.
fn held_up(facts: &Facts, part: &PartFacts, component: &str) -> Option<(String, String)> {
    if !part.enabled {
        return None;
    }
    let name = &facts.name;
    let trouble = facts.trouble_of(component);
    let none = part.rollout.as_ref().is_none_or(|rollout| rollout.wanted > 0 && rollout.available == 0);
    if none && component != "worker" {
        return Some(match trouble {
            Some(trouble) => (trouble.reason.clone(), format!("No pod of {component} is ready. {}", trouble.message)),
            None => {
                let title = if component == "ingest" { "Ingest" } else { "Dashboard" };
                let message =
                    format!("No pod of {component} is ready: see kubectl describe deployment {name}-{component}");
                (format!("{title}Unavailable"), message)
            }
        });
    }
    let rollout = part.rollout.as_ref()?;
    match trouble {
        Some(trouble) if rollout.outdated && !none => {
            let message = format!(
                "New pods of {component} do not become ready, and pods of the previous version keep running. {}",
                trouble.message
            );
            Some((trouble.reason.clone(), message))
        }
        _ if rollout.stuck => {
            let message = format!(
                "New pods of {component} do not become ready, and pods of the previous version keep running: see kubectl describe \
                 deployment {name}-{component} and the log of its newest pod"
            );
            Some(("RolloutStuck".to_owned(), message))
        }
        _ => None,
    }
}

/// Says whether the cluster is on its way to what is written. What will not get there by itself, and what has got there and does not
/// work, is not: `Ready` tells of both.
fn reconciling(facts: &Facts, phase: Phase, ready: &Verdict) -> Verdict {
    let verdict = |status, reason: &str, message: &str| Verdict::new("Reconciling", status, reason, message);
    match phase {
        Phase::Failed => return verdict(False, &ready.reason, "It goes on when what Ready says is mended"),
        Phase::Deleting => return verdict(True, "Deleting", "What the pipeline owns is being deleted"),
        Phase::Suspended if is_ending(facts) => return verdict(True, "Terminating", "Pods are terminating"),
        Phase::Suspended => return verdict(False, "Suspended", "Nothing runs, as it is written"),
        Phase::Pending => return verdict(True, &ready.reason, &ready.message),
        Phase::Running | Phase::Degraded => {}
    }
    if !matches!(facts.outcome, Outcome::Applied) {
        return verdict(True, &ready.reason, "Not everything is applied yet; it is tried again");
    }
    if let Migration::Running { job } = &facts.migration {
        return verdict(True, "Migrating", &format!("job/{job} migrates the tables"));
    }
    if let Some(proof) = facts.image.as_ref().filter(|proof| !proof.failed) {
        return verdict(True, "ProvingImage", &proof.message);
    }
    match rolling(facts) {
        Some(component) => verdict(True, "RollingOut", &format!("New pods of {component} are being started")),
        None => verdict(False, "Reconciled", "What is written is what the cluster has"),
    }
}

/// Returns the first part of which pods are still of a version before.
fn rolling(facts: &Facts) -> Option<&'static str> {
    let outdated = |part: &PartFacts| part.enabled && part.rollout.as_ref().is_none_or(|rollout| rollout.outdated);
    facts.parts().into_iter().find(|(part, _)| outdated(part)).map(|(_, component)| component)
}

/// Says whether pods of a suspended pipeline are still there.
fn is_ending(facts: &Facts) -> bool {
    facts.parts().iter().any(|(part, _)| part.pods() > 0)
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
