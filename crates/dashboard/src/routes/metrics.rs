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
        .says("Returns the metrics of the pipeline, at most one interval old.")
        .answers::<Metrics>("the metrics")
        .tells(503, "Redis is unavailable");
    api.get("/api/ingest", Access::Read, ingest)
        .says("Returns further status of ingest.")
        .answers::<Ingest>("the status of ingest")
        .tells(503, "Redis is unavailable");
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
