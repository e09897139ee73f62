//! The routes, and what goes for all of them: counting, origins, headers, errors.

mod activity;
mod auth;
mod headers;
mod health;
mod live;
mod metrics;
mod origin;
mod page;
mod problem;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;

use crate::App;

pub(crate) use activity::ActivityCache;
pub(crate) use auth::Tokens;
pub(crate) use origin::Origins;
use problem::Problem;

/// The largest body of a request, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Lays out the routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/api/metrics", get(metrics::metrics))
        .route("/api/metrics/activity-history", get(activity::history))
        .route("/api/ingest", get(metrics::ingest))
        .route("/api/events/stream", get(live::stream))
        .route("/api/events/recent", get(live::recent))
        .route_layer(from_fn_with_state(Arc::clone(&app), auth::guard));
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/api/session", post(auth::sign_in).delete(auth::sign_out))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .merge(guarded)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the methods that are allowed stand in the allow header")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(from_fn_with_state(Arc::clone(&app), origin::guard))
        .layer(from_fn(headers::secure))
        .layer(from_fn_with_state(Arc::clone(&app), count))
        .with_state(app)
}

/// Counts every request, and those to `/api` for `apiRequestsPerMinute`.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    app.events.request(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    if request.uri().path().starts_with("/api/") {
        app.requests.count(Instant::now());
    }
    next.run(request).await
}

/// Answers with JSON that is already written.
fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Writes JSON.
fn write(body: &impl serde::Serialize) -> Result<Bytes, Problem> {
    let written = serde_json::to_vec(body).map(Bytes::from);
    written.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written"))
}
