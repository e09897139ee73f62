//! The promise: whatever the order, the redelivery and the number of workers, the database ends as if each repo's
//! events had been applied once and in order. The model shares no code with the statements.

use std::collections::{BTreeSet, HashMap};

use super::*;
use crate::store::ApplyError;

const REPOS: [&str; 4] = ["did:plc:a", "did:plc:b", "did:plc:c", "did:plc:d"];

/// The repos that a backfill fills.
const FILLED: [&str; 2] = ["did:plc:a", "did:plc:b"];

/// SplitMix64: the same histories for the same seed, wherever and whenever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn one_of<'x, T>(&mut self, all: &'x [T]) -> &'x T {
        &all[usize::try_from(self.roll(all.len() as u64)).unwrap()]
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for at in (1..all.len()).rev() {
            all.swap(at, usize::try_from(self.roll(at as u64 + 1)).unwrap());
        }
    }
}

/// Makes up a record, or what is left of one.
fn some_op(dice: &mut Dice, repo: &str) -> Op {
    let n = dice.roll(3);
    let other = *dice.one_of(&REPOS);
    let target = match dice.roll(5) {
        0 => format!("at://{other}/app.bsky.feed.generator/g"),
        1 => format!("at://{other}/app.bsky.labeler.service/self"),
        _ => post_uri(other, &format!("p{}", dice.roll(2))),
    };
    let subject = json!({"uri": target, "cid": "c"});
    let list = format!("at://{}/app.bsky.graph.list/l", dice.one_of(&[repo, other]));
    let text = format!("t{}", dice.roll(1000));
    let (path, record) = match dice.roll(16) {
        0 => (format!("app.bsky.feed.post/p{n}"), json!({"text": text})),
        1 => (format!("app.bsky.feed.post/p{n}"), json!({"text": text, "reply": {"parent": subject, "root": subject}})),
        2 => {
            let embed = json!({"$type": "app.bsky.embed.record", "record": subject});
            (format!("app.bsky.feed.post/p{n}"), json!({"text": text, "embed": embed}))
        }
        3..=5 => (format!("app.bsky.feed.like/l{n}"), json!({ "subject": subject })),
        6 => (format!("app.bsky.feed.repost/r{n}"), json!({ "subject": subject })),
        7 => (format!("app.bsky.bookmark/b{n}"), json!({ "subject": subject })),
        8 => (format!("app.bsky.graph.follow/f{n}"), json!({ "subject": other })),
        9 => (format!("app.bsky.graph.listitem/i{n}"), json!({"list": list, "subject": other})),
        10 => (format!("app.bsky.feed.threadgate/p{n}"), json!({"allow": []})),
        11 => (format!("app.bsky.feed.postgate/p{n}"), json!({})),
        12 => ("app.bsky.feed.generator/g".to_owned(), json!({"did": "did:web:g", "displayName": text})),
        13 => ("app.bsky.labeler.service/self".to_owned(), json!({"policies": {"t": text}})),
        14 => ("app.bsky.graph.verification/v".to_owned(), json!({"subject": other, "handle": "h"})),
        _ => ("app.bsky.actor.profile/self".to_owned(), json!({"displayName": text})),
    };
    match dice.roll(10) {
        0..=2 => delete(&path),
        3 => Op { record: None, ..put(&path, record) },
        _ => put(&path, record),
    }
}

/// Makes up what happens to all repos, in stream order: first commits without rev, later ones with.
fn history(dice: &mut Dice, length: u64) -> Vec<Entry> {
    let mut filled = BTreeSet::new();
    (1..=length)
        .map(|order| {
            let repo = *dice.one_of(&REPOS);
            let ops = (0..=dice.roll(4)).map(|_| some_op(dice, repo)).collect::<Vec<_>>();
            match dice.roll(20) {
                // A fill that overtakes a deletion before it finds what that deletion takes still standing: not both.
                0 if !FILLED.contains(&repo) => deleted(order, repo),
                1 => account(order, repo, true, None),
                2 => identity(order, repo, Some(&format!("h{order}.example"))),
                3 => identity(order, repo, None),
                // Two fills of one record have no order: none is made.
                4 | 5 if FILLED.contains(&repo) => {
                    let fresh = |op: &Op| filled.insert((repo, op.collection.clone(), op.rkey.clone()));
                    fill(order, repo, ops.into_iter().filter(fresh).collect())
                }
                _ if order < length / 3 => commit(order, repo, None, ops),
                _ => live(order, repo, ops),
            }
        })
        .collect()
}

