//! Audits: each wrong row is named before, and nothing after.

use penstock_core::backfill::Reason;
use penstock_heal::Engine;
use penstock_repo::testing::Reply;
use serde_json::json;

use crate::rig::{Rig, Running};

/// An engine that records CIDs, and one repo with posts and likes that it has read.
async fn recorded(rig: &Rig, flags: &[(&str, &str)]) -> (Engine, String) {
    let did = rig.host(1, 8).remove(0);
    rig.world.change(&did, |repo| {
        let posts: Vec<String> = repo.records.keys().cloned().collect();
        for (n, post) in posts.iter().enumerate() {
            let subject = json!({"uri": format!("at://{did}/{post}"), "cid": repo.cid(post).unwrap().to_string()});
            let like =
                json!({"$type": "app.bsky.feed.like", "subject": subject, "createdAt": "2024-01-01T00:00:00.000Z"});
            repo.put(&format!("app.bsky.feed.like/3kaaaaaaaa2{n}2"), &like);
        }
    });
    let flags: Vec<(&str, &str)> = flags.iter().copied().chain([("worker.recordCids", "true")]).collect();
    let engine = rig.engine(&flags).await;
    engine.queue().enqueue(&[&did], Reason::Sync).await.unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    (engine, did)
}

fn repos_read(rig: &Rig, did: &str) -> usize {
    rig.world.hits("com.atproto.sync.getRepo", did)
}

/// Rows that are missing, too many or of another record change the root: all records are compared then, and the wrong ones named. What
/// changes no CID changes no root.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_proves_every_record_and_no_column() {
    let rig = Rig::new().await;
    let (engine, did) = recorded(&rig, &[]).await;
    let proven = engine.audit(&did).await.unwrap();
    assert!(proven.by_root && proven.is_signed && proven.differences.is_empty(), "{proven:?}");
    assert_eq!((proven.records, repos_read(&rig, &did)), (16, 1), "nothing but the commit was asked for");
    for (spoil, mend, kind) in [
        (
            "CREATE TABLE kept AS SELECT * FROM likes ORDER BY uri LIMIT 1; DELETE FROM likes WHERE uri IN (SELECT uri FROM kept)",
            "INSERT INTO likes SELECT * FROM kept; DROP TABLE kept",
            "missing",
        ),
        (
            "CREATE TABLE kept AS SELECT * FROM posts ORDER BY uri LIMIT 1; DELETE FROM posts WHERE uri IN (SELECT uri FROM kept)",
            "INSERT INTO posts SELECT * FROM kept; DROP TABLE kept",
            "missing",
        ),
        (
            "INSERT INTO posts (uri, cid, author_did, text, created_at, commit_rev, commit_seq)
             SELECT uri || 'x', cid, author_did, text, created_at, '2222222222223', '0000000000001-000000:1' FROM posts ORDER BY uri LIMIT 1",
            "DELETE FROM posts WHERE uri LIKE '%x'",
            "extra",
        ),
    ] {
        rig.execute(spoil).await;
        let outcome = engine.audit(&did).await.unwrap();
        let kinds: Vec<&str> = outcome.differences.iter().map(|one| one.kind.word()).collect();
        assert!(!outcome.by_root && kinds.contains(&kind), "{spoil}: {outcome:?}");
        rig.execute(mend).await;
        assert!(engine.audit(&did).await.unwrap().by_root, "{mend}");
    }
    rig.execute("UPDATE posts SET text = 'altered' WHERE uri = (SELECT min(uri) FROM posts)").await;
    assert!(engine.audit(&did).await.unwrap().by_root, "the CID is that of the record");
    let outcome = engine.compare(&did).await.unwrap();
    assert_eq!(outcome.differences.iter().map(|one| one.kind.word()).collect::<Vec<_>>(), ["different"], "{outcome:?}");
    // A healer that is asked to mend it compares the records, whatever the root is.
    engine.queue().enqueue(&[&did], Reason::Audit).await.unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM posts WHERE text = 'altered'").await, 0);
    // One by the clock is content with it, and counts as a proof.
    rig.execute("UPDATE penstock.repos SET proven_at = NULL; INSERT INTO penstock.repairs (did, reason, priority, whole) SELECT did, 'audit', 20, false FROM penstock.repos WHERE did LIKE 'did:%'").await;
    let before = repos_read(&rig, &did);
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    assert_eq!(repos_read(&rig, &did), before);
    assert_eq!(
        rig.count("SELECT count(*) FROM penstock.repos WHERE proven_at IS NOT NULL AND proven_rev = rev").await,
        1
    );
}

/// Where the root is not to be had, or not that of what is stored, all records are compared as ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_root_does_not_prove_is_compared() {
    let rig = Rig::new().await;
    let (engine, did) = recorded(&rig, &[]).await;
    let equal = async |engine: &Engine, why: &str| {
        let before = repos_read(&rig, &did);
        let outcome = engine.audit(&did).await.unwrap();
        assert!(!outcome.by_root && outcome.differences.is_empty(), "{why}: {outcome:?}");
        assert_eq!(repos_read(&rig, &did), before + 1, "{why}");
    };
    for (fault, method) in
        [("it has no such method", "com.atproto.sync.getBlocks"), ("it is odd", "com.atproto.sync.getLatestCommit")]
    {
        rig.world.meddle(move |asked| (asked.method() == method).then(|| Reply::error(501, "MethodNotImplemented")));
        equal(&engine, fault).await;
    }
    // Somebody else's signature.
    let mut forged = rig.world.repo(&did).unwrap();
    forged.account.rotations = 7;
    let made = forged.blocks();
    rig.world.meddle(move |asked| match asked.method() {
        "com.atproto.sync.getLatestCommit" => {
            Some(Reply::json(200, &json!({"rev": "3kaaaaaaaaa2a", "cid": made.commit.to_string()})))
        }
        "com.atproto.sync.getBlocks" => Some(Reply::bytes(penstock_repo::testing::car_of_blocks(&made.blocks[..1]))),
        _ => None,
    });
    equal(&engine, "a commit of somebody else").await;
    rig.world.behave();
    assert!(engine.audit(&did).await.unwrap().by_root);
    equal(&rig.engine(&[]).await, "without worker.recordCids").await;
    equal(&rig.engine(&[("worker.recordCids", "true"), ("filter.collections", "app.bsky.*")]).await, "with a filter")
        .await;
    rig.execute("DELETE FROM penstock.cids WHERE uri = (SELECT min(uri) FROM penstock.cids)").await;
    equal(&engine, "one CID is not known").await;
    // The host is ahead: what it has more is named, for no event explains it.
    rig.world.change(&did, |repo| {
        repo.rev = "3kbbbbbbbbb2a".to_owned();
        repo.put(
            "app.bsky.feed.post/3kzzzzzzzzz2a",
            &json!({"$type": "app.bsky.feed.post", "text": "new", "createdAt": "2024-01-01T00:00:00.000Z"}),
        );
    });
    let outcome = engine.audit(&did).await.unwrap();
    assert_eq!((outcome.by_root, outcome.differences.len()), (false, 1), "{outcome:?}");
}

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
