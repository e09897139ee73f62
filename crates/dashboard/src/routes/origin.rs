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

    /// Says whether a page of `origin` may ask the server that the client calls `host`.
    pub(crate) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.0.iter().any(|allowed| *allowed == origin || allowed == "*")
            || origin.split_once("://").zip(host).is_some_and(|((scheme, authority), host)| {
                let port = if scheme == "https" { ":443" } else { ":80" };
                let host = host.to_ascii_lowercase();
                authority == host.strip_suffix(port).unwrap_or(&host)
            })
    }
}

/// Refuses foreign pages, and lets allowed ones read the answers. A client that is no browser sends no origin.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else {
        return vary(next.run(request).await);
    };
    let host = text(request.headers(), &header::HOST);
    if !origin.to_str().is_ok_and(|origin| app.origins.allow(origin, host)) {
        return vary(Problem::new(StatusCode::FORBIDDEN, "pages of this origin may not ask").into_response());
    }
    let preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight { preflight_answer() } else { next.run(request).await };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    vary(response)
}

fn preflight_answer() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, last-event-id, cache-control"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
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
