//! What an administrator may ask for at once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use fred::interfaces::{ClientLike, PubsubInterface};
use penstock_core::keys::CONTROL_RECONNECT;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::reading;
use crate::snapshot::Stats;

const NO_INGEST: Problem =
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no ingest has reported for 10 s, so none can reconnect");

/// It is done.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// Always true; errors are answered as `application/problem+json`.
    success: bool,
}

/// The metrics were refreshed.
#[derive(Debug, Serialize, JsonSchema)]
struct Refreshed {
    /// Always true; errors are answered as `application/problem+json`.
    success: bool,
    /// The same as text.
    message: &'static str,
    stats: Stats,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.post("/api/metrics/refresh", Access::Admin, refresh)
        .says("Refreshes the metrics from Redis now; live clients have them when it answers.")
        .answers::<Refreshed>("refreshed")
        .tells(503, "Redis is unavailable");
    api.post("/api/firehose/reconnect", Access::Admin, reconnect)
        .says("Makes ingest reconnect to the relay; it resumes at its cursor, so nothing is lost.")
        .answers::<Done>("the request was sent to ingest")
        .tells(503, "Redis is unavailable, or no ingest is running");
}

async fn refresh(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut looks = app.view.subscribe();
    app.look_now.notify_one();
    // Whether or not it changes anything, each look is a change.
    let looked = timeout(app.settings.redis.command_timeout, looks.changed()).await;
    app.activity.forget().await;
    let (_, snapshot) = app.client_and_snapshot().filter(|_| looked.is_ok()).ok_or(Problem::REDIS_AWAY)?;
    let stats = Stats::of(&snapshot.reading);
    super::answer(&Refreshed { success: true, message: "refreshed", stats })
}

async fn reconnect(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (client, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    // Of its subscribers a cluster counts only those of one node: whether ingest is there its status says.
    if snapshot.reading.status.is_none() {
        return Err(NO_INGEST);
    }
    let ask = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let told: Result<u64, _> = ask.publish(app.settings.keys.ingest_control(), CONTROL_RECONNECT).await;
    told.map_err(|error| super::refused(&app.events, "reconnect", &error))?;
    app.events.reconnect_asked();
    super::answer(&Done { success: true })
}
