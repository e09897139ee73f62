//! Histories at random: the ops of every commit lead back, and those of no other.

use std::collections::{BTreeMap, BTreeSet};

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use proptest::prelude::*;

use super::reference::{Built, Op, Records, build, commit, ops, record};
use super::{proof, word};
use crate::crafted::cid_of;

fn key(number: u16) -> String {
    format!("com.example.{}/{number:04}", ["like", "note", "notes"][usize::from(number % 3)])
}

/// A state, and what changes in it: a key and what it has then; nothing where it is to go.
fn history() -> impl Strategy<Value = (Records, Records)> {
    let before = prop::collection::btree_set(0..2_000_u16, 0..200);
    let changes = prop::collection::vec((0..2_000_u16, any::<prop::sample::Index>(), 0..4_u8), 1..12);
    (before, changes).prop_map(|(before, changes)| {
        let held: Vec<u16> = before.iter().copied().collect();
        let before: Records = before.into_iter().map(|number| (key(number), record(&key(number)))).collect();
        let mut after = before.clone();
        for (number, index, what) in changes {
            // As a rule what changes is there.
            let number = if held.is_empty() || what == 0 { number } else { *index.get(&held) };
            match what {
                0 | 1 => drop(after.insert(key(number), record(&format!("{number} anew")))),
                _ => drop(after.remove(&key(number))),
            }
        }
        (before, after)
    })
}

/// Returns the nodes on the way to a key, and to its neighbours: what the specification has a server send.
fn covering(tree: &Built, records: &Records, ops: &[Op]) -> BTreeSet<Cid> {
    let mut wanted = BTreeSet::new();
    for Op { path, .. } in ops {
        let above = records.range::<String, _>(..path.clone()).next_back();
        let below = records.range::<String, _>(path.clone()..).find(|(key, _)| *key != path);
        for key in [Some(path), above.map(|(key, _)| key), below.map(|(key, _)| key)].into_iter().flatten() {
            wanted.extend(way(tree, key));
        }
    }
    wanted
}

/// Returns the nodes on the way to a key.
fn way(tree: &Built, key: &str) -> Vec<Cid> {
    let mut way = Vec::new();
    let mut next = Some(tree.root);
    while let Some(cid) = next {
        way.push(cid);
        let Ok(Ipld::Map(node)) = serde_ipld_dagcbor::from_slice(&tree.nodes[&cid]) else { panic!("no node") };
        let link = |link: &Ipld| match link {
            Ipld::Link(cid) => Some(*cid),
            _ => None,
        };
        next = link(&node["l"]);
        let Ipld::List(entries) = &node["e"] else { panic!("no list") };
        let mut held: Vec<u8> = Vec::new();
        for entry in entries {
            let Ipld::Map(entry) = entry else { panic!("no map") };
            let (Ipld::Integer(shared), Ipld::Bytes(rest)) = (&entry["p"], &entry["k"]) else { panic!("no key") };
            held.truncate(usize::try_from(*shared).unwrap());
            held.extend(rest);
            if held[..] == *key.as_bytes() {
                return way;
            }
            if held[..] < *key.as_bytes() {
                next = link(&entry["t"]);
            }
        }
    }
    way
}

/// Returns everything that an op can be instead of what it is.
fn others(op: &Op, free: &str) -> Vec<Op> {
    let another = Some(record("another"));
    let mut others = vec![Op { path: free.to_owned(), ..op.clone() }];
    let changed = [
        op.cid.map(|_| Op { cid: another, ..op.clone() }),
        op.prev.map(|_| Op { prev: another, ..op.clone() }),
        op.prev.map(|_| Op { prev: None, ..op.clone() }),
        op.cid.map(|_| Op { cid: None, ..op.clone() }),
    ];
    others.extend(changed.into_iter().flatten());
    let actions = ["create", "update", "delete"].into_iter().filter(|action| *action != op.action);
    others.extend(actions.map(|action| Op { action, ..op.clone() }));
    others.push(match op.action {
        "delete" => Op { action: "create", cid: op.prev, prev: None, ..op.clone() },
        "create" => Op { action: "delete", cid: None, prev: op.cid, ..op.clone() },
        _ => Op { action: "create", prev: None, ..op.clone() },
    });
    others
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ops_of_a_commit_lead_back_and_no_others_do((before, after) in history()) {
        let (old, new) = (build(&before), build(&after));
        let ops = ops(&before, &after);
        let whole = commit(new.root, Some(old.root), &ops, new.nodes.values()).frame();
        prop_assert_eq!(word(&whole), "", "{:?} of {:?}", proof(&whole).fault, &ops);

        let told = covering(&new, &after, &ops);
        let nodes: Vec<_> = told.iter().map(|cid| new.nodes[cid].clone()).chain([new.nodes[&new.root].clone()]).collect();
        let part = commit(new.root, Some(old.root), &ops, &nodes).frame();
        prop_assert_eq!(word(&part), "", "{:?} of {:?} by {} nodes", proof(&part).fault, &ops, nodes.len());
        prop_assert_eq!(proof(&part).prev_data.unwrap().to_vec(), old.root.hash().digest());

        let turned: Vec<Op> = ops.iter().rev().cloned().collect();
        prop_assert_eq!(word(&commit(new.root, Some(old.root), &turned, &nodes).frame()), "", "in another order");

        let free = "com.example.none/x";
        for (index, op) in ops.iter().enumerate() {
            let mut fewer = ops.clone();
            fewer.remove(index);
            prop_assert_ne!(word(&commit(new.root, Some(old.root), &fewer, new.nodes.values()).frame()), "", "without {:?}", op);
            for other in others(op, free) {
                let mut changed = ops.clone();
                changed[index] = other;
                let frame = commit(new.root, Some(old.root), &changed, new.nodes.values()).frame();
                prop_assert_ne!(word(&frame), "", "{:?} instead of {:?}", &changed[index], op);
            }
        }
        for node in &nodes {
            let cid = cid_of(node);
            let others: Vec<_> = nodes.iter().filter(|other| *other != node).collect();
            let frame = commit(new.root, Some(old.root), &ops, others).frame();
            let is_needed = ops.iter().any(|op| way(&new, &op.path).contains(&cid));
            prop_assert!(!is_needed || word(&frame) == "block_missing", "without a node: {}", word(&frame));
            prop_assert!(matches!(word(&frame), "" | "block_missing"), "without a node: {}", word(&frame));
        }
        if old.root != new.root {
            let wrong = commit(new.root, Some(new.root), &ops, new.nodes.values()).frame();
            prop_assert_eq!(word(&wrong), "prev_data");
            let stale = commit(old.root, Some(old.root), &ops, old.nodes.values()).frame();
            prop_assert_ne!(word(&stale), "");
        }
    }

    #[test]
    fn a_node_that_is_changed_is_refused((before, after) in history(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (old, new) = (build(&before), build(&after));
        let ops = ops(&before, &after);
        // As a malicious host would: the root is another one, and the commit names it by its new hash.
        let mut root = new.nodes[&new.root].clone();
        let place = at.index(root.len());
        root[place] ^= 1 << bit;
        let mut nodes: BTreeMap<Cid, Vec<u8>> = new.nodes.clone();
        nodes.insert(cid_of(&root), root.clone());
        let frame = commit(cid_of(&root), Some(old.root), &ops, nodes.values()).frame();
        prop_assert_ne!(word(&frame), "", "byte {} of the root", place);
    }
}
