//! A tree built from its definition: all keys sorted, the highest layer first. Slow, whole, and unlike what it tests.

use std::collections::BTreeMap;

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use sha2::{Digest, Sha256};

use crate::crafted::{Commit, cid_of, encode, map, text};

/// What a repo holds.
pub(crate) type Records = BTreeMap<String, Cid>;

/// A tree: its root, and the block of every node.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) root: Cid,
    pub(crate) nodes: BTreeMap<Cid, Vec<u8>>,
}

pub(crate) fn layer_of(key: &str) -> u32 {
    let bits: String = Sha256::digest(key).iter().map(|byte| format!("{byte:08b}")).collect();
    u32::try_from(bits.chars().take_while(|bit| *bit == '0').count() / 2).unwrap()
}

pub(crate) fn build(records: &Records) -> Built {
    let mut nodes = BTreeMap::new();
    let records: Vec<(&str, Cid)> = records.iter().map(|(key, cid)| (key.as_str(), *cid)).collect();
    let top = records.iter().map(|(key, _)| layer_of(key)).max();
    let root = match top {
        Some(top) => subtree(&records, top, &mut nodes).unwrap(),
        None => node(None, &[], &mut nodes),
    };
    Built { root, nodes }
}

fn subtree(records: &[(&str, Cid)], layer: u32, nodes: &mut BTreeMap<Cid, Vec<u8>>) -> Option<Cid> {
    if records.is_empty() {
        return None;
    }
    let mut below = |records: &[(&str, Cid)]| match layer {
        0 => None,
        _ => subtree(records, layer - 1, nodes),
    };
    let mut gaps = records.split(|(key, _)| layer_of(key) == layer);
    let first = below(gaps.next().unwrap());
    let own = records.iter().filter(|(key, _)| layer_of(key) == layer);
    let entries: Vec<_> = own.zip(gaps).map(|((key, cid), gap)| (*key, *cid, below(gap))).collect();
    Some(node(first, &entries, nodes))
}

pub(crate) fn node(
    first: Option<Cid>,
    entries: &[(&str, Cid, Option<Cid>)],
    nodes: &mut BTreeMap<Cid, Vec<u8>>,
) -> Cid {
    let link = |link: Option<Cid>| link.map_or(Ipld::Null, Ipld::Link);
    let mut before = "";
    let mut list = Vec::new();
    for (key, cid, behind) in entries {
        let shared = before.bytes().zip(key.bytes()).take_while(|(old, new)| old == new).count();
        list.push(map([
            ("p", Ipld::Integer(shared as i128)),
            ("k", Ipld::Bytes(key.as_bytes()[shared..].to_vec())),
            ("v", Ipld::Link(*cid)),
            ("t", link(*behind)),
        ]));
        before = key;
    }
    let block = encode(&map([("l", link(first)), ("e", Ipld::List(list))]));
    let cid = cid_of(&block);
    nodes.insert(cid, block);
    cid
}

/// A record's CID, of a record that nobody has seen.
pub(crate) fn record(name: &str) -> Cid {
    cid_of(name.as_bytes())
}

/// An op of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) action: &'static str,
    pub(crate) path: String,
    pub(crate) cid: Option<Cid>,
    pub(crate) prev: Option<Cid>,
}

/// Returns the ops that lead from one state to another.
pub(crate) fn ops(before: &Records, after: &Records) -> Vec<Op> {
    let mut ops = Vec::new();
    for (path, prev) in before {
        match after.get(path) {
            None => ops.push(Op { action: "delete", path: path.clone(), cid: None, prev: Some(*prev) }),
            Some(cid) if cid != prev => {
                ops.push(Op { action: "update", path: path.clone(), cid: Some(*cid), prev: Some(*prev) });
            }
            Some(_) => {}
        }
    }
    let new = after.iter().filter(|(path, _)| !before.contains_key(*path));
    ops.extend(new.map(|(path, cid)| Op { action: "create", path: path.clone(), cid: Some(*cid), prev: None }));
    ops
}

/// A commit of a tree, with these of its nodes; its records are left out, as a tree does not need them.
pub(crate) fn commit<'a>(
    data: Cid,
    prev_data: Option<Cid>,
    ops: &[Op],
    nodes: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Commit {
    let block = encode(&map([
        ("did", text("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")),
        ("rev", text("3kaaaaaaaaaaa")),
        ("data", Ipld::Link(data)),
        ("prev", Ipld::Null),
        ("version", Ipld::Integer(3)),
        ("sig", Ipld::Bytes(vec![1; 64])),
    ]));
    let cid = cid_of(&block);
    let mut commit = Commit::new().with("commit", Ipld::Link(cid)).with("since", text("3k2aaaaaaaaaa"));
    commit.blocks = vec![(cid.to_bytes(), block)];
    if let Some(prev_data) = prev_data {
        commit = commit.with("prevData", Ipld::Link(prev_data));
    }
    for Op { action, path, cid, prev } in ops {
        let mut op = vec![
            ("action".to_owned(), text(action)),
            ("path".to_owned(), text(path)),
            ("cid".to_owned(), cid.map_or(Ipld::Null, Ipld::Link)),
        ];
        op.extend(prev.map(|prev| ("prev".to_owned(), Ipld::Link(prev))));
        commit.ops.push(Ipld::Map(op.into_iter().collect()));
    }
    for node in nodes {
        commit = commit.block(node.clone());
    }
    commit
}
