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
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no ingest has shown itself for 10 s: there is nobody to ask");

/// It is done.
#[derive(Debug, Serialize, JsonSchema)]
struct Done {
    /// Always true: a refusal is a problem.
    success: bool,
}

/// The figures are new.
#[derive(Debug, Serialize, JsonSchema)]
struct Refreshed {
    /// Always true: a refusal is a problem.
    success: bool,
    /// The same for a person.
    message: &'static str,
    stats: Stats,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.post("/api/metrics/refresh", Access::Admin, refresh)
        .says("Looks at Redis now; when it answers, the new figures are out.")
        .answers::<Refreshed>("the figures are new")
        .tells(503, "Redis is away");
    api.post("/api/firehose/reconnect", Access::Admin, reconnect)
        .says("Has ingest open a new connection to the relay; it goes on from its cursor, so nothing is lost.")
        .answers::<Done>("ingest is told")
        .tells(503, "Redis is away, or no ingest is there");
}

async fn refresh(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let mut looks = app.view.subscribe();
    app.look_now.notify_one();
    // Whether or not it changes anything, each look is a change.
    let looked = timeout(app.settings.redis.command_timeout, looks.changed()).await;
    app.activity.forget().await;
    let (_, snapshot) = app.client_and_snapshot().filter(|_| looked.is_ok()).ok_or(Problem::REDIS_AWAY)?;
    let stats = Stats::of(&snapshot.reading);
    super::answer(&Refreshed { success: true, message: "the figures are new", stats })
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
