//! The record of an event, in a database with the AppView's tables.

use penstock_local::testing::fresh_database;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::Dashboard;
use super::client::get;

const SCHEMA: [&str; 2] = [
    include_str!("../../../worker/migrations/0001_appview.sql"),
    include_str!("../../../worker/migrations/0002_penstock.sql"),
];

/// A database with all tables, and a connection to it.
pub(super) async fn migrated() -> (String, PgConnection) {
    let url = fresh_database().await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    // As a migration does: the role's own name, `penstock`, would come first.
    sqlx::raw_sql("SET search_path = public").execute(&mut conn).await.unwrap();
    for script in SCHEMA {
        sqlx::raw_sql(script).execute(&mut conn).await.unwrap();
    }
    (url, conn)
}

#[tokio::test]
async fn a_record_is_found_in_whichever_table_holds_it() {
    let (url, mut conn) = migrated().await;
    let rows = "
        INSERT INTO users (did, handle) VALUES ('did:plc:a', 'a.test');
        INSERT INTO posts (uri, cid, author_did, text, created_at)
          VALUES ('at://did:plc:a/app.bsky.feed.post/1', 'bafy1', 'did:plc:a', 'Hello <b>', now());
        INSERT INTO generic_records (uri, cid, author_did, record_type, record, created_at)
          VALUES ('at://did:plc:a/org.example.note/2', 'bafy2', 'did:plc:a', 'org.example.note', '{\"a\": [1, \"ä\"]}', now());
        INSERT INTO penstock.records (key, uri, did, collection, record, created_at)
          VALUES ('k', 'at://did:plc:a/app.bsky.feed.like/3', 'did:plc:a', 'app.bsky.feed.like', '{\"b\": 2}', now())";
    sqlx::raw_sql(rows).execute(&mut conn).await.unwrap();
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[("postgres.url", &url)]).await;
    let ask = async |uri: &str| {
        let uri = uri.replace(':', "%3A").replace('/', "%2F");
        get(dashboard.address, &format!("/api/events/record?uri={uri}")).await
    };
    let post = ask("at://did:plc:a/app.bsky.feed.post/1").await;
    post.fits("GET", "/api/events/record");
    let post = post.json();
    assert_eq!((&post["table"], &post["record"]["text"]), (&json!("posts"), &json!("Hello <b>")), "{post}");
    assert_eq!(post["links"][0]["href"], "https://bsky.app/profile/did:plc:a/post/1");
    for (uri, table, at, expected) in [
        ("at://did:plc:a/org.example.note/2", "generic_records", "/record/record/a/1", json!("ä")),
        ("at://did:plc:a/app.bsky.feed.like/3", "penstock.records", "/record/record/b", json!(2)),
        ("at://did:plc:a/app.bsky.actor.profile/self", "users", "/record/handle", json!("a.test")),
    ] {
        let found = ask(uri).await.json();
        assert_eq!((&found["table"], found.pointer(at)), (&json!(table), Some(&expected)), "{found}");
    }
    // Every table that is named is asked, and has nothing.
    for collection in [
        "feed.like",
        "feed.repost",
        "graph.follow",
        "graph.block",
        "graph.list",
        "graph.listitem",
        "graph.listblock",
        "feed.generator",
        "graph.starterpack",
        "labeler.service",
        "graph.verification",
        "feed.threadgate",
        "feed.postgate",
        "feed.unheardOf",
    ] {
        let none = ask(&format!("at://did:plc:a/app.bsky.{collection}/none")).await;
        none.fits("GET", "/api/events/record");
        assert_eq!((none.status, &none.json()["record"]), (200, &Value::Null), "{collection}: {}", none.body);
    }
    assert_eq!(ask("at://did:plc:a/app.bsky.bookmark/none").await.json()["table"], Value::Null);

    let large = "UPDATE posts SET text = repeat('x', 600000)";
    sqlx::raw_sql(large).execute(&mut conn).await.unwrap();
    assert_eq!(ask("at://did:plc:a/app.bsky.feed.post/1").await.problem(), 413);
    for wrong in ["", "posts", "at://a.test/app.bsky.feed.post/1"] {
        assert_eq!(ask(wrong).await.problem(), 400, "{wrong}");
    }
    assert_eq!(get(dashboard.address, "/api/events/record").await.problem(), 400);
}

#[tokio::test]
async fn without_a_database_it_says_so() {
    let (dashboard, redis, _client) = Dashboard::with_redis(&[]).await;
    let path = "/api/events/record?uri=at%3A%2F%2Fdid%3Aplc%3Aa%2Fapp.bsky.feed.post%2F1";
    let none = get(dashboard.address, path).await;
    assert!(none.problem() == 503 && none.body.contains("postgres.url"), "{}", none.body);
    let nobody = [("postgres.url", "postgres://nobody@127.0.0.1:1/none")];
    let away = Dashboard::start(&redis.url(), &nobody).await;
    let none = get(away.address, path).await;
    assert!(none.problem() == 503 && none.body.contains("postgres does not answer"), "{}", none.body);
}
