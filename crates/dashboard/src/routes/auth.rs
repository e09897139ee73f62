//! Who may ask: whoever gives a token, or the cookie of a session that a token opened.
//!
//! A session's cookie is made of the token and a number of its own, so that every process of a dashboard knows it, a changed
//! token ends it, and nobody who knows the token alone has it. A browser sends it unasked, so what changes something by cookie
//! must come from our own page, with the header that only the page sets.
//!
//! Without an admin token nobody administrates, on a loopback address neither: a proxy or a forwarded port in front of it looks
//! just like a program on the same machine, and lets everyone in.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER_PERMISSIVE;
use penstock_core::settings::Secret;
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::client::Client;
use super::guesses::{Credential, Verdict};
use super::origin::Origins;
use super::problem::Problem;
use crate::App;

/// The cookie of a session.
pub(super) const COOKIE: &str = "penstock_session";

/// The header that the page sets with whatever changes something. No form can set it, and no page of another origin may.
const PAGE: &str = "x-penstock-page";

const UNKNOWN: Problem = Problem::new(
    StatusCode::UNAUTHORIZED,
    "a token is required: send it as `authorization: Bearer …`, or sign in on the page",
);
const NOT_ADMIN: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "the admin token (dashboard.adminToken) is required: send it as `authorization: Bearer …`, or sign in with it",
);
const CLOSED: Problem =
    Problem::new(StatusCode::FORBIDDEN, "admin access is disabled: set dashboard.adminToken to enable it");
const FOREIGN_SESSION: Problem = Problem::new(
    StatusCode::FORBIDDEN,
    "with a session this is only allowed from the dashboard's own page: send the token as `authorization: Bearer …`",
);
pub(super) const TOO_MANY: Problem = Problem::new(
    StatusCode::TOO_MANY_REQUESTS,
    "too many wrong tokens from this address: wait a minute, then try again",
);

/// The tokens of `dashboard.readToken` and `dashboard.adminToken`, which may read as well.
pub(crate) struct Tokens {
    /// The one that may do more last.
    all: Vec<(Role, Token)>,
}

/// What a token is compared by: of one length, whatever was sent.
struct Token([u8; 32]);

/// The number of a session, and what is made of it and the token.
#[derive(Clone, Copy)]
struct Session {
    number: [u8; 16],
    proof: [u8; 32],
}

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Reader,
    Admin,
}

/// Whose tokens a request shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity {
    bearer: Option<Role>,
    session: Option<Role>,
    /// Something was shown and not looked at.
    refused: bool,
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
        let token =
            |role, secret: Option<&Secret>| secret.map(|secret| (role, Token(hash(secret.expose().as_bytes()))));
        Self { all: [token(Role::Reader, read), token(Role::Admin, admin)].into_iter().flatten().collect() }
    }

    /// Says whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn has(&self, role: Role) -> bool {
        self.all.iter().any(|(own, _)| *own == role)
    }

    /// Says whose token has that hash.
    fn role_of(&self, given: &[u8; 32]) -> Option<Role> {
        self.find(|token| given.ct_eq(&token.0))
    }

    /// Says whose token opened a session.
    fn role_of_session(&self, given: &Session) -> Option<Role> {
        self.find(|token| given.proof.ct_eq(&token.proof(&given.number)))
    }

    /// Finds the last token that it is so for, in the same time whichever it is.
    fn find(&self, mut is_so: impl FnMut(&Token) -> Choice) -> Option<Role> {
        let found = self
            .all
            .iter()
            .zip(0..)
            .fold(u8::MAX, |found, ((_, token), nth)| u8::conditional_select(&found, &nth, is_so(token)));
        self.all.get(usize::from(found)).map(|(role, _)| *role)
    }

    /// Opens a session with the token of someone; returns what its cookie holds.
    fn open(&self, role: Role) -> Option<String> {
        let (_, token) = self.all.iter().find(|(own, _)| *own == role)?;
        let number = rand::random();
        Some(Session { number, proof: token.proof(&number) }.to_text())
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |role| self.has(role);
        f.debug_struct("Tokens").field("read", &has(Role::Reader)).field("admin", &has(Role::Admin)).finish()
    }
}

