//! The tree of a commit, and its ops, in a frame that is sound around them.
//!
//! The first byte says how the rest is taken. As nodes, each behind its length, whose links are made to fit: the first byte of a
//! digest says which of the nodes before it is meant. Or as keys, with what they have before the commit and after it: then the
//! whole tree is built, and what the proof has to say is known.

use std::collections::BTreeMap;

use penstock_wire::{Event, Frame, Limits, decode};
use sha2::{Digest, Sha256};

use crate::{car, cbor, frame};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const REV: &str = "3kaaaaaaaaaaa";

/// What the first byte's bits say.
const RAW: u8 = 1;
/// One of the ops is another one.
const SPOILT: u8 = 2;
/// One of the nodes is left out.
const PARTIAL: u8 = 4;
/// Nothing is said of the tree before.
const UNSAID: u8 = 8;

/// How a link to a node begins.
const LINK: [u8; 9] = [0xD8, 0x2A, 0x58, 0x25, 0x00, 0x01, 0x71, 0x12, 0x20];

type Records = BTreeMap<String, u8>;
type Blocks = BTreeMap<Vec<u8>, Vec<u8>>;

/// An op: its path, and the record before and after.
type Op = (String, Option<u8>, Option<u8>);

/// Proves a commit and checks what is said of it.
pub fn proof(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else { return };
    let parts = car::records(rest);
    if flags & RAW != 0 {
        return raw(flags, &parts);
    }
    let (mut before, mut after) = (Records::new(), Records::new());
    for part in &parts {
        let Some((&state, name)) = part.split_first() else { continue };
        let key = key(name);
        if state & 1 != 0 {
            before.insert(key.clone(), 0);
        }
        if state & 2 != 0 {
            after.insert(key, state >> 2 & 1);
        }
    }
    let mut nodes = Blocks::new();
    let old = build(&before, &mut Blocks::new());
    let new = build(&after, &mut nodes);
    let mut ops: Vec<Op> = Vec::new();
    for path in before.keys().chain(after.keys().filter(|path| !before.contains_key(*path))) {
        let (was, is) = (before.get(path).copied(), after.get(path).copied());
        if was != is {
            ops.push((path.clone(), was, is));
        }
    }
    if flags & PARTIAL != 0 {
        let at = usize::from(flags >> 4) % nodes.len().max(1);
        let left_out = nodes.keys().nth(at).cloned();
        left_out.and_then(|cid| nodes.remove(&cid));
    }
    let is_spoilt = flags & SPOILT != 0 && !ops.is_empty();
    if is_spoilt {
        let at = usize::from(flags >> 4) % ops.len();
        match ops.get_mut(at) {
            Some((_, _, Some(record))) => *record += 2,
            Some((_, Some(record), _)) => *record += 2,
            _ => {}
        }
    }
    let prev_data = (flags & UNSAID == 0).then_some(&old[..]);
    let event = answer(&frame_of(&new, prev_data, &ops, &nodes));
    let proof = event.proof.expect("it was asked for");
    let word = proof.fault.as_ref().map(|fault| fault.word());
    let is_partial = flags & PARTIAL != 0;
    match word {
        None => assert!(!is_spoilt || flags & UNSAID != 0, "a changed op is taken: {ops:?}"),
        Some("block_missing") => assert!(is_partial, "a whole tree lacks a block"),
        // A node without keys, below which the tree before begins, cannot be told from that tree's root when it is left out.
        Some("prev_data") => assert!(is_spoilt || is_partial, "sound ops are refused: {ops:?}"),
        Some(word) => assert!(is_spoilt, "sound ops are refused: {word} {ops:?}"),
    }
    assert!(proof.prev_data.is_none_or(|told| told[..] == old[4..]));
}

fn raw(flags: u8, parts: &[&[u8]]) {
    let (mut nodes, mut cids) = (Blocks::new(), Vec::<Vec<u8>>::new());
    for part in parts {
        let mut node = part.to_vec();
        let mut at = 0;
        while let Some(found) = node.get(at..).and_then(|rest| rest.windows(LINK.len()).position(|bytes| bytes == LINK))
        {
            at += found + LINK.len();
            let Some(digest) = node.get_mut(at..at + 32) else { break };
            if let Some(cid) = cids.get(usize::from(digest[0])) {
                digest.copy_from_slice(&cid[4..]);
            }
        }
        let cid = cbor::cid(&node);
        cids.push(cid.clone());
        nodes.insert(cid, node);
    }
    let root = cids.last().cloned().unwrap_or_else(|| cbor::cid(b""));
    let ops = [(key(b"a"), None, Some(0)), (key(b"bcd"), Some(0), None), (key(b"ee"), Some(0), Some(1))];
    let ops = &ops[..usize::from(flags >> 4) % 4];
    let prev_data = (flags & UNSAID == 0).then_some(&root[..]);
    answer(&frame_of(&root, prev_data, ops, &nodes));
}

/// Decodes a frame that is a commit, and checks what is told of its proof.
fn answer(input: &[u8]) -> Event {
    let limits = Limits { proof: true, ..Limits::default() };
    let answer = decode(input, &limits);
    frame::check(input, &answer);
    match answer {
        Ok(Frame::Event(event)) => {
            if let Some(fault) = event.proof.as_ref().and_then(|proof| proof.fault.as_ref()) {
                assert!(fault.to_string().len() < 300 && !fault.word().is_empty());
            }
            event
        }
        other => panic!("a sound frame is refused: {other:?}"),
    }
}

fn key(name: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz-_.:~0";
    let name = name.iter().take(64).map(|byte| char::from(LETTERS[usize::from(byte & 31)]));
    format!("com.example.note/k{}", name.collect::<String>())
}

