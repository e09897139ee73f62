//! Lookups on a real PostgreSQL that a worker's store wrote, and a real Redis.

use fred::clients::Client;
use fred::interfaces::StreamsInterface as _;
use penstock_core::data::Action;
use penstock_core::entry::{Account as AccountEvent, Commit, Entry, Event, Op, Proven};
use penstock_core::keys::Keys;
use penstock_core::settings::{Layers, Settings};
use penstock_core::stream::{Seq, StreamId};
use penstock_local::testing::{TestRedis, fresh_database};
use penstock_postgres::Pool;
use penstock_worker::store::{Desynchronized, Store, StoreSettings};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;

use super::*;

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const OTHER: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";

/// The first entry's time: later than any database of a test was made.
const BEGIN: u64 = 1_900_000_000_000;

struct Db {
    url: String,
    store: Store,
    pool: Pool,
    keys: Keys,
}

impl Db {
    async fn new() -> Self {
        let url = fresh_database().await.unwrap();
        penstock_worker::migrate(&url, false).await.unwrap();
        let store = Store::connect(&StoreSettings::new(&url)).await.unwrap();
        let pool = Pool::lazy(url.parse().unwrap(), PgPoolOptions::new().max_connections(2), |_| true).unwrap();
        Self { url, store, pool, keys: Keys::default() }
    }

    async fn apply(&self, entries: &[Entry]) {
        let applied = self.store.apply("test", entries).await.unwrap();
        assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    }

    async fn execute(&self, statement: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(self.pool.inner()).await.unwrap();
    }

    async fn look(&self, asked: &str) -> Report {
        self.look_with(asked, Err("not set".to_owned())).await
    }

    async fn look_with(&self, asked: &str, redis: Result<&Client, String>) -> Report {
        let network = Err("offline".to_owned());
        let sources = Sources { database: Ok(&self.pool), redis, keys: &self.keys, rules: Err(String::new()), network };
        look(&Asked::read(asked).unwrap(), &sources).await
    }
}

fn rev(order: u64) -> String {
    penstock_wire::rev_text(((BEGIN + order * 1000) * 1000) << 10)
}

fn commit(order: u64, repo: &str, ops: Vec<Op>) -> Entry {
    let commit = Commit {
        repo: repo.to_owned(),
        rev: Some(rev(order)),
        since: None,
        commit: None,
        time: None,
        ops,
        missing: 0,
        proven: Proven { root: Some([7; 8]), sync: None },
    };
    entry(order, Event::Commit(commit))
}

fn entry(order: u64, event: Event) -> Entry {
    let id = StreamId { ms: BEGIN + order * 1000, seq: 0 };
    Entry { id, order: id, seq: Seq::new(order), event }
}

fn create(path: &str, record: Value) -> Op {
    let (collection, rkey) = path.split_once('/').unwrap();
    Op {
        action: Action::Create,
        collection: collection.to_owned(),
        rkey: rkey.to_owned(),
        cid: Some(format!("bafy{}", rkey.len())),
        record: Some(record),
    }
}

fn delete(path: &str) -> Op {
    Op { action: Action::Delete, cid: None, record: None, ..create(path, Value::Null) }
}

fn post() -> Value {
    json!({"$type": "app.bsky.feed.post", "text": "hello", "createdAt": "2030-01-01T00:00:00Z"})
}

fn of_subject(uri: &str) -> Value {
    json!({"subject": {"uri": uri, "cid": "bafysubject"}, "createdAt": "2030-01-01T00:00:00Z"})
}

