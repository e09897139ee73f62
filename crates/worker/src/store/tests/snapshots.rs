//! Snapshots of repos: what they put, take away, leave and name.

use penstock_core::entry::Proven;
use serde_json::value::RawValue;

use super::*;
use crate::store::snapshot::{path_of, stored};
use crate::store::table::{Kind, Table};
use crate::store::{
    DatabaseRoot, Desynchronized, Difference, DifferenceKind, Finished, SnapshotRange, SnapshotRecord, SnapshotWritten,
};

const A: &str = "did:plc:a";
const B: &str = "did:plc:b";

/// A repo as its host has it.
struct Host {
    rev: String,
    started: StreamId,
    records: Vec<SnapshotRecord>,
}

// === impl Host ===

impl Host {
    /// As of the rev of an entry of that order.
    fn at(order: u64, ops: &[Op]) -> Self {
        let record = |op: &Op| SnapshotRecord {
            path: format!("{}/{}", op.collection, op.rkey).into(),
            cid: op.cid.clone().unwrap().into(),
            record: RawValue::from_string(op.record.clone().unwrap().to_string()).unwrap(),
        };
        let mut records: Vec<SnapshotRecord> = ops.iter().map(record).collect();
        records.sort_by(|a, b| a.path.cmp(&b.path));
        Self { rev: format!("3{order:012}"), started: id(order), records }
    }

    fn all(&self) -> SnapshotRange<'_> {
        let Self { rev, started, records } = self;
        SnapshotRange { did: A, rev, started: *started, after: None, through: None, records }
    }

    async fn write(&self, db: &Db) -> SnapshotWritten {
        let written = db.store.write_snapshot("w1", &self.all()).await.unwrap();
        let finished = db.store.finish_snapshot(A, &self.rev, &[7; 32], self.started).await.unwrap();
        assert_eq!(finished, Finished::Whole);
        written
    }

    async fn compare(&self, db: &Db) -> Vec<Difference> {
        db.store.compare_snapshot(&self.all()).await.unwrap()
    }
}

fn names(differences: &[Difference]) -> Vec<(&str, DifferenceKind)> {
    differences.iter().map(|difference| (&*difference.path, difference.kind)).collect()
}

/// A record of every table, each beside the others: all of one repo.
fn every_kind() -> Vec<Op> {
    let (p, other) = (post_uri(A, "p"), post_uri(B, "p"));
    let subject = |uri: &str| json!({"uri": uri, "cid": "c"});
    let list = format!("at://{A}/app.bsky.graph.list/l");
    let mut ops = vec![
        put("app.bsky.feed.threadgate/p", json!({"allow": [{"$type": "app.bsky.feed.threadgate#mentionRule"}]})),
        put("app.bsky.feed.postgate/p", json!({"embeddingRules": ["x"]})),
        post("p", "text"),
        put(
            "app.bsky.feed.post/q",
            json!({
                "text": "answer", "langs": ["en"], "tags": ["t"], "facets": [{"features": []}],
                "reply": {"parent": subject(&p), "root": subject(&p)},
                "embed": {"$type": "app.bsky.embed.record", "record": subject(&p)},
            }),
        ),
        put("app.bsky.feed.like/l", json!({"subject": subject(&p), "via": subject(&other)})),
        put("app.bsky.feed.repost/r", json!({"subject": subject(&other), "via": subject(&other)})),
        put("app.bsky.bookmark/b", json!({"subject": subject(&p)})),
        put("app.bsky.graph.follow/f", json!({"subject": B})),
        put("app.bsky.graph.block/b", json!({"subject": B})),
        put(
            "app.bsky.graph.list/l",
            json!({"name": "n", "purpose": "app.bsky.graph.defs#modlist", "description": "d"}),
        ),
        put("app.bsky.graph.listitem/i", json!({"list": list, "subject": B})),
        put("app.bsky.graph.listblock/b", json!({"subject": list})),
        put("app.bsky.feed.generator/g", json!({"did": "did:web:g", "displayName": "n", "description": "d"})),
        put("app.bsky.graph.starterpack/s", json!({"name": "n", "list": list, "description": "d", "feeds": []})),
        put("app.bsky.labeler.service/self", json!({"policies": {"labelValues": []}})),
        put("com.atproto.label.label/l", json!({"uri": p, "val": "v"})),
        put("app.bsky.graph.verification/v", json!({"subject": B, "handle": "b.example"})),
        put("com.example.note/n", json!({"n": 1})),
        put("app.bsky.actor.profile/self", json!({"displayName": "n", "description": "d", "pinnedPost": subject(&p)})),
    ];
    for op in &mut ops {
        op.record.as_mut().unwrap()["createdAt"] = TEXT.into();
    }
    ops
}

