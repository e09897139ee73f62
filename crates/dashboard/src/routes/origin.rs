//! Which web pages may ask: those of the allow list, and those that this server serves itself.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::App;

/// The origins of the setting `dashboard.allowedOrigins`; `*` allows all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origins(Vec<String>);

// === impl Origins ===

impl Origins {
    /// Takes the origins as they were written: case and a trailing slash mean nothing.
    pub(crate) fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect())
    }

    /// Says whether a request comes from a page that this server served, if perhaps through a proxy that rewrites the host.
    ///
    /// The browser knows which page it is of, whatever a proxy writes, but not every address is told (only https and
    /// loopback). Being on the list is not enough: a listed page of another application may be of the same site, and so is
    /// sent the cookie.
    pub(super) fn serve_page_of(&self, headers: &HeaderMap) -> bool {
        let listed = || {
            let origin = text(headers, &header::ORIGIN).unwrap_or_default();
            headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin") && self.list(origin)
        };
        is_of_our_page(headers) || listed()
    }

    /// Says whether a page of `origin` may ask the server that the client calls `host`.
    pub(crate) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        self.list(origin) || is_same(origin, host)
    }

    fn list(&self, origin: &str) -> bool {
        self.0.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

/// Refuses foreign pages, and lets allowed ones read the answers. A client that is no browser sends no origin.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // Browsers send an origin with a module script. Behind a proxy that rewrites the host it is none of ours, and the page
    // would stay empty without a word. The files are the same for everyone.
    if request.uri().path().starts_with("/assets/") && request.method().is_safe() {
        return next.run(request).await;
    }
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return vary(next.run(request).await);
    };
    let host = text(request.headers(), &header::HOST);
    if !origin.to_str().is_ok_and(|origin| app.origins.allow(origin, host)) {
        return vary(Problem::new(StatusCode::FORBIDDEN, "requests from this origin are not allowed").into_response());
    }
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    vary(response)
}

/// Says whether a request comes from a page that this server served, or from no page.
fn is_of_our_page(headers: &HeaderMap) -> bool {
    let ours = match headers.get(header::ORIGIN) {
        Some(origin) => origin.to_str().is_ok_and(|origin| is_same(origin, text(headers, &header::HOST))),
        None => true,
    };
    // Told by browsers even where they send no origin; `none` is what a person typed.
    ours && headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none")
}

/// Says whether a page of `origin` was served by `host`.
fn is_same(origin: &str, host: Option<&str>) -> bool {
    let origin = origin.to_ascii_lowercase();
    origin.split_once("://").zip(host).is_some_and(|((scheme, authority), host)| {
        let port = if scheme == "https" { ":443" } else { ":80" };
        let host = host.to_ascii_lowercase();
        authority == host.strip_suffix(port).unwrap_or(&host)
    })
}

/// Answers browsers that ask beforehand for an allowed page: with the methods that the route has. Around all routes, as only
/// there their methods are known; authorization is asked of the request itself.
pub(super) async fn preflight(request: Request, next: Next) -> Response {
    let asked =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let response = next.run(request).await;
    let told = response.headers();
    let (true, Some(origin), Some(methods)) =
        (asked, told.get(header::ACCESS_CONTROL_ALLOW_ORIGIN), told.get(header::ALLOW))
    else {
        return response;
    };
    let allowed = HeaderValue::from_static("authorization, content-type, last-event-id, cache-control");
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone()),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, allowed),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    vary((StatusCode::NO_CONTENT, headers).into_response())
}

fn vary(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_origins_and_our_own_pages_may_ask() {
        let origins = Origins::new(&["http://localhost:3000/".to_owned(), "https://Dash.example".to_owned()]);
        let allow = |origin, host| origins.allow(origin, Some(host));
        assert!(allow("http://localhost:3000", "a:8000"));
        assert!(allow("https://dash.example", "a:8000"));
        assert!(allow("http://a:8000", "A:8000"));
        assert!(allow("https://a", "a:443") && allow("https://a", "a") && allow("http://a", "a:80"));
        for (origin, host) in [
            ("http://localhost:3001", "a:8000"),
            ("https://localhost:3000", "a:8000"),
            ("http://localhost:3000.evil", "a:8000"),
            ("http://a:8001", "a:8000"),
            ("http://b", "a"),
            ("null", "null"),
            ("", ""),
        ] {
            assert!(!allow(origin, host), "{origin} {host}");
        }
        assert!(!origins.allow("http://a", None));
        assert!(Origins::new(&["*".to_owned()]).allow("https://any.example", None));
    }
}
