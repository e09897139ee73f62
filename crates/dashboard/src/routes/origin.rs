//! Which web pages may ask: those of the allow list, and those that this server serves itself.

use std::net::{IpAddr, SocketAddr};
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

/// The ports of a service that is bound to loopback addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loopback(Vec<u16>);

// === impl Origins ===

impl Origins {
    /// Takes the origins as they were written: case and a trailing slash mean nothing.
    pub(crate) fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect())
    }

    /// Says whether a page of `origin` may ask the server that the client calls `host`.
    pub(crate) fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        self.0.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) || is_same(origin, host)
    }
}

// === impl Loopback ===

impl Loopback {
    /// Takes the bound addresses; `None` when one of them can be reached from elsewhere.
    pub(crate) fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let ports = addresses.into_iter().map(|address| address.ip().is_loopback().then(|| address.port()));
        ports.collect::<Option<_>>().map(Self)
    }

    /// Says whether a request comes from this machine, and from our own page if from any.
    ///
    /// The host is checked too: a foreign page can have its own name point here, and then is of one origin with us.
    pub(super) fn lets_in(&self, headers: &HeaderMap) -> bool {
        // A proxy in front lets others in.
        let passed_on =
            ["forwarded", "x-forwarded-for", "x-forwarded-host"].iter().any(|name| headers.contains_key(*name));
        !passed_on && text(headers, &header::HOST).is_some_and(|host| self.is_ours(host)) && is_of_our_page(headers)
    }

    fn is_ours(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let loopback = name.eq_ignore_ascii_case("localhost")
            || address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        loopback && port.is_some_and(|port| self.0.contains(&port))
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
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    vary(response)
}

/// Says whether a request comes from a page that this server served, or from no page.
pub(super) fn is_of_our_page(headers: &HeaderMap) -> bool {
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

    #[test]
    fn loopback_is_left_only_to_what_comes_from_there() {
        let bound = |addresses: &[&str]| Loopback::of(addresses.iter().map(|address| address.parse().unwrap()));
        assert_eq!(bound(&["127.0.0.1:8000", "0.0.0.0:5002"]), None);
        let loopback = bound(&["127.0.0.1:8000", "[::1]:80"]).unwrap();
        let lets_in = |headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            loopback.lets_in(&HeaderMap::from_iter(headers))
        };
        for host in
            ["localhost:8000", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3:8000", "[::1]:8000", "[::1]", "localhost"]
        {
            assert!(lets_in(&[("host", host)]), "{host}");
        }
        for host in
            ["", "evil.test:8000", "localhost:8001", "localhost.evil.test:8000", "192.0.2.1:8000", "[::2]:80", "::1:x"]
        {
            assert!(!lets_in(&[("host", host)]), "{host}");
        }
        assert!(!lets_in(&[]));
        let host = ("host", "localhost:8000");
        assert!(lets_in(&[host, ("origin", "http://localhost:8000"), ("sec-fetch-site", "same-origin")]));
        assert!(lets_in(&[host, ("sec-fetch-site", "none")]));
        for (name, value) in [
            ("origin", "http://127.0.0.1:8000"),
            ("origin", "http://localhost:3000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
        ] {
            assert!(!lets_in(&[host, (name, value)]), "{name}: {value}");
        }
    }
}
