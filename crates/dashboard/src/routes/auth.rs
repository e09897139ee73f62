//! Who may ask: whoever gives a token, or the cookie of a session that a token opened.
//!
//! A session's cookie is made of the token, so that every process of a dashboard knows it and a changed token ends it.

use std::fmt;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER_PERMISSIVE;
use penstock_core::settings::Secret;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::App;

/// The cookie of a session.
const COOKIE: &str = "penstock_session";

/// How long a browser keeps it, in seconds: 30 days.
const MAX_AGE: u32 = 30 * 24 * 3600;

const UNKNOWN: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "reading needs a token: send it as `authorization: Bearer …`, or sign in on the page",
);
const NO_TOKENS: Problem = Problem::new(
    StatusCode::NOT_FOUND,
    "no token is set here (dashboard.readToken, dashboard.adminToken): reading is open",
);
const WRONG: Problem = Problem::new(StatusCode::UNAUTHORIZED, "this is not a token of this dashboard");
const NO_BODY: Problem = Problem::new(StatusCode::BAD_REQUEST, "the body must be JSON, such as {\"token\":\"…\"}");

/// The tokens of `dashboard.readToken` and `dashboard.adminToken`, which may read as well.
pub(crate) struct Tokens {
    read: Option<Token>,
    admin: Option<Token>,
}

/// What a token is compared by: of one length, whatever was sent.
struct Token {
    bearer: [u8; 32],
    session: [u8; 32],
}

#[derive(Deserialize)]
struct SignIn {
    token: String,
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new(read: Option<&Secret>, admin: Option<&Secret>) -> Self {
        let token = |secret: &Secret| Token::new(secret.expose());
        Self { read: read.map(token), admin: admin.map(token) }
    }

    fn any(&self) -> impl Iterator<Item = &Token> {
        self.read.iter().chain(&self.admin)
    }

    /// Says whether a client may read.
    fn may_read(&self, headers: &HeaderMap) -> bool {
        if self.read.is_none() {
            return true;
        }
        let bearer = bearer(headers).map(hash);
        let session = cookie(headers).and_then(parse);
        let known = self.any().fold(Choice::from(0), |known, token| {
            let by = |given: &Option<[u8; 32]>, own: &[u8; 32]| given.map_or(Choice::from(0), |given| given.ct_eq(own));
            known | by(&bearer, &token.bearer) | by(&session, &token.session)
        });
        known.into()
    }

    /// Returns the session that a token opens.
    fn open(&self, token: &str) -> Option<String> {
        let given = hash(token);
        self.any().find(|own| given.ct_eq(&own.bearer).into()).map(|own| HEXLOWER_PERMISSIVE.encode(&own.session))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("read", &self.read.is_some()).field("admin", &self.admin.is_some()).finish()
    }
}

// === impl Token ===

impl Token {
    fn new(token: &str) -> Self {
        Self { bearer: hash(token), session: hash(&format!("session of a penstock dashboard\0{token}")) }
    }
}

/// Refuses whoever may not read.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.tokens.may_read(request.headers()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (challenge, UNKNOWN).into_response()
}

/// Opens a session: gives a cookie for a token.
pub(super) async fn sign_in(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    if app.tokens.any().next().is_none() {
        return NO_TOKENS.into_response();
    }
    let Ok(SignIn { token }) = serde_json::from_slice(&body) else { return NO_BODY.into_response() };
    match app.tokens.open(&token) {
        Some(session) => (StatusCode::NO_CONTENT, set_cookie(&session, MAX_AGE, &headers)).into_response(),
        None => WRONG.into_response(),
    }
}

/// Ends a session.
pub(super) async fn sign_out(headers: HeaderMap) -> Response {
    (StatusCode::NO_CONTENT, set_cookie("", 0, &headers)).into_response()
}

fn set_cookie(session: &str, max_age: u32, headers: &HeaderMap) -> [(HeaderName, String); 1] {
    // Behind a proxy that ends TLS the browser must never send it in the clear.
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    let secure = if secure { "; Secure" } else { "" };
    [(header::SET_COOKIE, format!("{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age}{secure}"))]
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.find_map(|line| line.split("; ").find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('=')))
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn parse(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_is_written() {
        let session = Token::new("t").session;
        assert_eq!(parse(&HEXLOWER_PERMISSIVE.encode(&session)), Some(session));
        for wrong in ["", "00", "zz", &"0".repeat(63), &"0".repeat(66), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_are_not_printed() {
        let tokens = Tokens { read: Some(Token::new("hunter2")), admin: None };
        assert_eq!(format!("{tokens:?}"), "Tokens { read: true, admin: false }");
    }
}
