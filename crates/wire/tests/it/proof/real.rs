//! Commits of real servers, as they came and tampered with.

use std::collections::BTreeMap;

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use penstock_wire::{Frame, Key, Limits, decode, is_future};
use serde_json::Value as Json;

use super::{PROVED, proof, word};
use crate::crafted::{cid_of, encode, frame_of, map, section, text};
use crate::fixtures::{frames, sets, shared};

/// The commits of the relay's recording and the keys of their accounts.
fn signed() -> Vec<(Vec<u8>, Key)> {
    let (Some(recorded), Some(docs)) = (shared("bsky-2026-07-04/frames.bin"), shared("bsky-2026-07-04/did_docs.json"))
    else {
        println!("skipped: the fixtures beside the checkout are absent (bsky-2026-07-04)");
        return Vec::new();
    };
    let docs: BTreeMap<String, Json> = serde_json::from_slice(&docs).unwrap();
    let key = |did: &str| {
        let methods = docs[did]["verificationMethod"].as_array().unwrap();
        let method = methods.iter().find(|method| method["id"].as_str().unwrap().ends_with("#atproto")).unwrap();
        Key::from_method(method["type"].as_str().unwrap(), method["publicKeyMultibase"].as_str().unwrap()).unwrap()
    };
    let frames = frames(&recorded).into_iter();
    let commits = frames.filter_map(|frame| match decode(&frame, &PROVED()) {
        Ok(Frame::Event(event)) if event.proof.is_some() => Some((key(&event.did), frame)),
        _ => None,
    });
    commits.map(|(key, frame)| (frame, key)).collect()
}

#[test]
fn real_commits_hold_with_their_signatures() {
    let signed = signed();
    for (frame, key) in &signed {
        let proof = proof(frame);
        assert_eq!(word(frame), "", "{:?}", proof.fault);
        assert_eq!(proof.signed.verify(key), Ok(()));
        assert!(!is_future(proof.rev, "2026-07-04T14:40:00Z".parse().unwrap()));
        assert!(proof.since.is_some_and(|since| since < proof.rev));
    }
    assert!(signed.is_empty() || signed.len() == 148, "{} commits", signed.len());
}

#[test]
fn every_recorded_commit_holds() {
    let mut words = BTreeMap::<(&str, &str), usize>::new();
    for (set, frames) in sets() {
        for frame in frames {
            match decode(&frame, &PROVED()) {
                Ok(Frame::Event(event)) if event.proof.is_some() => {
                    *words.entry((set, word(&frame))).or_default() += 1;
                    let fault = event.proof.and_then(|proof| proof.fault);
                    if let Some(fault) = fault {
                        println!("{set} {}: {fault}", event.seq);
                    }
                }
                Ok(Frame::Sync(sync)) => assert_eq!(sync.proof.unwrap().fault, None),
                _ => {}
            }
        }
    }
    println!("{words:?}");
    assert!(words.keys().all(|(_, word)| word.is_empty()), "{words:?}");
    assert_eq!(words[&("pds", "")], 493);
}

#[test]
fn nothing_is_proved_where_nobody_asks() {
    for (_, frames) in sets() {
        for frame in frames {
            match decode(&frame, &Limits::default()) {
                Ok(Frame::Event(event)) => assert_eq!(event.proof, None),
                Ok(Frame::Sync(sync)) => assert_eq!(sync.proof, None),
                _ => {}
            }
        }
    }
}

/// A frame taken apart.
#[derive(Clone)]
struct Parts {
    body: BTreeMap<String, Ipld>,
    blocks: Vec<(Cid, Vec<u8>)>,
}

impl Parts {
    fn of(frame: &[u8]) -> Self {
        let mut rest = frame;
        let _: Ipld = take(&mut rest);
        let Ipld::Map(body) = take(&mut rest) else { panic!("no map") };
        let Ipld::Bytes(car) = &body["blocks"] else { panic!("no bytes") };
        let mut car = &car[..];
        let mut blocks = Vec::new();
        take_section(&mut car);
        while !car.is_empty() {
            let (cid, block) = take_section(&mut car).split_at(36);
            blocks.push((Cid::try_from(cid).unwrap(), block.to_vec()));
        }
        Self { body, blocks }
    }

    fn frame(&self) -> Vec<u8> {
        let roots = Ipld::List(vec![self.body["commit"].clone()]);
        let mut car = section(&encode(&map([("roots", roots), ("version", Ipld::Integer(1))])));
        for (cid, block) in &self.blocks {
            car.extend(section(&[&cid.to_bytes()[..], block].concat()));
        }
        let mut body = self.body.clone();
        body.insert("blocks".into(), Ipld::Bytes(car));
        frame_of("#commit", &Ipld::Map(body))
    }

