//! The figures of the pipeline, as they were at the last look.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::api::{Access, Api};
use super::problem::Problem;
use crate::App;
use crate::snapshot::{Ingest, Metrics};

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get("/api/metrics", Access::Read, metrics)
        .says("Gives the figures of the pipeline, at most one interval old.")
        .answers::<Metrics>("the figures")
        .tells(503, "Redis is away: nothing is known");
    api.get("/api/ingest", Access::Read, ingest)
        .says("Gives what ingest says of itself beyond the figures.")
        .answers::<Ingest>("what ingest says")
        .tells(503, "Redis is away");
}

/// `GET /api/metrics`.
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (_, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    Ok(super::json(snapshot.metrics.clone()))
}

/// `GET /api/ingest`: what ingest says of itself, beyond what `/api/metrics` holds.
async fn ingest(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (_, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    Ok(super::json(snapshot.ingest.clone()))
}
