//! Two batches at once derive what one after the other would.

use std::time::{Duration, Instant};

use super::*;

/// Waits until so many connections wait for a lock.
async fn lock_waiters(db: &Db, number: usize) -> bool {
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    db.rows(waits).await.len() >= number
}

/// Applies two batches at once, the second when the first has written all but its totals.
async fn apply_over(db: &Db, first: Vec<Entry>, second: Vec<Entry>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let in_time = |what: &str| assert!(Instant::now() < deadline, "{what}");
    db.execute("INSERT INTO penstock.counts VALUES ('slow', 'follows', 0) ON CONFLICT DO NOTHING").await;
    let mut totals = db.store.pool().begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM penstock.counts WHERE worker = 'slow' FOR UPDATE").execute(&mut *totals).await.unwrap();
    let slow = StoreSettings { pool_size: 2, ..StoreSettings::new(&db.url) };
    let slow = Store::connect(&slow).await.unwrap();
    let first = tokio::spawn(async move { slow.apply("slow", &first).await.map(drop) });
    while !lock_waiters(db, 1).await {
        in_time("the first never waits");
    }
    let quick = db.store.clone();
    let second = tokio::spawn(async move { quick.apply("quick", &second).await.map(drop) });
    while !second.is_finished() && !lock_waiters(db, 2).await {
        in_time("the second neither waits nor ends");
    }
    totals.rollback().await.unwrap();
    for batch in [first, second] {
        batch.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_like_that_takes_anothers_place_while_its_post_comes_notifies() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, B, vec![like("one", &p)]), live(2, C, vec![])]).await;
    // The post's counts stay as they are.
    let replaces = live(3, B, vec![like("two", &p), follow("f", C)]);
    apply_over(&db, vec![replaces], vec![live(4, A, vec![post("p", "x")])]).await;
    let sql = "SELECT uri FROM notifications WHERE reason = 'like'";
    assert_eq!(db.rows(sql).await, [json!({"uri": format!("at://{B}/app.bsky.feed.like/two#notification")})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_moves_to_another_thread_while_its_first_post_comes_has_the_context_of_its_thread() {
    let (from, to) = (post_uri(A, "from"), post_uri(A, "to"));
    let parent = post_uri(C, "p");
    for (comes, contexts) in [("from", 0), ("to", 1)] {
        let db = Db::new().await;
        db.apply(&[live(1, B, vec![reply("r", &parent, &from)]), live(2, C, vec![])]).await;
        let moves = live(3, B, vec![reply("r", &parent, &to), follow("f", C)]);
        apply_over(&db, vec![moves], vec![live(4, A, vec![post(comes, "x")])]).await;
        assert_eq!(db.rows("SELECT FROM thread_contexts").await.len(), contexts, "{comes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_like_that_goes_while_its_post_comes_is_not_counted() {
    let db = Db::new().await;
    let p = post_uri(A, "p");
    db.apply(&[live(1, B, vec![like("l", &p)]), live(2, C, vec![])]).await;
    let comes = live(3, A, vec![post("p", "x"), follow("f", C)]);
    apply_over(&db, vec![comes], vec![live(4, B, vec![delete("app.bsky.feed.like/l")])]).await;
    assert_eq!(db.rows("SELECT like_count FROM post_aggregations").await, [json!({"like_count": 0})]);
    assert_eq!(db.rows("SELECT uri FROM notifications WHERE reason = 'like'").await.len(), 0);
}