    fn ops(&mut self) -> &mut Vec<Ipld> {
        match self.body.get_mut("ops") {
            Some(Ipld::List(ops)) => ops,
            _ => panic!("no ops"),
        }
    }

    fn op(&mut self, index: usize) -> &mut BTreeMap<String, Ipld> {
        match self.ops().get_mut(index) {
            Some(Ipld::Map(op)) => op,
            _ => panic!("no op"),
        }
    }

    /// Changes the signed commit, and names it by its new CID.
    fn commit(&mut self, change: impl FnOnce(&mut BTreeMap<String, Ipld>)) {
        let Ipld::Link(cid) = self.body["commit"] else { panic!("no link") };
        let (held, block) = self.blocks.iter_mut().find(|(held, _)| *held == cid).unwrap();
        let Ok(Ipld::Map(mut commit)) = serde_ipld_dagcbor::from_slice(block) else { panic!("no map") };
        change(&mut commit);
        *block = encode(&Ipld::Map(commit));
        *held = cid_of(block);
        let cid = *held;
        self.body.insert("commit".into(), Ipld::Link(cid));
    }

    fn data(&mut self) -> Cid {
        let mut data = None;
        self.clone().commit(|commit| data = Some(commit["data"].clone()));
        match data {
            Some(Ipld::Link(cid)) => cid,
            _ => panic!("no link"),
        }
    }
}

fn take(rest: &mut &[u8]) -> Ipld {
    let mut input = serde_ipld_dagcbor::de::Deserializer::from_slice(rest);
    let mut end = 1;
    // The reader does not tell where it stopped: the first prefix that is an object is the object.
    drop(serde::Deserialize::deserialize(&mut input).map(|_: Ipld| ()));
    loop {
        if let Ok(value) = serde_ipld_dagcbor::from_slice(&rest[..end]) {
            *rest = &rest[end..];
            return value;
        }
        end = if end < 64 { end + 1 } else { rest.len() };
    }
}

fn take_section<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let (mut len, mut shift) = (0, 0);
    loop {
        let byte = rest[0];
        *rest = &rest[1..];
        len |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (section, after) = rest.split_at(len);
    *rest = after;
    section
}

