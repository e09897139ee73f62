//! The events as they come, and the last ones that came.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fred::interfaces::{ClientLike, KeysInterface};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::live::Wish;
use crate::reading;

/// How many of the newest events are answered.
const RECENT: usize = 10;

/// One event, as ingest broadcasts it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "passed on as it came: this only says how it looks")]
struct Event {
    /// `#commit`, `#identity` or `#account`.
    r#type: String,
    /// The collection, or `com.atproto.identity`, or `com.atproto.account`.
    lexicon: String,
    /// The DID of the repo.
    did: String,
    /// `create`, `update`, `delete`; `→ <handle>` or `update`; `active` or `inactive`.
    action: String,
    /// The time of day in UTC, `HH:MM:SS`.
    timestamp: String,
    /// The record's key, of a commit: `at://<did>/<lexicon>/<rkey>` is the record's URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rkey: Option<String>,
    /// The revision, of a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rev: Option<String>,
    /// The relay's sequence number. Other writers leave out this and the two before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

const NO_QUERY: Problem = Problem::new(StatusCode::BAD_REQUEST, "the query must be percent-encoded UTF-8");

const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    // What packs or rewrites a stream holds frames back.
    (header::CACHE_CONTROL, "no-cache, no-transform"),
    // nginx would otherwise hold frames back.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.live("/api/events/stream", Access::Read, stream)
        .says("Streams metrics and events as they arrive, as server-sent events; events can be filtered.")
        .queries("type", "commit, identity or account; may be repeated, as can the others: an event must match one")
        .queries("collection", "a collection, with those below it, or a pattern with * for any characters")
        .queries("did", "a DID, or a pattern with *")
        .queries("action", "create, update, delete, handle, active or inactive")
        .queries("text", "text in the collection, DID, action, handle or record key, * for any characters; an event must contain each")
        .query("recent", "integer", "how many of the newest matching events to send first, 0 to 200; default 0")
        .answers_text("text/event-stream", "JSON frames, each with a type: connected, metrics, event or missed")
        .tells(400, "a parameter is not as it must be")
        .tells(503, "there are too many live clients");
    api.get("/api/events/recent", Access::Read, recent)
        .says("Returns the newest 10 events, newest first.")
        .answers::<Vec<Event>>("the events")
        .tells(502, "the value in Redis is not a list")
        .tells(503, "Redis is unavailable");
}

/// `GET /api/events/stream`: server-sent events without end, also while Redis is away.
async fn stream(
    State(app): State<Arc<App>>,
    asked: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|_| NO_QUERY)?;
    let wish = Wish::read(asked.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .map_err(|error| Problem::told(StatusCode::BAD_REQUEST, error.to_string()))?;
    if !app.has_room() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live clients"));
    }
    let metrics = app.client_and_snapshot().map(|(_, snapshot)| snapshot.metrics.clone());
    let last_seen = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let frames = app.hub.join(metrics.as_ref(), last_seen, wish);
    Ok((STREAM_HEADERS, Body::from_stream(frames)).into_response())
}

/// `GET /api/events/recent`: the newest first; none while nobody ingests.
async fn recent(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let client = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let kept: Result<Option<String>, _> = client.get(app.settings.keys.recent_events()).await;
    let kept = kept.map_err(|_| Problem::REDIS_AWAY)?.unwrap_or_else(|| "[]".to_owned());
    let events: Vec<&RawValue> = serde_json::from_str(&kept)
        .map_err(|_| Problem::new(StatusCode::BAD_GATEWAY, "the recent events in redis are not a list"))?;
    Ok(super::json(super::write(&events.get(..RECENT).unwrap_or(&events))?))
}