fn record(number: u8) -> Vec<u8> {
    cbor::cid(&[number])
}

fn layer_of(key: &str) -> u32 {
    let digest = Sha256::digest(key);
    let bits = digest.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    bits.take_while(|bit| *bit == 0).count() as u32 / 2
}

/// Builds a tree and returns the CID of its root.
fn build(records: &Records, nodes: &mut Blocks) -> Vec<u8> {
    let records: Vec<(&str, u8)> = records.iter().map(|(key, record)| (key.as_str(), *record)).collect();
    match records.iter().map(|(key, _)| layer_of(key)).max() {
        Some(top) => subtree(&records, top, nodes).expect("it has keys"),
        None => node(None, &[], nodes),
    }
}

fn subtree(records: &[(&str, u8)], layer: u32, nodes: &mut Blocks) -> Option<Vec<u8>> {
    if records.is_empty() {
        return None;
    }
    let mut gaps = records
        .split(|(key, _)| layer_of(key) == layer)
        .map(|gap| layer.checked_sub(1).and_then(|below| subtree(gap, below, nodes)))
        .collect::<Vec<_>>()
        .into_iter();
    let first = gaps.next().flatten();
    let own = records.iter().filter(|(key, _)| layer_of(key) == layer);
    let entries: Vec<_> = own.zip(gaps).map(|((key, record), gap)| (*key, *record, gap)).collect();
    Some(node(first, &entries, nodes))
}

fn node(first: Option<Vec<u8>>, entries: &[(&str, u8, Option<Vec<u8>>)], nodes: &mut Blocks) -> Vec<u8> {
    let link = |out: &mut Vec<u8>, link: &Option<Vec<u8>>| match link {
        Some(cid) => cbor::link(out, cid),
        None => out.push(0xF6),
    };
    let mut block = Vec::new();
    cbor::map(&mut block, 2);
    cbor::text(&mut block, "e");
    cbor::list(&mut block, entries.len());
    let mut before: &str = "";
    for (key, number, behind) in entries {
        let shared = before.bytes().zip(key.bytes()).take_while(|(old, new)| old == new).count();
        cbor::map(&mut block, 4);
        cbor::text(&mut block, "k");
        cbor::bytes(&mut block, &key.as_bytes()[shared..]);
        cbor::text(&mut block, "p");
        cbor::number(&mut block, shared as u64);
        cbor::text(&mut block, "t");
        link(&mut block, behind);
        cbor::text(&mut block, "v");
        cbor::link(&mut block, &record(*number));
        before = key;
    }
    cbor::text(&mut block, "l");
    link(&mut block, &first);
    let cid = cbor::cid(&block);
    nodes.insert(cid.clone(), block);
    cid
}

/// Writes the frame of a commit.
fn frame_of(root: &[u8], prev_data: Option<&[u8]>, ops: &[Op], nodes: &Blocks) -> Vec<u8> {
    let mut block = Vec::new();
    cbor::map(&mut block, 6);
    cbor::text(&mut block, "did");
    cbor::text(&mut block, DID);
    cbor::text(&mut block, "rev");
    cbor::text(&mut block, REV);
    cbor::text(&mut block, "sig");
    cbor::bytes(&mut block, &[1; 64]);
    cbor::text(&mut block, "data");
    cbor::link(&mut block, root);
    cbor::text(&mut block, "prev");
    block.push(0xF6);
    cbor::text(&mut block, "version");
    cbor::number(&mut block, 3);
    let commit = cbor::cid(&block);

    let nodes = nodes.iter().map(|(cid, node)| (&cid[..], &node[..]));
    let blocks: Vec<_> = std::iter::once((&commit[..], &block[..])).chain(nodes).collect();
    let car = car::written(&commit, &blocks);

    let mut out = Vec::new();
    cbor::map(&mut out, 2);
    cbor::text(&mut out, "t");
    cbor::text(&mut out, "#commit");
    cbor::text(&mut out, "op");
    cbor::number(&mut out, 1);
    cbor::map(&mut out, if prev_data.is_some() { 8 } else { 7 });
    cbor::text(&mut out, "ops");
    cbor::list(&mut out, ops.len());
    for (path, was, is) in ops {
        cbor::map(&mut out, 3 + usize::from(was.is_some()));
        cbor::text(&mut out, "cid");
        match is {
            Some(number) => cbor::link(&mut out, &record(*number)),
            None => out.push(0xF6),
        }
        cbor::text(&mut out, "path");
        cbor::text(&mut out, path);
        if let Some(number) = was {
            cbor::text(&mut out, "prev");
            cbor::link(&mut out, &record(*number));
        }
        cbor::text(&mut out, "action");
        cbor::text(
            &mut out,
            match (was, is) {
                (None, _) => "create",
                (_, None) => "delete",
                _ => "update",
            },
        );
    }
    cbor::text(&mut out, "rev");
    cbor::text(&mut out, REV);
    cbor::text(&mut out, "seq");
    cbor::number(&mut out, 7);
    cbor::text(&mut out, "repo");
    cbor::text(&mut out, DID);
    cbor::text(&mut out, "since");
    cbor::text(&mut out, "3k2aaaaaaaaaa");
    cbor::text(&mut out, "blocks");
    cbor::bytes(&mut out, &car);
    cbor::text(&mut out, "commit");
    cbor::link(&mut out, &commit);
    if let Some(prev_data) = prev_data {
        cbor::text(&mut out, "prevData");
        cbor::link(&mut out, prev_data);
    }
    out
}
