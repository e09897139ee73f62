//! An installation of Penstock 0.1, moved to where everything of ours stands now.

use super::*;
use crate::store::schema::SchemaError;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

/// What Penstock 0.1 made besides the tables of the AppView, and what its workers and the AppView had written.
const OLD: &str = include_str!("old.sql");

/// Makes an installation of Penstock 0.1 out of this version's tables: the AppView's are the same.
pub(super) async fn old(rows: bool) -> Db {
    let db = Db::new().await;
    db.execute("DROP SCHEMA penstock CASCADE; DROP TABLE messages").await;
    let (columns, content) = OLD.split_once("-- Rows\n").unwrap();
    db.execute(columns).await;
    if rows {
        db.execute(content).await;
    }
    db
}

/// Opens the store anew: statements that were prepared before would still name what is gone.
async fn moved(db: Db) -> Db {
    schema::migrate(&db.url, false).await.unwrap();
    let store = Store::connect(&StoreSettings::new(&db.url)).await.unwrap();
    store.check_schema().await.unwrap();
    Db { store, url: db.url }
}

async fn columns_of_ours(db: &Db) -> usize {
    db.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' AND
           (table_name LIKE 'penstock%' OR column_name IN ('entry_id', 'active', 'status', 'tracking_id', 'dedupe_key')
            OR column_name = 'commit_rev' AND table_name NOT IN ('posts', 'likes', 'reposts', 'follows', 'blocks'))",
    )
    .await
    .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_installation_keeps_its_guards_and_leaves_nothing_in_public() {
    let db = old(true).await;
    let incarnation = db.rows("SELECT value FROM penstock_meta WHERE key = 'incarnation'").await;
    assert!(columns_of_ours(&db).await > 40);
    let db = moved(db).await;
    assert_eq!(columns_of_ours(&db).await, 0);
    assert_eq!(db.rows("SELECT value FROM penstock.meta WHERE key = 'incarnation'").await, incarnation);
    assert_eq!(
        db.rows("SELECT commit_rev, commit_seq FROM likes ORDER BY uri").await,
        [
            json!({"commit_rev": "3b", "commit_seq": "1782000000000-000003:26512345678"}),
            json!({"commit_rev": null, "commit_seq": "77"})
        ]
    );
    assert_eq!(
        db.rows("SELECT uri, commit_rev, entry_id FROM penstock.stamps ORDER BY uri").await,
        [
            json!({"uri": "at://did:plc:a/app.bsky.feed.threadgate/p", "commit_rev": "3b", "entry_id": "1782000000000-000004"}),
            json!({"uri": "at://did:plc:a/app.bsky.graph.list/l", "commit_rev": "3b", "entry_id": "!1782000000000-000005"})
        ]
    );
    assert_eq!(db.rows("SELECT active, status FROM penstock.repos").await, [json!({"active": true, "status": null})]);
    assert_eq!(db.rows("SELECT uri FROM penstock.tombstones").await.len(), 1);
    assert_eq!(db.rows("SELECT feeds FROM starter_packs").await, [json!({"feeds": ["at://f/1", "at://f/2"]})]);
    // A post has its row, and what counts for others waits.
    assert_eq!(
        db.rows("SELECT post_uri, like_count FROM post_aggregations ORDER BY 1").await,
        [
            json!({"post_uri": post_uri(A, "p"), "like_count": 2}),
            json!({"post_uri": post_uri(A, "without"), "like_count": 0})
        ]
    );
    assert_eq!(
        db.rows("SELECT post_uri, like_count FROM penstock.waiting_counts").await,
        [json!({"post_uri": post_uri(B, "unseen"), "like_count": 5})]
    );
    assert_eq!(db.totals().await["post_aggregations"], 10 + 1 - 1);
    assert_eq!(
        db.rows("SELECT dedupe_key, message_id, tracking_id FROM penstock.message_keys").await,
        [json!({"dedupe_key": "k", "message_id": 7, "tracking_id": "t"})]
    );
    // The guards still hold.
    db.apply(&[commit(
        1_782_000_000_001,
        A,
        Some("3a"),
        vec![put("app.bsky.graph.list/l", json!({"name": "old", "purpose": "p"}))],
    )])
    .await;
    assert_eq!(db.rows("SELECT name FROM lists").await, [json!({"name": "L"})]);
    // And once more changes nothing.
    let state = db.state().await;
    let db = moved(db).await;
    assert!(db.state().await == state);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_installation_without_messages_loses_their_table() {
    let db = moved(old(false).await).await;
    assert_eq!(db.rows("SELECT FROM pg_tables WHERE tablename = 'messages'").await.len(), 0);
    schema::migrate(&db.url, true).await.unwrap();
    assert_eq!(db.rows("SELECT FROM pg_tables WHERE tablename = 'messages'").await.len(), 1);
}

/// Whatever it was doing when it was cut off, the next one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_cut_off_anywhere_is_ended_by_the_next() {
    let whole = moved(old(true).await).await.state().await;
    for cut in (0..).step_by(11) {
        let db = old(true).await;
        let url = db.url.clone();
        let migration = tokio::spawn(async move { schema::migrate(&url, false).await });
        // So many more transactions of any kind, then its connection is cut.
        let begun = transactions(&db).await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while !migration.is_finished() && transactions(&db).await < begun + cut {
            assert!(tokio::time::Instant::now() < deadline, "the migration neither goes on nor ends");
        }
        let finished = migration.is_finished();
        db.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'penstock-migrate'
                  AND datname = current_database()",
        )
        .await;
        let _ = migration.await;
        if !finished {
            let store = Store::connect(&StoreSettings::new(&db.url)).await.unwrap();
            let said = store.check_schema().await;
            assert!(matches!(said, Ok(()) | Err(SchemaError::Moving | SchemaError::Missing(_) | SchemaError::Read(_))));
        }
        let db = moved(db).await;
        assert!(db.state().await == whole, "cut after {cut}");
        assert_eq!(columns_of_ours(&db).await, 0, "cut after {cut}");
        if finished {
            assert!(cut > 22, "it was never cut");
            return;
        }
    }
}