fn uri(path: &str) -> String {
    format!("at://{DID}/{path}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_found_wherever_it_stands() {
    let db = Db::new().await;
    let subject = format!("at://{OTHER}/app.bsky.feed.post/s");
    let long = format!("org.example.note/{}", "k".repeat(500));
    let entries = [
        commit(1, DID, vec![create("app.bsky.feed.post/p", post())]),
        commit(2, DID, vec![create("app.bsky.feed.like/old", of_subject(&subject))]),
        commit(3, DID, vec![create("app.bsky.feed.like/new", of_subject(&subject))]),
        commit(4, DID, vec![create("app.bsky.actor.profile/self", json!({"displayName": "Alice"}))]),
        commit(
            5,
            DID,
            vec![create("app.bsky.feed.threadgate/p", json!({"allow": [], "post": uri("app.bsky.feed.post/p")}))],
        ),
        commit(6, DID, vec![create("org.example.note/n", json!({"text": "x"}))]),
        commit(7, DID, vec![create(&long, json!({"text": "x"}))]),
        commit(8, DID, vec![create("app.bsky.feed.post/gone", post())]),
        commit(9, DID, vec![delete("app.bsky.feed.post/gone")]),
    ];
    db.apply(&entries).await;
    for (path, word, table) in [
        ("app.bsky.feed.post/p", Word::Stored, "posts"),
        ("app.bsky.feed.like/new", Word::Stored, "likes"),
        ("app.bsky.feed.like/old", Word::Shadowed, "likes"),
        ("app.bsky.actor.profile/self", Word::Stored, "users"),
        ("app.bsky.feed.threadgate/p", Word::Stored, "thread_gates"),
        ("org.example.note/n", Word::Stored, "generic_records"),
        (&long, Word::StoredAlone, "penstock.records"),
        ("app.bsky.feed.post/gone", Word::Deleted, "penstock.tombstones"),
        ("app.bsky.feed.post/never", Word::Unknown, ""),
        ("app.bsky.feed.threadgate/never", Word::Unknown, ""),
    ] {
        let report = db.look(&uri(path)).await;
        assert_eq!(report.answer.word, word, "{path}: {report:#?}");
        let rows = report.held.found.as_ref().unwrap().record.as_ref().unwrap();
        let places: Vec<_> = [&rows.row, &rows.wide, &rows.tombstone].into_iter().flatten().collect();
        let tables: Vec<_> = places.iter().map(|place| place.table.as_str()).collect();
        match word {
            Word::Shadowed => {
                let shadow = rows.shadow.as_ref().unwrap();
                assert_eq!(
                    (shadow.table.as_str(), shadow.holder.clone()),
                    (table, Some(uri("app.bsky.feed.like/new")))
                );
                assert!(report.answer.text.contains(&uri("app.bsky.feed.like/new")), "{}", report.answer.text);
            }
            Word::Unknown => assert_eq!(tables, [""; 0], "{path}"),
            _ => {
                assert_eq!(tables, [table], "{path}");
                let place = places[0];
                assert!(
                    place.rev.as_ref().is_some_and(|rev| rev.starts_with('3') || rev.len() == 13),
                    "{path}: {place:?}"
                );
                assert!(
                    place.rev_at >= Some(BEGIN as i64) && place.entry_at >= Some(BEGIN as i64),
                    "{path}: {place:?}"
                );
            }
        }
        let text = report.to_text();
        assert!(text.starts_with(&format!("{}\n{}\n", uri(path), report.answer.text)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&report.to_json()).unwrap()["uri"], uri(path));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_is_told_with_its_state_and_its_rows_by_collection() {
    let db = Db::new().await;
    assert_eq!(db.look(DID).await.answer.word, Word::NeverSeen);
    let gate = json!({"post": uri("app.bsky.feed.post/p"), "embeddingRules": []});
    let entries = [
        commit(1, DID, vec![create("app.bsky.feed.post/p", post()), create("app.bsky.feed.postgate/p", gate)]),
        commit(2, DID, vec![create("org.example.note/a", json!({})), create("org.example.note/b", json!({}))]),
        commit(3, OTHER, vec![create("app.bsky.feed.post/theirs", post())]),
    ];
    db.apply(&entries).await;
    // More than is counted.
    db.execute(&format!(
        "INSERT INTO likes (uri, user_did, post_uri, created_at) SELECT 'at://{DID}/app.bsky.feed.like/' || n, '{DID}', 'at://x/y/' || n, now() \
         FROM generate_series(1, 10050) AS n"
    ))
    .await;
    let report = db.look(DID).await;
    let held = report.held.found.as_ref().unwrap();
    let counted: Vec<_> =
        held.collections.iter().map(|c| (c.collection.as_str(), c.table.as_str(), c.rows, c.more)).collect();
    assert_eq!(
        counted,
        [
            ("app.bsky.feed.like", "likes", 10_000, true),
            ("app.bsky.feed.post", "posts", 1, false),
            ("app.bsky.feed.postgate", "post_gates", 1, false),
            ("org.example.note", "generic_records", 2, false),
        ]
    );
    assert!(!held.more_collections);
    let repo = held.repo.as_ref().unwrap();
    assert_eq!((repo.rev.as_deref(), repo.root.as_deref()), (Some(&*rev(2)), Some("0707070707070707")));
    assert_eq!(repo.rev_at, Some(BEGIN as i64 + 2000));
    assert_eq!((report.answer.word, report.answer.good), (Word::Held, None));

    let marks = [Desynchronized { did: DID.to_owned(), reason: "since".to_owned() }];
    db.store.mark_desynchronized(&marks).await.unwrap();
    db.execute(&format!("DELETE FROM penstock.repairs; INSERT INTO penstock.repairs (did, reason, priority, error, attempts) VALUES ('{DID}', 'chain', 50, 'host away', 3)"))
        .await;
    let report = db.look(DID).await;
    assert_eq!((report.answer.word, report.answer.good), (Word::Desynchronized, Some(false)));
    for told in ["a commit follows another one", "listed for repair", "tried 3 times, the last time: host away"] {
        assert!(report.answer.text.contains(told), "{}", report.answer.text);
    }
    let gone = AccountEvent { did: OTHER.to_owned(), active: false, status: Some("deleted".to_owned()), time: None };
    db.apply(&[entry(5, Event::Account(gone))]).await;
    let report = db.look(&format!("at://{OTHER}/app.bsky.feed.post/other")).await;
    assert_eq!((report.answer.word, report.answer.good), (Word::NotActive, Some(true)), "{}", report.answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_leaves_out_is_told_to_be_left_out() {
    let db = Db::new().await;
    let layers = Layers::default()
        .flag("filter.collections", "app.bsky.*,!app.bsky.feed.like")
        .flag("filter.excludeRepos", OTHER);
    let settings = Settings::load(&layers).unwrap();
    let look = async |asked: &str| {
        let rules = penstock_core::filter_files::load(&settings.filter).map_err(|error| error.to_string());
        let (redis, network) = (Err("not set".to_owned()), Err("offline".to_owned()));
        let sources = Sources { database: Ok(&db.pool), redis, keys: &db.keys, rules, network };
        look(&Asked::read(asked).unwrap(), &sources).await
    };
    for (asked, word) in [
        (uri("app.bsky.feed.like/l"), Word::LeftOut),
        (uri("app.bsky.feed.post/p"), Word::NeverSeen),
        (uri("org.example.note/n"), Word::LeftOut),
        (format!("at://{OTHER}/app.bsky.feed.post/p"), Word::LeftOut),
        (OTHER.to_owned(), Word::LeftOut),
        (DID.to_owned(), Word::NeverSeen),
    ] {
        let report = look(&asked).await;
        assert_eq!(report.answer.word, word, "{asked}: {}", report.answer.text);
        assert_eq!(report.left_out_by.is_some(), word == Word::LeftOut, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_leads_to_its_account() {
    let db = Db::new().await;
    db.apply(&[commit(1, DID, vec![create("app.bsky.feed.post/p", post())])]).await;
    db.execute(&format!("UPDATE users SET handle = 'alice.example.com' WHERE did = '{DID}'")).await;
    let report = db.look("at://Alice.example.com/app.bsky.feed.post/p").await;
    assert_eq!((report.answer.word, report.uri.unwrap()), (Word::Stored, uri("app.bsky.feed.post/p")));
    // Nobody could be asked whose the handle is.
    let report = db.look("bob.example.com").await;
    assert_eq!((report.answer.word, report.did), (Word::Unknown, None));
}

/// Every statement that is asked for one account finds its rows through an index, whatever the sizes.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_reads_a_whole_table() {
    let db = Db::new().await;
    let url = db.url.clone();
    let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut conn).await.unwrap();
    let statements = database::statements("public");
    assert!(statements.len() > 20, "{}", statements.len());
    for statement in statements {
        let values = if statement.contains("$2") { "('a', 'b')" } else { "('a')" };
        let types = if statement.contains("$2") { "(text, text)" } else { "(text)" };
        let plan = format!("PREPARE s{types} AS {statement}; EXPLAIN EXECUTE s{values}; ");
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(plan)).fetch_all(&mut conn).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| sqlx::Row::get(row, 0)).collect();
        assert!(plan.iter().any(|line| line.contains("Index")), "{statement}: {plan:#?}");
        assert!(!plan.iter().any(|line| line.contains("Seq Scan")), "{statement}: {plan:#?}");
        sqlx::raw_sql("DEALLOCATE s").execute(&mut conn).await.unwrap();
    }
}

/// A Redis with a stream, whose first two entries a worker has; the first one is acknowledged.
struct Stream {
    _redis: TestRedis,
    client: Client,
}

impl Stream {
    async fn new(keys: &Keys, entries: &[(String, &str)]) -> Self {
        let redis = TestRedis::start().await.unwrap();
        let settings = Settings::load(&Layers::default().flag("redis.url", redis.url())).unwrap();
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        for (at, (data, kind)) in entries.iter().enumerate() {
            let fields = vec![("type", kind.to_string()), ("data", data.clone()), ("seq", String::new())];
            let id = format!("{}-0", BEGIN as usize + at);
            let _: () = client.xadd(keys.stream(), false, None, id, fields).await.unwrap();
        }
        let _: () = client.xgroup_create(keys.stream(), keys.group(), "0", false).await.unwrap();
        let read: fred::types::Value =
            client.xreadgroup(keys.group(), "worker", Some(2), None, false, keys.stream(), ">").await.unwrap();
        drop(read);
        let _: () = client.xack(keys.stream(), keys.group(), format!("{BEGIN}-0")).await.unwrap();
        Self { _redis: redis, client }
    }
}

fn data(did: &str, rkey: &str) -> String {
    format!(
        r#"{{"repo":"{did}","ops":[{{"action":"create","path":"app.bsky.feed.post/{rkey}","cid":"b","record":{{"text":"{DID}"}}}}],"rev":"3"}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_stream_is_found_and_what_was_applied_is_not() {
    let db = Db::new().await;
    let entries = [
        (data(DID, "done"), "commit"),
        (data(DID, "inhand"), "commit"),
        (data(OTHER, "unread"), "commit"),
        (data(DID, "unread"), "commit"),
        (format!(r#"{{"did":"{DID}","active":true}}"#), "account"),
    ];
    let stream = Stream::new(&db.keys, &entries).await;
    let look = async |rkey: &str| db.look_with(&uri(&format!("app.bsky.feed.post/{rkey}")), Ok(&stream.client)).await;
    for (rkey, word, named) in [
        ("done", Word::NeverSeen, None),
        ("inhand", Word::Waiting, Some(true)),
        ("unread", Word::Waiting, Some(false)),
        ("unrea", Word::NeverSeen, None),
    ] {
        let report = look(rkey).await;
        assert_eq!(report.answer.word, word, "{rkey}: {report:#?}");
        let waiting = report.waiting.found.unwrap();
        let ids: Vec<_> = waiting.entries.iter().map(|entry| (entry.id.as_str(), entry.delivered)).collect();
        let id = |at: u64| format!("{}-0", BEGIN + at);
        assert_eq!(ids, [(&*id(1), true), (&*id(3), false), (&*id(4), false)], "{rkey}");
        assert!(waiting.complete && waiting.searched == 4, "{waiting:?}");
        let names = waiting.entries.iter().find(|entry| entry.names_record).map(|entry| entry.delivered);
        assert_eq!(names, named, "{rkey}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_both_places_are_found_each_once() {
    let db = Db::new().await;
    let stream = Stream::new(&db.keys, &[(data(OTHER, "x"), "commit")]).await;
    let add = async |author, id: &str, data: String, error: &str, repo: &str| {
        let fields = [
            ("type", "commit"),
            ("data", &data),
            ("seq", ""),
            ("origId", id),
            ("deliveries", "1"),
            ("error", error),
            ("consumer", "w"),
            ("repo", repo),
        ];
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        let _: () = stream.client.xadd(db.keys.letters_of(author), false, None, "*", fields).await.unwrap();
    };
    use penstock_core::dead_letter::Author;
    add(Author::Worker, "5-1", data(DID, "bad"), "op 0: too deep", DID).await;
    // Nobody wrote whose it is.
    add(Author::Ingest, "5-2", data(DID, "raw"), "no such key", "").await;
    add(Author::Worker, "5-3", data(OTHER, "bad"), "op 0: too deep", OTHER).await;
    for (id, data, did) in
        [("5-1", data(DID, "bad"), DID), ("5-4", data(DID, "kept"), DID), ("5-5", data(OTHER, "kept"), OTHER)]
    {
        let insert = "INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer, repo) \
                      VALUES ($1, 'commit', convert_to($2, 'UTF8'), '', 1, 'op 0: too wide', 'w', $3)";
        sqlx::query(insert).bind(id).bind(data).bind(did).execute(db.pool.inner()).await.unwrap();
    }
    for (rkey, word) in
        [("bad", Word::DeadLetter), ("raw", Word::DeadLetter), ("kept", Word::DeadLetter), ("ba", Word::NeverSeen)]
    {
        let report = db.look_with(&uri(&format!("app.bsky.feed.post/{rkey}")), Ok(&stream.client)).await;
        assert_eq!(report.answer.word, word, "{rkey}: {report:#?}");
        let mut ids: Vec<_> = report.letters.letters.iter().map(|letter| letter.orig_id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["5-1", "5-2", "5-4"], "{rkey}");
        assert!(!report.letters.more && report.letters.redis_unknown.is_none());
    }
    // Without Redis those that PostgreSQL keeps are known.
    let report = db.look(&uri("app.bsky.feed.post/kept")).await;
    assert_eq!(report.answer.word, Word::DeadLetter);
    assert!(report.to_text().contains("those in redis are not known: not set"), "{}", report.to_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_named_and_the_rest_is_told() {
    let keys = Keys::default();
    let away: Pool = Pool::lazy(
        "postgres://nobody@127.0.0.1:1/none".parse().unwrap(),
        PgPoolOptions::new().acquire_timeout(std::time::Duration::from_secs(2)),
        |_| true,
    )
    .unwrap();
    let sources = Sources {
        database: Ok(&away),
        redis: Err("redis away".to_owned()),
        keys: &keys,
        rules: Err(String::new()),
        network: Err("offline".to_owned()),
    };
    let report = look(&Asked::read(&uri("app.bsky.feed.post/p")).unwrap(), &sources).await;
    assert_eq!((report.answer.word, report.answer.good), (Word::Unknown, None));
    let text = report.to_text();
    for told in [
        "host      not asked: offline",
        "stream    not asked: redis away",
        "held      not asked: postgresql does not answer",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
}
