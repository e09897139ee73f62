//! Backfills that nobody asked for: of what a filter lets in that it left out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::backfill::BackfillState;
use penstock_repo::testing::{MadeRepo, Reply};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::rig::{REV, Rig, Running};

/// Registers one as ingest does.
async fn register(rig: &Rig, name: &str, scope: &str, epoch: &str) {
    let insert = format!(
        "INSERT INTO penstock.backfills (name, scope, priority, reason, filter) VALUES ('{name}', '{scope}', 10, 'filter', '{epoch}')"
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(rig.store.pool()).await.unwrap();
}

/// A file of collections.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = Self(std::env::temp_dir().join(format!("penstock-widened-{}-{nth}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn setting(&self) -> String {
        format!("@{}", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Hosts repos with a post and a like each.
fn host(rig: &Rig, repos: u64) -> Vec<String> {
    let dids = rig.host(repos, 1);
    for did in &dids {
        rig.world.change(did, |repo| {
            let subject = json!({"uri": format!("at://{did}/app.bsky.feed.post/x"), "cid": "bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae"});
            let like = json!({"$type": "app.bsky.feed.like", "subject": subject, "createdAt": "2024-01-01T00:00:00.000Z"});
            repo.put("app.bsky.feed.like/3kaaaaaaaaa2b", &like);
        });
    }
    dids
}

/// A healer whose file is behind reads nothing of it: it would leave out what the backfill is for, and count the repos as done.
#[tokio::test(flavor = "multi_thread")]
async fn a_healer_reads_what_a_filter_lets_in_by_no_rules_but_those_that_let_it_in() {
    let rig = Rig::new().await;
    let dids = host(&rig, 5);
    let file = File::new("app.bsky.feed.post");
    let setting = file.setting();
    let engine = rig.engine(&[("filter.collections", &setting)]).await;
    let running = Running::start(&engine);
    for did in &dids {
        engine.queue().enqueue(&[did], penstock_core::backfill::Reason::Asked).await.unwrap();
    }
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    assert_eq!((rig.count("SELECT count(*) FROM posts").await, rig.count("SELECT count(*) FROM likes").await), (5, 0));
    let named = serde_json::to_string(&dids[3..]).unwrap();
    register(&rig, "filter-none-7/app.bsky.feed.like", r#"{"collection":"app.bsky.feed.like"}"#, "").await;
    register(&rig, "filter-none-7/repos", &format!(r#"{{"repos":{named}}}"#), "").await;
    rig.until("SELECT count(*) = 5 FROM penstock.repairs WHERE reason = 'filter' AND priority = 10").await;
    // Another repair shows that the healer is at work and takes what is due.
    rig.world.put(MadeRepo::of_posts("did:web:other.test", REV, 1));
    engine.queue().enqueue(&[&dids[0]], penstock_core::backfill::Reason::Asked).await.unwrap();
    rig.until("SELECT count(*) = 5 FROM penstock.repairs").await;
    assert_eq!(rig.count("SELECT count(*) FROM likes").await, 0);
    file.write("*");
    for name in ["filter-none-7/app.bsky.feed.like", "filter-none-7/repos"] {
        let status = rig.over_with(&engine, name).await;
        assert_eq!((status.state, status.failed, status.reason.as_str()), (BackfillState::Complete, 0, "filter"));
    }
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM likes").await, 5);
    rig.assert_equal(&dids).await;
}

/// With `heal.enabled: false` healers do nothing that nobody asked for; by its name it can be asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_healer_that_does_only_what_is_asked_for_leaves_it() {
    let rig = Rig::new().await;
    let dids = host(&rig, 3);
    let engine = rig.engine(&[("heal.enabled", "false")]).await;
    let running = Running::start(&engine);
    register(&rig, "filter-none-7/all", r#"{"all":true}"#, "").await;
    engine.queue().enqueue(&[&dids[0]], penstock_core::backfill::Reason::Asked).await.unwrap();
    rig.until("SELECT count(*) = 1 FROM posts").await;
    let listed = "SELECT count(*) FROM penstock.backfills WHERE state = 'listing' AND listed = 0 AND lease IS NULL";
    assert_eq!(rig.count(listed).await, 1);
    let backlog = engine.queue().backlog(false).await.unwrap();
    assert_eq!((backlog.backfills, backlog.waiting), (0, 0), "no healer is started for it");
    running.stop().await;
    let engine = rig.engine(&[]).await;
    let running = Running::start(&engine);
    assert_eq!(rig.over_with(&engine, "filter-none-7/all").await.done, 3);
    running.stop().await;
    rig.assert_equal(&dids).await;
}

/// Of what a relay does not list by the collection, everything is read: once, however many collections there are.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_relay_lists_no_collections_every_repo_is_read() {
    let rig = Rig::new().await;
    let dids = host(&rig, 4);
    rig.world.meddle(|asked| {
        let is_it = asked.method() == "com.atproto.sync.listReposByCollection";
        is_it.then(|| Reply::error(501, "MethodNotImplemented"))
    });
    register(&rig, "filter-none-7/app.bsky.feed.like", r#"{"collection":"app.bsky.feed.like"}"#, "").await;
    register(&rig, "filter-none-7/app.bsky.feed.post", r#"{"collection":"app.bsky.feed.post"}"#, "").await;
    let engine = rig.engine(&[]).await;
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 2 FROM penstock.backfills WHERE state = 'failed'").await;
    let status = rig.over_with(&engine, "filter-none-7/all").await;
    assert_eq!((status.state, status.total, status.done), (BackfillState::Complete, Some(4), 4), "{status:?}");
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM penstock.backfills").await, 3);
    for did in &dids {
        assert_eq!(rig.world.hits("com.atproto.sync.getRepo", did), 1, "{did}");
    }
    rig.assert_equal(&dids).await;
}

/// Behind a gap those repos are read that changed in it: known ones that are ahead of their rows, and unknown ones of that time.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_gap_only_what_changed_in_it_is_read() {
    let rig = Rig::new().await;
    let dids = rig.host(5, 2);
    let engine = rig.engine(&[]).await;
    let running = Running::start(&engine);
    for did in &dids[..3] {
        engine.queue().enqueue(&[did], penstock_core::backfill::Reason::Asked).await.unwrap();
    }
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    // One changed in the gap and is known, one is not known and did, one is not known and is older.
    for did in [&dids[1], &dids[3]] {
        rig.world.change(did, |repo| {
            repo.rev = "3kbbbbbbbbb2a".to_owned();
            let post =
                json!({"$type": "app.bsky.feed.post", "text": "in the gap", "createdAt": "2024-01-01T00:00:00.000Z"});
            repo.put("app.bsky.feed.post/3kzzzzzzzzz2a", &post);
        });
    }
    rig.execute(
        "INSERT INTO penstock.backfills (name, scope, priority, reason, since)
         VALUES ('seam-7-9/all', '{\"all\":true}', 30, 'seam', '3kabbbbbbbb2a')",
    )
    .await;
    let status = rig.over_with(&engine, "seam-7-9/all").await;
    running.stop().await;
    assert_eq!(
        (status.total, status.done, status.failed, status.reason.as_str()),
        (Some(5), 5, 0, "seam"),
        "{status:?}"
    );
    let read: Vec<usize> = dids.iter().map(|did| rig.world.hits("com.atproto.sync.getRepo", did)).collect();
    assert_eq!(read, [1, 2, 1, 1, 0]);
    rig.assert_equal(&dids[..4]).await;
}