async fn transactions(db: &Db) -> u64 {
    let lsn = db.rows("SELECT pg_current_xact_id()::text::bigint AS id").await;
    lsn[0]["id"].as_u64().unwrap()
}

/// Rows of more than one piece; the first blocks have room, and in the middle of the first piece somebody writes the last
/// rows anew: they go there.
const BEHIND: &str = "
INSERT INTO generic_records (uri, cid, author_did, record_type, record, created_at, commit_rev, entry_id)
SELECT 'at://did:plc:a/zz.zz.zz/' || lpad(n::text, 5, '0'), 'c', 'did:plc:a', 'zz.zz.zz',
  jsonb_build_object('x', (SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, 50) AS m)), now(), '3b',
  '1782000000000-000009' FROM generate_series(1, 2600) AS n;
DELETE FROM generic_records WHERE uri < 'at://did:plc:a/zz.zz.zz/00400';
CREATE SCHEMA penstock;
CREATE TABLE penstock.stamps (uri varchar(512) COLLATE \"C\" PRIMARY KEY, commit_rev varchar(64) COLLATE \"C\",
  entry_id varchar(32) COLLATE \"C\");
CREATE TABLE written AS SELECT uri, ctid AS place FROM generic_records LIMIT 0;
CREATE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM written) AND EXISTS (SELECT FROM penstock.stamps WHERE uri LIKE '%zz.zz.zz%') THEN
    WITH moved AS (UPDATE generic_records SET indexed_at = now() WHERE uri > 'at://did:plc:a/zz.zz.zz/02500' RETURNING uri, ctid)
    INSERT INTO written SELECT * FROM moved;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER write AFTER INSERT ON penstock.stamps FOR EACH STATEMENT EXECUTE FUNCTION write();
";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_moves_behind_the_pass_keeps_its_stamp() {
    let db = old(false).await;
    db.execute(BEHIND).await;
    db.execute("VACUUM generic_records").await;
    let db = moved(db).await;
    let written = db.rows("SELECT uri FROM written WHERE place < '(100,0)'").await;
    assert_eq!(written.len(), 100, "they went to where the pass had been");
    let without = "SELECT uri FROM generic_records WHERE NOT EXISTS (SELECT FROM penstock.stamps AS s WHERE s.uri = generic_records.uri)";
    assert_eq!(db.rows(without).await.len(), 0);
    assert_eq!(db.rows("SELECT uri FROM penstock.stamps WHERE entry_id = '1782000000000-000009'").await.len(), 2201);
    assert_eq!(db.rows("SELECT key FROM penstock.meta WHERE key LIKE 'moving%'").await.len(), 0);
}

/// In the middle of the copy a writer of 0.1 adds one.
const LATE: &str = "
CREATE SCHEMA penstock;
CREATE TABLE penstock.message_keys (dedupe_key text COLLATE \"C\" PRIMARY KEY, message_id bigint NOT NULL, tracking_id text);
SELECT setval('messages_id_seq', 100);
CREATE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NOT EXISTS (SELECT FROM messages WHERE content = 'late') THEN
    INSERT INTO messages (user_id, channel_id, content, created_at, dedupe_key) VALUES (1, 1, 'late', now(), 'late');
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER write AFTER INSERT ON penstock.message_keys FOR EACH STATEMENT EXECUTE FUNCTION write();
";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_during_the_move_keeps_its_key() {
    let db = old(true).await;
    db.execute(LATE).await;
    let db = moved(db).await;
    assert_eq!(
        db.rows("SELECT dedupe_key, message_id FROM penstock.message_keys ORDER BY 1").await,
        [json!({"dedupe_key": "k", "message_id": 7}), json!({"dedupe_key": "late", "message_id": 101})]
    );
}

