//! The events as they come, and the last ones that came.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fred::interfaces::{ClientLike, KeysInterface};
use schemars::JsonSchema;
use serde_json::value::RawValue;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
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
    /// Whose event it is.
    did: String,
    /// `create`, `update`, `delete`; `→ <handle>` or `update`; `active` or `inactive`.
    action: String,
    /// The time of day in UTC, `HH:MM:SS`.
    timestamp: String,
}

const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache"),
    // nginx would otherwise hold frames back.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.live("/api/events/stream", Access::Read, stream)
        .says("Streams figures and events as they come, as server-sent events without end.")
        .answers_text("text/event-stream", "frames of JSON, each with a type: connected, metrics, event, missed")
        .tells(503, "there are too many live clients");
    api.get("/api/events/recent", Access::Read, recent)
        .says("Gives the newest 10 events, newest first.")
        .answers::<Vec<Event>>("the events")
        .tells(502, "what Redis holds is no list")
        .tells(503, "Redis is away");
}

/// `GET /api/events/stream`: server-sent events without end, also while Redis is away.
async fn stream(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if !app.has_room() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live clients"));
    }
    let metrics = app.client_and_snapshot().map(|(_, snapshot)| snapshot.metrics.clone());
    let last_seen = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let frames = app.hub.join(metrics.as_ref(), last_seen);
    Ok((STREAM_HEADERS, Body::from_stream(frames)).into_response())
}

/// `GET /api/events/recent`: the newest first; none while nobody ingests.
async fn recent(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let client = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let kept: Result<Option<String>, _> = client.get(app.settings.keys.recent_events()).await;
    let kept = kept.map_err(|_| Problem::REDIS_AWAY)?.unwrap_or_else(|| "[]".to_owned());
    let events: Vec<&RawValue> = serde_json::from_str(&kept)
        .map_err(|_| Problem::new(StatusCode::BAD_GATEWAY, "the recent events in redis are no list"))?;
    Ok(super::json(super::write(&events.get(..RECENT).unwrap_or(&events))?))
}