/// A record of the model: how it ranks among those that want its place, and what it says.
#[derive(Clone, Debug)]
struct Record {
    live: bool,
    order: u64,
    value: Value,
}

/// One repo of the model.
#[derive(Default)]
struct Repo {
    records: BTreeMap<(String, String), Record>,
    /// What live entries said anything of since the account was last deleted.
    touched: BTreeSet<(String, String)>,
    handle: Option<String>,
    active: Option<bool>,
}

/// Applies each repo's events in order, the live ones before those that only fill.
fn fold(history: &[Entry]) -> BTreeMap<String, Repo> {
    let mut repos: BTreeMap<String, Repo> = BTreeMap::new();
    let mut gone: HashMap<String, u64> = HashMap::new();
    for entry in history {
        let repo = repos.entry(entry.event.did().to_owned()).or_default();
        match &entry.event {
            Event::Commit(commit) if entry.seq.is_some() => {
                for op in commit.ops.iter().filter(|op| op.action == Action::Delete || op.record.is_some()) {
                    let key = (op.collection.clone(), op.rkey.clone());
                    repo.touched.insert(key.clone());
                    match &op.record {
                        Some(value) => {
                            let record = Record { live: true, order: entry.order.ms, value: value.clone() };
                            repo.records.insert(key, record);
                        }
                        None => {
                            repo.records.remove(&key);
                        }
                    }
                }
            }
            Event::Commit(_) => {}
            Event::Identity(identity) => repo.handle = identity.handle.clone().or(repo.handle.take()),
            Event::Account(account) => {
                repo.active = Some(account.active);
                if account.status.is_some() {
                    repo.records.clear();
                    repo.touched.clear();
                    gone.insert(account.did.clone(), entry.order.ms);
                }
            }
        }
    }
    for entry in history.iter().filter(|entry| entry.seq.is_none()) {
        let Event::Commit(commit) = &entry.event else { continue };
        if gone.get(&commit.repo).is_some_and(|gone| entry.order.ms <= *gone) {
            continue;
        }
        let Some(repo) = repos.get_mut(&commit.repo) else { continue };
        for op in &commit.ops {
            let key = (op.collection.clone(), op.rkey.clone());
            if let (Some(value), false) = (&op.record, repo.touched.contains(&key)) {
                let record = Record { live: false, order: entry.order.ms, value: value.clone() };
                repo.records.insert(key, record);
            }
        }
    }
    repos
}

/// Who wants a place, the weakest first: live or filled, its order, its URI.
type Wanting = (bool, u64, String);

