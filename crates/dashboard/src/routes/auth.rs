//! Who may ask: whoever gives a token, or the cookie of a session that a token opened.
//!
//! A session's cookie is made of the token, so that every process of a dashboard knows it and a changed token ends it.
//! A browser sends it unasked, so what changes something by cookie must come from our own page.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER_PERMISSIVE;
use penstock_core::settings::Secret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::origin::is_of_our_page;
use super::problem::Problem;
use crate::App;

/// The cookie of a session.
pub(super) const COOKIE: &str = "penstock_session";

const UNKNOWN: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "this needs a token: send it as `authorization: Bearer …`, or sign in on the page",
);
const NOT_ADMIN: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "this needs the admin token (dashboard.adminToken): send it as `authorization: Bearer …`, or sign in with it",
);
const CLOSED: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "administration is closed here: set dashboard.adminToken, or bind the dashboard to loopback addresses only",
);
const FOREIGN: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "without a token only this dashboard's own page may do this, and only under its loopback address",
);
const FOREIGN_SESSION: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "with a session only this dashboard's own page may do this: send the token as `authorization: Bearer …`",
);

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

/// How a token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Bearer,
    Session,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) read: bool,
    pub(super) admin: bool,
}

// === impl Tokens ===

impl Tokens {
    pub(crate) fn new(read: Option<&Secret>, admin: Option<&Secret>) -> Self {
        let token = |secret: &Secret| Token::new(secret.expose());
        Self { read: read.map(token), admin: admin.map(token) }
    }

    /// Says whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.any().next().is_none()
    }

    fn any(&self) -> impl Iterator<Item = &Token> {
        self.read.iter().chain(&self.admin)
    }

    /// Returns the session that a token opens.
    pub(super) fn open(&self, token: &str) -> Option<String> {
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

// === impl Rights ===

impl Rights {
    /// Says what a client may do, besides changing anything.
    pub(super) fn of(app: &App, headers: &HeaderMap) -> Self {
        Self {
            read: may_read(app, &Method::GET, headers).is_ok(),
            admin: may_administrate(app, &Method::GET, headers).is_ok(),
        }
    }
}

/// Refuses whoever may not read, or leave a message.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let judged = may_read(&app, request.method(), request.headers());
    pass(judged, request, next).await
}

/// Refuses whoever may not administrate. On a route of its own, without [`guard`].
pub(super) async fn admin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let judged = may_administrate(&app, request.method(), request.headers());
    pass(judged, request, next).await
}

async fn pass(judged: Result<(), Problem>, request: Request, next: Next) -> Response {
    match judged {
        // No route answers OPTIONS: what comes of it is the methods that the route has, for browsers that ask beforehand.
        _ if request.method() == Method::OPTIONS => next.run(request).await,
        Ok(()) => next.run(request).await,
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED => {
            ([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], problem).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

fn may_read(app: &App, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if app.tokens.read.is_none() {
        return Ok(());
    }
    by_token(app.tokens.any(), method, headers).unwrap_or(Err(UNKNOWN))
}

fn may_administrate(app: &App, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(admin) = &app.tokens.admin else {
        may_read(app, method, headers)?;
        return match &app.loopback {
            None => Err(CLOSED),
            Some(loopback) if loopback.lets_in(headers) => Ok(()),
            Some(_) => Err(FOREIGN),
        };
    };
    by_token([admin], method, headers)
        .unwrap_or_else(|| Err(if shown(app.tokens.any(), headers).is_some() { NOT_ADMIN } else { UNKNOWN }))
}

/// Judges by the token that is shown; `None`: none of these is.
fn by_token<'t>(
    tokens: impl IntoIterator<Item = &'t Token>,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Result<(), Problem>> {
    let allowed = match shown(tokens, headers)? {
        Shown::Bearer => true,
        Shown::Session => method.is_safe() || is_of_our_page(headers),
    };
    Some(if allowed { Ok(()) } else { Err(FOREIGN_SESSION) })
}

fn shown<'t>(tokens: impl IntoIterator<Item = &'t Token>, headers: &HeaderMap) -> Option<Shown> {
    let given = [bearer(headers).map(hash), cookie(headers).and_then(parse)];
    let none = (Choice::from(0), Choice::from(0));
    let (by_bearer, by_session) = tokens.into_iter().fold(none, |(by_bearer, by_session), token| {
        let by = |given: &Option<[u8; 32]>, own: &[u8; 32]| given.map_or(Choice::from(0), |given| given.ct_eq(own));
        (by_bearer | by(&given[0], &token.bearer), by_session | by(&given[1], &token.session))
    });
    if by_bearer.into() { Some(Shown::Bearer) } else { bool::from(by_session).then_some(Shown::Session) }
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
