//! The message buffer: messages taken, shown, simulated and removed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use penstock_core::time;
use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::messages::{Draft, Faults, LastBatch, Messages, NotQueued, Queue, Row, Rows, Sent, count, limit, progress};

/// How many IDs of queued messages the status has.
const STATUS_IDS: usize = 100;

const NOT_ENABLED: Problem =
    Problem::new(StatusCode::NOT_FOUND, "the message buffer is not enabled here (messageBuffer.enabled)");
const NO_DATABASE: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "messages cannot be read without a database: set postgres.url (DATABASE_URL)",
);
const POSTGRES_AWAY: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "postgres is unavailable, or has no messages table");
const NOT_TAKEN: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "redis is unavailable or full: send the message again");
const FULL: Problem = Problem::new(
    StatusCode::SERVICE_UNAVAILABLE,
    "the queue is full (messageBuffer.maxQueue): send the message again once workers have caught up",
);
const TOO_LARGE: Problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large: send at most 64 kB");

/// Why a request is refused.
enum Refusal {
    Problem(Problem),
    Faults(Faults),
}

/// The result of queueing a message.
#[derive(Debug, Serialize, JsonSchema)]
struct MessageQueued<'m> {
    /// Its tracking ID: 8 characters of base62.
    message_id: &'m str,
    /// Always `queued`.
    status: &'static str,
    /// RFC 3339.
    queued_at: String,
}

/// The state of the queue.
#[derive(Debug, Serialize, JsonSchema)]
struct QueueStatus {
    /// Messages that no worker has taken.
    queue_length: u64,
    /// Messages in a full batch.
    batch_threshold: u64,
    /// Queued messages beyond the last full batch.
    batch_progress: u64,
    /// Full batches in the queue.
    batches_ready: u64,
    /// Newest first, at most 100.
    queued_message_ids: Vec<String>,
    last_batch: LastBatch,
}

/// How many messages to simulate.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field to tell what is wrong")]
struct Simulate {
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default)]
    count: Option<u16>,
}

/// What was simulated.
#[derive(Debug, Serialize, JsonSchema)]
struct Simulated {
    /// Always `simulation_started`.
    status: &'static str,
    messages_count: usize,
    tracking_ids: Vec<String>,
    /// Messages that no worker has taken.
    current_queue: u64,
    /// The same.
    expected_total: u64,
    /// Full batches in the queue.
    expected_complete_batches: u64,
    /// Messages that remain after those.
    expected_remaining_queued: u64,
    batch_threshold: usize,
    message: String,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    /// Always `reset_complete`.
    status: &'static str,
    /// Rows of `messages` that had come through the buffer.
    deleted_messages: u64,
    cleared_queue: u64,
}

#[derive(Deserialize)]
struct Asked {
    limit: Option<String>,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.post("/messages", Access::Read, post)
        .says("Accepts a message. Once answered, it is in Redis and will become exactly one row.")
        .takes::<Draft>()
        .answers_with::<MessageQueued<'_>>(201, "queued")
        .answers_with::<Faults>(422, "what is wrong, and where")
        .tells(404, "the message buffer is not enabled")
        .tells(413, "the body is too large")
        .tells(503, "Redis is unavailable, or the queue is full");
    api.get("/messages", Access::Read, list)
        .says("Lists stored messages, newest first.")
        .query("limit", "integer", "maximum number of messages, 1 to 500; default 50")
        .answers::<Vec<Row>>("the messages")
        .answers_with::<Faults>(422, "what is wrong, and where")
        .tells(404, "the message buffer is not enabled")
        .tells(503, "PostgreSQL is away");
    api.get("/queue/status", Access::Read, status)
        .says("Reports the state of the queue.")
        .answers::<QueueStatus>("the state of the queue")
        .tells(404, "the message buffer is not enabled")
        .tells(503, "Redis is unavailable");
    api.post("/simulate", Access::AdminUnlessOpen, simulate)
        .says("Queues generated messages, all or none. Open to everyone if messageBuffer.openAdmin is set.")
        .takes::<Simulate>()
        .answers_with::<Simulated>(202, "queued")
        .answers_with::<Faults>(422, "what is wrong, and where")
        .tells(404, "the message buffer is not enabled")
        .tells(503, "Redis is unavailable, or the queue is full");
    api.delete("/reset", Access::AdminUnlessOpen, reset)
        .says("Deletes the buffer's messages, queued and stored, and their statistics. Open to everyone if messageBuffer.openAdmin is set.")
        .answers::<Removed>("deleted")
        .tells(404, "the message buffer is not enabled")
        .tells(503, "Redis or PostgreSQL is away: what was removed stays so");
}

/// The message buffer, where it is enabled.
pub(super) fn buffer(app: &App) -> Result<&Messages, Problem> {
    app.messages.as_ref().ok_or(NOT_ENABLED)
}

