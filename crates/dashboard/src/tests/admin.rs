//! Who may administrate, and from which pages.

use std::time::Duration;

use penstock_local::testing::TestRedis;
use serde_json::json;

use super::client::{administrate, ask, tell};
use super::{Dashboard, NO_TOKEN};
use crate::serve::Limits;

/// An admin route that changes nothing.
const REFRESH: &str = "/api/metrics/refresh";

#[tokio::test]
async fn without_an_admin_token_nobody_administrates_on_loopback_neither() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[NO_TOKEN]).await;
    let own = dashboard.address.to_string();
    let origin = format!("http://{own}");
    let tried: [&[(&str, &str)]; 5] = [
        &[],
        // As a program on the same machine asks, and as nginx passes on what it is asked when nothing is configured.
        &[("host", &own)],
        &[("host", &own), ("x-penstock-page", "1")],
        &[("host", &own), ("origin", &origin), ("sec-fetch-site", "same-origin"), ("x-penstock-page", "1")],
        &[("host", &own), ("authorization", "Bearer x"), ("cookie", "penstock_session=00")],
    ];
    for headers in tried {
        let refused = ask(dashboard.address, "POST", REFRESH, headers).await;
        assert_eq!(refused.problem(), 403, "{headers:?}");
        assert!(refused.body.contains("dashboard.adminToken"), "{}", refused.body);
    }
    let rights = ask(dashboard.address, "GET", "/api/session", &[("host", &own)]).await;
    assert_eq!(rights.json(), json!({"read": true, "admin": false, "tokens": false, "signedIn": null}));
    let opened = tell(dashboard.address, "POST", "/api/session", r#"{"token":"x"}"#).await;
    assert_eq!(opened.problem(), 404);
}

#[tokio::test]
async fn a_session_changes_something_only_with_the_header_that_the_page_sets() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.adminToken", "sesame")]).await;
    let opened = tell(dashboard.address, "POST", "/api/session", r#"{"token":"sesame"}"#).await;
    let session = opened.header("set-cookie").split(';').next().unwrap().to_owned();
    let refresh = async |headers: &[(&str, &str)]| {
        ask(dashboard.address, "POST", REFRESH, &[&[("cookie", session.as_str())], headers].concat()).await
    };
    assert_eq!(refresh(&[("x-penstock-page", "1")]).await.status, 200);
    // A form of another page, sent by a browser that tells neither.
    assert_eq!(refresh(&[("content-type", "application/x-www-form-urlencoded")]).await.problem(), 403);
    assert_eq!(refresh(&[("origin", "http://dash.test:8000"), ("sec-fetch-site", "same-origin")]).await.problem(), 403);
    // A page that may read may not send the header.
    let asks = [("origin", "http://localhost:3000"), ("access-control-request-method", "POST")];
    let told = ask(dashboard.address, "OPTIONS", REFRESH, &asks).await;
    assert!(!told.header("access-control-allow-headers").contains("penstock"), "{:?}", told.headers);
}

/// Starts a dashboard where whoever has guessed too often waits for longer than the test.
async fn where_no_guess_comes_back(flags: &[(&str, &str)]) -> (Dashboard, TestRedis) {
    let redis = TestRedis::start().await.unwrap();
    let limits = Limits { guess: Duration::from_secs(3600), ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), flags, limits).await;
    dashboard.until_seen().await;
    (dashboard, redis)
}

