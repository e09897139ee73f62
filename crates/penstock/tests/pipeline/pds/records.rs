//! Records of several kinds, and the rows that must come of them.

use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::rig::Rig;

use super::world::{Account, World};

/// Collections, the table of each, whose row it is, and whether the row has the record's CID.
const KINDS: [(&str, &str, &str, bool); 6] = [
    ("app.bsky.feed.post", "posts", "author_did", true),
    ("app.bsky.feed.like", "likes", "user_did", false),
    ("app.bsky.feed.repost", "reposts", "user_did", false),
    ("app.bsky.graph.follow", "follows", "follower_did", false),
    ("app.bsky.graph.list", "lists", "creator_did", true),
    ("com.example.note", "generic_records", "author_did", true),
];

/// Writes a record of each kind; then a few of them go again or become others, some of them in one commit.
pub(crate) async fn of_every_kind(world: &World, account: &Account, other: &Account, post: &str) {
    let cid = world.tell("latest_commit", json!({"did": other.did})).await["cid"].clone();
    let subject = json!({"uri": post, "cid": cid});
    world.record(account, json!({"$type": "app.bsky.feed.like", "subject": subject})).await;
    world.record(account, json!({"$type": "app.bsky.feed.repost", "subject": subject})).await;
    world.record(account, json!({"$type": "app.bsky.graph.follow", "subject": other.did})).await;
    let purpose = "app.bsky.graph.defs#curatelist";
    world.record(account, json!({"$type": "app.bsky.graph.list", "name": "friends", "purpose": purpose})).await;
    let note = world.record(account, json!({"$type": "com.example.note", "of": account.handle})).await;
    let (_, key) = note.rsplit_once('/').unwrap();
    let changed = json!({"$type": "com.example.note", "of": "somebody else", "createdAt": "2026-07-04T14:38:09.000Z"});
    let put = json!({"did": account.did, "collection": "com.example.note", "rkey": key, "record": changed});
    world.tell("put_record", put).await;
    let gone = world.post(account, "not for long").await;
    let (_, key) = gone.rsplit_once('/').unwrap();
    world.tell("delete_record", json!({"did": account.did, "collection": "app.bsky.feed.post", "rkey": key})).await;
    // One commit with many records and a deep tree; the keys are new each time.
    let collection = "com.example.note";
    let create = |number: u32| {
        let value = json!({"$type": "com.example.note", "number": number, "createdAt": "2026-07-04T14:38:10.000Z"});
        let rkey = format!("{key}-{number}");
        json!({"$type": "com.atproto.repo.applyWrites#create", "collection": collection, "rkey": rkey, "value": value})
    };
    world.tell("apply_writes", json!({"did": account.did, "writes": (0..50).map(create).collect::<Vec<_>>()})).await;
    let delete = |number: u32| {
        let rkey = format!("{key}-{number}");
        json!({"$type": "com.atproto.repo.applyWrites#delete", "collection": collection, "rkey": rkey})
    };
    let writes: Vec<_> = (10..30).map(delete).chain((50..60).map(create)).collect();
    world.tell("apply_writes", json!({"did": account.did, "writes": writes})).await;
}

/// The rows of an account, as (URI, CID where the row has one), in order.
pub(crate) async fn rows(rig: &Rig, account: &Account) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for (_, table, owner, has_cid) in KINDS {
        let cid = if has_cid { "cid" } else { "''" };
        let found = format!("SELECT uri, {cid} FROM {table} WHERE {owner} = $1");
        let found = sqlx::query_as(AssertSqlSafe(found)).bind(&account.did).fetch_all(&rig.pool);
        rows.extend(found.await.unwrap());
    }
    // Those that say the same as another one, such as a second follow of one account, stand aside.
    let aside = sqlx::query_as("SELECT uri, '' FROM penstock.shadowed WHERE repo = $1").bind(&account.did);
    rows.extend(aside.fetch_all(&rig.pool).await.unwrap());
    rows.sort();
    rows
}

/// Asserts that an account's rows are the records that its server lists.
pub(crate) async fn assert_rows_are_those_of(world: &World, rig: &Rig, account: &Account) {
    let listed = world.records(account, &KINDS.map(|(collection, ..)| collection)).await;
    assert!(!listed.is_empty(), "{} has records", account.handle);
    let with_cid = |uri: &str| KINDS.iter().any(|(collection, _, _, has_cid)| *has_cid && uri.contains(collection));
    let expected: Vec<_> =
        listed.into_iter().map(|(uri, cid)| if with_cid(&uri) { (uri, cid) } else { (uri, String::new()) }).collect();
    assert_eq!(rows(rig, account).await, expected, "rows of {}", account.handle);
}
