//! The routes, and what goes for all of them: counting, origins, rates, headers, errors.

mod about;
mod activity;
mod api;
mod auth;
mod base;
mod client;
mod control;
mod dead_letters;
mod guesses;
mod headers;
mod health;
mod heavy;
mod letters;
mod limits;
mod live;
mod messages;
mod metrics;
mod origin;
mod page;
mod problem;
mod record;
mod repos;
mod session;
mod stats;
mod tables;
mod trace;
mod workers;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use penstock_core::settings::BasePath;
use tower_http::compression::CompressionLayer;

use crate::App;
use crate::events::Events;

use api::Api;

pub(crate) use activity::ActivityCache;
pub(crate) use auth::Tokens;
pub(crate) use guesses::Guesses;
pub(crate) use heavy::Heavy;
pub(crate) use limits::Rates;
pub(crate) use origin::Origins;
use problem::Problem;
pub(crate) use repos::Lookups;
pub(crate) use workers::Roster;

/// The largest body of a request, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// Lays out the routes.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut api = api();
    let routes = api.router(app);
    let base = &app.settings.dashboard.base_path;
    let description = api.description(base);
    let index = page::Index::new(base, page::overview(&description, base, &app.settings.message_buffer));
    let description = Bytes::from(description.to_string());
    let routes = Router::new()
        .route("/", get(async move |asked: HeaderMap| index.answer(&asked)))
        .route("/assets/{name}", get(page::asset))
        .route("/api/openapi.json", {
            let described = get(async move || json(description));
            described.layer(from_fn_with_state(Arc::clone(app), auth::guard))
        })
        .merge(routes)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such route"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; see the allow header")
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(map_response(problem::of_framework))
        .layer(from_fn_with_state(Arc::clone(app), limits::rate))
        .layer(from_fn_with_state(Arc::clone(app), origin::guard))
        // Not event streams: a frame must not wait for others.
        .layer(CompressionLayer::new())
        .layer(from_fn(headers::secure))
        .layer(from_fn_with_state(Arc::clone(app), count))
        .layer(from_fn(trace::request))
        .layer(from_fn_with_state(Arc::clone(app), auth::identify))
        .layer(from_fn_with_state(Arc::clone(app), client::note))
        .with_state(Arc::clone(app));
    let router = Router::new().fallback_service(routes).layer(from_fn(origin::preflight));
    if base.is_root() {
        return router;
    }
    router.layer(from_fn_with_state(Arc::new(base.clone()), base::strip))
}

/// Describes the API, as OpenAPI 3.1.
pub(crate) fn description() -> serde_json::Value {
    api().description(&BasePath::default())
}

/// Registers every route of the API. A family of routes has a `register` of its own, called here.
fn api() -> Api {
    let mut api = Api::new();
    metrics::register(&mut api);
    activity::register(&mut api);
    live::register(&mut api);
    record::register(&mut api);
    repos::register(&mut api);
    workers::register(&mut api);
    dead_letters::register(&mut api);
    letters::register(&mut api);
    control::register(&mut api);
    messages::register(&mut api);
    stats::register(&mut api);
    tables::register(&mut api);
    session::register(&mut api);
    about::register(&mut api);
    health::register(&mut api);
    api
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

/// Answers with JSON.
fn answer(body: &impl serde::Serialize) -> Result<Response, Problem> {
    Ok(json(write(body)?))
}

/// Says that Redis did not do what it was asked; the log says why.
fn refused(events: &Events, what: &'static str, error: &fred::error::Error) -> Problem {
    events.redis_refused(what, error);
    Problem::REDIS_AWAY
}

/// Writes JSON.
fn write(body: &impl serde::Serialize) -> Result<Bytes, Problem> {
    let written = serde_json::to_vec(body).map(Bytes::from);
    written.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "could not encode the answer"))
}
