//! A migration while others read and write.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::relocate::{INDEXES, old};
use super::*;
use crate::store::schema::SchemaError;

const TABLES: &str = "\
SELECT c.oid::regclass::text AS name FROM pg_class AS c
 WHERE c.relkind = 'r' AND c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'penstock'))";

/// How long each reader's lock that is not granted yet has been waited for: its table, or that of its index.
const WAITS: &str = "\
SELECT coalesce((SELECT x.indrelid FROM pg_index AS x WHERE x.indexrelid = l.relation), l.relation)::regclass::text AS name,
    l.pid::text || l.waitstart::text AS wait, (extract(epoch FROM clock_timestamp() - l.waitstart) * 1000)::float8 AS ms
  FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE NOT l.granted AND l.waitstart IS NOT NULL AND l.relation IS NOT NULL AND a.application_name = 'reader'";

async fn connect(url: &str, name: &str) -> PgConnection {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::query("SELECT set_config('application_name', $1, false)").bind(name).execute(&mut conn).await.unwrap();
    conn
}

/// Reads one table after the other, again and again; those that are not there are not read.
async fn read_all(url: String) {
    let mut conn = connect(&url, "reader").await;
    loop {
        let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut conn).await.unwrap();
        for table in tables {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let _ = sqlx::raw_sql(sql).execute(&mut conn).await;
        }
    }
}

/// Writes rows of many tables in transactions that take their time.
async fn write_all(url: String) {
    let mut conn = connect(&url, "writer").await;
    loop {
        let mut tx = conn.begin().await.unwrap();
        let sql = "UPDATE likes SET via = '{}'; UPDATE posts SET text = text; UPDATE post_aggregations SET updated_at = now();
          UPDATE users SET indexed_at = now()";
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        tx.commit().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Has two tables in use most of the time, for two seconds each: whoever queues for one waits that long, and all behind it.
async fn hold_two(url: String) {
    let mut conn = connect(&url, "holder").await;
    loop {
        let mut tx = conn.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE posts, lists IN ACCESS SHARE MODE").execute(&mut *tx).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        tx.commit().await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_waits_for_half_a_second_while_a_database_in_use_is_migrated() {
    let db = old(true).await;
    db.execute(INDEXES).await;
    db.execute("DROP INDEX idx_posts_parent_uri").await;
    let mut others = JoinSet::new();
    for _ in 0..2 {
        others.spawn(read_all(db.url.clone()));
    }
    others.spawn(write_all(db.url.clone()));
    others.spawn(hold_two(db.url.clone()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let url = db.url.clone();
    let migration = tokio::spawn(async move { schema::migrate(&url, false).await });
    // Each wait as long as it was when it was last seen.
    let mut waits: BTreeMap<(String, String), f64> = BTreeMap::new();
    let mut looker = connect(&db.url, "looker").await;
    while !migration.is_finished() {
        let found: Vec<(String, String, f64)> = sqlx::query_as(WAITS).fetch_all(&mut looker).await.unwrap();
        for (table, wait, ms) in found {
            waits.insert((table, wait), ms);
        }
    }
    migration.await.unwrap().unwrap();
    others.shutdown().await;
    // How often it has to try again follows the load of the machine; how long a reader waits for one try does not.
    assert!(waits.values().all(|ms| *ms < 500.0), "readers waited: {waits:?}");
    db.store.check_schema().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_statements_need_are_told_by_what_they_are_on_and_built_again() {
    let db = Db::new().await;
    db.execute(
        "ALTER INDEX unique_like_user_post RENAME TO called_otherwise;
         DROP INDEX idx_posts_parent_uri, unique_follow_follower_following;
         CREATE INDEX idx_posts_parent_uri ON posts (parent_uri) WHERE parent_uri IS NOT NULL;
         CREATE INDEX unique_follow_follower_following ON follows (follower_did, following_did);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_likes_post_uri'::regclass;
         ALTER TABLE penstock.tombstones DROP CONSTRAINT tombstones_pkey;
         ALTER TABLE notifications DROP CONSTRAINT notifications_uri_unique",
    )
    .await;
    let missing = async || match db.store.check_schema().await {
        Ok(()) => Vec::new(),
        Err(SchemaError::Missing(missing)) => missing,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(
        missing().await,
        [
            "unique index on follows (follower_did, following_did)",
            "index on posts (parent_uri)",
            "index on likes (post_uri)",
            "unique index on notifications (uri)",
            "unique index on penstock.tombstones (uri)"
        ]
    );
    schema::migrate(&db.url, true).await.unwrap();
    assert_eq!(missing().await, Vec::<String>::new());
    let invalid = "SELECT indexrelid FROM pg_index WHERE NOT indisvalid";
    assert_eq!(db.rows(invalid).await.len(), 0);
    db.apply(&[live(5, "did:plc:a", vec![like("l", "at://did:plc:a/app.bsky.feed.post/p"), post("p", "x")])]).await;

    // What stands twice is told, and leaves nothing behind.
    db.execute(
        "DROP INDEX unique_repost_user_post;
         INSERT INTO reposts (uri, user_did, post_uri, created_at) VALUES ('a', 'u', 'p', now()), ('b', 'u', 'p', now())",
    )
    .await;
    let error = schema::migrate(&db.url, true).await.unwrap_err();
    let said = penstock_core::causes::chain(&error);
    assert!(said.contains("unique_repost_user_post"), "{said}");
    assert_eq!(missing().await, ["unique index on reposts (user_did, post_uri)"]);
    assert_eq!(db.rows(invalid).await.len(), 0);
}

/// A version before this one ran the same statements, fewer of them, and noted that it had.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_added_since_comes_to_a_database_that_was_migrated_before() {
    let db = Db::new().await;
    db.execute(
        "CREATE TABLE penstock.migrations (version bigint PRIMARY KEY, description text, installed_on timestamptz DEFAULT now(),
           success bool, checksum bytea, execution_time bigint);
         INSERT INTO penstock.migrations VALUES (1, 'appview', now(), true, 'x', 1), (2, 'penstock', now(), true, 'y', 1);
         INSERT INTO penstock.tombstones VALUES ('at://did:plc:a/x/y', '3a', '1-1');
         ALTER TABLE penstock.repos DROP COLUMN handle, DROP COLUMN forbidden; DROP TABLE penstock.waiting_cids",
    )
    .await;
    let incarnation = db.store.incarnation().await.unwrap();
    for _ in 0..2 {
        schema::migrate(&db.url, true).await.unwrap();
        db.store.check_schema().await.unwrap();
    }
    assert_eq!(db.store.incarnation().await.unwrap(), incarnation);
    assert_eq!(db.rows("SELECT FROM penstock.tombstones").await.len(), 1);
}