/// Says what the tables hold, as lines.
fn expected(repos: &BTreeMap<String, Repo>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut counts: BTreeMap<String, [u64; 5]> = BTreeMap::new();
    let mut likes: HashMap<String, u64> = HashMap::new();
    let mut places: BTreeMap<(String, String), Vec<Wanting>> = BTreeMap::new();
    for (did, repo) in repos {
        let handle = repo.handle.as_deref().unwrap_or("handle.invalid");
        let profile = repo.records.get(&("app.bsky.actor.profile".to_owned(), "self".to_owned()));
        let name = profile.map(|record| record.value["displayName"].as_str().unwrap());
        lines.insert(format!("user {did} {handle} {:?} {name:?}", repo.active));
        for ((collection, rkey), Record { live, order, value }) in &repo.records {
            let uri = format!("at://{did}/{collection}/{rkey}");
            let kind = collection.rsplit('.').next().unwrap();
            let subject = || value["subject"]["uri"].as_str().unwrap_or_default().to_owned();
            let place = match kind {
                "like" | "repost" | "bookmark" => subject(),
                "follow" => value["subject"].as_str().unwrap().to_owned(),
                "listitem" if value["list"].as_str().unwrap().contains(&format!("{did}/")) => {
                    format!("{} {}", value["list"], value["subject"])
                }
                "verification" => {
                    // The lowest URI is the greatest here.
                    let key = ("verification".to_owned(), value["subject"].as_str().unwrap().to_owned());
                    let turned: String = uri.bytes().map(|b| char::from(255 - b)).collect();
                    places.entry(key).or_default().push((true, 0, turned));
                    continue;
                }
                "post" => {
                    let gate = |kind: &str| repo.records.contains_key(&(format!("app.bsky.feed.{kind}"), rkey.clone()));
                    let (thread, post) = (gate("threadgate"), gate("postgate"));
                    lines.insert(format!("post {uri} {} {thread} {post}", value["text"]));
                    lines.insert(format!("shown {uri} {uri}"));
                    if let Some(parent) = value["reply"]["parent"]["uri"].as_str() {
                        counts.entry(parent.to_owned()).or_default()[2] += 1;
                    }
                    if let Some(quoted) = value["embed"]["record"]["uri"].as_str() {
                        lines.insert(format!("quote {uri}#quote {quoted}"));
                        counts.entry(quoted.to_owned()).or_default()[3] += 1;
                    }
                    continue;
                }
                "profile" => continue,
                _ => {
                    let shown = value.get("displayName").or(value["policies"].get("t")).unwrap_or(&Value::Null);
                    lines.insert(format!("other {uri} {shown}"));
                    continue;
                }
            };
            let key = (format!("{kind} {did}"), place);
            places.entry(key).or_default().push((*live, *order, uri));
        }
    }
    for ((kind, place), mut wanting) in places {
        wanting.sort();
        let (_, _, uri) = wanting.last().unwrap();
        let kind = kind.split(' ').next().unwrap();
        let uri = if kind == "verification" {
            uri.chars().map(|c| char::from(255 - u8::try_from(u32::from(c)).unwrap())).collect()
        } else {
            uri.clone()
        };
        lines.insert(format!("{kind} {uri} {place}"));
        let count = match kind {
            "like" => 0,
            "repost" => 1,
            "bookmark" => 4,
            _ => continue,
        };
        if kind == "repost" {
            lines.insert(format!("shown {uri} {place}"));
        }
        if kind == "like" {
            *likes.entry(place.clone()).or_default() += 1;
        }
        counts.entry(place).or_default()[count] += 1;
    }
    lines.extend(counts.into_iter().map(|(post, counts)| format!("counts {post} {counts:?}")));
    // Generators and labelers say how many like them.
    let liked: Vec<_> =
        lines.iter().filter(|line| line.contains(".generator/") || line.contains(".service/")).cloned().collect();
    for line in liked.iter().filter(|line| line.starts_with("other ")) {
        let uri = line.split(' ').nth(1).unwrap();
        lines.remove(line);
        lines.insert(format!("{line} {}", likes.get(uri).copied().unwrap_or_default()));
    }
    lines
}

const LINES: &str = "
SELECT format('user %s %s %s %s', did, handle,
    CASE WHEN active IS NULL THEN 'None' ELSE format('Some(%s)', active::text) END,
    CASE WHEN display_name IS NULL THEN 'None' ELSE format('Some(\"%s\")', display_name) END) AS line FROM users
