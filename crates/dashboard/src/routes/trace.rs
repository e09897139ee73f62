//! A span for each request, as the semantic conventions describe those of HTTP servers.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use penstock_telemetry::traces;
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use super::auth::Identity;

/// Makes one while traces are on: in the trace of a caller that shows a token, sampled as it says. Anyone else could have everything
/// traced, so their trace is only linked to, and ours is sampled as all are.
pub(super) async fn request(request: Request, next: Next) -> Response {
    if !traces::are_on() {
        return next.run(request).await;
    }
    let method = request.method().as_str();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let span = info_span!(
        "request",
        otel.name = format!("{method} {}", route.unwrap_or_default()).trim_end(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = request.uri().path(),
        "error.type" = Empty,
    );
    if let Some(caller) = request.headers().get("traceparent") {
        let is_known = request.extensions().get().is_some_and(Identity::is_known);
        let follow = if is_known { traces::adopt } else { traces::link };
        follow(&span, caller.as_bytes());
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    // Signed: the bridge to traces writes unsigned numbers as text.
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "error");
        span.record("error.type", status.as_str());
    }
    response
}
