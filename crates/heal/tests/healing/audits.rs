//! Audits: each wrong row is named before, and nothing after.

use penstock_core::backfill::Reason;

use crate::rig::{Rig, Running};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_too_many_or_different_is_named_and_then_healed() {
    let rig = Rig::new().await;
    let dids = rig.host(2, 5);
    let engine = rig.engine(&[]).await;
    let listed: Vec<&str> = dids.iter().map(String::as_str).collect();
    engine.queue().enqueue(&listed, Reason::Sync).await.unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    rig.execute(
        "DELETE FROM posts WHERE uri = (SELECT min(uri) FROM posts WHERE author_did = (SELECT min(author_did) FROM posts));
         UPDATE posts SET text = 'altered' WHERE uri = (SELECT max(uri) FROM posts WHERE author_did = (SELECT min(author_did) FROM posts));
         UPDATE penstock.repos SET proven_at = NULL",
    )
    .await;
    let outcome = engine.compare(&dids[0]).await.unwrap();
    let mut kinds: Vec<&str> = outcome.differences.iter().map(|one| one.kind.word()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["different", "missing"], "{outcome:?}");
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 9, "looking changes nothing");
    assert!(engine.compare(&dids[1]).await.unwrap().differences.is_empty());
    // By the clock: all that is known, whatever was proven before.
    let scheduled = rig.engine(&[("heal.auditRate", "1000000")]).await;
    let running = Running::start(&scheduled);
    rig.until("SELECT count(*) = 0 FROM penstock.repos WHERE did LIKE 'did:%' AND proven_at IS NULL").await;
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 10);
    assert_eq!(rig.count("SELECT count(*) FROM posts WHERE text = 'altered'").await, 0);
    rig.assert_equal(&dids).await;
}
