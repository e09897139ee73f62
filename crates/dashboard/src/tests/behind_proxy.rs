//! Behind a reverse proxy: under a path, under another host, and on connections that it keeps.

use std::time::Duration;

use penstock_core::settings::BasePath;
use penstock_local::testing::TestRedis;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Dashboard;
use super::client::{Stream, ask, get, tell};
use crate::serve::Limits;

const UNDER_A_PATH: [(&str, &str); 2] = [("dashboard.basePath", "/firehose"), ("dashboard.adminToken", "sesame")];

#[tokio::test]
async fn every_route_is_there_with_the_base_path_and_without_it() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&UNDER_A_PATH).await;
    let address = dashboard.address;
    let described = crate::openapi();
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    assert!(paths.len() > 15, "{paths:?}");
    for path in paths {
        let first = path.trim_start_matches('/').split('/').next().unwrap();
        assert!(BasePath::RESERVED.contains(&first), "{path}: a base path may not begin so");
        let path = path.replace(['{', '}'], "");
        for path in [format!("/firehose{path}"), path] {
            // No route has this method, and each says so, or asks for a token first; what is no route does neither.
            let refused = ask(address, "PUT", &path, &[]).await.problem();
            assert!([401, 405].contains(&refused), "{path}: {refused}");
        }
    }
    for path in ["/firehose", "/firehose/", "/"] {
        let page = get(address, path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        // Before any address that it is the base of.
        assert!(page.body.contains("<head>\n<base href=\"/firehose/\">\n<meta charset"), "{}", page.body);
        assert!(page.header("content-security-policy").contains("base-uri 'self'"));
    }
    for path in ["/firehoses", "/firehose/firehose/ready", "/other/ready"] {
        assert_eq!(get(address, path).await.problem(), 404, "{path}");
    }
    let mut stream = Stream::open(address).await;
    assert!(stream.frame().await.unwrap().contains("connected"));
}