/// Holds all tables but some against each other, without the columns that say how their rows came.
fn assert_same(
    expected: &BTreeMap<&'static str, Vec<Value>>,
    found: &BTreeMap<&'static str, Vec<Value>>,
    came: &[&str],
    besides: &[&str],
) {
    let rows = |rows: &Vec<Value>| {
        let mut rows = rows.clone();
        for row in &mut rows {
            row.as_object_mut().unwrap().retain(|name, _| !came.contains(&&**name));
        }
        rows
    };
    for (table, expected) in expected.iter().filter(|(table, _)| !besides.contains(table)) {
        assert_eq!(rows(&found[table]), rows(expected), "{table}");
    }
}

async fn execute(db: &Db, sql: String) -> u64 {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(db.store.pool()).await.unwrap().rows_affected()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_an_unknown_repo_ends_as_its_events_do() {
    let (seen, read) = (Db::new().await, Db::new().await);
    seen.apply(&[live(1, A, every_kind())]).await;
    let host = Host::at(1, &every_kind());
    let written = host.write(&read).await;
    assert_eq!((written.added, written.rejected), (19, vec![]));
    assert_eq!(host.compare(&read).await, []);
    assert_eq!(host.compare(&seen).await, [], "what events wrote is as the repo has it");
    // An event says more: its number, and when its commit was made.
    let came = ["commit_time", "commit_seq", "entry_id", "sort_at"];
    assert_same(&seen.state().await, &read.state().await, &came, &[]);
    assert_eq!(seen.totals().await, read.totals().await);
    let again = host.write(&read).await;
    assert_eq!((again.kept, again.added + again.changed + again.removed), (19, 0));
}

/// What an altered column says.
fn altered(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Text => format!("coalesce({name}, '') || 'x'"),
        Kind::Json => "'{\"altered\": 1}'".to_owned(),
        Kind::Time => format!("{name} + interval '1 hour'"),
        Kind::Bool => format!("NOT {name}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_that_was_altered_by_hand_is_named_and_mended() {
    let db = Db::new().await;
    db.apply(&[live(1, B, vec![post("p", "x")]), live(2, A, every_kind())]).await;
    let host = Host::at(2, &every_kind());
    let right = db.state().await;
    let mut altered_columns = 0;
    for table in Table::ALL {
        let spec = table.spec();
        let columns = spec.columns.iter().filter(|(name, _)| *name != "commit_time");
        for (name, kind) in columns {
            let mine = format!("starts_with({}, 'at://{A}/')", spec.key);
            let sql = format!("UPDATE {} SET {name} = {} WHERE {mine}", spec.name, altered(name, *kind));
            assert!(execute(&db, sql).await > 0, "{} {name}", spec.name);
            let found = host.compare(&db).await;
            let detail =
                |difference: &Difference| difference.detail.contains(spec.name) && difference.detail.contains(name);
            assert!(found.iter().any(detail), "{} {name}: {found:?}", spec.name);
            assert!(host.write(&db).await.changed > 0);
            assert_eq!(host.compare(&db).await, [], "{} {name}", spec.name);
            altered_columns += 1;
        }
    }
    assert!(altered_columns > 70, "{altered_columns}");
    // What the altered rows pointed at are accounts and posts that there are not.
    let besides = ["users", "penstock.waiting_counts", "penstock.stamps"];
    let came = ["commit_time", "commit_seq", "entry_id", "updated_at", "sort_at"];
    assert_same(&right, &db.state().await, &came, &besides);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_from_records_is_named_and_mended() {
    let db = Db::new().await;
    db.apply(&[live(1, B, vec![post("p", "x")]), live(2, A, every_kind())]).await;
    let host = Host::at(2, &every_kind());
    let different = |path: &'static str| (path, DifferenceKind::Different);
    let (p, q, g) = ("app.bsky.feed.post/p", "app.bsky.feed.post/q", "app.bsky.feed.generator/g");
    let (r, profile) = ("app.bsky.feed.repost/r", "app.bsky.actor.profile/self");
    let count = |path: &'static str| (path, DifferenceKind::Count);
    for (sql, expected) in [
        ("UPDATE posts SET has_thread_gate = NOT has_thread_gate WHERE uri LIKE '%did:plc:a%/p'", different(p)),
        ("UPDATE posts SET has_post_gate = NOT has_post_gate WHERE uri LIKE '%did:plc:a%/q'", different(q)),
        ("DELETE FROM feed_items WHERE uri LIKE '%did:plc:a%/p'", different(p)),
        ("UPDATE feed_items SET post_uri = 'x' WHERE uri LIKE '%did:plc:a%/r'", different(r)),
        ("DELETE FROM quotes", different(q)),
        ("UPDATE quotes SET quoted_uri = 'x'", different(q)),
        (
            "INSERT INTO quotes (uri, cid, post_uri, quoted_uri, created_at) VALUES ('x', 'c', 'at://did:plc:a/app.bsky.feed.post/p', 'y', now())",
            different(p),
        ),
        ("DELETE FROM penstock.profiles", different(profile)),
        ("UPDATE penstock.profiles SET display_name = 'x'", different(profile)),
        ("UPDATE penstock.profiles SET record = '{}'", different(profile)),
        ("UPDATE users SET display_name = 'x' WHERE did = 'did:plc:a'", different(profile)),
        ("UPDATE users SET profile_record = '{}' WHERE did = 'did:plc:a'", different(profile)),
        ("UPDATE users SET pinned_post = NULL WHERE did = 'did:plc:a'", different(profile)),
        ("UPDATE post_aggregations SET like_count = 9 WHERE post_uri LIKE '%did:plc:a%/p'", count(p)),
        ("UPDATE post_aggregations SET repost_count = 9 WHERE post_uri LIKE '%did:plc:a%/p'", count(p)),
        ("UPDATE post_aggregations SET reply_count = 0 WHERE post_uri LIKE '%did:plc:a%/p'", count(p)),
        ("UPDATE post_aggregations SET quote_count = 5 WHERE post_uri LIKE '%did:plc:a%/q'", count(q)),
        ("UPDATE post_aggregations SET bookmark_count = 0 WHERE post_uri LIKE '%did:plc:a%/p'", count(p)),
        ("DELETE FROM post_aggregations WHERE post_uri LIKE '%did:plc:a%/p'", count(p)),
        ("UPDATE feed_generators SET like_count = 3", count(g)),
        (
            "INSERT INTO penstock.waiting_counts (post_uri, like_count) VALUES ('at://did:plc:a/app.bsky.feed.generator/g', 2)",
            count(g),
        ),
        ("UPDATE labeler_services SET like_count = 3", count("app.bsky.labeler.service/self")),
    ] {
        assert!(execute(&db, sql.to_owned()).await > 0, "{sql}");
        let found = host.compare(&db).await;
        let others = names(&found).into_iter().filter(|name| *name != expected);
        let others: Vec<_> = others.filter(|(_, kind)| *kind != DifferenceKind::Count).collect();
        assert!(names(&found).contains(&expected) && others.is_empty(), "{sql}: {found:?}");
        host.write(&db).await;
        assert_eq!(host.compare(&db).await, [], "{sql}");
    }
}

/// A record with the CID that its content has.
fn with_cid(mut op: Op) -> Op {
    let text = op.record.as_ref().unwrap().to_string();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
    let bytes: Vec<u8> = [0x01, 0x71, 0x12, 0x20].into_iter().chain(digest).collect();
    op.cid = Some(format!("b{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()));
    op
}

/// The root of the tree that a host with these records has.
fn root(ops: &[Op]) -> [u8; 32] {
    let mut tree = penstock_wire::TreeRoot::new();
    let records = ops.iter().map(|op| {
        let digest = crate::store::cids::digest(op.cid.as_ref().unwrap()).unwrap();
        (format!("{}/{}", op.collection, op.rkey), digest)
    });
    for (path, digest) in records.collect::<BTreeMap<_, _>>() {
        tree.push(&path, digest).unwrap();
    }
    tree.finish()
}

async fn root_of(db: &Db) -> Option<[u8; 32]> {
    match db.store.root_of(A).await.unwrap() {
        DatabaseRoot::Known { root, .. } => Some(root),
        DatabaseRoot::Lacking { .. } | DatabaseRoot::Empty => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_that_the_database_holds_is_the_one_that_the_repo_signed() {
    let db = Db::with(|settings| settings.record_cids = true).await;
    assert_eq!(db.store.root_of(A).await.unwrap(), DatabaseRoot::Empty);
    let mut ops: Vec<Op> = every_kind().into_iter().map(with_cid).collect();
    // Some that wait for the place of another, and one whose URI no column takes.
    let p = post_uri(A, "p");
    ops.extend(
        [like("m", &p), like("n", &p), repost("a", &post_uri(B, "p")), repost("z", &post_uri(B, "p"))].map(with_cid),
    );
    ops.push(with_cid(put("app.bsky.bookmark/c", json!({"subject": {"uri": p, "cid": "c"}}))));
    ops.push(with_cid(put(&format!("com.example.note/{}", "k".repeat(510)), json!({"n": 2}))));
    ops.extend((0..20).map(|n| with_cid(post(&format!("x{n}"), &n.to_string()))));
    db.apply(&[live(1, A, ops.clone())]).await;
    let known = |records: &[Op]| Some(root(records));
    assert_eq!(root_of(&db).await, known(&ops));
    let DatabaseRoot::Known { records, rev, .. } = db.store.root_of(A).await.unwrap() else { panic!() };
    assert_eq!((records, rev.as_deref()), (ops.len() as u64, Some("3000000000001")));

    // What has the place goes, and one that waited gets it; others change, come and go.
    let path = |op: &Op| format!("{}/{}", op.collection, op.rkey);
    let gone: Vec<Op> = ops.iter().filter(|op| ["n", "z", "f", "x7"].contains(&&*op.rkey)).cloned().collect();
    ops.retain(|op| !gone.iter().any(|gone| path(gone) == path(op)));
    let changed =
        [post("x3", "other"), put("app.bsky.actor.profile/self", json!({"displayName": "other"}))].map(with_cid);
    ops.retain(|op| !changed.iter().any(|changed| path(changed) == path(op)));
    ops.extend(changed.clone());
    let deletes = gone.iter().map(|op| delete(&path(op)));
    db.apply(&[live(2, A, deletes.chain(changed).collect())]).await;
    assert_eq!(root_of(&db).await, known(&ops));

    // A row that is not there is none of the tree, whatever is recorded of it.
    db.execute("DELETE FROM likes WHERE uri LIKE '%/m'").await;
    assert!(root_of(&db).await.is_some_and(|found| found != root(&ops)));
    let host = Host::at(3, &ops);
    host.write(&db).await;
    assert_eq!(root_of(&db).await, known(&ops));

    // Those that came while nothing was recorded have no CID, until a snapshot brings them.
    let off = Db::new().await;
    off.apply(&[live(1, A, ops.clone())]).await;
    assert!(matches!(off.store.root_of(A).await.unwrap(), DatabaseRoot::Lacking { .. }));
    let read = Db::with(|settings| settings.record_cids = true).await;
    host.write(&read).await;
    assert_eq!(root_of(&read).await, known(&ops), "a snapshot records them as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_missing_and_too_many_are_named_and_mended_with_their_counts() {
    let db = Db::new().await;
    db.apply(&[live(1, B, vec![post("p", "x")]), live(2, A, every_kind())]).await;
    let host = Host::at(2, &every_kind());
    host.write(&db).await;
    let right = db.state().await;
    for table in Table::ALL {
        let spec = table.spec();
        let sql = format!("DELETE FROM {} WHERE starts_with({}, 'at://{A}/')", spec.name, spec.key);
        assert!(execute(&db, sql).await > 0, "{}", spec.name);
        let found = host.compare(&db).await;
        assert!(found.iter().any(|found| found.kind == DifferenceKind::Missing), "{}: {found:?}", spec.name);
        assert!(host.write(&db).await.added > 0);
        assert_eq!(host.compare(&db).await, [], "{}", spec.name);
    }
    for table in Table::ALL {
        let spec = table.spec();
        // Not where something else may not stand twice.
        let columns: Vec<&str> = spec.columns.iter().map(|(name, _)| *name).collect();
        let moved = |name: &&str| match spec.pair {
            Some((_, b)) if columns[b] == *name => format!("{name} || 'x'"),
            _ => (*name).to_owned(),
        };
        let values: Vec<String> = columns.iter().map(moved).collect();
        let guard = if spec.commit { ", commit_rev" } else { "" };
        let sql = format!(
            "INSERT INTO {} ({}, {}{guard}) SELECT {} || 'x', {}{guard} FROM {} WHERE starts_with({}, 'at://{A}/')",
            spec.name,
            spec.key,
            columns.join(", "),
            spec.key,
            values.join(", "),
            spec.name,
            spec.key
        );
        assert!(execute(&db, sql).await > 0, "{}", spec.name);
        let found = host.compare(&db).await;
        assert!(found.iter().any(|found| found.kind == DifferenceKind::Extra), "{}: {found:?}", spec.name);
        assert!(host.write(&db).await.removed > 0);
        assert_eq!(host.compare(&db).await, [], "{}", spec.name);
    }
    let came = ["commit_rev", "commit_time", "commit_seq", "entry_id", "sort_at"];
    assert_same(&right, &db.state().await, &came, &["penstock.stamps"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_of_a_post_that_goes_is_counted_anew() {
    let db = Db::new().await;
    let gone = post_uri(A, "gone");
    db.apply(&[live(1, A, vec![post("p", "x"), post("gone", "x")]), live(2, B, vec![like("l", &gone)])]).await;
    execute(&db, "UPDATE post_aggregations SET like_count = like_count + 7".to_owned()).await;
    let host = Host::at(5, &[post("p", "x")]);
    let waits = async || {
        let waits = sqlx::query_as::<_, (String, i32)>("SELECT post_uri, like_count FROM penstock.waiting_counts");
        waits.fetch_all(db.store.pool()).await.unwrap()
    };
    host.write(&db).await;
    assert_eq!(waits().await, [(gone.clone(), 1)], "the like is there yet");
    assert_eq!(host.compare(&db).await, []);
    execute(&db, "UPDATE penstock.waiting_counts SET like_count = 9".to_owned()).await;
    let named = host.compare(&db).await;
    let path = "app.bsky.feed.post/gone".to_owned();
    assert_eq!(named, [Difference { path, kind: DifferenceKind::Count, detail: "like_count".to_owned() }]);
    host.write(&db).await;
    assert_eq!(waits().await, [(gone, 1)]);
    assert_eq!(host.compare(&db).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_than_the_snapshot_stays_and_explains_itself() {
    let db = Db::new().await;
    let newer = live(5, A, vec![post("p", "newer"), delete("app.bsky.feed.like/l"), post("new", "n")]);
    db.apply(&[live(1, A, every_kind()), newer]).await;
    let before = db.state().await;
    let host = Host::at(3, &every_kind());
    assert_eq!(host.compare(&db).await, []);
    let written = host.write(&db).await;
    assert_eq!((written.newer, written.kept, written.added + written.removed + written.changed), (3, 17, 0));
    assert_eq!(db.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_event_that_comes_after_the_snapshot_changes_nothing() {
    let db = Db::new().await;
    let host = Host::at(5, &[post("p", "now")]);
    host.write(&db).await;
    let before = db.state().await;
    let python = |order: u64, ops: Vec<Op>| Entry { seq: None, ..commit(order, A, None, ops) };
    let p = post_uri(A, "p");
    db.apply_each(&[
        live(1, A, vec![post("gone", "its deletion was lost"), post("p", "once"), like("l", &p)]),
        live(5, A, vec![post("p", "now")]),
        live(4, A, vec![delete("app.bsky.feed.post/p")]),
        python(5, vec![like("m", &p)]),
        fill(9, A, vec![like("n", &p)]),
        live(2, A, vec![put("app.bsky.actor.profile/self", json!({"displayName": "once"}))]),
    ])
    .await;
    assert_eq!(db.state().await, before);
    db.apply(&[live(6, A, vec![like("l", &p)])]).await;
    assert_eq!(db.rows("SELECT uri FROM likes").await.len(), 1, "a newer one does");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_snapshot_is_written_it_covers_what_is_written_of_it() {
    let db = Db::new().await;
    // Otherwise nothing is stored of the repo, and all of it is covered at once.
    db.apply(&[live(1, A, vec![post("e", "old")])]).await;
    let host = Host::at(5, &[post("b", "b"), post("d", "d")]);
    let (b, rev) = ("app.bsky.feed.post/b", &*host.rev);
    let range = SnapshotRange { through: Some(b), records: &host.records[..1], ..host.all() };
    db.store.write_snapshot("w1", &range).await.unwrap();
    let old = |rkey: &str| vec![post(rkey, "old")];
    db.apply(&[live(2, A, old("a")), live(3, A, old("c"))]).await;
    let posts = "SELECT right(uri, 1) AS rkey FROM posts ORDER BY uri";
    assert_eq!(db.rows(posts).await, [json!({"rkey": "b"}), json!({"rkey": "c"}), json!({"rkey": "e"})]);
    assert_eq!(db.store.finish_snapshot(A, rev, &[1; 32], host.started).await.unwrap(), Finished::Incomplete);
    // By somebody else, who read the same rev later.
    let rest = SnapshotRange { after: Some(b), records: &host.records[1..], started: id(9), ..host.all() };
    assert_eq!(db.store.write_snapshot("w2", &rest).await.unwrap().removed, 2);
    assert_eq!(db.rows(posts).await, [json!({"rkey": "b"}), json!({"rkey": "d"})]);
    assert_eq!(db.store.finish_snapshot(A, rev, &[1; 32], host.started).await.unwrap(), Finished::Whole);
    assert_eq!(db.store.finish_snapshot(A, rev, &[1; 32], host.started).await.unwrap(), Finished::Whole, "again");
    // A range behind one that nobody wrote closes nothing.
    let host = Host::at(6, &[post("b", "b"), post("d", "d")]);
    let rest = SnapshotRange { after: Some(b), records: &host.records[1..], ..host.all() };
    db.store.write_snapshot("w2", &rest).await.unwrap();
    assert_eq!(db.store.finish_snapshot(A, &host.rev, &[1; 32], host.started).await.unwrap(), Finished::Incomplete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_of_which_nothing_was_stored_is_covered_as_soon_as_its_first_range_is_written() {
    let db = Db::new().await;
    let host = Host::at(5, &[post("b", "b"), post("d", "d")]);
    let b = "app.bsky.feed.post/b";
    let range = SnapshotRange { through: Some(b), records: &host.records[..1], ..host.all() };
    db.store.write_snapshot("w1", &range).await.unwrap();
    let old = |rkey: &str| vec![post(rkey, "old")];
    db.apply(&[live(1, A, old("a")), live(2, A, old("c")), live(6, A, vec![post("e", "new")])]).await;
    let rest = SnapshotRange { after: Some(b), records: &host.records[1..], ..host.all() };
    db.store.write_snapshot("w1", &rest).await.unwrap();
    assert_eq!(db.store.finish_snapshot(A, &host.rev, &[1; 32], host.started).await.unwrap(), Finished::Whole);
    let posts = db.rows("SELECT text FROM posts ORDER BY uri").await;
    assert_eq!(posts, [json!({"text": "b"}), json!({"text": "d"}), json!({"text": "new"})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_found_in_byte_order_whatever_the_order_of_texts_is() {
    let db = Db::new().await;
    let rkeys = ["-a", ".a", "0", "3kzz", "A", "Z", "_", "a", "aB", "ab", "b", "z", "~"];
    let mut ops: Vec<Op> = rkeys.iter().map(|rkey| post(rkey, "x")).collect();
    ops.extend(rkeys.iter().map(|rkey| like(rkey, &post_uri(B, rkey))));
    ops.extend(rkeys.iter().map(|rkey| put(&format!("app.bsky.feed.threadgate/{rkey}"), json!({}))));
    ops.extend(rkeys.iter().map(|rkey| put(&format!("com.example.note/{rkey}"), json!({}))));
    db.apply(&[live(1, A, ops.clone())]).await;
    let host = Host::at(2, &ops);
    let paths: Vec<&str> = host.records.iter().map(|record| &*record.path).collect();
    let mut conn = db.store.pool().acquire().await.unwrap();
    for (at, after) in paths.iter().enumerate() {
        for (to, through) in paths.iter().enumerate().skip(at + 1) {
            let found = stored(&mut conn, &db.store, A, Some(after), through, None, 100).await.unwrap();
            let found: Vec<&str> = found.iter().map(|uri| path_of(A, uri)).collect();
            assert_eq!(found, paths[at + 1..=to]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_of_the_account_takes_a_snapshot_that_was_begun_before_it() {
    let db = Db::new().await;
    Host::at(5, &every_kind()).write(&db).await;
    db.apply(&[deleted(7, A)]).await;
    db.sweep().await;
    assert_eq!(db.rows("SELECT uri FROM posts").await, [] as [Value; 0]);
    // Read before the deletion, written after it.
    let late = Host::at(6, &every_kind());
    let written = db.store.write_snapshot("w1", &late.all()).await.unwrap();
    assert_eq!((written.added, db.rows("SELECT uri FROM posts").await.len()), (0, 0));
    assert_eq!(late.compare(&db).await, []);
    // The account comes back, and what it says from then on counts, whatever the rev.
    db.apply(&[account(8, A, true, None), commit(9, A, Some("3000000000003"), vec![post("p", "back")])]).await;
    assert_eq!(db.rows("SELECT text FROM posts").await, [json!({"text": "back"})]);
    let host = Host::at(10, &[post("p", "back"), post("q", "read")]);
    host.write(&db).await;
    assert_eq!(
        db.rows("SELECT text FROM posts ORDER BY uri").await,
        [json!({"text": "back"}), json!({"text": "read"})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_of_an_account_that_opted_out() {
    let db = Db::new().await;
    db.apply(&[live(1, A, vec![])]).await;
    db.execute("UPDATE penstock.repos SET forbidden = true, deleted_through = '0000000000009-000000'").await;
    let host = Host::at(5, &every_kind());
    let written = db.store.write_snapshot("w1", &host.all()).await.unwrap();
    assert_eq!((written.added, written.changed), (0, 0));
    assert_eq!(db.rows("SELECT uri FROM posts UNION ALL SELECT uri FROM generic_records").await.len(), 0);
    assert_eq!(host.compare(&db).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_postgresql_refuses_is_named_and_the_others_are_written() {
    let db = Db::new().await;
    db.execute("ALTER TABLE posts ADD CONSTRAINT no_bad CHECK (text <> 'bad')").await;
    let mut ops: Vec<Op> = (0..20).map(|n| post(&format!("p{n:02}"), "good")).collect();
    ops.insert(7, post("worse", "bad"));
    ops.push(put("app.bsky.feed.post/none", json!({"createdAt": TEXT})));
    let host = Host::at(5, &ops);
    let written = host.write(&db).await;
    let mut rejected: Vec<&str> = written.rejected.iter().map(|(path, _)| &**path).collect();
    rejected.sort_unstable();
    assert_eq!(rejected, ["app.bsky.feed.post/none", "app.bsky.feed.post/worse"]);
    assert_eq!((written.added, db.rows("SELECT uri FROM posts").await.len()), (20, 20));
}

fn marked(order: u64, sync: &str) -> Entry {
    let mut entry = live(order, A, vec![post(&format!("p{order}"), "x")]);
    let Event::Commit(commit) = &mut entry.event else { return entry };
    commit.proven = Proven { root: Some([order as u8; 8]), sync: Some(sync.to_owned()) };
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_that_becomes_desynchronized_is_listed_and_a_snapshot_ends_that() {
    let db = Db::new().await;
    const REPAIRS: &str = "SELECT did, reason, priority FROM penstock.repairs ORDER BY did";
    const REPO: &str = "SELECT rev, encode(root, 'hex') AS root, sync FROM penstock.repos WHERE did = 'did:plc:a'";
    let mut lacking = live(1, A, vec![]);
    if let Event::Commit(commit) = &mut lacking.event {
        commit.missing = 1;
    }
    db.apply(&[lacking]).await;
    assert_eq!(db.rows(REPAIRS).await, [json!({"did": A, "reason": "block missing", "priority": 40})]);
    db.apply(&[marked(2, "since")]).await;
    assert_eq!(db.rows(REPAIRS).await, [json!({"did": A, "reason": "chain", "priority": 50})]);
    let mark = |did: &str| Desynchronized { did: did.to_owned(), reason: "sync".to_owned() };
    db.store.mark_desynchronized(&[mark(B)]).await.unwrap();
    assert_eq!(db.rows(REPAIRS).await[1], json!({"did": B, "reason": "sync", "priority": 50}));

    let started = db.store.start_snapshot().await.unwrap();
    let mut host = Host::at(4, &[post("p2", "x")]);
    // The clock goes on: a mark of the same millisecond would be taken for a later one.
    host.started = StreamId { ms: started.ms + 1, seq: 0 };
    host.write(&db).await;
    assert_eq!(db.rows(REPO).await, [json!({"rev": host.rev, "root": "07".repeat(8), "sync": null})]);
    db.execute("DELETE FROM penstock.repairs").await;
    db.apply(&[marked(3, "since")]).await;
    assert_eq!(db.rows(REPO).await[0]["sync"], Value::Null, "the snapshot has what that commit found missing");
    assert_eq!(db.rows(REPAIRS).await, [] as [Value; 0]);
    db.apply(&[marked(5, "prev_data")]).await;
    assert_eq!(db.rows(REPO).await, [json!({"rev": "3000000000005", "root": "05".repeat(8), "sync": "prev_data"})]);
    assert_eq!(db.rows(REPAIRS).await.len(), 1);
    // Marked after reading began: that snapshot may lack the same.
    let host = Host { started: id(6), ..Host::at(6, &[post("p2", "x")]) };
    host.write(&db).await;
    assert_eq!(db.rows(REPO).await[0]["sync"], "prev_data");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_appview_wrote_itself_gives_way_to_the_repo() {
    let db = Db::new().await;
    db.execute(
        "INSERT INTO posts (uri, cid, author_did, text, created_at) VALUES
           ('at://did:plc:a/app.bsky.feed.post/p', 'c', 'did:plc:a', 'theirs', now()),
           ('at://did:plc:a/app.bsky.feed.post/x', 'c', 'did:plc:a', 'gone', now());
         INSERT INTO post_aggregations (post_uri) SELECT uri FROM posts",
    )
    .await;
    let host = Host::at(5, &[post("p", "ours")]);
    let found = host.compare(&db).await;
    let (p, x) = ("app.bsky.feed.post/p", "app.bsky.feed.post/x");
    assert_eq!(names(&found), [(p, DifferenceKind::Different), (x, DifferenceKind::Extra)]);
    host.write(&db).await;
    assert_eq!(db.rows("SELECT text FROM posts").await, [json!({"text": "ours"})]);
    assert_eq!(db.rows("SELECT post_uri FROM post_aggregations").await.len(), 1);
}
