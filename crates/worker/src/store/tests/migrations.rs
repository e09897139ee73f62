//! Migrations: on nothing, and on what the AppView made.

use super::*;
use crate::store::schema::{SchemaError, recount};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_migrated_once_however_many_try() {
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let (a, b, c) = tokio::join!(schema::migrate(&url, true), schema::migrate(&url, true), schema::migrate(&url, true));
    a.unwrap();
    b.unwrap();
    c.unwrap();
    let store = Store::connect(&StoreSettings::new(&url)).await.unwrap();
    store.check_schema().await.unwrap();
    assert_eq!(store.incarnation().await.unwrap(), store.incarnation().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let store = Store::connect(&StoreSettings::new(&url)).await.unwrap();
    let Err(SchemaError::Missing(missing)) = store.check_schema().await else { panic!("nothing is missing") };
    assert!(missing.contains(&"table likes".to_owned()), "{missing:?}");
    schema::migrate(&url, true).await.unwrap();
    sqlx::raw_sql("ALTER TABLE posts DROP COLUMN commit_seq; DROP TABLE penstock.repos")
        .execute(store.pool())
        .await
        .unwrap();
    let said = store.check_schema().await.unwrap_err().to_string();
    assert_eq!(said, "schema lacks table penstock.repos, column posts.commit_seq: run penstock migrate");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_has_the_number_of_indexes_that_the_appview_has() {
    let db = Db::new().await;
    let found = db
        .rows(
            "SELECT tablename, count(*) AS n FROM pg_indexes
              WHERE schemaname = 'public' AND tablename !~ '^(penstock_|messages)' GROUP BY 1",
        )
        .await;
    let found: BTreeMap<_, _> =
        found.iter().map(|row| (row["tablename"].as_str().unwrap(), row["n"].as_u64().unwrap())).collect();
    let expected = BTreeMap::from([
        ("users", 4),
        ("posts", 8),
        ("post_aggregations", 6),
        ("feed_items", 6),
        ("likes", 4),
        ("reposts", 4),
        ("bookmarks", 4),
        ("follows", 4),
        ("blocks", 4),
        ("lists", 4),
        ("list_items", 4),
        ("list_blocks", 4),
        ("feed_generators", 5),
        ("starter_packs", 4),
        ("labeler_services", 4),
        ("labels", 5),
        ("label_events", 3),
        ("verifications", 4),
        ("generic_records", 4),
        ("thread_gates", 2),
        ("post_gates", 2),
        ("quotes", 4),
        ("thread_contexts", 2),
        ("post_viewer_states", 3),
        ("notifications", 7),
        ("post_viewer_states", 3),
        ("label_events", 3),
        ("firehose_cursor", 3),
    ]);
    assert_eq!(found, expected);
}

/// What the AppView left: its tables without our columns, rows in them, and some of its own besides.
const APPVIEW: &str = "
DROP SCHEMA penstock CASCADE;
CREATE TABLE sessions (id int PRIMARY KEY, user_did varchar(255) REFERENCES users (did) ON DELETE CASCADE);
INSERT INTO users (did, handle, display_name, profile_record)
  VALUES ('did:plc:a', 'a.example', 'A', '{\"displayName\":\"A\"}');
INSERT INTO sessions VALUES (1, 'did:plc:a');
INSERT INTO posts (uri, cid, author_did, text, created_at)
  VALUES ('at://did:plc:a/app.bsky.feed.post/p', 'bafy', 'did:plc:a', 'old', '2026-01-01');
INSERT INTO likes (uri, user_did, post_uri, created_at)
  VALUES ('at://did:plc:a/app.bsky.feed.like/l', 'did:plc:a', 'at://did:plc:a/app.bsky.feed.post/p', '2026-01-01'),
         ('at://did:plc:b/app.bsky.feed.like/l', 'did:plc:b', 'at://did:plc:a/app.bsky.feed.post/p', '2026-01-01');
INSERT INTO list_items (uri, cid, list_uri, subject_did, created_at)
  VALUES ('at://did:plc:a/app.bsky.graph.listitem/i', 'bafy', 'at://did:plc:a/app.bsky.graph.list/l', 'did:plc:b', '2026-01-01');
INSERT INTO post_aggregations (post_uri, like_count, repost_count)
  VALUES ('at://did:plc:a/app.bsky.feed.post/p', 9, 3), ('at://did:plc:a/app.bsky.feed.post/q', 7, 0);
";

/// A database that the AppView made, then migrated.
async fn appview() -> Db {
    let db = Db::new().await;
    db.execute(APPVIEW).await;
    schema::migrate(&db.url, true).await.unwrap();
    // Statements that were prepared before the columns came would still miss them.
    let store = Store::connect(&StoreSettings::new(&db.url)).await.unwrap();
    Db { store, url: db.url }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_appview_are_kept_and_taken_over() {
    let db = appview().await;
    db.store.check_schema().await.unwrap();
    assert_eq!(db.rows("SELECT uri FROM likes WHERE commit_seq IS NULL").await.len(), 2);
    assert_eq!(db.rows("SELECT id FROM sessions").await.len(), 1);

    // The event of a row that the AppView wrote itself: it is stamped, not counted again.
    let p = post_uri("did:plc:a", "p");
    db.apply(&[live(5, "did:plc:a", vec![like("l", &p), post("p", "new")])]).await;
    assert_eq!(db.rows("SELECT text FROM posts").await, [json!({"text": "new"})]);
    assert_eq!(db.rows("SELECT like_count FROM post_aggregations ORDER BY 1 DESC").await[0], json!({"like_count": 9}));
    assert_eq!(db.totals().await, BTreeMap::from([("feed_items".to_owned(), 1)]));

    // A fill does not touch what stands, stamped or not.
    db.apply(&[fill(6, "did:plc:b", vec![like("l", "at://did:plc:x/app.bsky.feed.post/other")])]).await;
    assert_eq!(db.rows("SELECT uri FROM likes WHERE post_uri LIKE '%other'").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_mends_what_came_wrong_and_nothing_else() {
    let db = appview().await;
    db.execute(
        "INSERT INTO feed_generators (uri, cid, creator_did, did, display_name, like_count, created_at)
        VALUES ('at://did:plc:a/app.bsky.feed.generator/g', 'c', 'did:plc:a', 'did:web:g', 'G', 4, now());
      INSERT INTO thread_gates (post_uri, owner_did) VALUES ('at://did:plc:a/app.bsky.feed.post/p', 'did:plc:a')",
    )
    .await;
    let mended = recount(&db.url).await.unwrap();
    assert_eq!((mended.posts, mended.liked, mended.gates), (2, 1, 1));
    let total = |count: i64| BTreeMap::from([("post_aggregations".to_owned(), count)]);
    assert_eq!(db.totals().await, total(-1), "one row went");
    assert_eq!(
        db.rows("SELECT post_uri, like_count, repost_count FROM post_aggregations").await,
        [json!({"post_uri": post_uri("did:plc:a", "p"), "like_count": 2, "repost_count": 0})]
    );
    assert_eq!(db.rows("SELECT has_thread_gate FROM posts").await, [json!({"has_thread_gate": true})]);
    assert_eq!(recount(&db.url).await.unwrap(), crate::store::schema::Mended::default());
    assert_eq!(db.totals().await, total(-1));
    db.execute("DELETE FROM post_aggregations").await;
    assert_eq!(recount(&db.url).await.unwrap().posts, 1);
    assert_eq!(db.totals().await, BTreeMap::new(), "and one came: what somebody else took is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_takes_the_rows_that_the_appview_wrote() {
    let db = appview().await;
    recount(&db.url).await.unwrap();
    db.apply(&[deleted(5, "did:plc:a")]).await;
    db.sweep().await;
    for table in ["posts", "list_items"] {
        assert_eq!(db.rows(&format!("SELECT uri FROM {table}")).await.len(), 0, "{table}");
    }
    assert_eq!(db.rows("SELECT uri FROM likes").await, [json!({"uri": "at://did:plc:b/app.bsky.feed.like/l"})]);
    assert_eq!(db.rows("SELECT like_count FROM penstock.waiting_counts").await, [json!({"like_count": 1})]);
    assert_eq!(
        db.rows("SELECT did, users.handle, display_name, active, status FROM users JOIN penstock.repos USING (did) WHERE did = 'did:plc:a'").await,
        [
            json!({"did": "did:plc:a", "handle": "a.example", "display_name": null, "active": false, "status": "deleted"})
        ]
    );
    assert_eq!(db.rows("SELECT id FROM sessions").await.len(), 1, "the users row stays, and what hangs on it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_is_swept_whatever_the_collation() {
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let (server, name) = url.rsplit_once('/').unwrap();
    let first = Store::connect(&StoreSettings::new(&url)).await.unwrap();
    for locale in ["en-US", "et", "sv", "en-US-u-ka-shifted"] {
        let other = format!("{name}_{}", locale.to_lowercase().replace('-', "_"));
        let create =
            format!("CREATE DATABASE {other} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE '{locale}' LOCALE 'C'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(first.pool()).await.unwrap();
        let url = format!("{server}/{other}");
        schema::migrate(&url, true).await.unwrap();
        let db = Db { store: Store::connect(&StoreSettings::new(&url)).await.unwrap(), url };

        let everything = |did: &str| {
            let list = format!("at://{did}/app.bsky.graph.list/l");
            let rkeys = ["A", "3mzzzzzzzzzzz", "self", "~", "z-_:.~z", "Z"];
            let posts = rkeys.map(|rkey| post(rkey, "x"));
            let items = rkeys.map(|rkey| {
                put(
                    &format!("app.bsky.graph.listitem/{rkey}"),
                    json!({"list": list, "subject": format!("did:plc:{rkey}")}),
                )
            });
            let label = put("com.atproto.label.label/l", json!({"uri": "at://x", "val": "v"}));
            let gate = put("app.bsky.feed.postgate/Z", json!({}));
            posts.into_iter().chain(items).chain([label, gate, put("zz.zz.zz/z", json!({}))]).collect::<Vec<_>>()
        };
        let dids = ["did:plc:ab", "did:plc:a", "did:plc:abc", "did:web:a.b", "did:web:a-b", "did:web:ab", "did:plc:zz"];
        for did in dids {
            db.apply(&[live(1, did, everything(did))]).await;
        }
        let tables = ["posts", "list_items", "labels", "generic_records", "post_gates AS t (uri)"];
        for (gone, did) in dids.into_iter().enumerate() {
            db.apply(&[deleted(2, did)]).await;
            db.sweep().await;
            for table in tables {
                let left = db.rows(&format!("SELECT DISTINCT split_part(uri, '/', 3) AS did FROM {table}")).await;
                assert_eq!(left.len(), dids.len() - gone - 1, "{locale}: {table} without {did}");
                assert!(!left.contains(&json!({"did": did})), "{locale}: {table} still has {did}");
            }
        }
    }
}
