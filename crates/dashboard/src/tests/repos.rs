//! Repos and records that are looked up.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::client::{Answer, get};
use super::record::migrated;
use super::{Dashboard, NO_TOKEN, until};

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

const ROWS: &str = "\
INSERT INTO users (did, handle) VALUES ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'alice.example.com');
INSERT INTO posts (uri, cid, author_did, text, created_at, commit_rev)
  VALUES ('at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/1', 'bafy1', 'did:plc:ewvi7nxzyoun6zhxrhs64oiz', 'x', now(), '3k');
INSERT INTO penstock.repos (did, rev, active) VALUES ('did:plc:ewvi7nxzyoun6zhxrhs64oiz', '3k', true)";

fn escaped(text: &str) -> String {
    text.replace(':', "%3A").replace('/', "%2F")
}

/// Asks again where it was asked too fast.
async fn patiently(dashboard: &Dashboard, path: &str) -> Answer {
    let mut answer = None;
    until("the client may ask again", async || {
        let asked = get(dashboard.address, &format!("/api/repos/{path}")).await;
        let is_answered = asked.status != 429;
        answer = Some(asked);
        is_answered
    })
    .await;
    answer.unwrap()
}

#[tokio::test]
async fn a_repo_or_a_record_is_looked_up_by_whatever_names_it() {
    let (url, mut conn) = migrated().await;
    sqlx::raw_sql(ROWS).execute(&mut conn).await.unwrap();
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("postgres.url", &url)]).await;
    let ask = async |path: &str| patiently(&dashboard, path).await;

    let repo = ask(DID).await;
    repo.fits("GET", "/api/repos/{did}");
    let repo = repo.json();
    assert_eq!((&repo["answer"]["word"], &repo["did"]), (&json!("held"), &json!(DID)), "{repo}");
    let counted = &repo["held"]["found"]["collections"];
    assert_eq!(counted, &json!([{"collection": "app.bsky.feed.post", "table": "posts", "rows": 1, "more": false}]));
    // Nobody outside is asked where identities are not resolved.
    assert!(repo["host"]["unknown"].as_str().unwrap().contains("identity.enabled"), "{repo}");
    assert_eq!(repo["waiting"]["found"]["complete"], true, "{repo}");

    let uri = format!("at://{DID}/app.bsky.feed.post/1");
    for path in [
        escaped(&uri),
        format!("{}?path=app.bsky.feed.post/1", escaped(DID)),
        "alice.example.com?path=app.bsky.feed.post%2F1".to_owned(),
    ] {
        let found = ask(&path).await;
        found.fits("GET", "/api/repos/{did}");
        let found = found.json();
        assert_eq!((&found["uri"], &found["answer"]["word"]), (&json!(uri), &json!("stored")), "{path}: {found}");
        assert_eq!(found["held"]["found"]["record"]["row"]["table"], "posts", "{path}");
    }
    for wrong in [
        "alice",
        "did:plc:",
        "x%00y.test",
        &format!("{DID}?path=posts"),
        &format!("{DID}?path="),
        &format!("{DID}?paths=x"),
    ] {
        assert_eq!(ask(wrong).await.problem(), 400, "{wrong}");
    }
    let nothing = format!("{}?path=app.bsky.feed.post/1", escaped(&uri));
    assert_eq!(ask(&nothing).await.problem(), 400, "a path within a record");
}

#[tokio::test]
async fn without_servers_it_says_what_is_not_known() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let report = get(dashboard.address, &format!("/api/repos/{DID}")).await;
    report.fits("GET", "/api/repos/{did}");
    let report = report.json();
    assert_eq!((&report["answer"]["word"], &report["answer"]["good"]), (&json!("unknown"), &Value::Null), "{report}");
    assert!(report["held"]["unknown"].as_str().unwrap().contains("postgres.url"), "{report}");
}

#[tokio::test]
async fn a_client_looks_up_so_many_a_second() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let mut at = 0;
    until("a client is too fast", async || {
        let paths: Vec<String> = (at..at + 30).map(|at| format!("/api/repos/did:plc:{at}")).collect();
        at += 30;
        let answers = join_all(paths.iter().map(|path| get(dashboard.address, path))).await;
        answers.iter().any(|answer| answer.status == 429)
    })
    .await;
}

#[tokio::test]
async fn what_was_just_answered_is_answered_again() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let mut last = Value::Null;
    until("two answers are one", async || {
        let now = patiently(&dashboard, DID).await.json()["at"].clone();
        std::mem::replace(&mut last, now.clone()) == now
    })
    .await;
}

#[tokio::test]
async fn who_may_not_read_may_not_look_up() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[NO_TOKEN, ("dashboard.readToken", "let me read")]).await;
    assert_eq!(get(dashboard.address, &format!("/api/repos/{DID}")).await.problem(), 401);
}
