//! The filter: what its rules let through is in the stream once, and nothing else, whatever happens while they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_core::filter::Summary;
use penstock_core::filter_files;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng};
use serde_json::Value as Json;
use sqlx::AssertSqlSafe;
use tokio::sync::watch;

use super::chain::{REPOS, Recording, settle};
use super::lost::TABLES;
use super::owed::{BACKFILLS, backfills};
use super::*;

const DESYNCHRONIZED: &str = "firehose:desynchronized";

/// A relay with a cursor, that has no more than so many of its events for now.
async fn growing(frames: Vec<Bytes>) -> (SocketAddr, watch::Sender<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (grow, grown) = watch::channel(0);
    let frames = Arc::new(frames);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (frames, mut grown) = (Arc::clone(&frames), grown.clone());
            tokio::spawn(async move {
                let asked = Arc::new(AtomicU64::new(0));
                let at = Arc::clone(&asked);
                #[expect(clippy::result_large_err, reason = "the library's own signature")]
                let note = move |request: &tokio_tungstenite::tungstenite::handshake::server::Request, response| {
                    let query = request.uri().query().unwrap_or_default();
                    let cursor = query.strip_prefix("cursor=").and_then(|cursor| cursor.parse().ok());
                    at.store(cursor.unwrap_or_default(), Ordering::SeqCst);
                    Ok(response)
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { return };
                let mut next = usize::try_from(asked.load(Ordering::SeqCst)).unwrap();
                loop {
                    let there = *grown.borrow_and_update();
                    for frame in frames.get(next..there.max(next)).unwrap_or_default() {
                        if socket.send(Message::Binary(frame.clone())).await.is_err() {
                            return;
                        }
                    }
                    next = next.max(there);
                    if grown.changed().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, grow)
}

/// Rules as the files have them, and what they mean by a second reading.
#[derive(Clone, Debug, Default)]
struct Model {
    collections: Vec<String>,
    repos: Option<BTreeSet<String>>,
    excluded: BTreeSet<String>,
}

impl Model {
    /// Chooses rules at random, now and then everything.
    fn random(random: &mut StdRng, collections: &[String], dids: &[String]) -> Self {
        let mut patterns: BTreeSet<String> = collections.iter().cloned().collect();
        for collection in collections {
            for (dot, _) in collection.match_indices('.') {
                patterns.insert(format!("{}*", &collection[..=dot]));
            }
        }
        let count = random.random_range(0..5);
        let chosen = patterns.into_iter().sample(random, count);
        let some = |random: &mut StdRng, most: usize| {
            let count = random.random_range(0..=most.min(dids.len()));
            IndexedRandom::sample(dids, random, count).cloned().collect::<BTreeSet<_>>()
        };
        Self {
            collections: chosen
                .into_iter()
                .map(|pattern| if random.random_bool(0.4) { format!("!{pattern}") } else { pattern })
                .collect(),
            repos: random.random_bool(0.3).then(|| some(random, dids.len())).filter(|repos| !repos.is_empty()),
            excluded: if random.random_bool(0.3) { some(random, dids.len() / 2) } else { BTreeSet::new() },
        }
    }

    fn has_collection(&self, name: &str) -> bool {
        let fits = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
        let sorted = self.collections.iter().map(|rule| (rule.trim_start_matches('!'), !rule.starts_with('!')));
        let deciding = sorted
            .filter(|(pattern, _)| fits(pattern))
            .max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()));
        deciding.map_or_else(|| self.collections.iter().all(|rule| rule.starts_with('!')), |(_, is_kept)| is_kept)
    }

    fn has_repo(&self, did: &str) -> bool {
        !self.excluded.contains(did) && self.repos.as_ref().is_none_or(|repos| repos.contains(did))
    }

    /// Returns what is left of an event.
    fn of(&self, event: &Event) -> Option<(u64, Json)> {
        let mut data: Json = serde_json::from_slice(&event.data).unwrap();
        if event.rev.is_some() {
            if !self.has_repo(&event.did) {
                return None;
            }
            let ops = data["ops"].as_array_mut().unwrap();
            let all = ops.len();
            ops.retain(|op| self.has_collection(op["path"].as_str().unwrap().split_once('/').unwrap().0));
            if all > 0 && ops.is_empty() {
                return None;
            }
        }
        Some((event.seq, data))
    }
}

/// The files of a filter, as a ConfigMap has them: each version a folder of its own, behind one symbolic link.
struct Files {
    folder: PathBuf,
    version: u32,
}

impl Files {
    fn new(model: &Model) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("penstock-filtered-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut files = Self { folder, version: 0 };
        files.write(model);
        files
    }

    fn write(&mut self, model: &Model) {
        self.version += 1;
        let version = self.folder.join(format!("..{}", self.version));
        std::fs::create_dir(&version).unwrap();
        let lines = |dids: &BTreeSet<String>| dids.iter().map(|did| format!("{did}\n")).collect::<String>();
        let star = |text: String| if text.is_empty() { "*\n".to_owned() } else { text };
        std::fs::write(version.join("collections"), star(model.collections.join("\n"))).unwrap();
        std::fs::write(version.join("repos"), star(model.repos.as_ref().map(lines).unwrap_or_default())).unwrap();
        std::fs::write(version.join("excluded"), format!("# none of these\n{}", lines(&model.excluded))).unwrap();
        let link = self.folder.join("..new");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(link, self.folder.join("..data")).unwrap();
    }

    fn set(&self, rig: &mut Rig) {
        for (path, name) in
            [("filter.collections", "collections"), ("filter.repos", "repos"), ("filter.excludeRepos", "excluded")]
        {
            rig.set(path, &format!("@{}/..data/{name}", self.folder.display()));
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Rig {
    /// Returns what tells the rules beside the cursor from others.
    async fn epoch(&self) -> String {
        let summary = self.state("filter").await.map(|text| serde_json::from_str::<Summary>(&text).unwrap());
        summary.unwrap_or_default().epoch.as_str().to_owned()
    }

    /// Returns the rules that are configured now.
    fn configured(&self) -> String {
        filter_files::load(&load(&self.settings).filter).unwrap().epoch().as_str().to_owned()
    }

    /// Counts the ops in the stream from a number on; a commit that never had any is carried whatever the rules are.
    async fn ops_from(&self, first: u64) -> usize {
        let entries = self.entries().await;
        let ops = |data: &[u8]| serde_json::from_slice::<Json>(data).unwrap()["ops"].as_array().map_or(0, Vec::len);
        entries.iter().filter(|(.., seq)| *seq >= first).map(|(_, _, data, _)| ops(data)).sum()
    }

    async fn desynchronized(&self) -> BTreeSet<String> {
        let script = "return redis.call('ZRANGE', KEYS[1], 0, -1)";
        self.client.eval(script, vec![DESYNCHRONIZED], Vec::<String>::new()).await.unwrap()
    }
}

fn collections_of(events: &[Event]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for event in events.iter().filter(|event| event.rev.is_some()) {
        let data: Json = serde_json::from_slice(&event.data).unwrap();
        for op in data["ops"].as_array().unwrap() {
            names.insert(op["path"].as_str().unwrap().split_once('/').unwrap().0.to_owned());
        }
    }
    names.into_iter().collect()
}

/// Rules that change while events flow, ingest that dies and comes back: what the rules in force let through is there once, in order,
/// and nothing else. `PENSTOCK_CASES` sets how often they change.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_let_through_is_there_once_and_nothing_else() {
    let changes: usize = std::env::var("PENSTOCK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seed: u64 = std::env::var("PENSTOCK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("PENSTOCK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let total = 583 + changes * 60;
    let frames = frames(&replay(total as u64));
    let mut by_seq: BTreeMap<u64, Event> = BTreeMap::new();
    for event in events(&frames) {
        assert_eq!(event.missing, 0, "the recording has every block");
        by_seq.insert(event.seq, event);
    }
    let all: Vec<Event> = by_seq.values().cloned().collect();
    let collections = collections_of(&all);
    let dids: Vec<String> =
        all.iter().map(|event| event.did.to_string()).collect::<BTreeSet<_>>().into_iter().collect();
    let (relay, grow) = growing(frames).await;
    let mut rig = Rig::new(relay).await;
    let mut model = Model::random(&mut random, &collections, &dids);
    let mut files = Files::new(&model);
    files.set(&mut rig);
    let mut running = Some(rig.start());
    let (mut at, mut expected, mut crashes) = (0, Vec::new(), 0);
    let mut outside: BTreeSet<String> = BTreeSet::new();
    for change in 0..=changes {
        let until =
            if change == changes { total } else { at + random.random_range(1..(total - at) / (changes - change + 1)) };
        expected.extend((at as u64 + 1..=until as u64).filter_map(|seq| model.of(by_seq.get(&seq)?)));
        outside.extend(dids.iter().filter(|did| !model.has_repo(did)).cloned());
        grow.send_replace(until);
        if random.random_bool(0.5) {
            let goal = random.random_range(at as u64..=until as u64);
            eventually("some events", async || rig.cursor().await.is_some_and(|cursor| cursor >= goal) || goal == 0)
                .await;
            if let Some(running) = running.take() {
                running.crash().await;
                crashes += 1;
            }
            running = Some(rig.start());
        }
        rig.reaches(until as u64).await;
        eventually("the rules beside the cursor", async || rig.epoch().await == rig.configured()).await;
        if change < changes {
            model = Model::random(&mut random, &collections, &dids);
            if random.random_bool(0.3)
                && let Some(running) = running.take()
            {
                running.crash().await;
            }
            files.write(&model);
            // Not before the next event, but at once: a quiet host hides no change.
            match running {
                Some(_) => {
                    eventually("the new rules", async || rig.epoch().await == rig.configured()).await;
                }
                None => running = Some(rig.start()),
            }
        }
        at = until;
    }
    if let Some(running) = running {
        let left_out = running.metrics.encode().contains("penstock_ingest_filtered_total{rule=\"");
        println!("{crashes} crashes, left out by the last one: {left_out}");
        running.stop().await;
    }
    let found: Vec<(u64, Json)> =
        rig.entries().await.iter().map(|(_, _, data, seq)| (*seq, serde_json::from_slice(data).unwrap())).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    assert!(expected.len() < by_seq.len(), "something was left out");
    // A repo that was left out as a whole and is carried again lacks what it did meanwhile.
    for marked in rig.desynchronized().await {
        assert!(outside.contains(marked.split_once(' ').unwrap().0), "{marked}");
    }
}

async fn proved(relay: SocketAddr) -> (Rig, PgConnection) {
    let mut rig = Rig::new(relay).await;
    rig.set("relay.dataTimeout", "10m");
    rig.set("ingest.leaseTime", "5m");
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let mut postgres = rig.set_database(&url, TABLES).await;
    sqlx::raw_sql(REPOS).execute(&mut postgres).await.unwrap();
    let _: () = rig.client.set("firehose:incarnation", "here", None, None, false).await.unwrap();
    (rig, postgres)
}

/// Commits of which nothing is left make no entry, and yet what they follow and what follows them is known.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_left_out_are_links_of_the_chain_all_the_same() {
    let recording = Recording::new();
    for (lost, is_marked) in [(None, false), (Some(1), true)] {
        let frames = lost.map_or_else(|| recording.frames.clone(), |link| recording.without(link));
        let (mut rig, _postgres) = proved(scripted(vec![(frames, false)]).await.0).await;
        rig.set("filter.collections", "com.example.nothing");
        let running = rig.start();
        rig.reaches(583).await;
        let marked = rig.desynchronized().await;
        let expected = is_marked.then(|| format!("{} since", recording.did())).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(marked, expected);
        // Counted once the batch is acknowledged, which may be after the cursor has moved.
        eventually("the count", async || running.count("penstock_ingest_filtered_total{rule=\"unlisted\"}") > 500)
            .await;
        running.stop().await;
        assert!(!rig.entries().await.is_empty());
        assert_eq!(rig.ops_from(1).await, 0);
    }
}

/// After a restart PostgreSQL knows no commit that was left out: what follows one of those is no proof that something was missed.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_nothing_is_marked_for_what_was_left_out() {
    let recording = Recording::new();
    let [first, second, third] = &recording.links;
    let position = |of: &Event| {
        recording.frames.iter().position(|frame| events(std::slice::from_ref(frame)).first() == Some(of)).unwrap()
    };
    let cut = position(second) + 1;
    assert!(cut <= position(third));
    for (filter, is_marked) in [("!com.example.nothing", false), ("*", true)] {
        let scripts = vec![(recording.frames[..cut].to_vec(), false), (recording.frames[cut - 1..].to_vec(), false)];
        let (mut rig, mut postgres) = proved(scripted(scripts).await.0).await;
        rig.set("filter.collections", "com.example.nothing");
        let running = rig.start();
        rig.reaches(second.seq).await;
        running.crash().await;
        let _: u64 = rig.client.del("firehose:ingest:lease").await.unwrap();
        settle(&rig).await;
        // What the workers know: what came before the filter.
        let row = format!(
            "INSERT INTO penstock.repos (did, rev) VALUES ('{}', '{}')",
            first.did,
            first.rev.as_deref().unwrap()
        );
        sqlx::raw_sql(AssertSqlSafe(row)).execute(&mut postgres).await.unwrap();
        rig.settings.retain(|(path, _)| *path != "filter.collections");
        rig.set("filter.collections", filter);
        let running = rig.start();
        rig.reaches(583).await;
        // Once nothing is left out any more, that repo does lack something: it is to be healed.
        let count = running.count("penstock_ingest_desynchronized_total{reason=\"since\"}");
        assert_eq!(count > 0, is_marked, "{filter}: {count}");
        running.stop().await;
    }
}

/// Nobody heals a repo that is not wanted, and nobody is told of what is wrong with it.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_repo_that_is_left_out_only_its_identity_and_its_account_are_heard() {
    let recording = Recording::new();
    let frames = recording.without(1);
    for setting in ["filter.excludeRepos", "filter.repos"] {
        let others: BTreeSet<String> = events(&recording.frames).iter().map(|event| event.did.to_string()).collect();
        let others: Vec<String> = others.into_iter().filter(|did| did != recording.did()).collect();
        let (mut rig, _postgres) = proved(scripted(vec![(frames.clone(), false)]).await.0).await;
        rig.set(setting, &if setting == "filter.repos" { others.join(",") } else { recording.did().to_owned() });
        let running = rig.start();
        rig.reaches(583).await;
        running.stop().await;
        assert_eq!(rig.desynchronized().await, BTreeSet::new());
        let expected: Vec<(u64, String)> = events(&frames)
            .iter()
            .filter(|event| event.rev.is_none() || &*event.did != recording.did())
            .map(|event| (event.seq, event.kind.as_str().to_owned()))
            .collect();
        let found: Vec<_> = rig.entries().await.into_iter().map(|(_, kind, _, seq)| (seq, kind)).collect();
        assert_eq!(found, expected, "{setting}");
    }
}

/// A file that becomes wrong changes nothing: the rules before stay in force until it is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_leaves_the_rules_as_they_were() {
    let frames = frames(&replay(400));
    let (relay, grow) = growing(frames).await;
    let mut rig = Rig::new(relay).await;
    let mut files = Files::new(&Model { collections: vec!["com.example.nothing".to_owned()], ..Model::default() });
    files.set(&mut rig);
    let running = rig.start();
    grow.send_replace(200);
    rig.reaches(200).await;
    let before = rig.epoch().await;
    files.write(&Model { collections: vec!["likes".to_owned()], ..Model::default() });
    eventually("the error", async || running.count("penstock_ingest_filter_errors_total") == 1).await;
    grow.send_replace(300);
    rig.reaches(300).await;
    assert_eq!(rig.epoch().await, before);
    assert_eq!(rig.ops_from(1).await, 0);
    files.write(&Model::default());
    eventually("the new rules", async || rig.epoch().await != before).await;
    assert_eq!(running.count("penstock_ingest_filter_changes_total"), 1);
    grow.send_replace(400);
    rig.reaches(400).await;
    assert!(rig.ops_from(301).await > 0);
    running.stop().await;
    // At a start there are no rules before.
    files.write(&Model { collections: vec!["likes".to_owned()], ..Model::default() });
    let error = rig.start().task.await.unwrap().unwrap_err();
    assert!(penstock_core::causes::chain(&error).contains("rule \"likes\""), "{error}");
}

/// Whatever lets more in is a backfill of just that, once: with PostgreSQL away, with a crash right behind the change and one right
/// behind the registration. What lets less in, or the same, is none.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_wider_filter_lets_in_is_registered_once() {
    let frames = frames(&replay(400));
    let (relay, grow) = growing(frames).await;
    let mut rig = Rig::new(relay).await;
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let mut postgres = rig.set_database(&url, BACKFILLS).await;
    let of = |collections: &[&str], repos: Option<&[&str]>, excluded: &[&str]| {
        let set = |dids: &[&str]| dids.iter().map(|did| (*did).to_owned()).collect::<BTreeSet<_>>();
        Model {
            collections: collections.iter().map(|name| (*name).to_owned()).collect(),
            repos: repos.map(set),
            excluded: set(excluded),
        }
    };
    let (likes, posts) = ("app.bsky.feed.like", "app.bsky.feed.post");
    let collection = |name: &str| (name.to_owned(), serde_json::json!({"collection": name}));
    let repos = |dids: &[&str]| ("repos".to_owned(), serde_json::json!({"repos": dids}));
    let all = || ("all".to_owned(), serde_json::json!({"all": true}));
    let changes: Vec<(Model, Vec<(String, Json)>)> = vec![
        (of(&[posts], None, &["did:web:a", "did:web:b"]), vec![]),
        (of(&[posts, likes], None, &["did:web:b"]), vec![collection(likes), repos(&["did:web:a"])]),
        (of(&[posts], None, &["did:web:a", "did:web:b"]), vec![]),
        // The same again is another one: what came meanwhile is missing.
        (of(&[posts, likes], None, &["did:web:b"]), vec![collection(likes), repos(&["did:web:a"])]),
        (of(&[likes, posts], None, &["did:web:b"]), vec![]),
        (of(&["app.bsky.*"], None, &["did:web:b"]), vec![all()]),
        (of(&["app.bsky.*"], Some(&["did:web:a"]), &[]), vec![]),
        (of(&[], Some(&["did:web:a", "did:web:c"]), &[]), vec![repos(&["did:web:a", "did:web:c"])]),
    ];
    let mut files = Files::new(&changes[0].0);
    files.set(&mut rig);
    let mut running = rig.start();
    grow.send_replace(50);
    rig.reaches(50).await;
    assert_eq!(backfills(&mut postgres).await, []);
    let (mut at, mut expected) = (50, Vec::new());
    for (nth, (model, scopes)) in changes.iter().enumerate().skip(1) {
        let before = rig.epoch().await;
        if nth % 2 == 0 {
            sqlx::raw_sql("ALTER TABLE penstock.backfills RENAME TO away").execute(&mut postgres).await.unwrap();
        }
        files.write(model);
        if rig.configured() != before {
            eventually("the new rules", async || rig.epoch().await == rig.configured()).await;
        }
        if nth % 3 != 0 {
            running.crash().await;
            running = rig.start();
        }
        if nth % 2 == 0 {
            sqlx::raw_sql("ALTER TABLE penstock.away RENAME TO backfills").execute(&mut postgres).await.unwrap();
        }
        expected.extend(scopes.iter().map(|(what, scope)| (what.clone(), scope.clone())));
        eventually("it is registered", async || rig.state("owed").await.is_none()).await;
        running.crash().await;
        running = rig.start();
        at += 30;
        grow.send_replace(at);
        rig.reaches(at as u64).await;
        let found = backfills(&mut postgres).await;
        let epoch = rig.epoch().await;
        for one in &found {
            assert_eq!((one.reason.as_str(), one.since.as_deref()), ("filter", None), "{one:?}");
            assert_eq!(one.filter.as_ref(), Some(&epoch), "{one:?}: none is complete, all are of the rules in force");
        }
        let mut found: Vec<(String, Json)> = found.into_iter().map(|one| (one.what().to_owned(), one.scope)).collect();
        let key = |one: &(String, Json)| (one.0.clone(), one.1.to_string());
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected, "after change {nth}");
    }
    running.stop().await;
}

/// Without a database nothing is owed.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_a_wider_filter_is_only_told() {
    let (relay, grow) = growing(frames(&replay(100))).await;
    let mut rig = Rig::new(relay).await;
    let mut files = Files::new(&Model { collections: vec!["com.example.nothing".to_owned()], ..Model::default() });
    files.set(&mut rig);
    let running = rig.start();
    grow.send_replace(100);
    rig.reaches(100).await;
    files.write(&Model::default());
    eventually("the new rules", async || rig.epoch().await.is_empty()).await;
    assert_eq!(rig.state("owed").await, None);
    running.stop().await;
}