async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    buffer(&app)?;
    let draft = Draft::read(Sent { as_json: is_json(&headers), body: &body.map_err(|_| TOO_LARGE)? })?;
    let now = Timestamp::now();
    let (ids, _) = queue(&app, std::slice::from_ref(&draft), now).await?;
    let message_id = ids.first().map(String::as_str).unwrap_or_default();
    let queued = MessageQueued { message_id, status: "queued", queued_at: time::format(now) };
    Ok((StatusCode::CREATED, super::json(super::write(&queued)?)).into_response())
}

async fn list(State(app): State<Arc<App>>, asked: Result<Query<Asked>, QueryRejection>) -> Result<Response, Refusal> {
    buffer(&app)?;
    let asked = asked.ok().and_then(|Query(asked)| asked.limit);
    let limit = limit(asked.as_deref())?;
    let rows = rows(&app)?.latest(limit).await.map_err(|error| without_postgres(&app, &error))?;
    Ok(super::answer(&rows)?)
}

async fn status(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    buffer(&app)?;
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let read = Queue::new(&client, &app.settings).stats(STATUS_IDS).await;
    let (stats, ids) = read.map_err(|error| super::refused(&app.events, "queue status", &error))?;
    let (batch_progress, batches_ready) = progress(stats.waiting, stats.threshold);
    super::answer(&QueueStatus {
        queue_length: stats.waiting,
        batch_threshold: stats.threshold,
        batch_progress,
        batches_ready,
        queued_message_ids: ids,
        last_batch: stats.last_batch,
    })
}

async fn simulate(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    buffer(&app)?;
    let count = count(Sent { as_json: is_json(&headers), body: &body.map_err(|_| TOO_LARGE)? })?;
    let drafts: Vec<Draft> = (1..=count).map(simulated).collect();
    let (tracking_ids, current_queue) = queue(&app, &drafts, Timestamp::now()).await?;
    let batch_threshold = app.settings.message_buffer.batch_size;
    let (remaining, complete) = progress(current_queue, batch_threshold as u64);
    let simulated = Simulated {
        status: "simulation_started",
        messages_count: count,
        tracking_ids,
        current_queue,
        expected_total: current_queue,
        expected_complete_batches: complete,
        expected_remaining_queued: remaining,
        batch_threshold,
        message: format!("{count} messages are queued: full batches {complete}, beyond them {remaining}"),
    };
    Ok((StatusCode::ACCEPTED, super::json(super::write(&simulated)?)).into_response())
}

async fn reset(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    buffer(&app)?;
    let rows = rows(&app)?;
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    // Redis first: what is queued would be written meanwhile.
    let cleared_queue = Queue::new(&client, &app.settings).reset().await;
    let cleared_queue = cleared_queue.map_err(|error| super::refused(&app.events, "reset", &error))?;
    let deleted_messages = rows.clear().await.map_err(|error| without_postgres(&app, &error))?;
    app.events.messages_reset(deleted_messages, cleared_queue);
    super::answer(&Removed { status: "reset_complete", deleted_messages, cleared_queue })
}

async fn queue(app: &App, drafts: &[Draft], now: Timestamp) -> Result<(Vec<String>, u64), Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(NOT_TAKEN)?;
    let queued = Queue::new(&client, &app.settings).push(drafts, now).await;
    queued.map_err(|error| match error {
        NotQueued::Full => FULL,
        NotQueued::Redis(_) | NotQueued::Write(_) => {
            app.events.redis_refused("queue a message", &error);
            NOT_TAKEN
        }
    })
}

fn rows(app: &App) -> Result<&Rows, Problem> {
    buffer(app)?.rows.as_ref().ok_or(NO_DATABASE)
}

fn without_postgres(app: &App, error: &sqlx::Error) -> Problem {
    app.events.postgres_refused("messages", error);
    POSTGRES_AWAY
}

/// Says whether a body is declared as JSON, as FastAPI sees it: `application/json`, or a type that ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|declared| declared.to_str().ok()).unwrap_or_default();
    let kind = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = kind.strip_prefix("application/").filter(|subtype| !subtype.contains('/'));
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn simulated(number: usize) -> Draft {
    let mut random = rand::rng();
    Draft {
        user_id: random.random_range(1..=1000),
        channel_id: random.random_range(1..=20),
        content: format!("simulated message {number}"),
    }
}

// === impl Refusal ===

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Faults> for Refusal {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::Faults(faults) => {
                let headers = [(header::CONTENT_TYPE, "application/json")];
                let body = serde_json::to_vec(&faults).unwrap_or_default();
                (StatusCode::UNPROCESSABLE_ENTITY, headers, body).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_is_json_where_fastapi_takes_it_for_it() {
        let declared = |kind: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        for kind in [
            "application/json",
            "application/json; charset=utf-8",
            "APPLICATION/JSON",
            " application/json",
            "application/json;",
            "application/vnd.api+json",
        ] {
            assert!(declared(kind), "{kind}");
        }
        for kind in [
            "",
            "application",
            "text/json",
            "text/plain",
            "application/jsonx",
            "*/*",
            "application/json, text/plain",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!declared(kind), "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
