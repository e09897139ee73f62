//! What a filter leaves out is removed as if it had never come, and nothing else is.

use penstock_core::filter::{Collections, Dids, Rules};
use serde_json::value::RawValue;

use super::*;
use crate::store::{OutsideSearch, SnapshotRange, SnapshotRecord};

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";
const C: &str = "did:plc:c";

fn rules(collections: &str, repos: &str, excluded: &str) -> Rules {
    let repos = Some(Dids::read(repos).unwrap()).filter(|repos| !repos.is_empty());
    Rules::new(Collections::read(collections).unwrap(), repos, Dids::read(excluded).unwrap())
}

/// Three repos that like, repost, answer and follow each other, two by two in ways of which only one can stand.
fn history() -> Vec<Entry> {
    let reply = |rkey: &str, to: &str| {
        let subject = json!({"uri": to, "cid": "c"});
        let record = json!({"text": "re", "createdAt": TEXT, "reply": {"parent": subject, "root": subject}});
        put(&format!("app.bsky.feed.post/{rkey}"), record)
    };
    let follow =
        |rkey: &str, of: &str| put(&format!("app.bsky.graph.follow/{rkey}"), json!({"subject": of, "createdAt": TEXT}));
    let profile = |name: &str| put("app.bsky.actor.profile/self", json!({"displayName": name}));
    let mut entries = Vec::new();
    for (at, (repo, other)) in [(A, B), (B, C), (C, A)].into_iter().enumerate() {
        let at = 1_000 + at as u64 * 100;
        entries.extend([
            live(at, repo, vec![post("p1", "one"), post("p2", "two"), profile(repo)]),
            live(at + 1, repo, vec![reply("p3", &post_uri(other, "p1")), follow("f1", other), follow("f2", other)]),
            live(
                at + 2,
                repo,
                vec![
                    like("l1", &post_uri(other, "p1")),
                    like("l2", &post_uri(other, "p1")),
                    like("l3", &post_uri(other, "p2")),
                ],
            ),
            live(at + 3, repo, vec![repost("r1", &post_uri(other, "p2")), put("com.example.thing/x", json!({"a": 1}))]),
            live(at + 4, repo, vec![put(&format!("com.example.thing/{}", "k".repeat(500)), json!({"a": 2}))]),
        ]);
    }
    entries
}

/// The same entries with what the rules let through.
fn filtered(entries: &[Entry], rules: &Rules) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    for entry in &mut entries {
        if let Event::Commit(commit) = &mut entry.event {
            commit.ops.retain(|op| rules.keeps(&commit.repo, &format!("{}/{}", op.collection, op.rkey)));
        }
    }
    entries
}

async fn prune(db: &Db, rules: &Rules) -> u64 {
    let (mut search, mut removed) = (OutsideSearch::default(), 0);
    while let Some(found) = db.store.find_outside(rules, &mut search, 3).await.unwrap() {
        for outside in found {
            removed += db.store.remove_outside("w1", &outside).await.unwrap();
        }
    }
    removed
}

/// Everything but what tells when, and by which entry, something was written.
async fn content(db: &Db) -> BTreeMap<&'static str, Vec<Value>> {
    let mut state = db.state().await;
    // Who was named by others is known to be there.
    state.remove("users");
    state.remove("penstock.waiting_counts");
    for rows in state.values_mut() {
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            ["commit_rev", "commit_seq", "commit_time", "entry_id"].iter().for_each(|name| drop(row.remove(*name)));
        }
        rows.sort_by_key(Value::to_string);
    }
    state
}

#[tokio::test]
async fn what_is_left_is_what_the_filter_would_have_let_through() {
    let history = history();
    for (collections, repos, excluded) in [
        ("!app.bsky.feed.like", "", ""),
        ("app.bsky.feed.*", "", ""),
        ("!com.example.*,!app.bsky.graph.follow", "", ""),
        ("", A, ""),
        ("", "", B),
        ("!app.bsky.feed.like", "did:plc:a,did:plc:c", C),
        ("com.example.nothing", "", ""),
    ] {
        let rules = rules(collections, repos, excluded);
        let (db, wanted) = (Db::new().await, Db::new().await);
        db.apply_each(&history).await;
        wanted.apply_each(&filtered(&history, &rules)).await;
        let removed = prune(&db, &rules).await;
        assert!(removed > 0);
        let named = format!("{collections:?} {repos:?} {excluded:?}");
        let (found, expected) = (content(&db).await, content(&wanted).await);
        for (table, rows) in &found {
            assert_eq!(rows, &expected[table], "{named}: {table}");
        }
        assert_eq!(db.totals().await, wanted.totals().await, "{named}");
        assert_eq!(prune(&db, &rules).await, 0, "{named}: nothing is left to remove");
        // A replay brings nothing back.
        db.apply_each(&history).await;
        assert_eq!(content(&db).await, expected, "{named}: after a replay");
    }
}

#[tokio::test]
async fn what_was_removed_comes_back_with_a_snapshot() {
    let db = Db::new().await;
    let record = like("l1", &post_uri(B, "p1"));
    db.apply(&[live(1_000, B, vec![post("p1", "one")]), live(1_001, A, vec![record.clone()])]).await;
    assert_eq!(prune(&db, &rules("!app.bsky.feed.like", "", "")).await, 1);
    let likes = "SELECT like_count AS n FROM post_aggregations";
    assert_eq!(db.rows(likes).await, [json!({"n": 0})]);
    // Of the very rev at which it was removed: the repo did nothing since.
    let rev = format!("3{:012}", 1_001);
    let records = [SnapshotRecord {
        path: "app.bsky.feed.like/l1".into(),
        cid: record.cid.clone().unwrap().into(),
        record: RawValue::from_string(record.record.unwrap().to_string()).unwrap(),
    }];
    let started = db.store.start_snapshot().await.unwrap();
    let range = SnapshotRange { did: A, rev: &rev, started, after: None, through: None, records: &records };
    assert_eq!(db.store.write_snapshot("w1", &range).await.unwrap().added, 1);
    assert_eq!(db.rows(likes).await, [json!({"n": 1})]);
}