UNION ALL SELECT format('post %s \"%s\" %s %s', uri, text, has_thread_gate::text, has_post_gate::text) FROM posts
UNION ALL SELECT format('shown %s %s', uri, post_uri) FROM feed_items
UNION ALL SELECT format('quote %s %s', uri, quoted_uri) FROM quotes
UNION ALL SELECT format('like %s %s', uri, post_uri) FROM likes
UNION ALL SELECT format('repost %s %s', uri, post_uri) FROM reposts
UNION ALL SELECT format('bookmark %s %s', uri, post_uri) FROM bookmarks
UNION ALL SELECT format('follow %s %s', uri, following_did) FROM follows
UNION ALL SELECT format('listitem %s \"%s\" \"%s\"', uri, list_uri, subject_did) FROM list_items
UNION ALL SELECT format('verification %s %s', uri, subject_did) FROM verifications
UNION ALL SELECT format('other %s null', replace(post_uri, '.post/', '.threadgate/')) FROM thread_gates
UNION ALL SELECT format('other %s null', replace(post_uri, '.post/', '.postgate/')) FROM post_gates
UNION ALL SELECT format('other %s \"%s\" %s', uri, display_name, like_count) FROM feed_generators
UNION ALL SELECT format('other %s %s %s', uri, policies->'t', like_count) FROM labeler_services
UNION ALL SELECT format('other %s null', uri) FROM generic_records
UNION ALL SELECT format('counts %s [%s, %s, %s, %s, %s]', post_uri, like_count, repost_count, reply_count, quote_count,
    bookmark_count) FROM post_aggregations";

/// Deals a history to workers: duplicated, shuffled, cut into batches.
fn deal(dice: &mut Dice, history: &[Entry], workers: usize) -> Vec<Vec<Vec<Entry>>> {
    let mut entries = history.to_vec();
    let again = entries.iter().filter(|_| dice.roll(3) == 0).cloned().collect::<Vec<_>>();
    entries.extend(again);
    // Now and then the stream is nearly in order, as it is in life.
    if dice.roll(3) == 0 {
        entries.sort_by_key(|entry| entry.order);
        for chunk in entries.chunks_mut(6) {
            dice.shuffle(chunk);
        }
    } else {
        dice.shuffle(&mut entries);
    }
    let mut hands = vec![Vec::new(); workers];
    while !entries.is_empty() {
        let size = usize::try_from(1 + dice.roll(12)).unwrap().min(entries.len());
        let at = usize::try_from(dice.roll(workers as u64)).unwrap();
        hands[at].push(entries.drain(..size).collect());
    }
    hands
}

async fn work(store: Store, name: String, batches: Vec<Vec<Entry>>) {
    for (at, batch) in batches.into_iter().enumerate() {
        loop {
            match store.apply(&name, &batch).await {
                Ok(applied) => {
                    assert_eq!(applied.rejected, []);
                    break;
                }
                Err(ApplyError::Retry { reason: "deadlock" | "race", .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        if at % 5 == 4 {
            match store.sweep_deleted(&name, 3).await {
                Ok(_) | Err(ApplyError::Retry { reason: "deadlock" | "race", .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_deal_of_a_history_ends_as_its_events_in_order() {
    for seed in 1..=6 {
        let mut dice = Dice(seed);
        let history = history(&mut dice, 150);
        let expected = expected(&fold(&history));
        let mut states = Vec::new();
        for workers in [1, 3] {
            let db = Db::new().await;
            let mut tasks = tokio::task::JoinSet::new();
            for (at, batches) in deal(&mut dice, &history, workers).into_iter().enumerate() {
                tasks.spawn(work(db.store.clone(), format!("w{at}"), batches));
            }
            tasks.join_all().await;
            db.sweep().await;
            let found = db.rows(LINES).await;
            let found: BTreeSet<_> = found.iter().map(|row| row["line"].as_str().unwrap().to_owned()).collect();
            let more: Vec<_> = found.difference(&expected).collect();
            let less: Vec<_> = expected.difference(&found).collect();
            assert!(more.is_empty() && less.is_empty(), "seed {seed}, {workers} workers: {more:#?} {less:#?}");
            tables_match_totals(&db).await;
            states.push(db.state().await);
        }
        let [one, many] = &states[..] else { panic!("two states") };
        for (table, rows) in one {
            assert_eq!(rows, &many[table], "seed {seed}: {table}");
        }
    }
}

async fn tables_match_totals(db: &Db) {
    let totals = db.totals().await;
    for field in ["users", "posts", "likes", "reposts", "follows", "blocks", "feed_items", "post_aggregations"] {
        let rows = db.rows(&format!("SELECT 1 AS one FROM {field}")).await.len();
        assert_eq!(totals.get(field).copied().unwrap_or_default(), i64::try_from(rows).unwrap(), "{field}");
    }
}
