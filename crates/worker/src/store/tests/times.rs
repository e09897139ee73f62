//! What claims to come from the future.

use super::*;

const A: &str = "did:plc:a";

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_from_the_future_keeps_its_date_and_its_place_in_feeds_while_it_waits() {
    let p = post_uri("did:plc:b", "p");
    let future = |rkey: &str| {
        let record = json!({"subject": {"uri": p, "cid": "c"}, "createdAt": "2999-01-01T00:00:00Z"});
        live(1, A, vec![put(&format!("app.bsky.feed.repost/{rkey}"), record)])
    };
    let shown = "SELECT created_at, sort_at FROM feed_items";
    let once = Db::new().await;
    once.apply(&[future("one")]).await;
    assert_eq!(
        once.rows(shown).await,
        [json!({"created_at": "2999-01-01T00:00:00", "sort_at": "2026-07-04T15:00:00"})]
    );
    // It stood and was demoted, or never stood.
    for entries in [
        vec![vec![future("one")], vec![live(2, A, vec![repost("two", &p)])]],
        vec![vec![live(2, A, vec![repost("two", &p)])], vec![future("one")]],
    ] {
        let db = Db::new().await;
        for batch in entries {
            db.apply(&batch).await;
        }
        assert_eq!(db.rows("SELECT uri FROM penstock.shadowed").await.len(), 1);
        db.apply(&[live(3, A, vec![delete("app.bsky.feed.repost/two")])]).await;
        assert_eq!(db.rows(shown).await, once.rows(shown).await);
    }
}
