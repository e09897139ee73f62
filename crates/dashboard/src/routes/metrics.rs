//! The figures of the pipeline, as they were at the last look.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::problem::Problem;
use crate::App;

/// `GET /api/metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (_, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    Ok(super::json(snapshot.metrics.clone()))
}

/// `GET /api/ingest`: what ingest says of itself, beyond what `/api/metrics` holds.
pub(super) async fn ingest(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let (_, snapshot) = app.client_and_snapshot().ok_or(Problem::REDIS_AWAY)?;
    Ok(super::json(snapshot.ingest.clone()))
}