// === impl Token ===

impl Token {
    fn proof(&self, number: &[u8; 16]) -> [u8; 32] {
        hash(&[b"session of a penstock dashboard\0".as_slice(), number, &self.0].concat())
    }
}

// === impl Session ===

impl Session {
    fn to_text(self) -> String {
        HEXLOWER_PERMISSIVE.encode(&[self.number.as_slice(), &self.proof].concat())
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        let (number, proof) = bytes.split_at_checked(16)?;
        Some(Self { number: number.try_into().ok()?, proof: proof.try_into().ok()? })
    }
}

// === impl Identity ===

impl Identity {
    /// Looks at what a request shows, as far as its client may guess.
    fn of(app: &App, client: IpAddr, headers: &HeaderMap) -> Self {
        if app.tokens.is_empty() {
            return Self::default();
        }
        let mut refused = false;
        let mut judge = |shown: Credential, compare: &dyn Fn() -> Option<Role>| match look(app, client, shown, compare)
        {
            Ok(role) => role,
            Err(_) => {
                refused = true;
                None
            }
        };
        let bearer = bearer(headers).and_then(|token| {
            let given = hash(token.as_bytes());
            judge(Credential::Token(given), &|| app.tokens.role_of(&given))
        });
        let session = cookie(headers).and_then(|text| {
            let session = Session::parse(text)?;
            judge(Credential::Session(hash(text.as_bytes())), &|| app.tokens.role_of_session(&session))
        });
        Self { bearer, session, refused }
    }

    /// Says whether any token is known.
    pub(super) fn is_known(&self) -> bool {
        self.bearer.is_some() || self.session.is_some()
    }

    /// Says whose token opened the client's session. A bearer token is no session.
    pub(super) fn signed_in(&self) -> Option<Role> {
        self.session
    }

    /// Judges by what is shown of those who may do it; `None`: nothing is.
    fn judge(
        &self,
        may: impl Fn(Role) -> bool,
        app: &App,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<Result<(), Problem>> {
        if self.bearer.is_some_and(&may) {
            return Some(Ok(()));
        }
        self.session.filter(|role| may(*role)).map(|_| {
            let is_allowed = method.is_safe() || is_of_page(headers, &app.origins);
            if is_allowed { Ok(()) } else { Err(FOREIGN_SESSION) }
        })
    }
}

/// Opens a session with the token that a client gives, and returns what its cookie holds; nothing where the token is nobody's.
///
/// # Errors
/// The client has guessed too often.
pub(super) fn sign_in(app: &App, client: IpAddr, token: &str) -> Result<Option<String>, Problem> {
    let given = hash(token.as_bytes());
    let role = look(app, client, Credential::Token(given), &|| app.tokens.role_of(&given))?;
    let session = role.and_then(|role| app.tokens.open(role));
    if let Some(session) = &session {
        app.guesses.know(Credential::Session(hash(session.as_bytes())));
    }
    Ok(session)
}

/// Looks at one token or session.
fn look(
    app: &App,
    client: IpAddr,
    shown: Credential,
    compare: &dyn Fn() -> Option<Role>,
) -> Result<Option<Role>, Problem> {
    match app.guesses.judge(client, shown, Instant::now(), compare) {
        Verdict::Right(role) => Ok(Some(role)),
        Verdict::Wrong { exhausted } => {
            app.events.wrong_token(client, exhausted);
            Ok(None)
        }
        Verdict::WrongAgain => Ok(None),
        Verdict::Refused => {
            app.events.guess_refused();
            Err(TOO_MANY)
        }
    }
}

// === impl Rights ===

impl Rights {
    /// Says what a client may do, besides changing anything.
    pub(super) fn of(app: &App, identity: Identity, headers: &HeaderMap) -> Self {
        Self {
            read: may_read(app, identity, &Method::GET, headers).is_ok(),
            admin: may_administrate(app, identity, &Method::GET, headers).is_ok(),
        }
    }
}

/// Finds out whose tokens a request shows, for all that comes after.
pub(super) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let client = Client::of(request.extensions());
    let identity = Identity::of(&app, client, request.headers());
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// Refuses whoever may not read, or leave a message.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let judged = may_read(&app, identity(&request), request.method(), request.headers());
    pass(judged, request, next).await
}

