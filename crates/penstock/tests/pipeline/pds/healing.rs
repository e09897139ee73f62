//! Frames that never come, and rows that somebody deleted, altered and added: what healers make of it, and what audits name.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::faults::from_env;
use crate::model::{self, Tables};
use crate::rig::{Rig, eventually};

use super::records;
use super::stage::Stage;
use super::world::{Account, World};

/// By which event a row was written last is not the same where a snapshot wrote it.
const OF_THE_EVENT: [&str; 4] = ["commit_rev", "commit_seq", "commit_time", "entry_id"];

/// What a post's row says of its gates and its thread, which are records of their own: those are named.
const OF_OTHERS: [&str; 4] = ["has_thread_gate", "has_post_gate", "violates_thread_gate", "violates_embedding_rules"];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_or_spoilt_is_named_and_healed() {
    Box::pin(heals(10, 20, rand::random())).await;
}

/// `make pds`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; make pds runs it"]
async fn healing_suite() {
    Box::pin(heals(200, 400, from_env("SEED", rand::random::<u32>().into()))).await;
}

/// Has so many accounts write, withholds some of it, spoils about so many rows, and has all of it healed.
async fn heals(repos: usize, spoilt: usize, seed: u64) {
    println!("seed {seed}, {repos} repos");
    let Some(world) = World::start(1).await else { return };
    let mut random = StdRng::seed_from_u64(seed);
    // One pipeline reads the server itself and misses nothing; the other one reads a relay that loses frames.
    let whole = Stage::enforcing(&world).await.directly(&world.addresses.servers[0]);
    let mut lossy = Stage::enforcing(&world).await;
    for (name, value) in [("PENSTOCK_HEAL_HOST_RATE", "1000"), ("PENSTOCK_HEAL_OF_HOST", "8")] {
        lossy.set(name, value);
    }
    let services = [whole.ingest(), whole.worker("w-1"), lossy.ingest(), lossy.worker("w-1")];
    let mut people = Vec::new();
    let mut posts = Vec::new();
    for number in 0..repos {
        let account = world.account(0, &format!("person{number}")).await;
        posts.push(world.post(&account, "first").await);
        people.push(account);
    }
    world.tell("lose", json!({"chance": 0.3, "seed": random.random::<u32>()})).await;
    for (number, account) in people.iter().enumerate() {
        let (other, post) = (&people[(number + 1) % repos], posts.choose(&mut random).unwrap());
        records::of_every_kind(&world, account, other, post).await;
        of_further_kinds(&world, account, other, post).await;
    }
    let lost = world.tell("lose", json!({"chance": 0, "seed": 0})).await["lost"].as_u64().unwrap();
    assert!(lost > 0, "no frame was lost");
    // What comes after a hole shows it, but for those who say nothing more.
    for account in people.sample(&mut random, repos / 2) {
        world.post(account, "last").await;
    }
    let end = world.tell("relayed", json!({})).await["ends"][0].as_u64().unwrap();
    whole.rig.ingested(end).await;
    whole.rig.settled().await;
    lossy.caught_up(&world).await;
    whole.assert_nothing_failed().await;

    let miscounted = spoil(&lossy.rig, &people, spoilt, &mut random).await;
    let (expected, found) = (comparable(whole.rig.tables().await), comparable(lossy.rig.tables().await));
    let mut wrong = wrong_paths(&expected, &found);
    assert!(wrong.len() > spoilt / 2, "{} rows are wrong", wrong.len());
    let missing = expected["generic_records"].keys().find(|uri| !found["generic_records"].contains_key(*uri));
    let missing = look(&lossy.rig, missing.unwrap()).await;
    assert_ne!(missing["answer"]["good"], true, "{missing}");
    assert_eq!(missing["host"]["found"]["record"]["exists"], true, "{missing}");

    wrong.extend(miscounted);
    let (code, named) = audit(&lossy.rig, &["--repair"]).await;
    assert_eq!(code, Some(1));
    let unnamed: Vec<_> = wrong.difference(&named).collect();
    assert!(
        unnamed.is_empty(),
        "seed {seed}: {} of {} wrong rows are not named: {unnamed:#?}",
        unnamed.len(),
        wrong.len()
    );

    let healer = lossy.rig.start(&["heal"]);
    eventually("every repair is done", async || lossy.rig.count("penstock.repairs").await == 0).await;
    lossy.rig.settled().await;
    let found = comparable(lossy.rig.tables().await);
    let differences = model::differences(&expected, &found);
    assert!(differences.is_empty(), "seed {seed}: after healing\n{differences}");
    for account in &people {
        records::assert_rows_are_those_of(&world, &lossy.rig, account).await;
    }
    assert_eq!(audit(&lossy.rig, &[]).await, (Some(0), BTreeSet::new()), "seed {seed}: an audit after healing");
    let there = look(&lossy.rig, &format!("at://{}/app.bsky.feed.post/{}", people[0].did, key_of(&posts[0]))).await;
    assert_eq!((&there["answer"]["word"], &there["answer"]["good"]), (&json!("stored"), &json!(true)), "{there}");
    assert_eq!(there["host"]["found"]["record"]["exists"], true, "{there}");
    let none = look(&lossy.rig, &format!("at://{}/app.bsky.feed.post/none", people[0].did)).await;
    assert_eq!(none["answer"]["word"], "notAtHost", "{none}");
    let repo = look(&lossy.rig, &people[0].did).await;
    assert_eq!(repo["answer"]["word"], "inStep", "{repo}");
    lossy.assert_nothing_failed().await;
    healer.stop().await;
    for service in services {
        service.stop().await;
    }
}

