//! Hosts that fail, each in its own way, beside one that does not: the failure is named, the host is left alone for longer each time,
//! and the repos of the others are read meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_core::backfill::{BackfillRequest, Reason, Scope};
use penstock_repo::testing::{Account, Asked, MadeRepo, Pace, Reply, World, car, cid_of, dag_cbor, did, node};
use serde_json::{Value, json};

use crate::kills::number;
use crate::rig::{REV, Rig, Running};

/// What becomes of a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is given up at once.
    Ends,
    /// It is given up when its host has said the same three times.
    EndsAfterThree,
    /// It is tried again after so many milliseconds at least, and after twice as many the next time; a backfill gives it up after
    /// `heal.attempts`.
    TriedAgain(u64),
    /// As often as it takes: its host asks for patience.
    Waits,
}

/// A repo, and how it fails.
struct Bad {
    did: String,
    word: &'static str,
    fate: Fate,
    host: World,
}

/// The table: the word, what becomes of the repo, what its host says, and its document where that is at fault.
#[derive(Default)]
struct Table {
    bad: Vec<Bad>,
    documents: HashMap<String, Value>,
}

// === impl Table ===

impl Table {
    async fn add(&mut self, word: &'static str, fate: Fate, says: impl FnOnce(&MadeRepo) -> Reply) {
        let repo = MadeRepo::of_posts(&did(1_000 + self.bad.len() as u64), REV, 20);
        let host = World::start().await.unwrap();
        let reply = says(&repo);
        host.meddle(move |asked| is_repo(asked).then(|| reply.clone()));
        self.documents.insert(repo.account.did.clone(), repo.account.document(&host.server.url()));
        self.bad.push(Bad { did: repo.account.did, word, fate, host });
    }

    /// One whose document is at fault; none: there is no such account.
    async fn add_document(&mut self, word: &'static str, document: impl FnOnce(Value) -> Option<Value>) {
        self.add(word, Fate::Ends, |repo| Reply::bytes(repo.car())).await;
        let did = &self.bad.last().unwrap().did;
        let before = self.documents.remove(did).unwrap();
        if let Some(document) = document(before) {
            self.documents.insert(did.clone(), document);
        }
    }

    async fn new() -> Self {
        let mut table = Self::default();
        let away = Fate::TriedAgain(5_000);
        table.add("limited", Fate::Waits, |_| Reply::error(429, "RateLimitExceeded")).await;
        table.add("unreachable", away, |_| Reply::error(502, "UpstreamFailure")).await;
        table.add("unreachable", away, |_| Reply::Close).await;
        table.add("unreachable", away, |_| Reply::Hang).await;
        let crawl = Pace::new(1, Duration::from_millis(200));
        table.add("slow", Fate::TriedAgain(100), |repo| Reply::Drip(repo.car().into(), crawl)).await;
        table.add("cut", Fate::TriedAgain(100), |repo| Reply::Cut(half(&repo.car()))).await;
        table.add("refused", Fate::EndsAfterThree, |_| Reply::error(400, "InvalidRequest")).await;
        table.add("car", Fate::EndsAfterThree, |_| Reply::bytes("<p>under construction</p>".repeat(20))).await;
        table.add("cut", Fate::TriedAgain(100), |repo| Reply::Until(half(&repo.car()))).await;
        table.add("hash", Fate::EndsAfterThree, |repo| Reply::bytes(altered(repo))).await;
        table.add("block_missing", Fate::EndsAfterThree, |repo| Reply::bytes(lacking(repo))).await;
        table.add("tree", Fate::EndsAfterThree, |repo| Reply::bytes(unsorted(repo))).await;
        let other = MadeRepo::of_posts(&did(9_999), REV, 20).car();
        table.add("commit", Fate::EndsAfterThree, |_| Reply::bytes(other)).await;
        table.add("signature", Fate::EndsAfterThree, |repo| Reply::bytes(of_another_key(repo))).await;
        table.add("not_found", Fate::Ends, |_| Reply::error(400, "RepoNotFound")).await;
        table.add("inactive", Fate::Ends, |_| Reply::error(400, "RepoTakendown")).await;
        table.add_document("identity", |_| None).await;
        table.add_document("no_host", |document| without(document, "service")).await;
        table.add_document("no_key", |document| without(document, "verificationMethod")).await;
        table.add("left_out", Fate::Ends, |_| Reply::Close).await;
        table
    }