/// Refuses whoever may not administrate. On a route of its own, without [`guard`].
pub(super) async fn admin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let judged = may_administrate(&app, identity(&request), request.method(), request.headers());
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

fn identity(request: &Request) -> Identity {
    request.extensions().get().copied().unwrap_or_default()
}

fn may_read(app: &App, identity: Identity, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if !app.tokens.has(Role::Reader) {
        return Ok(());
    }
    let judged = identity.judge(|_| true, app, method, headers);
    judged.unwrap_or(Err(if identity.refused { TOO_MANY } else { UNKNOWN }))
}

fn may_administrate(app: &App, identity: Identity, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if !app.tokens.has(Role::Admin) {
        may_read(app, identity, method, headers)?;
        return Err(CLOSED);
    }
    let judged = identity.judge(|role| role == Role::Admin, app, method, headers);
    judged.unwrap_or(Err(match identity {
        Identity { refused: true, .. } => TOO_MANY,
        known if known.is_known() => NOT_ADMIN,
        _ => UNKNOWN,
    }))
}

/// Says whether a request comes from our own page.
fn is_of_page(headers: &HeaderMap, origins: &Origins) -> bool {
    headers.contains_key(PAGE) && origins.serve_page_of(headers)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.find_map(|line| line.split("; ").find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('=')))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(read: Option<&str>, admin: Option<&str>) -> Tokens {
        let secret = |text: &str| Secret::from(text.to_owned());
        Tokens::new(read.map(secret).as_ref(), admin.map(secret).as_ref())
    }

    #[test]
    fn a_session_is_read_as_it_is_written_and_is_the_one_of_its_token() {
        let both = tokens(Some("r"), Some("a"));
        for role in [Role::Reader, Role::Admin] {
            let (one, other) = (both.open(role).unwrap(), both.open(role).unwrap());
            assert_ne!(one, other, "each has a number of its own");
            assert_eq!(both.role_of_session(&Session::parse(&one).unwrap()), Some(role));
            assert_eq!(tokens(Some("x"), Some("y")).role_of_session(&Session::parse(&one).unwrap()), None);
        }
        let mut forged = Session::parse(&both.open(Role::Admin).unwrap()).unwrap();
        forged.number[0] ^= 1;
        assert_eq!(both.role_of_session(&forged), None);
        for wrong in ["", "00", "zz", &"0".repeat(95), &"0".repeat(98), &"g".repeat(96), &"é".repeat(48)] {
            assert!(Session::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_whose_it_is() {
        let both = tokens(Some("r"), Some("a"));
        let role = |tokens: &Tokens, token: &str| tokens.role_of(&hash(token.as_bytes()));
        assert_eq!(
            ["r", "a", "x", ""].map(|token| role(&both, token)),
            [Some(Role::Reader), Some(Role::Admin), None, None]
        );
        assert_eq!(role(&tokens(Some("same"), Some("same")), "same"), Some(Role::Admin));
        assert_eq!(role(&tokens(Some("r"), None), "r"), Some(Role::Reader));
        assert_eq!(role(&tokens(None, None), ""), None);
    }

    #[test]
    fn tokens_are_not_printed() {
        assert_eq!(format!("{:?}", tokens(Some("hunter2"), None)), "Tokens { read: true, admin: false }");
    }
}