fn key_of(uri: &str) -> &str {
    uri.rsplit('/').next().unwrap()
}

/// Writes a record of each kind that [`records::of_every_kind`] has not.
async fn of_further_kinds(world: &World, account: &Account, other: &Account, post: &str) {
    let cid = world.tell("latest_commit", json!({"did": other.did})).await["cid"].clone();
    let subject = json!({"uri": post, "cid": cid});
    let put = async |collection: &str, rkey: &str, mut record: Value| {
        record["$type"] = collection.into();
        record["createdAt"] = "2026-07-04T14:38:08.000Z".into();
        let put = json!({"did": account.did, "collection": collection, "rkey": rkey, "record": record});
        world.tell("put_record", put).await;
    };
    put("app.bsky.actor.profile", "self", json!({"displayName": account.handle, "description": "of the tests"})).await;
    let purpose = "app.bsky.graph.defs#curatelist";
    let list = json!({"$type": "app.bsky.graph.list", "name": "others", "purpose": purpose});
    let list = world.record(account, list).await;
    let own = world.post(account, "with gates").await;
    let reply = json!({"root": subject, "parent": subject});
    let quote = json!({"$type": "app.bsky.embed.record", "record": subject});
    for record in [
        json!({"$type": "app.bsky.graph.listitem", "subject": other.did, "list": list}),
        json!({"$type": "app.bsky.graph.listblock", "subject": list}),
        json!({"$type": "app.bsky.graph.block", "subject": other.did}),
        json!({"$type": "app.bsky.graph.starterpack", "name": "all", "list": list}),
        json!({"$type": "app.bsky.feed.generator", "did": "did:web:feeds.test", "displayName": "A feed"}),
        json!({"$type": "app.bsky.feed.post", "text": "an answer", "reply": reply}),
        json!({"$type": "app.bsky.feed.post", "text": "a quote", "embed": quote}),
    ] {
        world.record(account, record).await;
    }
    put("app.bsky.feed.threadgate", key_of(&own), json!({"post": own, "allow": []})).await;
    let rules = json!([{"$type": "app.bsky.feed.postgate#disableRule"}]);
    put("app.bsky.feed.postgate", key_of(&own), json!({"post": own, "embeddingRules": rules})).await;
    put("app.bsky.labeler.service", "self", json!({"policies": {"labelValues": ["spam"]}})).await;
}