#[tokio::test]
async fn what_is_told_of_addresses_is_told_under_the_base_path() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&UNDER_A_PATH).await;
    let address = dashboard.address;
    let api = get(address, "/firehose/api/openapi.json").await.json();
    assert_eq!(api["servers"][0]["url"], "/firehose");
    let here = ask(address, "GET", "/firehose", &[("accept", "application/json")]).await.json();
    assert_eq!(here["documentation"], "/firehose/api/openapi.json");
    assert!(here["endpoints"]["GET /firehose/api/metrics"].is_string(), "{here}");

    let opened = tell(address, "POST", "/firehose/api/session", r#"{"token":"sesame"}"#).await;
    let cookie = opened.header("set-cookie").to_owned();
    assert!(cookie.contains("; Path=/firehose; HttpOnly; SameSite=Strict;"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let rights = ask(address, "GET", "/firehose/api/session", &[("cookie", session)]).await.json();
    assert_eq!((&rights["read"], &rights["admin"]), (&json!(true), &json!(true)), "{rights}");
    let ended = ask(address, "DELETE", "/firehose/api/session", &[]).await;
    assert!(ended.header("set-cookie").starts_with("penstock_session=; Path=/firehose; "));

    let page = get(address, "/firehose/").await;
    let tag = page.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with("/firehose\""), "another base is another page: {tag}");
    let again = ask(address, "GET", "/firehose/", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}

#[tokio::test]
async fn without_a_base_path_the_page_and_the_cookie_are_as_they_were() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.adminToken", "sesame")]).await;
    let page = get(dashboard.address, "/").await;
    assert!(!page.body.contains("<base") && page.header("content-security-policy").contains("base-uri 'none'"));
    let opened = tell(dashboard.address, "POST", "/api/session", r#"{"token":"sesame"}"#).await;
    assert!(opened.header("set-cookie").contains("; Path=/; HttpOnly"), "{}", opened.header("set-cookie"));
    assert_eq!(get(dashboard.address, "/api/openapi.json").await.json().get("servers"), None);
}

#[tokio::test]
async fn the_files_of_the_page_are_for_every_origin_and_nothing_else_is() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let foreign = [("origin", "https://dash.example")];
    let page = get(dashboard.address, "/").await;
    for path in page.body.split('"').filter_map(|part| part.strip_prefix("./")) {
        let file = ask(dashboard.address, "GET", &format!("/{path}"), &foreign).await;
        assert_eq!((file.status, file.header("access-control-allow-origin")), (200, ""), "{path}");
    }
    assert_eq!(ask(dashboard.address, "GET", "/assets/nothing.js", &foreign).await.problem(), 404);
    for (method, path) in [
        ("GET", "/api/metrics"),
        ("GET", "/api/events/stream"),
        ("GET", "/ws/stats"),
        ("GET", "/assetsx"),
        ("POST", "/assets/nothing.js"),
        ("POST", "/api/session"),
    ] {
        assert_eq!(ask(dashboard.address, method, path, &foreign).await.problem(), 403, "{method} {path}");
    }
}

#[tokio::test]
async fn behind_a_proxy_that_rewrites_the_host_a_listed_page_administrates_if_the_browser_calls_it_ours() {
    let flags =
        [("dashboard.adminToken", "sesame"), ("dashboard.allowedOrigins", "https://dash.example,https://app.example")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&flags).await;
    let opened = tell(dashboard.address, "POST", "/api/session", r#"{"token":"sesame"}"#).await;
    let session = opened.header("set-cookie").split(';').next().unwrap().to_owned();
    // Origin, what the browser says of the page, and what is answered. The host is dash.test:8000.
    let ours = ("https://dash.example", Some("same-origin"), 200);
    for (origin, site, status) in [
        ours,
        ("http://dash.test:8000", Some("same-origin"), 200),
        ("http://dash.test:8000", None, 200),
        // Listed, and another application.
        ("https://app.example", Some("same-site"), 403),
        ("https://app.example", Some("cross-site"), 403),
        ("https://app.example", Some("none"), 403),
        // A browser that does not say: the host should be forwarded.
        ("https://dash.example", None, 403),
        // Not listed.
        ("https://evil.example", Some("same-origin"), 403),
    ] {
        let site = site.map(|site| ("sec-fetch-site", site));
        let page = [("cookie", session.as_str()), ("x-penstock-page", "1"), ("origin", origin)];
        let headers: Vec<_> = page.into_iter().chain(site).collect();
        let answer = ask(dashboard.address, "POST", "/api/metrics/refresh", &headers).await;
        assert_eq!(answer.status, status, "{origin} {site:?}");
    }
}

/// Asks over a connection that is kept; `None`: it was ended.
async fn ask_again(connection: &mut TcpStream, head: &str) -> Option<u16> {
    connection.write_all(head.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    // The answer to this route is one small JSON object.
    while !bytes.ends_with(b"}") {
        let read = timeout(Duration::from_secs(10), connection.read_buf(&mut bytes))
            .await
            .expect("an answer or an end in time");
        if read.unwrap_or(0) == 0 {
            return None;
        }
    }
    String::from_utf8(bytes).unwrap().split(' ').nth(1)?.parse().ok()
}

const ASK: &str = "GET /api/session HTTP/1.1\r\nhost: dash.test\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_a_request_that_never_ends() {
    let redis = TestRedis::start().await.unwrap();
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[("dashboard.keepAlive", "1h")], limits).await;
    let mut kept = TcpStream::connect(dashboard.address).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask_again(&mut kept, ASK).await, Some(200));
        // Longer than a request may take.
        tokio::time::sleep(limits.head * 3).await;
    }
    kept.write_all(b"GET /api/session HTTP/1.1\r\nhost: da").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), kept.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn an_idle_connection_is_ended_after_the_time_that_is_set_and_a_live_one_is_not() {
    let redis = TestRedis::start().await.unwrap();
    let dashboard = Dashboard::start(&redis.url(), &[("dashboard.keepAlive", "1s")]).await;
    let mut live = Stream::open_kept(dashboard.address).await;
    let mut kept = TcpStream::connect(dashboard.address).await.unwrap();
    assert_eq!(ask_again(&mut kept, ASK).await, Some(200));
    let ended = timeout(Duration::from_secs(10), kept.read(&mut [0; 1])).await.expect("an end in time");
    assert_eq!(ended.unwrap_or(0), 0);
    // Twenty frames take a second; these take two more than that.
    for _ in 0..40 {
        assert!(live.frame().await.is_some(), "whoever is answered is not idle");
    }
}