    fn of(&self, word: &str) -> &Bad {
        self.bad.iter().find(|bad| bad.word == word).unwrap()
    }
}

// === impl Bad ===

impl Bad {
    fn ends_by_itself(&self) -> bool {
        matches!(self.fate, Fate::Ends | Fate::EndsAfterThree)
    }

    fn hits(&self) -> usize {
        self.host.hits("com.atproto.sync.getRepo", &self.did)
    }
}

fn is_repo(asked: &Asked) -> bool {
    asked.method() == "com.atproto.sync.getRepo"
}

fn half(car: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&car[..car.len() / 2])
}

/// With one record that is not what its CID says.
fn altered(repo: &MadeRepo) -> Vec<u8> {
    let mut made = repo.blocks();
    made.blocks.last_mut().unwrap().1 = dag_cbor(&json!({"text": "somebody else's words"}));
    car(&made.commit, &made.blocks)
}

/// Without its last record.
fn lacking(repo: &MadeRepo) -> Vec<u8> {
    let mut made = repo.blocks();
    made.blocks.pop();
    car(&made.commit, &made.blocks)
}

/// Signed, with its keys in the wrong order.
fn unsorted(repo: &MadeRepo) -> Vec<u8> {
    let record = dag_cbor(&json!({"text": "x"}));
    let root = node(None, &[("a.b.c/z", cid_of(&record), None), ("a.b.c/a", cid_of(&record), None)]);
    let (commit, block) = repo.commit(&cid_of(&root));
    car(&commit, &[(commit, block), (cid_of(&root), root), (cid_of(&record), record)])
}

/// Signed with a key that the account's document does not have.
fn of_another_key(repo: &MadeRepo) -> Vec<u8> {
    let account = Account { rotations: 1, ..repo.account.clone() };
    MadeRepo { account, ..repo.clone() }.car()
}

fn without(mut document: Value, field: &str) -> Option<Value> {
    document[field] = json!([]);
    Some(document)
}

