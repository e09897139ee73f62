//! Who may administrate, and from which pages.

use super::Dashboard;
use super::client::{administrate, ask, tell};

/// An admin route that changes nothing.
const REFRESH: &str = "/api/metrics/refresh";

#[tokio::test]
async fn on_loopback_whoever_is_on_the_machine_administrates_and_no_other_page() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let own = dashboard.address.to_string();
    let named = format!("localhost:{}", dashboard.address.port());
    let refresh = async |headers: &[(&str, &str)]| ask(dashboard.address, "POST", REFRESH, headers).await;
    for host in [&own, &named] {
        assert_eq!(refresh(&[("host", host)]).await.status, 200, "{host}");
        let origin = format!("http://{host}");
        let page = [("host", host.as_str()), ("origin", &origin), ("sec-fetch-site", "same-origin")];
        assert_eq!(refresh(&page).await.status, 200, "{host}");
    }
    let refused: [&[(&str, &str)]; 5] = [
        // A name that points here.
        &[("host", "evil.test:8000")],
        &[("host", "evil.test:8000"), ("origin", "http://evil.test:8000"), ("sec-fetch-site", "same-origin")],
        // A page that may read.
        &[("host", &own), ("origin", "http://localhost:3000")],
        &[("host", &own), ("sec-fetch-site", "cross-site")],
        &[("host", &own), ("x-forwarded-for", "192.0.2.1")],
    ];
    for headers in refused {
        assert_eq!(refresh(headers).await.problem(), 403, "{headers:?}");
    }
}

#[tokio::test]
async fn where_others_reach_it_and_no_admin_token_is_set_it_says_what_to_set() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("dashboard.extraAddresses", "0.0.0.0:0")]).await;
    let refused = administrate(dashboard.address, "POST", REFRESH).await;
    assert_eq!(refused.problem(), 403);
    assert!(refused.body.contains("dashboard.adminToken"), "{}", refused.body);
    let rights = ask(dashboard.address, "GET", "/api/session", &[]).await;
    assert_eq!(rights.json(), serde_json::json!({"read": true, "admin": false}));
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
    assert_eq!(refresh(&[("cookie", &admin), ours, ("sec-fetch-site", "same-origin")]).await.status, 200);
    for foreign in
        [("origin", "http://localhost:3000"), ("sec-fetch-site", "same-site"), ("sec-fetch-site", "cross-site")]
    {
        assert_eq!(refresh(&[("cookie", &admin), foreign]).await.problem(), 403, "{foreign:?}");
    }
    // A token is not sent unasked: whoever holds it may send it from anywhere.
    let listed = ("origin", "http://localhost:3000");
    assert_eq!(refresh(&[("authorization", "Bearer open sesame"), listed]).await.status, 200);
    let rights = async |cookie: &str| ask(dashboard.address, "GET", "/api/session", &[("cookie", cookie)]).await.json();
    assert_eq!(rights("").await, serde_json::json!({"read": false, "admin": false}));
    assert_eq!(rights(&reader).await, serde_json::json!({"read": true, "admin": false}));
    assert_eq!(rights(&admin).await, serde_json::json!({"read": true, "admin": true}));
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