/// Tables with the indexes that 0.1 made, and one that a build left that was cut off.
pub(super) const INDEXES: &str = "
DROP INDEX unique_like_user_post;
CREATE UNIQUE INDEX idx_likes_user_did_post_uri ON likes (user_did, post_uri);
DROP INDEX idx_likes_user_did, idx_likes_post_uri;
CREATE INDEX idx_likes_post_uri_created_at ON likes (post_uri, created_at);
CREATE INDEX idx_likes_user_did_created_at ON likes (user_did, created_at);
CREATE INDEX idx_likes_user_did ON likes (user_did);
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_likes_user_did'::regclass;
DROP INDEX idx_post_aggregations_like_count;
CREATE INDEX idx_post_aggregations_like_count ON post_aggregations (like_count) WHERE like_count > 0;
";

const LIST_INDEXES: &str = "\
SELECT c.relname AS name, x.indisunique, x.indisvalid, x.indpred IS NULL AS whole,
    pg_get_indexdef(x.indexrelid, 1, true) AS first FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
 WHERE x.indrelid IN ('likes'::regclass, 'post_aggregations'::regclass) ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn old_indexes_become_those_of_the_appview_while_tables_are_written() {
    let db = old(true).await;
    let expected = db.rows(LIST_INDEXES).await;
    db.execute(INDEXES).await;
    assert_ne!(db.rows(LIST_INDEXES).await, expected);
    // A build waits for whoever still sees how things were before it.
    let mut reader = db.store.pool().begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sqlx::raw_sql("SELECT pg_current_snapshot()").execute(&mut *reader).await.unwrap();
    let url = db.url.clone();
    let migration = tokio::spawn(async move { schema::migrate(&url, false).await });
    let waits = until_waiting(&db).await;
    assert_eq!(waits["query"], "CREATE INDE");
    db.execute("SET lock_timeout = '1s'; UPDATE likes SET via = '{}'; UPDATE post_aggregations SET updated_at = now()")
        .await;
    assert_eq!(waiting(&db).await, Some(waits), "the build still waits, and nobody for it");
    reader.rollback().await.unwrap();
    migration.await.unwrap().unwrap();
    assert_eq!(db.rows(LIST_INDEXES).await, expected);
}

/// What the migration waits for, of which connection, and since when.
async fn waiting(db: &Db) -> Option<Value> {
    let query = "SELECT pid, left(query, 11) AS query, query_start::text AS since FROM pg_stat_activity
      WHERE application_name = 'penstock-migrate' AND datname = current_database() AND wait_event_type = 'Lock'";
    db.rows(query).await.pop()
}

