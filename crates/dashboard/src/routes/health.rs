//! Whether this process answers, and whether the pipeline behind it is fit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fred::interfaces::ClientLike;
use jiff::Timestamp;
use penstock_core::live::Status;
use penstock_core::time;
use schemars::JsonSchema;
use serde::Serialize;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::database::Database;
use crate::messages::{Queue, progress};
use crate::snapshot::Snapshot;
use crate::system;

/// From which use of memory on the pipeline is not ready, in percent: the next batch may be the one that is killed.
const MEMORY_FULL: u8 = 95;

/// How long Redis may take to say how many messages wait: whoever asks for health wants to know now.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(super) struct HealthAnswer {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    timestamp: String,
    /// `connected` or `disconnected`.
    redis: &'static str,
    /// Messages accepted but not yet taken by a worker; 0 while Redis is unavailable.
    queue_length: u64,
    /// Messages in a full batch.
    batch_threshold: u64,
    /// Queued messages beyond the last full batch.
    batch_progress: u64,
    /// Full batches in the queue.
    batches_pending: u64,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Ready")]
pub(super) struct ReadyAnswer {
    /// `ready` or `not ready`.
    status: &'static str,
    timestamp: String,
    checks: Checks,
    /// Present if the status is `not ready`.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct Checks {
    /// `connected` or `disconnected`.
    firehose: &'static str,
    /// `healthy` or `unhealthy`; `healthy` if no database is configured.
    database: &'static str,
    /// `ok` or `critical`.
    memory: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Details {
    firehose: Firehose,
    memory: Memory,
    /// Reasons by check, as text.
    reasons: Reasons,
}

/// What ingest said last.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Firehose {
    connected: bool,
    /// `unknown` while no ingest is running.
    url: String,
    current_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Memory {
    percent_used: u8,
}

type Reasons = BTreeMap<&'static str, &'static str>;

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get("/health", Access::Open, health)
        .says("Reports whether Redis is reachable, and how many messages are queued.")
        .answers::<HealthAnswer>("Redis is reachable")
        .answers_with::<HealthAnswer>(503, "Redis is not reachable");
    api.get("/ready", Access::Open, ready)
        .says("Reports whether the pipeline is ready: events flow and can be stored.")
        .answers::<ReadyAnswer>("ready")
        .answers_with::<ReadyAnswer>(503, "not ready, with reasons");
}

/// `GET /health`: 200 where Redis answers at once, else 503.
async fn health(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let waiting = waiting(&app).await;
    let seen = waiting.is_some();
    let queue_length = waiting.unwrap_or_default();
    let batch_threshold = app.settings.message_buffer.batch_size as u64;
    let (batch_progress, batches_pending) = progress(queue_length, batch_threshold);
    let answer = HealthAnswer {
        status: if seen { "healthy" } else { "unhealthy" },
        timestamp: time::format(Timestamp::now()),
        redis: if seen { "connected" } else { "disconnected" },
        queue_length,
        batch_threshold,
        batch_progress,
        batches_pending,
        detail: (!seen).then_some("redis does not answer"),
    };
    let status = if seen { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, super::json(super::write(&answer)?)).into_response())
}

/// Asks Redis itself: the last look may be from before it went.
async fn waiting(app: &App) -> Option<u64> {
    let (client, _) = app.client_and_snapshot().filter(|(client, _)| client.is_connected())?;
    let patience = PATIENCE.min(app.settings.redis.command_timeout);
    Queue::within(&client, &app.settings, patience).waiting().await.ok()
}

/// `GET /ready`: 200 when events flow and can be kept, else 503 with the reasons.
async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let snapshot = app.client_and_snapshot().map(|(_, snapshot)| snapshot);
    let reasons = reasons(snapshot.as_deref(), *app.database.borrow());
    let fit = reasons.is_empty();
    let word = |check: &str, well, otherwise| if reasons.contains_key(check) { otherwise } else { well };
    let answer = ReadyAnswer {
        status: if fit { "ready" } else { "not ready" },
        timestamp: time::format(Timestamp::now()),
        checks: Checks {
            firehose: word("firehose", "connected", "disconnected"),
            database: word("database", "healthy", "unhealthy"),
            memory: word("memory", "ok", "critical"),
        },
        details: (!fit).then(|| details(snapshot.as_deref(), reasons)),
    };
    let status = if fit { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, super::json(super::write(&answer)?)).into_response())
}

fn reasons(snapshot: Option<&Snapshot>, database: Database) -> Reasons {
    let firehose = match snapshot {
        None => Some("redis does not answer"),
        Some(snapshot) if snapshot.reading.status.is_none() => Some("no ingest has reported for 10 s"),
        Some(snapshot) if !snapshot.reading.connected() => Some("the relay is not connected"),
        Some(_) => None,
    };
    let database = match database {
        Database::Fit | Database::NotUsed => None,
        Database::Unknown => Some("postgres has not been checked yet"),
        Database::Away => Some("postgres does not answer"),
    };
    let memory = snapshot.is_some_and(|snapshot| snapshot.memory >= MEMORY_FULL).then_some("95 % of memory is in use");
    let all = [("firehose", firehose), ("database", database), ("memory", memory)];
    all.into_iter().filter_map(|(name, why)| Some((name, why?))).collect()
}

fn details(snapshot: Option<&Snapshot>, reasons: Reasons) -> Details {
    let status = snapshot.and_then(|snapshot| snapshot.reading.status.clone());
    Details {
        firehose: match status {
            Some(Status { connected, url, current_cursor }) => Firehose { connected, url, current_cursor },
            None => Firehose { connected: false, url: "unknown".to_owned(), current_cursor: None },
        },
        memory: Memory { percent_used: snapshot.map_or_else(system::memory, |snapshot| snapshot.memory) },
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Reading;
    use crate::rows::Rows;
    use crate::system::SystemHealth;

    fn seen(connected: Option<bool>, memory: u8) -> Snapshot {
        let status = connected.map(|connected| Status { connected, url: String::new(), current_cursor: None });
        let reading = Reading { status, ..Reading::default() };
        let system = SystemHealth { memory, ..SystemHealth::default() };
        Snapshot::new(reading, Rows::default(), &system, 0, Duration::ZERO, 0, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn every_reason_is_told_at_once() {
        let failing =
            |snapshot: Option<&Snapshot>, database| reasons(snapshot, database).into_keys().collect::<Vec<_>>();
        assert!(failing(Some(&seen(Some(true), 94)), Database::Fit).is_empty());
        assert!(failing(Some(&seen(Some(true), 94)), Database::NotUsed).is_empty());
        assert_eq!(failing(Some(&seen(Some(false), 0)), Database::Fit), ["firehose"]);
        assert_eq!(failing(Some(&seen(None, 95)), Database::Away), ["database", "firehose", "memory"]);
        assert_eq!(failing(None, Database::Unknown), ["database", "firehose"]);
        let told = serde_json::to_value(details(Some(&seen(None, 97)), Reasons::new())).unwrap();
        let firehose = serde_json::json!({"connected": false, "url": "unknown", "currentCursor": null});
        assert_eq!((&told["firehose"], &told["memory"]["percentUsed"]), (&firehose, &97.into()));
    }
}
