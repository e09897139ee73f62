//! Records that want the same place.

use std::cmp::Ordering;

use super::*;
use crate::store::version::{Stamp, Version};

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

async fn uris(db: &Db, table: &str) -> Vec<String> {
    let rows = db.rows(&format!("SELECT uri FROM {table} ORDER BY uri")).await;
    rows.iter().map(|row| row["uri"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_of_two_likes_shows_and_the_other_waits_for_it_to_go() {
    let p = post_uri(B, "p");
    let first = || live(1, A, vec![repost("one", &p)]);
    let second = || live(2, A, vec![repost("two", &p)]);
    for order in [[first(), second()], [second(), first()]] {
        let db = Db::new().await;
        db.apply_each(&order).await;
        assert_eq!(uris(&db, "reposts").await, ["two"]);
        assert_eq!(uris(&db, "feed_items").await, ["two"]);
        assert_eq!(uris(&db, "penstock.shadowed").await, ["one"]);
        assert_eq!(db.rows("SELECT repost_count FROM penstock.waiting_counts").await, [json!({"repost_count": 1})]);

        db.apply(&[live(3, A, vec![delete("app.bsky.feed.repost/two")])]).await;
        assert_eq!(uris(&db, "reposts").await, ["one"]);
        assert_eq!(uris(&db, "penstock.shadowed").await, [""; 0]);
        let shown = db.rows("SELECT cid, created_at, commit_seq FROM feed_items JOIN reposts USING (uri, created_at)");
        let cid = repost("one", &p).cid;
        assert_eq!(
            shown.await,
            [json!({"cid": cid, "created_at": "2026-07-04T14:38:08.999", "commit_seq": "0000000000001-000000:1"})]
        );
        assert_eq!(db.rows("SELECT repost_count FROM penstock.waiting_counts").await, [json!({"repost_count": 1})]);
        assert_eq!(db.totals().await["reposts"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_like_may_go_or_move_before_its_turn() {
    let db = Db::new().await;
    let (p, q) = (post_uri(B, "p"), post_uri(B, "q"));
    let three = [live(1, A, vec![like("one", &p), like("two", &p)]), live(2, A, vec![like("three", &p)])];
    db.apply(&three).await;
    assert_eq!(uris(&db, "penstock.shadowed").await, ["one", "two"]);
    db.apply(&[live(3, A, vec![delete("app.bsky.feed.like/two"), like("one", &q)])]).await;
    assert_eq!(uris(&db, "likes").await, ["one", "three"]);
    assert_eq!(uris(&db, "penstock.shadowed").await, [""; 0]);
    // The one that shows moves onto a place that is taken by an older like, and leaves its own empty.
    db.apply(&[live(4, A, vec![like("three", &q)])]).await;
    assert_eq!(uris(&db, "likes").await, ["three"]);
    assert_eq!(
        db.rows("SELECT post_uri, like_count FROM penstock.waiting_counts").await,
        [json!({"post_uri": q, "like_count": 1})]
    );
    // And both swap places with another in one batch.
    db.apply(&[
        live(5, A, vec![like("one", &p), like("three", &q)]),
        live(6, A, vec![like("one", &q), like("three", &p)]),
    ])
    .await;
    assert_eq!(db.rows("SELECT uri FROM likes").await.len(), 2);
    db.apply(&[live(7, A, vec![like("one", &p), like("three", &q)])]).await;
    assert_eq!(uris(&db, "likes").await, ["one", "three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_of_somebody_elses_list_is_a_generic_record() {
    let db = Db::new().await;
    let item = |owner: &str| {
        let list = format!("at://{owner}/app.bsky.graph.list/l");
        put("app.bsky.graph.listitem/i", json!({"list": list, "subject": C}))
    };
    db.apply(&[live(1, A, vec![item(B)])]).await;
    assert_eq!((uris(&db, "list_items").await.len(), uris(&db, "generic_records").await.len()), (0, 1));
    db.apply(&[live(2, A, vec![item(A)])]).await;
    assert_eq!((uris(&db, "list_items").await.len(), uris(&db, "generic_records").await.len()), (1, 0));
    db.apply_each(&[live(3, A, vec![item(B)]), live(4, A, vec![delete("app.bsky.graph.listitem/i")])]).await;
    assert_eq!((uris(&db, "list_items").await.len(), uris(&db, "generic_records").await.len()), (0, 0));
}

fn verification(subject: &str) -> Op {
    put("app.bsky.graph.verification/v", json!({"subject": subject, "handle": "c.example", "createdAt": TEXT}))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_verifications_of_one_subject_the_lowest_uri_shows() {
    let db = Db::new().await;
    let shown = || async { db.rows("SELECT split_part(uri, '/', 3) AS by FROM verifications").await };
    db.apply_each(&[live(9, B, vec![verification(C)]), live(1, A, vec![verification(C)])]).await;
    assert_eq!(shown().await, [json!({"by": A})]);
    db.apply(&[live(2, A, vec![verification("did:plc:other")])]).await;
    assert_eq!(shown().await.len(), 2);
    db.apply(&[live(3, A, vec![verification(C)])]).await;
    assert_eq!(shown().await, [json!({"by": A})]);
    db.apply(&[deleted(4, A)]).await;
    db.sweep().await;
    assert_eq!(shown().await, [json!({"by": B})]);
    db.apply(&[live(10, B, vec![delete("app.bsky.graph.verification/v")])]).await;
    assert_eq!(shown().await.len(), 0);
    assert_eq!(uris(&db, "penstock.shadowed").await.len(), 0);
    assert_eq!(db.rows("SELECT did FROM users WHERE did = 'did:plc:c'").await.len(), 0, "a subject is no actor");
}

/// How many records wait for one place.
const CROWD: u64 = 20_000;

/// Likes of one post by one account, of which the last one shows.
async fn crowd(db: &Db, post: &str) {
    db.apply(&[live(2 * CROWD, A, vec![like("shown", post)])]).await;
    let wait = "INSERT INTO penstock.shadowed (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row) \
                SELECT 'at://did:plc:a/app.bsky.feed.like/w' || lpad(n::text, 6, '0'), 'did:plc:a', 'likes', 'did:plc:a', $1, \
                  '3' || lpad(n::text, 12, '0'), lpad(n::text, 13, '0') || '-000000:' || n, \
                  jsonb_build_object('user_did', 'did:plc:a', 'post_uri', $1, 'created_at', '2026-07-04T12:00:00') \
                  FROM generate_series(1, $2) AS n";
    let waiting = sqlx::query(wait).bind(post).bind(CROWD.cast_signed()).execute(db.store.pool()).await.unwrap();
    assert_eq!(waiting.rows_affected(), CROWD);
}

async fn shadows_read(db: &Db, doing: impl AsyncFnOnce(Store)) -> u64 {
    db.rows_read("penstock.shadowed", doing).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_waits_for_a_place_only_the_best_is_read() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    crowd(&db, &p).await;
    let later = live(2 * CROWD + 1, A, vec![like("later", &p)]);
    let read = shadows_read(&db, async |store| drop(store.apply("w1", &[later]).await.unwrap())).await;
    assert!(read < 10, "one more comes: {read}");
    assert_eq!(uris(&db, "likes").await, ["later"]);

    let gone = live(2 * CROWD + 2, A, vec![delete("app.bsky.feed.like/later")]);
    let read = shadows_read(&db, async |store| drop(store.apply("w1", &[gone]).await.unwrap())).await;
    assert!((1..10).contains(&read), "the one that shows goes: {read}");
    assert_eq!(uris(&db, "likes").await, ["shown"]);

    // Those that come next go along with it: what the batch names is read, and no more.
    let named = (CROWD - 99..=CROWD).map(|n| format!("app.bsky.feed.like/w{n:06}"));
    let named = named.chain(["app.bsky.feed.like/shown".to_owned()]);
    let gone = live(2 * CROWD + 3, A, named.map(|path| delete(&path)).collect());
    let read = shadows_read(&db, async |store| drop(store.apply("w1", &[gone]).await.unwrap())).await;
    assert!((100..600).contains(&read), "a hundred of the best go: {read}");
    assert_eq!(uris(&db, "likes").await, [format!("w{:06}", CROWD - 100)]);
    let waiting = db.rows("SELECT count(*) AS n FROM penstock.shadowed").await;
    assert_eq!(waiting, [json!({"n": CROWD - 101})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_with_many_that_wait_goes_in_bounded_steps() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    crowd(&db, &p).await;
    db.apply(&[deleted(3 * CROWD, A)]).await;
    let step = 1000;
    let mut left = CROWD;
    while left > 0 {
        let read = shadows_read(&db, async |store| {
            let swept = store.sweep_deleted("w1", step).await.unwrap();
            assert_eq!((swept.rows, swept.more), (u64::from(step), true));
        });
        let read = read.await;
        assert!(read < 5 * u64::from(step), "{read} with {left} left");
        left -= u64::from(step);
    }
    assert_eq!(uris(&db, "likes").await, ["shown"], "what waits goes first");
    db.sweep().await;
    assert_eq!((uris(&db, "likes").await.len(), uris(&db, "penstock.shadowed").await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_verifications_that_wait_only_the_lowest_is_read() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![verification(C)])]).await;
    let wait = "INSERT INTO penstock.shadowed (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row) \
                SELECT 'at://did:plc:v' || lpad(n::text, 6, '0') || '/app.bsky.graph.verification/v', \
                  'did:plc:v' || lpad(n::text, 6, '0'), 'verifications', '', 'did:plc:c', '3' || n, '0000000000001-000000:1', \
                  jsonb_build_object('cid', 'c', 'subject_did', 'did:plc:c', 'handle', 'c', 'verified_at', '2026-07-04T12:00:00', 'created_at', '2026-07-04T12:00:00') \
                  FROM generate_series(1, $1) AS n";
    sqlx::query(wait).bind(CROWD.cast_signed()).execute(db.store.pool()).await.unwrap();
    let gone = live(2, A, vec![delete("app.bsky.graph.verification/v")]);
    let read = shadows_read(&db, async |store| drop(store.apply("w1", &[gone]).await.unwrap())).await;
    assert!((1..10).contains(&read), "{read}");
    let shown = db.rows("SELECT split_part(uri, '/', 3) AS by FROM verifications").await;
    assert_eq!(shown, [json!({"by": "did:plc:v000001"})]);
}

/// The index orders by it, and the worker by its own reading of the same columns.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_ranks_what_waits_as_the_worker_does() {
    let db = Db::new().await;
    let ids =
        [id(5), id(1_782_000_000_000), StreamId { ms: 7, seq: 1_000_000 }, StreamId { ms: u64::MAX, seq: u64::MAX }];
    let numbers = [None, Some(7), Some(99_999_999_999), Some(100_000_000_000), Some(u64::MAX >> 11)];
    let live = ids.iter().flat_map(|id| numbers.map(|number| Stamp::live(*id, number).to_string()));
    let filled = ids.iter().map(|id| Stamp::filled(*id).to_string());
    let foreign = ["0", "7", "26512345678", "99999999999", "100000000001", "9007199254740991", "18446744073709551615"];
    let stamps: Vec<Option<String>> = live
        .chain(filled)
        .chain(foreign.into_iter().chain(["no stamp", ""]).map(str::to_owned))
        .map(Some)
        .chain([None])
        .collect();
    let revs = [None, Some(""), Some("3a"), Some("3b"), Some("3B")];
    let mut versions = Vec::new();
    for (at, stamp) in stamps.iter().enumerate() {
        // Two of each: the URI decides.
        for (twin, rev) in revs.iter().flat_map(|rev| [(0, rev), (1, rev)]) {
            versions.push((rev.map(str::to_owned), stamp.clone(), format!("at://{:03}-{twin}", (at * 37) % 101)));
        }
    }
    let rank = |(rev, stamp, uri): &(Option<String>, Option<String>, String),
                (other_rev, other_stamp, other): &(Option<String>, Option<String>, String)| {
        let version = Version::from_columns(rev.clone(), stamp.as_deref());
        let other_version = Version::from_columns(other_rev.clone(), other_stamp.as_deref());
        if version.rank(uri) < other_version.rank(other) { Ordering::Less } else { Ordering::Greater }
    };
    let sql = "SELECT rev, entry, uri FROM unnest($1::text[], $2::text[], $3::text[]) AS u (rev, entry, uri) \
               ORDER BY penstock.place(rev COLLATE \"C\", entry COLLATE \"C\") COLLATE \"C\", uri COLLATE \"C\"";
    let sorted: Vec<(Option<String>, Option<String>, String)> = sqlx::query_as(sql)
        .bind(versions.iter().map(|(rev, ..)| rev.clone()).collect::<Vec<_>>())
        .bind(versions.iter().map(|(_, stamp, _)| stamp.clone()).collect::<Vec<_>>())
        .bind(versions.iter().map(|(.., uri)| uri.clone()).collect::<Vec<_>>())
        .fetch_all(db.store.pool())
        .await
        .unwrap();
    assert_eq!(sorted.len(), versions.len());
    for pair in sorted.windows(2) {
        // With a rev the stamp says nothing: what is equal but for that has no order.
        if (&pair[0].0, &pair[0].2) != (&pair[1].0, &pair[1].2) || pair[0].0.is_none() {
            assert_ne!(rank(&pair[0], &pair[1]), Ordering::Greater, "{pair:?}");
        }
    }
}

/// A record may be nested deeper than serde_json's own readers go: a like that could not be read back would stop every batch
/// that touches its pair.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_comes_back_however_deep_it_is() {
    let p = post_uri(B, "p");
    let deep = (0..200).fold(json!(1.5), |value, _| json!([value, {"k": 1e300}]));
    let one = || {
        let record = json!({"subject": {"uri": p, "cid": "c"}, "via": deep, "createdAt": TEXT});
        live(1, A, vec![put("app.bsky.feed.like/one", record)])
    };
    let two = || live(2, A, vec![like("two", &p)]);
    let rows = async |db: &Db| -> Vec<String> {
        sqlx::query_scalar("SELECT via::text FROM likes").fetch_all(db.store.pool()).await.unwrap()
    };
    let alone = Db::new().await;
    alone.apply(&[one()]).await;
    for order in [[one(), two()], [two(), one()]] {
        let db = Db::new().await;
        db.apply_each(&order).await;
        assert_eq!(uris(&db, "penstock.shadowed").await, ["one"]);
        db.apply(&[live(3, A, vec![delete("app.bsky.feed.like/two")])]).await;
        assert!(rows(&db).await == rows(&alone).await, "it is another one");
        assert_eq!(rows(&db).await.len(), 1);
    }
}