async fn until_waiting(db: &Db) -> Value {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(waits) = waiting(db).await {
            return waits;
        }
        assert!(tokio::time::Instant::now() < deadline, "the migration does not wait");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Waits until the migration tries to take the columns out of a table, at another moment than that one.
async fn until_tried(db: &Db, before: Option<&Value>) -> Value {
    let query = "SELECT pid, query_start::text AS since FROM pg_stat_activity
      WHERE application_name = 'penstock-migrate' AND datname = current_database() AND query LIKE '%ALTER TABLE lists DROP%'";
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        if let Some(tried) = db.rows(query).await.pop().filter(|tried| Some(tried) != before) {
            return tried;
        }
        assert!(tokio::time::Instant::now() < deadline, "the migration does not try");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Only the step that takes the columns away needs the table for itself, and only that one is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_use_is_waited_for_and_nothing_is_done_again() {
    let db = old(true).await;
    let mut reader = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE lists IN ACCESS SHARE MODE").execute(&mut *reader).await.unwrap();
    let url = db.url.clone();
    let migration = tokio::spawn(async move { schema::migrate(&url, false).await });
    let first = until_tried(&db, None).await;
    let stamp = "SELECT xmin::text AS written FROM penstock.stamps WHERE uri = 'at://did:plc:a/app.bsky.graph.list/l'";
    let written = db.rows(stamp).await;
    let second = until_tried(&db, Some(&first)).await;
    assert_eq!(second["pid"], first["pid"]);
    reader.rollback().await.unwrap();
    migration.await.unwrap().unwrap();
    assert_eq!(db.rows(stamp).await, written);
    assert_eq!(columns_of_ours(&db).await, 0);
}

/// What the workers of 0.1 wrote when they were started once more.
const AGAIN: &str = "
UPDATE likes SET commit_seq = '26512349999', commit_rev = '3c', entry_id = '1783000000000-000003' WHERE user_did = 'did:plc:a';
UPDATE lists SET name = 'M', commit_rev = '3c', entry_id = '1783000000000-000005';
INSERT INTO messages (id, user_id, channel_id, content, created_at, dedupe_key) VALUES (9, 1, 1, 'm', now(), 'later');
INSERT INTO penstock_repos (did, rev, active, status, account_entry)
  VALUES ('did:plc:a', '3c', false, 'deactivated', '1783000000000-000001'), ('did:plc:b', '3b', NULL, NULL, NULL);
INSERT INTO penstock_tombstones VALUES ('at://did:plc:a/app.bsky.feed.like/gone', '3c', '1783000000000-000006'),
  ('at://did:plc:b/app.bsky.feed.like/gone', '3b', '1783000000000-000007');
INSERT INTO penstock_counts VALUES ('w1', 'post_aggregations', 3);
INSERT INTO penstock_checkpoint VALUES ('relay', 7, '1783000000000-0');
";

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_the_old_version_and_forward_again_keeps_what_both_wrote() {
    let db = moved(old(true).await).await;
    let (columns, _) = OLD.split_once("-- Rows\n").unwrap();
    let again = columns.replace("CREATE TABLE messages", "CREATE TABLE IF NOT EXISTS messages");
    sqlx::raw_sql(sqlx::AssertSqlSafe(again)).execute(db.store.pool()).await.unwrap();
    db.execute(AGAIN).await;
    let incarnation = db.rows("SELECT value FROM penstock_meta").await;
    let db = moved(db).await;
    assert_eq!(columns_of_ours(&db).await, 0);
    // Its workers claimed Redis for this one.
    assert_eq!(db.rows("SELECT value FROM penstock.meta WHERE key = 'incarnation'").await, incarnation);
    assert_eq!(
        db.rows("SELECT commit_seq FROM likes ORDER BY uri").await,
        [json!({"commit_seq": "1783000000000-000003:26512349999"}), json!({"commit_seq": "77"})]
    );
    assert_eq!(
        db.rows("SELECT commit_rev, entry_id FROM penstock.stamps ORDER BY uri").await,
        [
            json!({"commit_rev": "3b", "entry_id": "1782000000000-000004"}),
            json!({"commit_rev": "3c", "entry_id": "1783000000000-000005"})
        ]
    );
    assert_eq!(
        db.rows("SELECT did, rev, active, status, handle FROM penstock.repos ORDER BY did").await,
        [
            json!({"did": A, "rev": "3c", "active": false, "status": "deactivated", "handle": "a.example"}),
            json!({"did": B, "rev": "3b", "active": null, "status": null, "handle": null})
        ]
    );
    assert_eq!(db.rows("SELECT FROM penstock.tombstones WHERE entry_id > '1783'").await.len(), 2);
    assert_eq!(db.totals().await["post_aggregations"], 10 + 3);
    assert_eq!(db.rows("SELECT seq FROM penstock.checkpoint").await, [json!({"seq": 7})]);
    assert_eq!(db.rows("SELECT FROM penstock.message_keys").await.len(), 2);
    assert_eq!(db.rows("SELECT FROM penstock.meta WHERE key = 'counts'").await.len(), 1);
}

/// The second piece fails.
const FAILS: &str = "
CREATE OR REPLACE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM penstock.stamps WHERE uri = 'at://did:plc:a/zz.zz.zz/02600') THEN RAISE 'no'; END IF;
  RETURN NULL;
END $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_fails_keeps_the_place_it_came_to() {
    let db = old(false).await;
    db.execute(BEHIND).await;
    db.execute(FAILS).await;
    assert!(matches!(schema::migrate(&db.url, false).await, Err(SchemaError::Migrate(_))));
    let place = "SELECT split_part(value, '/', 2) AS block FROM penstock.meta WHERE key = 'moving generic_records'";
    assert_eq!(db.rows(place).await, [json!({"block": "512"})]);
    let stamps = "SELECT uri, xmin::text FROM penstock.stamps ORDER BY uri";
    let before = db.rows(stamps).await;
    assert!(before.len() > 1000, "the first piece stays");
    db.execute("DROP TRIGGER write ON penstock.stamps").await;
    let db = moved(db).await;
    assert_eq!(db.rows(stamps).await[..before.len()], before, "and is not written again");
    assert_eq!(db.rows(stamps).await.len(), 2201);
    assert_eq!(db.rows(place).await.len(), 0);
}
