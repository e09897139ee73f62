//! Sessions: a token once, then a cookie that no script can read.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Access, Api};
use super::auth::{COOKIE, Rights};
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

/// What this client may do here.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Session {
    read: bool,
    admin: bool,
}

/// Registers the routes.
pub(super) fn register(api: &mut Api) {
    api.get("/api/session", Access::Open, rights)
        .says("Says what the client may do here.")
        .answers::<Session>("its rights");
    api.post("/api/session", Access::Open, sign_in)
        .says("Opens a session: gives a cookie for a token.")
        .takes::<SignIn>()
        .tells(204, "the cookie is set")
        .tells(400, "the body is not as it must be")
        .tells(401, "it is not a token of this dashboard")
        .tells(404, "no token is set here");
    api.delete("/api/session", Access::Open, sign_out).says("Ends the session.").tells(204, "the cookie is removed");
}

/// `GET /api/session`: what the client may do, for a page that would hide what it may not.
async fn rights(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let Rights { read, admin } = Rights::of(&app, &headers);
    Ok(super::json(super::write(&Session { read, admin })?))
}

/// `POST /api/session`: gives a cookie for a token.
async fn sign_in(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    if app.tokens.is_empty() {
        return NO_TOKENS.into_response();
    }
    let Ok(SignIn { token }) = serde_json::from_slice(&body) else { return NO_BODY.into_response() };
    match app.tokens.open(&token) {
        Some(session) => (StatusCode::NO_CONTENT, set_cookie(&session, MAX_AGE, &headers)).into_response(),
        None => WRONG.into_response(),
    }
}

/// `DELETE /api/session`: ends a session.
async fn sign_out(headers: HeaderMap) -> Response {
    (StatusCode::NO_CONTENT, set_cookie("", 0, &headers)).into_response()
}

fn set_cookie(session: &str, max_age: u32, headers: &HeaderMap) -> [(HeaderName, String); 1] {
    // Behind a proxy that ends TLS the browser must never send it in the clear.
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if secure { "; Secure" } else { "" };
    [(header::SET_COOKIE, format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}"))]
}
