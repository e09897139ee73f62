//! A replay that signs: what it serves proves true with the keys of the documents that it serves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use bytes::Bytes;
use penstock_replay::{Rate, Settings, Signing, account_key, frames};
use penstock_wire::{EMPTY_TREE, Frame, Key, Limits, decode as decode_frame};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::checker::{Event, decode, signed};
use crate::client::{PATIENCE, start, take};

const LENGTH: u64 = 583;
const LOOPS: u64 = 3;

fn signing() -> Settings {
    Settings { total: Some(LOOPS * LENGTH), signing: Some(Signing::Both), directory: true, ..Settings::default() }
}

/// Asks the relay; returns the status and the body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn json(address: SocketAddr, path: &str) -> Value {
    let (status, body) = get(address, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn key(document: &Value) -> Key {
    let method = &document["verificationMethod"][0];
    assert_eq!(method["controller"], document["id"]);
    Key::from_method(method["type"].as_str().unwrap(), method["publicKeyMultibase"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_of_three_loops_is_signed_by_the_key_of_its_document() {
    let relay = start(signing()).await;
    let mut client = relay.subscribe("?cursor=0").await;
    let served = take(&mut client, (LOOPS * LENGTH) as usize).await;
    assert!(served.iter().eq(frames(&signing()).unwrap().collect::<Vec<Bytes>>().iter()));

    let mut keys: HashMap<String, Key> = HashMap::new();
    let mut verified = 0;
    for event in served.iter().map(|frame| decode(frame)) {
        event.assert_whole();
        let did = event.did();
        if !keys.contains_key(&did) {
            let document = json(relay.address, &format!("/{did}")).await;
            assert_eq!(document["id"], did.as_str());
            assert_eq!(document["service"][0]["serviceEndpoint"], format!("http://{}", relay.address));
            keys.insert(did.clone(), key(&document));
        }
        if let Some((unsigned, signature)) = signed(&event) {
            assert_eq!(keys[&did].verify(&unsigned, &signature), Ok(()), "seq {}", event.seq());
            verified += 1;
        }
    }
    assert_eq!(verified, LOOPS * (493 + 23));
    assert_eq!(keys.len(), LOOPS as usize * 19);
    let curves = keys.values().filter(|key| key.to_bytes()[0] == 0xe7).count();
    assert!((1..keys.len()).contains(&curves), "both curves");
}

/// What the library that ingest verifies with makes of it: inversion, signature and chain, in one.
#[test]
fn every_commit_of_three_loops_proves_true_and_follows() {
    let limits = Limits { proof: true, ..Limits::default() };
    let key = |did: &str| Key::from_multikey(&account_key(did, Signing::Both)).unwrap();
    // Of each repo the rev and the tree's root after its last event.
    let mut last: HashMap<Box<str>, (u64, [u8; 32])> = HashMap::new();
    let (mut commits, mut syncs) = (0, 0);
    for frame in frames(&signing()).unwrap() {
        let (did, proof, is_commit) = match decode_frame(&frame, &limits).unwrap() {
            Frame::Event(event) if event.proof.is_some() => (event.did, event.proof.unwrap(), true),
            Frame::Sync(sync) => (sync.did, sync.proof.unwrap(), false),
            _ => continue,
        };
        // A `#sync` has no state before it.
        assert_eq!((&proof.fault, proof.prev_data.is_some()), (&None, is_commit), "{did}");
        let before = last.insert(did.clone(), (proof.rev, proof.data));
        if is_commit {
            let tree = before.map_or(EMPTY_TREE, |(_, tree)| tree);
            assert_eq!((proof.since, proof.prev_data), (before.map(|(rev, _)| rev), Some(tree)), "{did}");
            commits += 1;
        } else {
            syncs += 1;
        }
        assert_eq!(proof.signed.verify(&key(&did)), Ok(()), "{did}");
    }
    assert_eq!((commits, syncs), (LOOPS * 493, LOOPS * 23));
}

#[test]
fn commits_follow_each_other_in_every_loop() {
    let mut last: HashMap<String, Event> = HashMap::new();
    let mut followed = 0;
    for event in frames(&signing()).unwrap().map(|frame| decode(&frame)) {
        if event.kind == "#commit"
            && let Some(before) = last.get(&event.did())
        {
            assert_eq!(event.since(), before.rev(), "seq {}", event.seq());
            assert_eq!(event.prev_data(), before.tree(), "seq {}", event.seq());
            followed += 1;
        }
        if event.rev().is_some() {
            last.insert(event.did(), event);
        }
    }
    assert_eq!(followed, LOOPS * (493 - 19));
}

#[test]
fn signing_changes_only_signatures_and_the_cids_of_commits() {
    let plain = frames(&Settings { total: Some(LENGTH), ..Settings::default() }).unwrap();
    for (plain, again) in plain.zip(frames(&signing()).unwrap()) {
        let (plain, again) = (decode(&plain), decode(&again));
        assert_eq!((plain.seq(), plain.time(), plain.rev()), (again.seq(), again.time(), again.rev()));
        assert_eq!(plain.tree(), again.tree());
        match (signed(&plain), signed(&again)) {
            (Some((plain, recorded)), Some((again, ours))) => {
                assert_eq!(plain, again);
                assert_ne!(recorded, ours);
            }
            (None, None) => {}
            _ => panic!("a commit came or went"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_knows_what_has_become_live_and_no_more() {
    // Event 519 of each loop tells the third account's new handle; the clock stands still for a test's time.
    let rate = Rate::PerSecond(NonZeroU32::new(1).unwrap());
    let at = |backlog| Settings { rate, backlog, total: None, ..signing() };
    let dids: Vec<String> = frames(&signing()).unwrap().map(|frame| decode(&frame).did()).collect();
    let (second, last) = (&dids[LENGTH as usize + 4], &dids[2 * LENGTH as usize - 3]);

    let early = start(at(LENGTH + 100)).await;
    let document = json(early.address, &format!("/{second}")).await;
    assert_eq!(document["alsoKnownAs"], serde_json::json!(["at://l1.user2-s3.test"]));
    let (status, body) = get(early.address, &format!("/{last}")).await;
    assert_eq!((status, body), (404, format!(r#"{{"message":"DID not registered: {last}"}}"#)));
    assert_eq!(get(early.address, "/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").await.0, 404);
    assert_eq!(json(early.address, &format!("/{second}/log")).await.as_array().unwrap().len(), 1);

    let late = start(at(2 * LENGTH)).await;
    let document = json(late.address, &format!("/{}", second.replace(':', "%3A"))).await;
    assert_eq!(document["alsoKnownAs"], serde_json::json!(["at://l1.new2-s3.test"]));
    let data = json(late.address, &format!("/{second}/data")).await;
    assert_eq!(data["verificationMethods"]["atproto"], format!("did:key:{}", key(&document)));
    assert_eq!(data["did"], second.as_str());
    let log = json(late.address, &format!("/{second}/log")).await;
    assert_eq!(log.as_array().unwrap().len(), 2);
    assert_eq!(json(late.address, &format!("/{second}/log/last")).await, log[1]);
    let audit = json(late.address, &format!("/{second}/log/audit")).await;
    assert_eq!((&audit[0]["operation"]["prev"], &audit[1]["operation"]["prev"]), (&Value::Null, &audit[0]["cid"]));

    late.handle.bury(second);
    for path in ["", "/data", "/log", "/log/last"] {
        let (status, body) = get(late.address, &format!("/{second}{path}")).await;
        assert_eq!((status, body), (410, format!(r#"{{"message":"DID not available: {second}"}}"#)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_paged_by_time_or_number_without_losing_or_repeating_any() {
    let relay = start(signing()).await;
    let mut whole: Vec<(String, String)> = Vec::new();
    for by_number in [false, true] {
        let mut after = if by_number { "0".to_owned() } else { String::new() };
        let mut seen: Vec<(String, String)> = Vec::new();
        loop {
            let query = if after.is_empty() { String::new() } else { format!("&after={after}") };
            let (status, body) = get(relay.address, &format!("/export?count=7{query}")).await;
            assert_eq!(status, 200, "{body}");
            let page: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(page.len() <= 7);
            let Some(last) = page.last() else { break };
            after = if by_number { last["seq"].to_string() } else { last["createdAt"].as_str().unwrap().to_owned() };
            for operation in &page {
                assert_eq!(operation.get("nullified").is_some(), !by_number);
                let text = |field: &str| operation[field].as_str().unwrap().to_owned();
                seen.push((text("did"), text("createdAt")));
            }
        }
        assert!(seen.is_sorted_by_key(|(_, time)| time.clone()));
        assert_eq!(seen.len() as u64, LOOPS * (19 + 7), "an operation for each account, and for each new handle");
        if by_number {
            assert_eq!(seen, whole);
        }
        whole = seen;
    }
    for query in ["count=0", "count=x", "after=yesterday"] {
        assert_eq!(get(relay.address, &format!("/export?{query}")).await.0, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_tells_the_state_that_the_events_told() {
    let relay = start(signing()).await;
    let events: Vec<Event> = frames(&signing()).unwrap().map(|frame| decode(&frame)).collect();
    let status = async |did: &str| get(relay.address, &format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}")).await;
    let last = &events[LENGTH as usize..2 * LENGTH as usize];

    let active = last[4].did();
    let rev = last.iter().filter(|event| event.did() == active).filter_map(Event::rev).next_back().unwrap();
    let (code, body) = status(&active).await;
    let expected = serde_json::json!({ "did": active, "active": true, "rev": rev });
    assert_eq!((code, serde_json::from_str::<Value>(&body).unwrap()), (200, expected));

    for unknown in [&last[581].did(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"] {
        let (code, body) = status(unknown).await;
        let error = &serde_json::from_str::<Value>(&body).unwrap()["error"];
        assert_eq!((code, error.as_str()), (400, Some("RepoNotFound")), "{unknown}");
    }
    assert_eq!(get(relay.address, "/xrpc/com.atproto.sync.getRepoStatus").await.0, 400);

    // At 526 the account is deactivated, and not yet active again.
    let rate = Rate::PerSecond(NonZeroU32::new(1).unwrap());
    let early = start(Settings { rate, backlog: 526, total: None, start_seq: Some(7), ..signing() }).await;
    let did = events[525].did();
    let body = get(early.address, &format!("/xrpc/com.atproto.sync.getRepoStatus?did={did}")).await.1;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told, serde_json::json!({ "did": did, "active": false, "status": "deactivated" }));
}

#[tokio::test]
async fn a_relay_that_is_no_directory_answers_as_before() {
    let relay = start(Settings { total: Some(1), ..Settings::default() }).await;
    for path in ["/export", "/did:plc:c47os3qgjghgkayigu7ddcft", "/xrpc/com.atproto.sync.getRepoStatus?did=x"] {
        assert_eq!(get(relay.address, path).await.0, 404, "{path}");
    }
    let refused = frames(&Settings { directory: true, ..Settings::default() }).unwrap_err();
    assert!(refused.to_string().starts_with("directory is true; allowed: "), "{refused}");
}