/// With `PENSTOCK_HEAL_RECORDS=1000000` the largest of the repos is as large as any; `make heal-chaos` does that.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_hosts_do_is_named_and_they_are_left_alone_and_the_others_go_on() {
    let records = number("PENSTOCK_HEAL_RECORDS", 4_000);
    let rig = Rig::new().await;
    let good = rig.host(20, 2);
    let mut table = Table::new().await;
    // A repo that takes very long: so much that its host is never too slow, until it hurries.
    let large = did(500);
    let sending = Pace::new(10 << 10, Duration::from_millis(500));
    let slowly = World::start().await.unwrap();
    let repo = MadeRepo::of_posts(&large, REV, records);
    table.documents.insert(large.clone(), repo.account.document(&slowly.server.url()));
    let (whole, pace) = (Bytes::from(repo.car()), sending.clone());
    drop(repo);
    slowly.meddle(move |asked| is_repo(asked).then(|| Reply::Drip(whole.clone(), pace.clone())));
    let documents = std::mem::take(&mut table.documents);
    let bad: Vec<String> = table.bad.iter().map(|bad| bad.did.clone()).collect();
    let theirs = bad.clone();
    rig.world.meddle(move |asked| {
        let did = asked.path.strip_prefix('/')?;
        let unknown = || theirs.iter().any(|one| one == did).then(|| Reply::json(404, &json!({})));
        documents.get(did).map(|document| Reply::json(200, document)).or_else(unknown)
    });

    let left_out = table.of("left_out").did.clone();
    let flags = [
        ("heal.parallelism", "4"),
        ("heal.retryMin", "100ms"),
        ("heal.retryMax", "1h"),
        ("identity.timeout", "1s"),
        ("filter.excludeRepos", &left_out),
    ];
    let engine = rig.engine(&[&flags[..], &[("heal.attempts", "1000")]].concat()).await;
    let repos: Vec<String> = good.iter().chain(&bad).chain([&large]).cloned().collect();
    engine.backfills().put("b", BackfillRequest::new(Scope::Repos(repos))).await.unwrap();
    // Of four at once three are taken by hosts that say little or nothing, again and again, before any good one is.
    sqlx::query("UPDATE penstock.repairs SET priority = CASE WHEN did = $2 THEN 8 ELSE 9 END WHERE did <> ALL($1)")
        .bind(&good)
        .bind(&large)
        .execute(rig.store.pool())
        .await
        .unwrap();
    let began = Instant::now();
    let running = Running::start(&engine);
    rig.until("SELECT done = 20 FROM penstock.backfills").await;
    let in_hand = "SELECT count(*) FROM penstock.repairs WHERE priority = 8 AND lease > now() AND error IS NULL";
    assert_eq!(rig.count(in_hand).await, 1, "the large one is still being read");

    // Each that is not given up has failed, and is left alone.
    rig.until("SELECT bool_and(error IS NOT NULL) FROM penstock.repairs WHERE priority = 9").await;
    let ended = table.bad.iter().filter(|bad| bad.ends_by_itself()).count();
    rig.until("SELECT failed = 13 FROM penstock.backfills").await;
    assert_eq!(ended, 13);
    let took = began.elapsed();
    let words = words(&rig).await;
    let errors = errors(&rig).await;
    for bad in &table.bad {
        let Bad { did, word, fate, .. } = bad;
        let hits = bad.hits();
        if bad.ends_by_itself() {
            assert_eq!(words.get(did).map(String::as_str), Some(*word), "{words:?}");
        } else {
            assert!(!words.contains_key(did), "{word} is given up");
            assert!(errors[did].contains("127.0.0.1"), "{word}: {}", errors[did]);
        }
        match fate {
            Fate::Ends => assert!(hits <= 1, "{word}: {hits} times"),
            Fate::EndsAfterThree => assert_eq!(hits, 3, "{word}"),
            Fate::TriedAgain(pause) => assert!(hits <= most(took, *pause), "{word}: {hits} times in {took:?}"),
            Fate::Waits => assert!(hits <= most(took, 5_000), "{word}: {hits} times in {took:?}"),
        }
    }
    sending.hurry.store(true, Ordering::Relaxed);
    rig.until("SELECT done = 21 FROM penstock.backfills").await;
    running.stop().await;

    // After so many attempts a backfill gives them up too, but for the host that asks for patience. One that is too large says so.
    let too_large = did(501);
    rig.world.put(MadeRepo::of_posts(&too_large, REV, 600));
    let engine = rig.engine(&[&flags[..], &[("heal.attempts", "2"), ("heal.repoBytes", "65536")]].concat()).await;
    engine.queue().enqueue(&[&too_large], Reason::Chain).await.unwrap();
    rig.execute("UPDATE penstock.repairs SET due = now(), attempts = 1").await;
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 1 AND bool_and(due > now() AND lease IS NULL) FROM penstock.repairs").await;
    running.stop().await;
    let words = self::words(&rig).await;
    for Bad { did, word, fate, .. } in &table.bad {
        let told = words.get(did).map(String::as_str);
        assert_eq!(told, Some(*word).filter(|_| *fate != Fate::Waits), "{words:?}");
        let rows = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM posts WHERE author_did = $1").bind(did);
        assert_eq!(rows.fetch_one(rig.store.pool()).await.unwrap(), 0, "{word}: half a repo is none");
    }
    assert_eq!(words.get(&too_large).map(String::as_str), Some("too_large"));
    let status = engine.backfills().get("b").await.unwrap().unwrap();
    assert_eq!((status.done, status.failed, status.waiting), (21, 19, 1), "{status:?}");
    assert_eq!(rig.count("SELECT count(*) FROM posts").await.cast_unsigned(), 20 * 2 + records);
    rig.assert_equal(&good).await;
}

/// How often somebody is asked at most in this time who is asked again after a pause, and after twice as long each time.
fn most(time: Duration, pause: u64) -> usize {
    let pauses = time.as_millis() / u128::from(pause) + 1;
    2 + usize::try_from(pauses.ilog2()).unwrap()
}

/// The words of what was given up, by repo.
async fn words(rig: &Rig) -> BTreeMap<String, String> {
    pairs(rig, "SELECT did, word FROM penstock.unhealed").await
}

/// The errors of what waits, by repo.
async fn errors(rig: &Rig) -> BTreeMap<String, String> {
    pairs(rig, "SELECT did, coalesce(error, '') FROM penstock.repairs").await
}

async fn pairs(rig: &Rig, query: &'static str) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(query).fetch_all(rig.store.pool()).await.unwrap();
    rows.into_iter().collect()
}