/// Deletes, alters and adds rows by hand, and makes counts wrong; returns the posts whose counts are.
async fn spoil(rig: &Rig, people: &[Account], spoilt: usize, random: &mut StdRng) -> Vec<(String, String)> {
    let mut miscounted = Vec::new();
    let execute = async |statement: String| {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&rig.pool).await.unwrap();
    };
    let mut uris: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in ["posts", "likes", "follows", "generic_records", "lists", "blocks"] {
        let found = format!("SELECT uri FROM {table} ORDER BY uri");
        let mut found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(found)).fetch_all(&rig.pool).await.unwrap();
        found.shuffle(random);
        uris.insert(table, found);
    }
    for number in 0..spoilt {
        let mut take = |table: &str| uris.get_mut(table).unwrap().pop();
        let owner = &people.choose(random).unwrap().did;
        // Older than anything, as another program might leave it.
        let (rev, seq) = ("2222222222223", "0000000000001-000000:1");
        match number % 8 {
            0 => {
                let table =
                    *["posts", "likes", "follows", "generic_records", "lists", "blocks"].choose(random).unwrap();
                if let Some(uri) = take(table) {
                    execute(format!("DELETE FROM {table} WHERE uri = '{uri}'")).await;
                }
            }
            1 => {
                if let Some(uri) = take("posts") {
                    execute(format!("UPDATE posts SET text = 'by hand' WHERE uri = '{uri}'")).await;
                }
            }
            2 => {
                if let Some(uri) = take("generic_records") {
                    execute(format!(
                        "UPDATE generic_records SET record = record || '{{\"by\": \"hand\"}}' WHERE uri = '{uri}'"
                    ))
                    .await;
                }
            }
            3 => {
                if let Some(uri) = take("lists") {
                    execute(format!("UPDATE lists SET name = 'by hand' WHERE uri = '{uri}'")).await;
                }
            }
            4 => {
                execute(format!(
                    "INSERT INTO posts (uri, cid, author_did, text, created_at, commit_rev, commit_seq) \
                     VALUES ('at://{owner}/app.bsky.feed.post/hand{number}', 'bafy', '{owner}', 'x', now(), '{rev}', '{seq}')"
                ))
                .await;
            }
            5 => {
                execute(format!(
                    "INSERT INTO follows (uri, follower_did, following_did, created_at, commit_rev, commit_seq) \
                     VALUES ('at://{owner}/app.bsky.graph.follow/hand{number}', '{owner}', 'did:plc:hand{number}', now(), '{rev}', '{seq}')"
                ))
                .await;
            }
            6 => {
                let uri = format!("at://{owner}/com.example.note/hand{number}");
                execute(format!(
                    "INSERT INTO generic_records (uri, cid, author_did, record_type, record, created_at) \
                     VALUES ('{uri}', 'bafy', '{owner}', 'com.example.note', '{{}}', now()); \
                     INSERT INTO penstock.stamps (uri, commit_rev, entry_id) VALUES ('{uri}', '{rev}', '{seq}')"
                ))
                .await;
            }
            _ => {
                if let Some(uri) = take("posts") {
                    execute(format!(
                        "INSERT INTO post_aggregations (post_uri, like_count) VALUES ('{uri}', 7) \
                         ON CONFLICT (post_uri) DO UPDATE SET like_count = post_aggregations.like_count + 7"
                    ))
                    .await;
                    miscounted.push(parts(&uri));
                }
            }
        }
    }
    miscounted
}

/// The account and the path of a URI.
fn parts(uri: &str) -> (String, String) {
    let (did, path) = uri.strip_prefix("at://").and_then(|rest| rest.split_once('/')).unwrap();
    (did.to_owned(), path.to_owned())
}

/// The tables without what tells by which event a row was written.
fn comparable(mut tables: Tables) -> Tables {
    for row in tables.values_mut().flat_map(BTreeMap::values_mut) {
        row.as_object_mut().unwrap().retain(|column, _| !OF_THE_EVENT.contains(&column.as_str()));
    }
    tables
}

/// Whose record, and at which path, each row is of that differs.
fn wrong_paths(expected: &Tables, found: &Tables) -> BTreeSet<(String, String)> {
    let mut wrong = BTreeSet::new();
    for (table, expected) in expected {
        // Rows that follow from others: those are named.
        if ["users", "feed_items", "quotes", "post_aggregations", "penstock.waiting_counts"].contains(table) {
            continue;
        }
        let found = &found[table];
        let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let own = |row: Option<&Value>| {
            let mut row = row.cloned();
            if let Some(row) = row.as_mut().and_then(Value::as_object_mut) {
                row.retain(|column, _| !OF_OTHERS.contains(&column.as_str()));
            }
            row
        };
        for key in keys.into_iter().filter(|key| own(expected.get(*key)) != own(found.get(*key))) {
            let (did, path) = parts(key);
            let gate = ["threadgate", "postgate"]
                .into_iter()
                .find(|gate| table.starts_with(&gate[..4]) && table.ends_with("gates"));
            let path = match gate {
                Some(gate) => path.replacen("post/", &format!("{gate}/"), 1),
                None => path,
            };
            wrong.insert((did, path));
        }
    }
    wrong
}

/// Audits every repo; returns the exit code, and whose records at which paths it names.
async fn audit(rig: &Rig, more: &[&str]) -> (Option<i32>, BTreeSet<(String, String)>) {
    let done = rig.run(&[&["audit", "--all", "--output", "json"][..], more].concat()).await;
    let text = String::from_utf8(done.stdout).unwrap();
    let mut named = BTreeSet::new();
    for line in text.lines() {
        let repo: Value = serde_json::from_str(line).unwrap();
        assert!(repo["error"].is_null(), "{line}");
        for one in repo["differences"].as_array().unwrap() {
            named.insert((repo["did"].as_str().unwrap().to_owned(), one["path"].as_str().unwrap().to_owned()));
        }
    }
    (done.status.code(), named)
}

/// Looks up a record or an account.
async fn look(rig: &Rig, asked: &str) -> Value {
    let done = rig.run(&["repo", asked, "--output", "json"]).await;
    serde_json::from_slice(&done.stdout).unwrap()
}
