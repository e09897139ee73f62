//! Order, deletes, accounts and counts.

use std::time::{Duration, Instant};

use super::*;
use crate::store::ApplyError;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const NOTE: &str = "com.example.note/r";

fn note(n: u64) -> Op {
    put(NOTE, json!({ "n": n }))
}

/// Returns what stands of the one note.
async fn noted(db: &Db) -> Option<u64> {
    db.rows("SELECT record->'n' AS n FROM generic_records").await.first().and_then(|row| row["n"].as_u64())
}

async fn counts(db: &Db, uri: &str) -> Option<Vec<u64>> {
    let of = |table: &str| {
        format!("SELECT post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count FROM {table}")
    };
    let query = format!("{} UNION ALL {}", of("post_aggregations"), of("penstock.waiting_counts"));
    let rows = db.rows(&query).await;
    let row = rows.iter().find(|row| row["post_uri"] == uri)?;
    let names = ["like_count", "repost_count", "reply_count", "quote_count", "bookmark_count"];
    Some(names.map(|name| row[name].as_u64().unwrap()).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_overtakes_its_create_wins() {
    let db = Db::new().await;
    db.apply_each(&[live(2, A, vec![delete(NOTE)]), live(1, A, vec![note(1)])]).await;
    assert_eq!(noted(&db).await, None);
    db.apply_each(&[live(3, A, vec![note(3)]), live(2, A, vec![delete(NOTE)])]).await;
    assert_eq!(noted(&db).await, Some(3));
    assert_eq!(db.rows("SELECT * FROM penstock.tombstones").await.len(), 0, "a row needs no tombstone beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_rev_go_by_their_stream_id() {
    let db = Db::new().await;
    db.apply_each(&[commit(5, A, None, vec![note(5)]), commit(4, A, None, vec![note(4)])]).await;
    assert_eq!(noted(&db).await, Some(5));
    // A replayed dead letter has a new ID and keeps its old place.
    let replayed = Entry { id: id(99), ..commit(4, A, None, vec![delete(NOTE)]) };
    db.apply(&[replayed]).await;
    assert_eq!(noted(&db).await, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commit_again_moves_only_the_stamp() {
    let db = Db::new().await;
    db.apply_each(&[commit(5, A, Some("3a"), vec![note(1)]), commit(9, A, Some("3a"), vec![note(2)])]).await;
    assert_eq!(noted(&db).await, Some(1));
    assert_eq!(db.rows("SELECT entry_id FROM penstock.stamps").await, [json!({"entry_id": "0000000000009-000000:9"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_fills_gaps_and_yields_to_the_live_stream() {
    let db = Db::new().await;
    db.apply_each(&[fill(9, A, vec![note(9)]), fill(10, A, vec![note(10)])]).await;
    assert_eq!(noted(&db).await, Some(9));
    db.apply(&[commit(3, A, None, vec![note(3)])]).await;
    assert_eq!(noted(&db).await, Some(3), "a live entry is later than any fill, whatever its ID");
    db.apply_each(&[live(4, A, vec![delete(NOTE)]), fill(11, A, vec![note(11)])]).await;
    assert_eq!(noted(&db).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_batch_changes_nothing() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    let batch = [
        live(1, A, vec![like("l", &p), repost("r", &p), post("p", "hello"), note(1)]),
        live(2, A, vec![delete("app.bsky.feed.repost/r")]),
        identity(3, A, Some("a.example")),
    ];
    db.apply(&batch).await;
    let (state, totals) = (db.state().await, db.totals().await);
    db.apply(&batch).await;
    db.apply_each(&batch).await;
    assert_eq!((db.state().await, db.totals().await), (state, totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_follow_what_was_written_and_wait_for_the_post() {
    let db = Db::new().await;
    let (p, q) = (post_uri(B, "p"), post_uri(B, "q"));
    let quote = |rkey: &str, quoted: &str| {
        put(
            &format!("app.bsky.feed.post/{rkey}"),
            json!({"text": "", "embed": {"$type": "app.bsky.embed.record", "record": {"uri": quoted, "cid": "c"}}}),
        )
    };
    let reply = put("app.bsky.feed.post/reply", json!({"text": "", "reply": {"parent": {"uri": p, "cid": "c"}}}));
    let bookmark = put("app.bsky.bookmark/b", json!({"subject": {"uri": p, "cid": "c"}}));
    db.apply(&[live(1, A, vec![like("l", &p), repost("r", &p), reply, quote("quote", &p), bookmark])]).await;
    assert_eq!(counts(&db, &p).await, Some(vec![1, 1, 1, 1, 1]));
    assert_eq!(db.rows("SELECT uri, type FROM feed_items ORDER BY type, uri").await.len(), 3);

    // A like and a quote that move to another post.
    db.apply(&[live(2, A, vec![like("l", &q), quote("quote", &q)])]).await;
    assert_eq!(counts(&db, &p).await, Some(vec![0, 1, 1, 0, 1]));
    assert_eq!(counts(&db, &q).await, Some(vec![1, 0, 0, 1, 0]));

    let gone =
        ["app.bsky.feed.repost/r", "app.bsky.feed.post/reply", "app.bsky.feed.post/quote", "app.bsky.bookmark/b"];
    db.apply(&[live(3, A, gone.map(delete).into())]).await;
    assert_eq!(counts(&db, &p).await, None, "what counts nothing does not wait");
    assert_eq!(counts(&db, &q).await, Some(vec![1, 0, 0, 0, 0]));
    assert_eq!(db.rows("SELECT * FROM post_aggregations").await.len(), 0, "none of these posts is there");
    let totals = [("users", 1), ("likes", 1)].map(|(field, n)| (field.to_owned(), n));
    assert_eq!(db.totals().await, BTreeMap::from(totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn likes_of_a_generator_count_whichever_comes_first() {
    let db = Db::new().await;
    let uri = format!("at://{B}/app.bsky.feed.generator/g");
    let generator =
        || put("app.bsky.feed.generator/g", json!({"did": "did:web:g", "displayName": "G", "createdAt": TEXT}));
    let likes = "SELECT like_count FROM feed_generators";
    db.apply(&[live(1, A, vec![like("l", &uri)])]).await;
    db.apply(&[live(2, B, vec![generator()]), live(3, "did:plc:c", vec![like("l", &uri)])]).await;
    assert_eq!(db.rows(likes).await, [json!({"like_count": 2})]);
    db.apply(&[live(4, A, vec![delete("app.bsky.feed.like/l")])]).await;
    assert_eq!(db.rows(likes).await, [json!({"like_count": 1})]);
    db.apply_each(&[live(5, B, vec![generator()]), live(6, B, vec![delete("app.bsky.feed.generator/g")])]).await;
    db.apply(&[live(7, B, vec![generator()])]).await;
    assert_eq!(db.rows(likes).await, [json!({"like_count": 1})]);
    assert_eq!(counts(&db, &uri).await, Some(vec![1, 0, 0, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_mark_their_post_whichever_comes_first() {
    let db = Db::new().await;
    let flags = "SELECT has_thread_gate AS thread, has_post_gate AS post FROM posts";
    let gate = || put("app.bsky.feed.threadgate/p", json!({"allow": []}));
    db.apply_each(&[live(1, A, vec![gate()]), live(2, A, vec![post("p", "x")])]).await;
    assert_eq!(db.rows(flags).await, [json!({"thread": true, "post": false})]);
    db.apply(&[live(3, A, vec![put("app.bsky.feed.postgate/p", json!({})), delete("app.bsky.feed.threadgate/p")])])
        .await;
    assert_eq!(db.rows(flags).await, [json!({"thread": false, "post": true})]);
    assert_eq!(db.rows("SELECT post_uri FROM post_gates").await, [json!({"post_uri": post_uri(A, "p")})]);
    db.apply(&[live(4, A, vec![gate(), post("p", "y"), delete("app.bsky.feed.postgate/p")])]).await;
    assert_eq!(db.rows(flags).await, [json!({"thread": true, "post": false})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_loses_its_rows_and_refuses_older_events() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    let profile = || put("app.bsky.actor.profile/self", json!({"displayName": "A"}));
    db.apply(&[live(1, A, vec![like("l", &p), note(1), profile()]), identity(2, A, Some("a.example"))]).await;
    db.apply(&[deleted(5, A), live(6, B, vec![like("l", &p)])]).await;
    db.apply(&[live(4, A, vec![post("late", "x")]), live(7, A, vec![note(7)])]).await;
    db.sweep().await;
    assert_eq!(noted(&db).await, Some(7), "what came after the deletion stays");
    assert_eq!(db.rows("SELECT uri FROM posts").await.len(), 0);
    assert_eq!(counts(&db, &p).await, Some(vec![1, 0, 0, 0, 0]));
    assert_eq!(
        db.rows("SELECT users.handle, display_name, profile_record, active, status FROM users JOIN penstock.repos USING (did) WHERE did = 'did:plc:a'").await,
        [
            json!({"handle": "a.example", "display_name": null, "profile_record": null, "active": false, "status": "deleted"})
        ]
    );

    // Created again: a fill may take the places that the deletion emptied, even before they are swept.
    db.apply(&[account(10, A, true, None), live(11, A, vec![post("p", "new")])]).await;
    db.apply(&[deleted(20, A)]).await;
    db.apply(&[fill(30, A, vec![post("p", "filled"), profile()])]).await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT text FROM posts").await, [json!({"text": "filled"})]);
    assert_eq!(db.rows("SELECT display_name FROM users WHERE did = 'did:plc:a'").await, [json!({"display_name": "A"})]);
    let status = db.rows("SELECT active FROM penstock.repos WHERE did = 'did:plc:a'").await;
    assert_eq!(status, [json!({"active": false})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_statuses_and_profiles_go_by_their_own_guards() {
    let db = Db::new().await;
    let profile = |name: &str| put("app.bsky.actor.profile/self", json!({"displayName": name}));
    db.apply_each(&[
        identity(5, A, Some("new.example")),
        identity(9, A, None),
        identity(4, A, Some("old.example")),
        account(7, A, false, Some("takendown")),
        account(6, A, true, None),
        live(3, A, vec![profile("old")]),
        live(2, A, vec![profile("older")]),
    ])
    .await;
    let user = "SELECT users.handle, active, status, display_name FROM users JOIN penstock.repos USING (did)";
    assert_eq!(
        db.rows(user).await,
        [json!({"handle": "new.example", "active": false, "status": "takendown", "display_name": "old"})]
    );
    db.apply_each(&[live(8, A, vec![delete("app.bsky.actor.profile/self")]), live(7, A, vec![profile("late")])]).await;
    assert_eq!(db.rows(user).await[0]["display_name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_nobody_named_is_still_taken() {
    let db = Db::new().await;
    db.apply_each(&[identity(9, A, None), identity(5, A, Some("a.example"))]).await;
    assert_eq!(db.rows("SELECT handle FROM users").await, [json!({"handle": "a.example"})]);
    db.apply(&[live(1, B, vec![])]).await;
    assert_eq!(
        db.rows("SELECT handle FROM users WHERE did = 'did:plc:b'").await,
        [json!({"handle": "handle.invalid"})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_text_and_times_are_taken_and_misfits_named() {
    let db = Db::new().await;
    let applied = db
        .apply(&[live(
            1,
            A,
            vec![
                put("app.bsky.feed.post/nul", json!({"text": "a\0b", "tags": ["x\0"], "createdAt": "yesterday"})),
                put("com.example.odd/r", json!({"": 1, "k\0": "\\u0000", "createdAt": "2026-07-04T14:00:00+02:00"})),
                put("app.bsky.graph.list/l", json!({"name": "n".repeat(300), "purpose": "p"})),
                like("l", &"x".repeat(513)),
                put("app.bsky.graph.follow/f", json!({})),
            ],
        )])
        .await;
    let said: Vec<_> = applied.rejected.iter().map(|r| (r.op.unwrap(), r.reason.as_str())).collect();
    assert_eq!(said, [(4, "subject is missing")]);
    assert_eq!(
        db.rows("SELECT text, tags, created_at, commit_seq, commit_time FROM posts").await,
        [
            json!({"text": "ab", "tags": ["x"], "created_at": "2026-07-04T15:00:00", "commit_seq": "0000000000001-000000:1",
            "commit_time": "2026-07-04T15:00:00"})
        ]
    );
    let odd = db.rows("SELECT record - 'createdAt' AS record, created_at FROM generic_records").await;
    assert_eq!(odd, [json!({"record": {"": 1, "k\u{fffd}": "\\u0000"}, "created_at": "2026-07-04T12:00:00"})]);
    assert_eq!(db.rows("SELECT length(name) AS n FROM lists").await, [json!({"n": 255})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn search_vectors_are_filled_when_asked_for() {
    let db = Db::with(|settings| settings.search_vector = true).await;
    let profile = put("app.bsky.actor.profile/self", json!({"displayName": "Ada", "description": "flying kites"}));
    db.apply_each(&[live(1, A, vec![post("p", "hello worlds"), profile]), live(2, A, vec![post("p", "bye moons")])])
        .await;
    assert_eq!(db.rows("SELECT search_vector @@ to_tsquery('english', 'moon') AS b FROM posts").await[0]["b"], true);
    assert_eq!(db.rows("SELECT search_vector @@ to_tsquery('english', 'kite') AS b FROM users").await[0]["b"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_pruned_by_the_age_of_their_entry() {
    let db = Db::new().await;
    db.apply(&[live(5, A, vec![delete("a.b.c/old")]), live(10, A, vec![delete("a.b.c/new")])]).await;
    assert_eq!(db.store.prune_tombstones(id(10), 100).await.unwrap(), 1);
    assert_eq!(db.rows("SELECT uri FROM penstock.tombstones").await, [json!({"uri": format!("at://{A}/a.b.c/new")})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_data_is_told_from_one_of_the_world() {
    let db = Db::new().await;
    db.execute("ALTER TABLE likes ADD CHECK (subject_cid <> 'bad')").await;
    let bad = put("app.bsky.feed.like/l", json!({"subject": {"uri": "at://x/y/z", "cid": "bad"}}));
    let fault = db.store.apply("w1", &[live(1, A, vec![bad])]).await.unwrap_err();
    assert!(matches!(&fault, ApplyError::Data { sqlstate, .. } if sqlstate == "23514"), "{fault:?}");
    assert_eq!(db.rows("SELECT did FROM users").await.len(), 0, "nothing of a failed batch is written");

    db.execute("ALTER TABLE likes RENAME TO hidden").await;
    let fault = db.store.apply("w1", &[live(1, A, vec![like("l", "at://x/y/z")])]).await.unwrap_err();
    assert!(matches!(fault, ApplyError::Retry { reason: "missing table or column", .. }), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_another_writer_commits_meanwhile_is_met_at_the_second_look() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    // The AppView has the same like under way: our insert waits for its commit, and then is refused.
    let mut other = db.store.pool().begin().await.unwrap();
    sqlx::query("INSERT INTO likes (uri, user_did, post_uri, created_at) VALUES ($1, $2, $3, now())")
        .bind(format!("at://{A}/app.bsky.feed.like/l"))
        .bind(A)
        .bind(&p)
        .execute(&mut *other)
        .await
        .unwrap();
    let entries = [live(1, A, vec![like("l", &p)])];
    let apply = db.store.apply("w1", &entries);
    let commit = async {
        until_somebody_waits(&db).await;
        other.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(apply, commit);
    applied.unwrap();
    assert_eq!(db.rows("SELECT commit_seq FROM likes").await, [json!({"commit_seq": "0000000000001-000000:1"})]);
    assert_eq!(counts(&db, &p).await, None, "the like was the AppView's, and so is its count");
}

/// Waits until some backend of this database waits for a lock.
async fn until_somebody_waits(db: &Db) {
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let deadline = Instant::now() + Duration::from_secs(20);
    while db.rows(waits).await.is_empty() {
        assert!(Instant::now() < deadline, "nobody waits for a lock");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_waits_for_the_create_that_is_under_way_in_its_repo() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![])]).await;
    let mut other = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "SELECT did FROM penstock.repos WHERE did = 'did:plc:a' FOR NO KEY UPDATE;
         INSERT INTO penstock.stamps (uri, commit_rev, entry_id)
         VALUES ('at://did:plc:a/com.example.note/r', '3000000000002', '0000000000002-000000');
         INSERT INTO generic_records (uri, cid, author_did, record_type, record, created_at)
         VALUES ('at://did:plc:a/com.example.note/r', 'c', 'did:plc:a', 'com.example.note', '{}', now())",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let entries = [live(3, A, vec![delete(NOTE)])];
    let commit = async {
        until_somebody_waits(&db).await;
        other.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(db.store.apply("w1", &entries), commit);
    applied.unwrap();
    assert_eq!(db.rows("SELECT uri FROM generic_records").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_waits_for_the_likes_that_are_under_way() {
    let db = Db::new().await;
    let mut other = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO likes (uri, user_did, post_uri, created_at)
         VALUES ('at://did:plc:b/l/1', 'did:plc:b', 'at://did:plc:a/app.bsky.feed.generator/g', now());
         INSERT INTO penstock.waiting_counts (post_uri, like_count) VALUES ('at://did:plc:a/app.bsky.feed.generator/g', 1)",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let generator = put("app.bsky.feed.generator/g", json!({"did": "did:web:g", "displayName": "G"}));
    let entries = [live(3, A, vec![generator])];
    let commit = async {
        until_somebody_waits(&db).await;
        other.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(db.store.apply("w1", &entries), commit);
    applied.unwrap();
    assert_eq!(db.rows("SELECT like_count FROM feed_generators").await, [json!({"like_count": 1})]);
    assert_eq!(db.rows("SELECT like_count FROM penstock.waiting_counts").await, [json!({"like_count": 1})]);
}

/// By a collation that is not its own a key is not found: each deleted account had all users read.
#[tokio::test(flavor = "multi_thread")]
async fn the_profile_of_a_deleted_account_is_found_by_its_key() {
    let db = Db::new().await;
    let mut conn = db.store.pool().acquire().await.unwrap();
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut *conn).await.unwrap();
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN {}", crate::store::sweep::PROFILE));
    let plan: Vec<String> = sqlx::query_scalar(explain).bind(A).bind("x").fetch_all(&mut *conn).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("using users_pkey on users"), "{plan}");
    assert!(!plan.contains("Seq Scan"), "{plan}");
}