/// A way to tamper with a commit, and the words for what is wrong then. It says no where it does not apply.
type Tamper = (&'static str, fn(&mut Parts) -> bool, &'static [&'static str]);

const OTHER: &str = "com.example.note/3kaaaaaaaaaaa";

/// What anyone on the way can do, who has no key.
const TAMPERS: [Tamper; 20] = [
    ("an op is left out", |parts| parts.ops().pop().is_some(), &["prev_data"]),
    (
        "an op is made up",
        |parts| {
            parts.ops().push(op("create", OTHER, Some(cid_of(b"made up")), None));
            true
        },
        &["absent", "block_missing"],
    ),
    (
        "a delete is made up",
        |parts| {
            parts.ops().push(op("delete", OTHER, None, Some(cid_of(b"made up"))));
            true
        },
        &["prev_data", "block_missing"],
    ),
    (
        "an op stands twice",
        |parts| {
            let first = parts.ops().first().cloned();
            parts.ops().extend(first.clone());
            first.is_some()
        },
        &["duplicate"],
    ),
    (
        "a record is another one",
        |parts| set(parts, "cid", &["create", "update"], Ipld::Link(cid_of(b"another"))),
        &["other_record"],
    ),
    (
        "a path is another one",
        |parts| set(parts, "path", &["create", "update", "delete"], text(OTHER)),
        &["absent", "block_missing", "prev_data"],
    ),
    ("a create is an update", |parts| set(parts, "action", &["create"], text("update")), &["op"]),
    ("an update is a create", |parts| set(parts, "action", &["update"], text("create")), &["op"]),
    (
        "a create is a delete",
        |parts| {
            set(parts, "cid", &["create"], Ipld::Null)
                && set(parts, "prev", &["create"], Ipld::Link(cid_of(b"another")))
                && set(parts, "action", &["create"], text("delete"))
        },
        &["present"],
    ),
    (
        "a delete is a create",
        |parts| {
            set(parts, "cid", &["delete"], Ipld::Link(cid_of(b"another")))
                && unset(parts, "prev", "delete")
                && set(parts, "action", &["delete"], text("create"))
        },
        &["absent", "block_missing"],
    ),
    (
        "what was before is another one",
        |parts| set(parts, "prev", &["update", "delete"], Ipld::Link(cid_of(b"another"))),
        &["prev_data"],
    ),
    ("what was before is left out", |parts| unset(parts, "prev", "update") || unset(parts, "prev", "delete"), &["op"]),
    (
        "the tree before is another one",
        |parts| parts.body.insert("prevData".into(), Ipld::Link(cid_of(b"another"))).is_some(),
        &["prev_data"],
    ),
    (
        "the tree before is the one after",
        |parts| {
            let data = parts.data();
            parts.body.insert("prevData".into(), Ipld::Link(data)).is_some_and(|prev| prev != Ipld::Link(data))
        },
        &["prev_data"],
    ),
    (
        "the root is left out",
        |parts| {
            let data = parts.data();
            parts.blocks.retain(|(cid, _)| *cid != data);
            true
        },
        &["block_missing"],
    ),
    (
        "the tree is another one",
        |parts| {
            let block = encode(&map([("e", Ipld::List(Vec::new())), ("l", Ipld::Null)]));
            let cid = cid_of(&block);
            parts.blocks.push((cid, block));
            parts.commit(|commit| drop(commit.insert("data".into(), Ipld::Link(cid))));
            true
        },
        &["absent", "prev_data", "signature"],
    ),
    (
        "the signature is another one",
        |parts| {
            parts.commit(|commit| change_signature(commit, |signature| signature[7] ^= 1));
            true
        },
        &["signature"],
    ),
    (
        "the signature is the other of two",
        |parts| {
            parts.commit(|commit| change_signature(commit, |signature| signature[32] |= 0x80));
            true
        },
        &["signature"],
    ),
    (
        "the revision is another one",
        |parts| {
            parts.body.insert("rev".into(), text("3zzzzzzzzzzzz"));
            parts.commit(|commit| drop(commit.insert("rev".into(), text("3zzzzzzzzzzzz"))));
            true
        },
        &["signature"],
    ),
    (
        "a field is added to what is signed",
        |parts| {
            parts.commit(|commit| drop(commit.insert("extra".into(), Ipld::Bool(true))));
            true
        },
        &["signature"],
    ),
];

fn op(action: &str, path: &str, cid: Option<Cid>, prev: Option<Cid>) -> Ipld {
    let mut op = BTreeMap::from([("action".to_owned(), text(action)), ("path".to_owned(), text(path))]);
    op.insert("cid".into(), cid.map_or(Ipld::Null, Ipld::Link));
    op.extend(prev.map(|prev| ("prev".to_owned(), Ipld::Link(prev))));
    Ipld::Map(op)
}

/// Changes a field of the first op of these actions.
fn set(parts: &mut Parts, field: &str, actions: &[&str], value: Ipld) -> bool {
    let is_one = |op: &Ipld| matches!(op, Ipld::Map(op) if matches!(&op["action"], Ipld::String(action) if actions.contains(&action.as_str())));
    let Some(index) = parts.ops().iter().position(is_one) else { return false };
    parts.op(index).insert(field.into(), value);
    true
}

fn unset(parts: &mut Parts, field: &str, action: &str) -> bool {
    set(parts, field, &[action], Ipld::Null)
}

fn change_signature(commit: &mut BTreeMap<String, Ipld>, change: fn(&mut Vec<u8>)) {
    match commit.get_mut("sig") {
        Some(Ipld::Bytes(signature)) => change(signature),
        _ => panic!("no signature"),
    }
}

#[test]
fn no_tampering_with_a_real_commit_goes_unseen() {
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    for (frame, key) in signed() {
        let sound = Parts::of(&frame);
        assert_eq!(sound.frame().len(), frame.len(), "taken apart and put together");
        for (name, tamper, words) in &TAMPERS {
            let mut parts = sound.clone();
            if !tamper(&mut parts) {
                continue;
            }
            let frame = parts.frame();
            let signature = proof(&frame).signed.verify(&key);
            let seen = match word(&frame) {
                "" if signature.is_err() => "signature",
                word => word,
            };
            assert!(words.contains(&seen), "{name}: {seen} {:?} {signature:?}", proof(&frame).fault);
            *counts.entry((name, seen)).or_default() += 1;
        }
    }
    for ((name, word), count) in &counts {
        println!("{count:4} {name}: {word}");
    }
    let names: std::collections::BTreeSet<_> = counts.keys().map(|(name, _)| name).collect();
    println!("{} tampered commits refused", counts.values().sum::<usize>());
    assert!(counts.is_empty() || names.len() == TAMPERS.len(), "a way to tamper was never tried: {names:?}");
}
