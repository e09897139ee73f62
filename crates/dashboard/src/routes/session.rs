//! Sessions: a token once, then a cookie that no script can read.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use penstock_core::settings::Dashboard;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Access, Api};
use super::auth::{self, COOKIE, Identity, Rights, Role};
use super::client::Client;
use super::problem::Problem;
use crate::App;

/// How long a browser keeps the cookie, in seconds: 30 days.
const MAX_AGE: u32 = 30 * 24 * 3600;

const NO_TOKENS: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "no token is set here (dashboard.readToken, dashboard.adminToken): reading is open",
);
const WRONG: Problem = Problem::new(StatusCode::UNAUTHORIZED, "this is not a token of this dashboard");
const NO_BODY: Problem = Problem::new(StatusCode::BAD_REQUEST, "the body must be JSON, such as {\"token\":\"…\"}");

#[derive(Deserialize, JsonSchema)]
pub(super) struct SignIn {
    token: String,
}

/// What this client may do.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Session {
    read: bool,
    admin: bool,
    /// Whether a token is set here: without one there is nothing to sign in with.
    tokens: bool,
    /// Whose token opened the client's session; null: it has none.
    signed_in: Option<Role>,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get("/api/session", Access::Open, rights)
        .says("Reports what the client may do.")
        .answers::<Session>("the client's permissions");
    api.post("/api/session", Access::Open, sign_in)
        .says("Opens a session: exchanges a token for a cookie.")
        .takes::<SignIn>()
        .tells(204, "the cookie is set")
        .tells(400, "the body is not as it must be")
        .tells(401, "it is not a token of this dashboard")
        .tells(429, "too many wrong tokens came from this address")
        .tells(404, "no token is set here");
    api.delete("/api/session", Access::Open, sign_out).says("Ends the session.").tells(204, "the cookie is removed");
}

/// `GET /api/session`: what the client may do, for a page that would hide what it may not.
async fn rights(State(app): State<Arc<App>>, asked: Parts) -> Result<Response, Problem> {
    let identity: Identity = asked.extensions.get().copied().unwrap_or_default();
    let Rights { read, admin } = Rights::of(&app, identity, &asked.headers);
    let (tokens, signed_in) = (!app.tokens.is_empty(), identity.signed_in());
    Ok(super::json(super::write(&Session { read, admin, tokens, signed_in })?))
}

/// `POST /api/session`: gives a cookie for a token.
async fn sign_in(State(app): State<Arc<App>>, asked: Parts, body: Bytes) -> Result<Response, Problem> {
    if app.tokens.is_empty() {
        return Err(NO_TOKENS);
    }
    let SignIn { token } = serde_json::from_slice(&body).map_err(|_| NO_BODY)?;
    let session = auth::sign_in(&app, Client::of(&asked.extensions), &token)?.ok_or(WRONG)?;
    Ok((StatusCode::NO_CONTENT, set_cookie(&app.settings.dashboard, &session, MAX_AGE, &asked.headers)).into_response())
}

/// `DELETE /api/session`: ends a session.
async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    (StatusCode::NO_CONTENT, set_cookie(&app.settings.dashboard, "", 0, &headers)).into_response()
}

/// Says whether the browser's connection was encrypted. Proxies in a row each add theirs: the first one is the browser's.
fn came_by_https(headers: &HeaderMap) -> bool {
    let schemes = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or_default();
    schemes.split(',').next().is_some_and(|first| first.trim().eq_ignore_ascii_case("https"))
}

/// Writes the cookie; under a base path, so that the cookies of several dashboards on one host stay apart.
fn set_cookie(dashboard: &Dashboard, session: &str, max_age: u32, headers: &HeaderMap) -> [(HeaderName, String); 1] {
    // Behind a proxy that ends TLS the browser must never send it in the clear.
    let secure = if came_by_https(headers) { "; Secure" } else { "" };
    let path = &dashboard.base_path;
    let cookie = format!("{COOKIE}={session}; Path={path}; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}");
    [(header::SET_COOKIE, cookie)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_https_where_the_first_proxy_says_so() {
        for (said, secure) in [
            (Some("https"), true),
            (Some("HTTPS"), true),
            (Some("https, http"), true),
            (Some("https,http"), true),
            (Some("http, https"), false),
            (Some("http"), false),
            (Some("wss"), false),
            (Some(""), false),
            (None, false),
        ] {
            let headers = said.map(|said| (HeaderName::from_static("x-forwarded-proto"), said.parse().unwrap()));
            assert_eq!(came_by_https(&HeaderMap::from_iter(headers)), secure, "{said:?}");
        }
    }
}
