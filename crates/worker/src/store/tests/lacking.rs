//! Commits that lack something, and records at the bounds of what is carried.

use penstock_core::data::CommitWriter;
use penstock_core::entry::RawEntry;

use super::*;

const A: &str = "did:plc:a";

/// An op of which the frame did not bring the record.
fn bare(action: Action, path: &str) -> Op {
    Op { action, record: None, ..put(path, json!({})) }
}

/// The entry, as of a commit that lacks so many records.
fn lacking(mut entry: Entry, missing: u64) -> Entry {
    if let Event::Commit(commit) = &mut entry.event {
        commit.missing = missing;
    }
    entry
}

async fn notes(db: &Db) -> Vec<Value> {
    db.rows("SELECT text FROM posts ORDER BY uri").await.into_iter().map(|mut row| row["text"].take()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_does_not_stand_for_one_that_nobody_could_carry() {
    let path = "app.bsky.feed.post/p";
    let first = || live(1, A, vec![post("p", "one"), post("q", "other")]);
    let unknown = || live(2, A, vec![bare(Action::Update, path)]);
    let healed = || live(2, A, vec![post("p", "two")]);
    let third = || live(3, A, vec![post("p", "three")]);
    // In any order, once or twice.
    for order in [vec![first(), unknown()], vec![unknown(), first()], vec![first(), unknown(), first(), unknown()]] {
        let db = Db::new().await;
        db.apply_each(&order).await;
        assert_eq!(notes(&db).await, ["other"]);
        // The same event with its record, of a host that has it, and what came after it.
        db.apply(&[healed()]).await;
        assert_eq!(notes(&db).await, ["two", "other"]);
        db.apply(&[unknown()]).await;
        assert_eq!(notes(&db).await, ["two", "other"]);
        db.apply_each(&[third(), unknown(), healed()]).await;
        assert_eq!(notes(&db).await, ["three", "other"]);
    }

    // A profile is no different; and an entry of another program says nothing by what it leaves out.
    let profile = |order, record: Option<Value>| {
        let path = "app.bsky.actor.profile/self";
        let op = record.map_or_else(|| bare(Action::Update, path), |record| put(path, record));
        live(order, A, vec![op])
    };
    let name = async |db: &Db| db.rows("SELECT display_name FROM users").await[0]["display_name"].clone();
    let db = Db::new().await;
    db.apply_each(&[profile(1, Some(json!({"displayName": "Ann"}))), commit(2, A, None, profile_ops())]).await;
    assert_eq!(name(&db).await, "Ann");
    db.apply(&[profile(3, None)]).await;
    assert_eq!(name(&db).await, Value::Null);
    db.apply(&[profile(4, Some(json!({"displayName": "Anne"})))]).await;
    assert_eq!(name(&db).await, "Anne");
}

fn profile_ops() -> Vec<Op> {
    vec![bare(Action::Update, "app.bsky.actor.profile/self")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_that_lacks_something_is_noted_once() {
    let db = Db::new().await;
    let entry = |order, missing| lacking(live(order, A, vec![bare(Action::Create, "com.example.note/1")]), missing);
    db.apply(&[entry(1, 0), live(2, "did:plc:b", vec![post("p", "x")])]).await;
    let wanted = async || db.rows("SELECT did, reason, priority, attempts, lease, error FROM penstock.repairs").await;
    assert_eq!(wanted().await, [] as [Value; 0], "what nobody could carry, a repair could not either");
    let applied = db.apply(&[entry(3, 1), entry(4, 7)]).await;
    assert_eq!(applied.rows["penstock.repairs"], 1);
    let row = json!({
        "did": A, "reason": "block missing", "priority": 40, "attempts": 0, "lease": null, "error": null,
    });
    assert_eq!(wanted().await, [row]);
    // Again: who repairs sees that something came since, and keeps its turn.
    db.execute("UPDATE penstock.repairs SET attempts = 3, due = 'infinity', updated_at = '2026-01-01'").await;
    db.apply(&[entry(3, 1)]).await;
    let kept = db.rows("SELECT attempts, due, updated_at > '2026-01-02' AS is_new FROM penstock.repairs").await;
    assert_eq!(kept, [json!({"attempts": 3, "due": "infinity", "is_new": true})]);
}

/// A value with so many lists inside each other.
fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

/// An entry as ingest writes it.
fn written(order: u64, path: &str, record: &str) -> Entry {
    let mut data = Vec::new();
    let mut commit = CommitWriter::start(&mut data, A);
    let record = |out: &mut Vec<u8>| {
        out.extend_from_slice(record.as_bytes());
        Ok::<_, ()>(())
    };
    commit.op_with_record(Action::Create, path, "bafy", record).unwrap();
    commit.finish(&format!("3{order:012}"), Some("2026-07-04T15:00:00Z"), "bafyc", None);
    let seq = order.to_string();
    let fields = [("type", &b"commit"[..]), ("data", &data[..]), ("seq", seq.as_bytes())];
    RawEntry::from_fields(id(order), fields).decode().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_as_deep_as_ingest_carries_becomes_a_row() {
    let db = Db::new().await;
    // As deep as the wire lets through: the record itself is the 252nd level.
    for (order, levels) in [(1, 64), (2, 126), (3, 128), (4, 200), (5, 251)] {
        let (path, record) = (format!("com.example.note/{levels}"), format!(r#"{{"a": {}}}"#, nested(levels)));
        let applied = db.apply(&[written(order, &path, &record)]).await;
        assert!(applied.rejected.is_empty(), "{levels}: {:?}", applied.rejected);
        let query = format!("SELECT record::text AS record FROM generic_records WHERE uri = 'at://{A}/{path}'");
        assert_eq!(db.rows(&query).await, [json!({ "record": record })], "{levels}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deep_record_comes_back_from_the_shadows_whole() {
    let db = Db::new().await;
    let like = |order, rkey: &str| {
        let post = post_uri("did:plc:b", "p");
        let record = format!(
            r#"{{"subject": {{"uri": "{post}", "cid": "c"}}, "createdAt": "{TEXT}", "via": {{"uri": "at://x", "cid": "c", "a": {}}}}}"#,
            nested(200)
        );
        written(order, &format!("app.bsky.feed.like/{rkey}"), &record)
    };
    db.apply_each(&[like(1, "one"), like(2, "two")]).await;
    let shown = async || db.rows("SELECT uri, length(via::text) AS via FROM likes").await;
    let via = shown().await[0]["via"].clone();
    assert!(via.as_u64().unwrap() > 400, "{via}");
    db.apply(&[live(3, A, vec![delete("app.bsky.feed.like/two")])]).await;
    assert_eq!(shown().await, [json!({"uri": format!("at://{A}/app.bsky.feed.like/one"), "via": via})]);
}
