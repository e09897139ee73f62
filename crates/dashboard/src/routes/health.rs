//! Whether this process answers, and whether the pipeline behind it is fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use penstock_core::time;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::database::Database;
use crate::snapshot::Snapshot;

/// From which use of memory on the pipeline is not ready, in percent: the next batch may be the one that is killed.
const MEMORY_FULL: u8 = 95;

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(super) struct HealthAnswer {
    status: &'static str,
    timestamp: String,
    redis: &'static str,
    /// Messages accepted and not yet taken; 0 while Redis is away.
    queue_length: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Ready")]
pub(super) struct ReadyAnswer {
    status: &'static str,
    timestamp: String,
    checks: Checks,
    /// What is wrong, by check.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'static str, &'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Checks {
    firehose: bool,
    database: bool,
    memory: bool,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get("/health", Access::Open, health)
        .says("Says that the process answers, and whether it sees Redis.")
        .answers::<HealthAnswer>("it answers");
    api.get("/ready", Access::Open, ready)
        .says("Says whether the pipeline is fit: events flow and can be kept.")
        .answers::<ReadyAnswer>("it is")
        .answers_with::<ReadyAnswer>(503, "it is not, and why");
}

/// `GET /health`: 200 as long as the process answers.
async fn health(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let seen = app.client_and_snapshot();
    let answer = HealthAnswer {
        status: "healthy",
        timestamp: time::format(Timestamp::now()),
        redis: if seen.is_some() { "connected" } else { "disconnected" },
        queue_length: seen.map_or(0, |(_, snapshot)| snapshot.reading.messages),
    };
    Ok(super::json(super::write(&answer)?))
}

/// `GET /ready`: 200 when events flow and can be kept, else 503 with the reasons.
async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let snapshot = app.client_and_snapshot().map(|(_, snapshot)| snapshot);
    let details = details(snapshot.as_deref(), *app.database.borrow());
    let fit = details.is_empty();
    let checks = Checks {
        firehose: !details.contains_key("firehose"),
        database: !details.contains_key("database"),
        memory: !details.contains_key("memory"),
    };
    let answer = ReadyAnswer {
        status: if fit { "ready" } else { "not ready" },
        timestamp: time::format(Timestamp::now()),
        checks,
        details,
    };
    let status = if fit { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, super::json(super::write(&answer)?)).into_response())
}

fn details(snapshot: Option<&Snapshot>, database: Database) -> BTreeMap<&'static str, &'static str> {
    let firehose = match snapshot {
        None => Some("redis does not answer"),
        Some(snapshot) if snapshot.reading.status.is_none() => Some("no ingest has shown itself for 10 s"),
        Some(snapshot) if !snapshot.reading.connected() => Some("the relay is not connected"),
        Some(_) => None,
    };
    let database = match database {
        Database::Fit | Database::NotUsed => None,
        Database::Unknown => Some("postgres was not asked yet"),
        Database::Away => Some("postgres does not answer"),
    };
    let memory = snapshot.is_some_and(|snapshot| snapshot.memory >= MEMORY_FULL).then_some("95 % of memory is in use");
    let all = [("firehose", firehose), ("database", database), ("memory", memory)];
    all.into_iter().filter_map(|(name, why)| Some((name, why?))).collect()
}

#[cfg(test)]
mod tests {
    use penstock_core::live::Status;

    use super::*;
    use crate::reading::Reading;
    use crate::system::SystemHealth;

    fn seen(connected: Option<bool>, memory: u8) -> Snapshot {
        let status = connected.map(|connected| Status { connected, url: String::new(), current_cursor: None });
        let reading = Reading { status, ..Reading::default() };
        Snapshot::new(reading, &SystemHealth { memory, ..SystemHealth::default() }, 0, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn every_reason_is_told_at_once() {
        let failing =
            |snapshot: Option<&Snapshot>, database| details(snapshot, database).into_keys().collect::<Vec<_>>();
        assert!(failing(Some(&seen(Some(true), 94)), Database::Fit).is_empty());
        assert!(failing(Some(&seen(Some(true), 94)), Database::NotUsed).is_empty());
        assert_eq!(failing(Some(&seen(Some(false), 0)), Database::Fit), ["firehose"]);
        assert_eq!(failing(Some(&seen(None, 95)), Database::Away), ["database", "firehose", "memory"]);
        assert_eq!(failing(None, Database::Unknown), ["database", "firehose"]);
    }
}
