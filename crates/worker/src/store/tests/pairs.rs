//! Records that want the same place.

use super::*;

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
