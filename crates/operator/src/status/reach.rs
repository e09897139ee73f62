//! Whether the servers that a pipeline needs can be used, and its tables are there.

use crate::crd::ConditionStatus;

use super::facts::{Facts, Migration, Reading};
use super::verdict::Verdict;

use ConditionStatus::{False, True, Unknown};

/// Says whether the operator reaches Redis, and Redis takes writes.
pub(super) fn redis(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("RedisReachable", status, reason, message);
    let address = &facts.redis_address;
    match &facts.redis {
        None => verdict(Unknown, "Reconciling", "Redis has not been read yet".to_owned()),
        Some(Reading::Unreachable(why)) => {
            let message = format!("The operator cannot reach Redis, so autoscaling is on hold: {why}");
            verdict(False, "RedisUnreachable", message)
        }
        Some(Reading::Read(snapshot)) => match snapshot.full() {
            Some((used, max)) => {
                let message = format!(
                    "Redis {address} is full and refuses writes: it uses {} of maxmemory {}. Raise maxmemory, or remove what else is \
                     stored there",
                    bytes(used),
                    bytes(max)
                );
                verdict(False, "RedisFull", message)
            }
            None => verdict(True, "Reachable", format!("Redis {address} answers")),
        },
    }
}

/// Says whether PostgreSQL can be used, by the word of those who use it.
pub(super) fn database(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("DatabaseReachable", status, reason, message);
    if facts.suspend {
        return verdict(Unknown, "Suspended", "Nobody uses PostgreSQL while spec.suspend is true".to_owned());
    }
    if let Some(trouble) = facts.snapshot().and_then(|snapshot| snapshot.database.as_ref()) {
        let reason = if trouble.is_outage() { "DatabaseUnreachable" } else { "DatabaseRefuses" };
        return verdict(
            False,
            reason,
            format!("{} (as seen by {} {})", sentence(&trouble.text), trouble.part, trouble.process),
        );
    }
    let migration = facts.trouble_of("migrate").filter(|trouble| trouble.is_of_database && facts.migrating().is_some());
    if let Some(trouble) = migration {
        return verdict(False, "DatabaseUnreachable", trouble.message.clone());
    }
    let uses = facts.workers.rollout.as_ref().filter(|rollout| rollout.ready > 0);
    match (uses, &facts.redis) {
        (_, Some(Reading::Unreachable(_))) => verdict(
            Unknown,
            "RedisUnreachable",
            "What the services say of PostgreSQL stands in Redis, which is unreachable".to_owned(),
        ),
        (Some(_), Some(Reading::Read(_))) => verdict(True, "Reachable", "Workers use PostgreSQL".to_owned()),
        _ => verdict(Unknown, "NotUsed", "No worker is ready, and nobody reports that PostgreSQL fails".to_owned()),
    }
}

/// Says whether the tables are as the workers need them.
pub(super) fn migrated(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("Migrated", status, reason, message);
    match &facts.migration {
        Migration::NotOurs if facts.suspend => {
            verdict(Unknown, "Suspended", "Nothing is migrated while spec.suspend is true".to_owned())
        }
        Migration::NotOurs => verdict(Unknown, "NotOurs", "The operator does not migrate these tables".to_owned()),
        Migration::Done => verdict(True, "Migrated", "The tables are as the workers need them".to_owned()),
        Migration::Running { job } => match facts.trouble_of("migrate") {
            Some(trouble) => {
                let message = format!("The tables are not migrated yet, and it is tried again. {}", trouble.message);
                let reason = if trouble.is_of_database { "DatabaseUnreachable" } else { trouble.reason.as_str() };
                verdict(False, reason, message)
            }
            None => verdict(
                False,
                "Migrating",
                format!("The tables are being migrated, and workers start after that: see job/{job}"),
            ),
        },
        Migration::Failed { job } => {
            let why = facts.trouble_of("migrate").map(|trouble| format!(" {}.", trouble.message)).unwrap_or_default();
            let message = format!(
                "The migration failed.{why} See kubectl logs job/{job}. It is retried ten minutes after the failure, or at once after \
                 kubectl delete job {job}. Workers of the previous version keep running"
            );
            verdict(False, "MigrationFailed", message)
        }
    }
}

/// Begins a text as a sentence does.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches(['.', ' ']);
    match text.strip_prefix("postgresql ") {
        Some(rest) => format!("PostgreSQL {rest}"),
        None => text.to_owned(),
    }
}

/// Writes a number of bytes for a person.
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / *unit as f64),
        None => format!("{count} B"),
    }
}