#[tokio::test]
async fn whoever_guesses_is_refused_and_neither_who_is_signed_in_nor_another_limit_is_touched() {
    let flags = [("dashboard.adminToken", "sesame"), ("dashboard.readToken", "open"), ("dashboard.postRate", "1000")];
    let (dashboard, _redis) = where_no_guess_comes_back(&flags).await;
    let open =
        async |token: &str| tell(dashboard.address, "POST", "/api/session", &format!(r#"{{"token":"{token}"}}"#)).await;
    let session = open("sesame").await.header("set-cookie").split(';').next().unwrap().to_owned();
    let stale = format!("penstock_session={}", "0".repeat(96));
    let metrics =
        async |name: &str, value: &str| ask(dashboard.address, "GET", "/api/metrics", &[(name, value)]).await.status;
    // The same one again and again, as a page does whose session has ended, is one guess.
    for _ in 0..50 {
        assert_eq!(metrics("cookie", &stale).await, 401);
    }
    let mut refused = 0;
    for nth in 0..40 {
        let status = if nth % 2 == 0 {
            open(&format!("guess {nth}")).await.problem()
        } else {
            metrics("authorization", &format!("Bearer guess {nth}")).await
        };
        assert!([401, 429].contains(&status), "{status}");
        refused += u32::from(status == 429);
    }
    assert!(refused >= 10, "{refused} of 40");
    // Else what is not refused would be right.
    assert_eq!(open("sesame").await.problem(), 429);
    assert_eq!(metrics("authorization", "Bearer sesame").await, 429);
    assert_eq!(metrics("cookie", &session).await, 200, "who is signed in");
    let page = [("cookie", session.as_str()), ("x-penstock-page", "1")];
    assert_eq!(ask(dashboard.address, "POST", REFRESH, &page).await.status, 200);
    assert_eq!(ask(dashboard.address, "GET", "/health", &[]).await.status, 200, "what is open");
    let text = dashboard.metrics.encode();
    for outcome in ["wrong", "refused"] {
        let series = format!("penstock_dashboard_token_guesses_total{{outcome=\"{outcome}\"}} ");
        let count: f64 = text.split(&series).nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        assert!(count >= 10.0, "{series}{count}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_by_itself() {
    let flags = [("dashboard.adminToken", "sesame"), ("dashboard.trustedProxies", "127.0.0.0/8")];
    let (dashboard, _redis) = where_no_guess_comes_back(&flags).await;
    let refresh = async |client: &str, token: &str| {
        let headers = [("x-forwarded-for", client), ("authorization", token)];
        ask(dashboard.address, "POST", REFRESH, &headers).await.status
    };
    for nth in 0..30 {
        refresh("192.0.2.1", &format!("Bearer guess {nth}")).await;
    }
    assert_eq!(refresh("192.0.2.1", "Bearer sesame").await, 429);
    assert_eq!(refresh("192.0.2.9, 192.0.2.1", "Bearer sesame").await, 429, "whatever it writes before");
    assert_eq!(refresh("192.0.2.2", "Bearer sesame").await, 200);
}

#[tokio::test]
async fn where_a_read_token_is_set_the_description_is_for_who_may_read() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.readToken", "sesame")]).await;
    let described =
        async |headers: &[(&str, &str)]| ask(dashboard.address, "GET", "/api/openapi.json", headers).await.status;
    assert_eq!(described(&[]).await, 401);
    assert_eq!(described(&[("authorization", "Bearer sesame")]).await, 200);
}

#[tokio::test]
async fn with_an_admin_token_only_its_holder_administrates() {
    let tokens = [("dashboard.readToken", "sesame"), ("dashboard.adminToken", "open sesame")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&tokens).await;
    let refresh = async |headers: &[(&str, &str)]| ask(dashboard.address, "POST", REFRESH, headers).await;
    let nobody = administrate(dashboard.address, "POST", REFRESH).await;
    assert_eq!((nobody.problem(), nobody.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(refresh(&[("authorization", "Bearer sesame")]).await.problem(), 403, "a reader");
    assert_eq!(refresh(&[("authorization", "Bearer open sesame")]).await.status, 200);

    let session = async |token: &str| {
        let opened = tell(dashboard.address, "POST", "/api/session", &format!(r#"{{"token":"{token}"}}"#)).await;
        opened.header("set-cookie").split(';').next().unwrap().to_owned()
    };
    let (reader, admin) = (session("sesame").await, session("open sesame").await);
    assert_eq!(refresh(&[("cookie", &reader)]).await.problem(), 403, "a reader's session");
    let ours = ("origin", "http://dash.test:8000");
    let page = ("x-penstock-page", "1");
    assert_eq!(refresh(&[("cookie", &admin), page, ours, ("sec-fetch-site", "same-origin")]).await.status, 200);
    for foreign in
        [("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site"), ("sec-fetch-site", "cross-site")]
    {
        assert_eq!(refresh(&[("cookie", &admin), page, foreign]).await.problem(), 403, "{foreign:?}");
    }
    // A token is not sent unasked: whoever holds it may send it from anywhere.
    let listed = ("origin", "http://localhost:3000");
    assert_eq!(refresh(&[("authorization", "Bearer open sesame"), listed]).await.status, 200);
    let rights = async |cookie: &str| ask(dashboard.address, "GET", "/api/session", &[("cookie", cookie)]).await.json();
    let session =
        |read, admin, role: Option<&str>| json!({"read": read, "admin": admin, "tokens": true, "signedIn": role});
    assert_eq!(rights("").await, session(false, false, None));
    assert_eq!(rights(&reader).await, session(true, false, Some("reader")));
    assert_eq!(rights(&admin).await, session(true, true, Some("admin")));
    // Signing out would not end it.
    let headers = [("authorization", "Bearer open sesame")];
    assert_eq!(ask(dashboard.address, "GET", "/api/session", &headers).await.json(), session(true, true, None));
}

#[tokio::test]
async fn a_browser_that_asks_beforehand_is_told_the_methods_of_the_route() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.readToken", "sesame")]).await;
    let methods = async |path| {
        let headers = [("origin", "http://localhost:3000"), ("access-control-request-method", "DELETE")];
        let answer = ask(dashboard.address, "OPTIONS", path, &headers).await;
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
        (answer.status, answer.header("access-control-allow-methods").to_owned())
    };
    assert_eq!(methods("/api/metrics").await, (204, "GET,HEAD".into()));
    assert_eq!(methods("/api/redis/dead-letters").await, (204, "GET,HEAD,DELETE".into()));
    assert_eq!(methods("/api/redis/dead-letters/1-0/replay").await, (204, "POST".into()));
    assert_eq!(methods("/nothing").await, (404, String::new()));
    let bare = ask(dashboard.address, "OPTIONS", "/api/metrics", &[]).await;
    assert_eq!((bare.problem(), bare.header("allow")), (405, "GET,HEAD"));
}

#[tokio::test]
async fn it_says_whose_dashboard_it_is_to_those_who_may_read() {
    let named =
        [("pipeline.name", "social/bluesky"), ("dashboard.readToken", "sesame"), ("messageBuffer.enabled", "true")];
    let (dashboard, _redis, _client) = Dashboard::with_redis(&named).await;
    assert_eq!(ask(dashboard.address, "GET", "/api/about", &[]).await.problem(), 401);
    let about = ask(dashboard.address, "GET", "/api/about", &[("authorization", "Bearer sesame")]).await;
    about.fits("GET", "/api/about");
    let about = about.json();
    assert_eq!([&about["namespace"], &about["pipeline"]], ["social", "bluesky"]);
    assert_eq!((&about["version"], &about["messageBuffer"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(true)));
    assert!(about["documentation"].as_str().unwrap().starts_with("https://"), "{about}");
}
