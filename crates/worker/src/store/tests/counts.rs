//! Counts of posts beside an AppView that makes posts too, and only ever updates what it finds.

use super::*;

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

/// Posts that are there with their likes, replies and quotes, then what waits.
async fn counted(db: &Db) -> (Vec<Value>, Vec<Value>) {
    let of = |table: &str| format!("SELECT post_uri, like_count, reply_count FROM {table} ORDER BY 1");
    (db.rows(&of("post_aggregations")).await, db.rows(&of("penstock.waiting_counts")).await)
}

fn row(uri: &str, likes: u64, replies: u64) -> Value {
    json!({"post_uri": uri, "like_count": likes, "reply_count": replies})
}

/// Makes a post as the AppView does: with its row of zeros, in one transaction.
async fn make(db: &Db, uri: &str) -> Result<(), sqlx::Error> {
    let mut tx = db.store.pool().begin().await?;
    sqlx::query("INSERT INTO posts (uri, cid, author_did, text, created_at) VALUES ($1, 'c', $2, 't', now())")
        .bind(uri)
        .bind(B)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO post_aggregations (post_uri) VALUES ($1)").bind(uri).execute(&mut *tx).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_has_its_row_as_long_as_it_stands() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    db.apply(&[live(1, B, vec![post("p", "x")])]).await;
    assert_eq!(counted(&db).await, (vec![row(&p, 0, 0)], vec![]));
    // Theirs only update what is there: one of theirs and one of ours are two.
    db.execute("UPDATE post_aggregations SET like_count = like_count + 1").await;
    db.apply(&[live(2, A, vec![like("l", &p)])]).await;
    assert_eq!(counted(&db).await, (vec![row(&p, 2, 0)], vec![]));
    db.apply(&[live(3, B, vec![delete("app.bsky.feed.post/p")])]).await;
    assert_eq!(counted(&db).await, (vec![], vec![row(&p, 2, 0)]), "the likes still stand");
    db.apply(&[live(4, B, vec![post("p", "y")])]).await;
    assert_eq!(counted(&db).await, (vec![row(&p, 2, 0)], vec![]));
    assert_eq!(db.totals().await["post_aggregations"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_its_post_waits_and_is_given_to_it() {
    let db = Db::new().await;
    let (p, q) = (post_uri(B, "p"), post_uri(B, "q"));
    let reply = || put("app.bsky.feed.post/reply", json!({"text": "", "reply": {"parent": {"uri": p, "cid": "c"}}}));
    db.apply(&[live(1, A, vec![like("l", &p), like("m", &q), reply()])]).await;
    assert_eq!(counted(&db).await, (vec![row(&post_uri(A, "reply"), 0, 0)], vec![row(&p, 1, 1), row(&q, 1, 0)]));
    // In one batch with more of it, and with one that goes.
    let and = live(3, C, vec![like("l", &p)]);
    db.apply(&[live(2, B, vec![post("p", "x")]), and, live(4, A, vec![delete("app.bsky.feed.like/m")])]).await;
    assert_eq!(counted(&db).await, (vec![row(&post_uri(A, "reply"), 0, 0), row(&p, 2, 1)], vec![]));
}

/// Its processors insert the two in statements of their own, and may be ended between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_was_left_without_its_row_gets_it_with_its_event() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    db.execute(
        "INSERT INTO posts (uri, cid, author_did, text, created_at)
         VALUES ('at://did:plc:b/app.bsky.feed.post/p', 'c', 'did:plc:b', 't', now())",
    )
    .await;
    db.apply(&[live(1, B, vec![post("p", "x")])]).await;
    assert_eq!(counted(&db).await, (vec![row(&p, 0, 0)], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_appview_can_make_any_post_and_it_is_given_what_waits() {
    let db = Db::new().await;
    let (p, q) = (post_uri(B, "p"), post_uri(B, "q"));
    db.apply(&[live(1, A, vec![like("l", &p), like("m", &q)])]).await;
    make(&db, &p).await.unwrap();
    make(&db, &q).await.unwrap();
    // With the next that is counted, or when somebody looks for such posts.
    db.apply(&[live(2, C, vec![like("l", &p)])]).await;
    let settled = db.store.settle_counts("w1", "", 1).await.unwrap();
    let settled = db.store.settle_counts("w1", settled.as_deref().unwrap(), 10).await.unwrap();
    assert_eq!(settled, None);
    assert_eq!(counted(&db).await, (vec![row(&p, 2, 0), row(&q, 1, 0)], vec![]));
}

/// Neither sees the other's rows before it commits: whoever comes second must look again.
#[tokio::test(flavor = "multi_thread")]
async fn likes_and_their_posts_that_come_at_once_meet() {
    let db = Db::new().await;
    let other = Store::connect(&StoreSettings { pool_size: 4, ..StoreSettings::new(&db.url) }).await.unwrap();
    for round in 0..40_u64 {
        let likes: Vec<_> =
            (0..20).map(|n| like(&format!("l{round}-{n}"), &post_uri(B, &format!("p{round}-{n}")))).collect();
        let posts: Vec<_> = (0..20).map(|n| post(&format!("p{round}-{n}"), "x")).collect();
        let (likes, posts) = ([live(round * 2 + 1, A, likes)], [live(round * 2 + 2, B, posts)]);
        let (a, b) = tokio::join!(db.store.apply("w1", &likes), other.apply("w2", &posts));
        a.unwrap();
        b.unwrap();
    }
    let wrong = "SELECT post_uri FROM post_aggregations WHERE like_count <> 1";
    assert_eq!(db.rows(wrong).await.len(), 0);
    assert_eq!(db.rows("SELECT FROM post_aggregations").await.len(), 800);
    assert_eq!(db.rows("SELECT FROM penstock.waiting_counts").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_like_that_goes_before_its_post_got_what_waits_is_not_counted() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    db.apply(&[live(1, A, vec![like("l", &p)]), live(2, C, vec![like("l", &p)])]).await;
    make(&db, &p).await.unwrap();
    db.apply(&[live(3, C, vec![delete("app.bsky.feed.like/l")])]).await;
    db.store.settle_counts("w1", "", 10).await.unwrap();
    assert_eq!(counted(&db).await, (vec![row(&p, 1, 0)], vec![]));
}

/// What is settled must be there until the end: else a row would stand without its post, and the AppView could never make it.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_goes_while_its_counts_are_settled_leaves_no_row() {
    let db = Db::new().await;
    let p = post_uri(B, "p");
    db.apply(&[live(1, A, vec![like("l", &p)])]).await;
    make(&db, &p).await.unwrap();
    let mut other = db.store.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM penstock.waiting_counts FOR UPDATE").execute(&mut *other).await.unwrap();
    let entries = [live(2, B, vec![delete("app.bsky.feed.post/p")])];
    let settle = async {
        let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while db.rows(waits).await.is_empty() {
            assert!(std::time::Instant::now() < deadline, "nobody waits for a lock");
            tokio::task::yield_now().await;
        }
        sqlx::query(crate::store::post_counts::SETTLE).bind([&p]).execute(&mut *other).await.unwrap();
        other.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(db.store.apply("w1", &entries), settle);
    applied.unwrap();
    assert_eq!(counted(&db).await, (vec![], vec![row(&p, 1, 0)]));
}
