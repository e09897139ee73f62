//! The events as they come, and the last ones that came.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fred::interfaces::{ClientLike, KeysInterface};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::App;
use crate::reading;

/// How many of the newest events are answered.
const RECENT: usize = 10;

const STREAM_HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-cache"),
    // nginx would otherwise hold frames back.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// `GET /api/events/stream`: server-sent events without end, also while Redis is away.
pub(super) async fn stream(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.hub.clients() >= app.live_clients {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live clients"));
    }
    let metrics = app.client_and_snapshot().map(|(_, snapshot)| snapshot.metrics.clone());
    let frames = app.hub.join(metrics.as_ref());
    // Asked after joining: whoever joined before the end gets the last frame, and nobody joins after it.
    if app.ending.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service ends"));
    }
    Ok((STREAM_HEADERS, Body::from_stream(frames)).into_response())
}

/// `GET /api/events/recent`: the newest first; none while nobody ingests.
pub(super) async fn recent(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (client, _) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    let client = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let kept: Result<Option<String>, _> = client.get(app.settings.keys.recent_events()).await;
    let kept = kept.map_err(|_| Problem::REDIS_AWAY)?.unwrap_or_else(|| "[]".to_owned());
    let events: Vec<&RawValue> = serde_json::from_str(&kept)
        .map_err(|_| Problem::new(StatusCode::BAD_GATEWAY, "the recent events in redis are no list"))?;
    Ok(super::json(super::write(&events.get(..RECENT).unwrap_or(&events))?))
}
