//! Bounds, hosts of older versions, and trees made to hurt.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use penstock_wire::EMPTY_TREE;

use super::reference::{Op, Records, build, commit, layer_of, node, ops, record};
use super::{proof, word};
use crate::crafted::text;

/// Keys of one layer, in order.
fn keys(layer: u32, prefix: &str) -> impl Iterator<Item = String> {
    (0..).map(move |number| format!("{prefix}{number:06}")).filter(move |key| layer_of(key) == layer)
}

fn create(path: &str, cid: Cid) -> Op {
    Op { action: "create", path: path.to_owned(), cid: Some(cid), prev: None }
}

#[test]
fn a_host_that_does_not_say_what_was_before_proves_what_is_there_now() {
    let before: Records =
        (0..60).map(|n| format!("com.example.note/{n:03}")).map(|key| (key.clone(), record(&key))).collect();
    let mut after = before.clone();
    after.remove("com.example.note/007");
    after.insert("com.example.note/100".into(), record("new"));
    after.insert("com.example.note/008".into(), record("changed"));
    let new = build(&after);
    let mut ops = ops(&before, &after);
    for op in &mut ops {
        op.prev = None;
    }
    let words = |ops: &[Op]| word(&commit(new.root, None, ops, new.nodes.values()).frame());
    assert_eq!(words(&ops), "unprovable");
    ops.push(create("com.example.note/200", record("none")));
    assert_eq!(words(&ops), "absent");
    ops.pop();
    ops.push(Op { action: "delete", path: "com.example.note/001".into(), cid: None, prev: None });
    assert_eq!(words(&ops), "present");
    ops.pop();
    ops.push(create("com.example.note/001", record("another")));
    assert_eq!(words(&ops), "other_record");
}

#[test]
fn a_repo_begins_with_the_empty_tree() {
    let records =
        Records::from([("com.example.note/1".to_owned(), record("1")), ("com.example.note/2".to_owned(), record("2"))]);
    let tree = build(&records);
    let first = |ops: &[Op]| commit(tree.root, None, ops, tree.nodes.values()).with("since", Ipld::Null).frame();
    let all = ops(&Records::new(), &records);
    assert_eq!((word(&first(&all)), proof(&first(&all)).prev_data), ("", Some(EMPTY_TREE)));
    assert_eq!(word(&first(&all[..1])), "unprovable", "a repo that came from elsewhere");
    let empty = build(&Records::new());
    let none = commit(empty.root, None, &[], empty.nodes.values()).with("since", text("")).frame();
    assert_eq!((word(&none), proof(&none).prev_data), ("", Some(EMPTY_TREE)));
}

#[test]
fn a_commit_that_changes_nothing_needs_no_tree() {
    let tree = build(&Records::from([("com.example.note/1".to_owned(), record("1"))]));
    let idle = |before| word(&commit(tree.root, Some(before), &[], []).frame());
    assert_eq!((idle(tree.root), idle(build(&Records::new()).root)), ("", "prev_data"));
}

#[test]
fn a_commit_that_was_too_big_cannot_be_proved() {
    let records = Records::from([("com.example.note/1".to_owned(), record("1"))]);
    let tree = build(&records);
    let frame = commit(tree.root, Some(build(&Records::new()).root), &[], []).with("tooBig", Ipld::Bool(true)).frame();
    assert_eq!(word(&frame), "unprovable");
    let bare =
        commit(tree.root, None, &[], []).with("tooBig", Ipld::Bool(true)).with("blocks", Ipld::Bytes(Vec::new()));
    assert_eq!(super::commit(&bare.frame()).proof, None);
}

#[test]
fn ops_that_are_not_as_their_action_demands_are_refused() {
    let records = Records::from([("com.example.note/1".to_owned(), record("1"))]);
    let (empty, tree) = (build(&Records::new()), build(&records));
    let sound = create("com.example.note/1", record("1"));
    let words = |ops: &[Op]| word(&commit(tree.root, Some(empty.root), ops, tree.nodes.values()).frame());
    assert_eq!(words(std::slice::from_ref(&sound)), "");
    for wrong in [
        Op { prev: Some(record("0")), ..sound.clone() },
        Op { cid: None, ..sound.clone() },
        Op { action: "replace", ..sound.clone() },
        Op { path: "com.example.note".into(), ..sound.clone() },
        Op { path: "com.example.note/1/2".into(), ..sound.clone() },
        Op { path: "com.example.note/ü".into(), ..sound.clone() },
        Op { action: "update", ..sound.clone() },
        Op { action: "delete", prev: Some(record("1")), ..sound.clone() },
    ] {
        assert_eq!(words(std::slice::from_ref(&wrong)), "op", "{wrong:?}");
    }
    assert_eq!(words(&[sound.clone(), sound.clone()]), "duplicate");
    // As a server sends it when one request creates and deletes: the delete does not say what was before.
    let other = create("com.example.note/2", record("2"));
    let gone = Op { action: "delete", cid: None, ..other.clone() };
    assert_eq!(words(&[other.clone(), sound.clone(), gone.clone()]), "");
    assert_eq!(words(&[gone.clone(), sound.clone(), other.clone()]), "op", "in the other order it is another thing");
    assert_eq!(
        words(&[
            create("com.example.note/1", record("2")),
            Op { action: "update", prev: Some(record("2")), ..sound.clone() }
        ]),
        ""
    );
    assert_eq!(
        words(&[
            create("com.example.note/1", record("2")),
            Op { action: "update", prev: Some(record("3")), ..sound.clone() }
        ]),
        "duplicate"
    );
    let many: Vec<Op> = (0..1_001).map(|number| create(&format!("com.example.note/{number}"), record("1"))).collect();
    assert_eq!(words(&many), "too_many_ops");
    let wrong = commit(tree.root, None, &[sound], tree.nodes.values()).with("prevData", text("none"));
    assert_eq!(word(&wrong.frame()), "prev_data");
}

/// A root that the commit signs, and what is wrong with its tree.
#[test]
fn trees_that_are_none_are_refused() {
    let low: Vec<String> = keys(0, "com.example.note/").take(4).collect();
    let high: Vec<String> = keys(1, "com.example.note/").take(2).collect();
    let r = record("r");
    let mut nodes = BTreeMap::new();
    let sound = node(None, &[(&low[0], r, None), (&low[1], r, None)], &mut nodes);
    let turned = node(None, &[(&low[1], r, None), (&low[0], r, None)], &mut nodes);
    let twice = node(None, &[(&low[0], r, None), (&low[0], r, None)], &mut nodes);
    let mixed = node(None, &[(&low[0], r, None), (&high[0], r, None)], &mut nodes);
    let below_lowest = node(Some(sound), &[(&low[2], r, None)], &mut nodes);
    let only_gap = node(Some(sound), &[], &mut nodes);
    let empty = node(None, &[], &mut nodes);
    let empty_gap = node(Some(empty), &[(&high[1], r, None)], &mut nodes);
    let beyond =
        node(None, &[(&high[0], r, Some(node(None, &[("com.example.note/", r, None)], &mut nodes)))], &mut nodes);
    let of_another_layer =
        node(Some(node(None, &[(&high[0], r, None)], &mut nodes)), &[(&high[1], r, None)], &mut nodes);
    let misplaced =
        node(None, &[(&high[0], r, Some(node(None, &[("com.example.a/0", r, None)], &mut nodes)))], &mut nodes);
    let words = |root: Cid, path: &str| word(&commit(root, Some(sound), &[create(path, r)], nodes.values()).frame());
    assert_eq!(words(sound, &low[0]), "prev_data");
    for (name, root) in [
        ("keys in another order", turned),
        ("a key twice", twice),
        ("keys of two layers", mixed),
        ("a node below the lowest", below_lowest),
        ("a root without keys", only_gap),
        ("an empty node", empty_gap),
        ("a key that is none", beyond),
        ("a node of another layer", of_another_layer),
        ("a node in another place", misplaced),
    ] {
        // The key is looked for in every gap there is.
        let found: Vec<_> = [&low[0][..], "com.example.note/zzz"].iter().map(|path| words(root, path)).collect();
        assert!(found.contains(&"node"), "{name}: {found:?}");
    }
    // What is written in another way than the one that there is.
    let block = &nodes[&sound];
    for (name, changed) in [
        ("a field more", [&[0xA3][..], &block[1..], b"\x61x\xF6"].concat()),
        ("more behind it", [&block[..], &[0xF6]].concat()),
        ("a head that is longer", [b"\xA2\x61e\x98\x02", &block[4..]].concat()),
        ("a prefix that is shorter", {
            let mut other = BTreeMap::new();
            let cid = node(None, &[(&low[0], r, None)], &mut other);
            let one = other[&cid].clone();
            let entry = &one[4..one.len() - 3];
            let second = [&entry[..5], low[1].as_bytes(), &entry[5 + low[1].len()..]].concat();
            [b"\xA2\x61e\x82", entry, &second, b"\x61l\xF6"].concat()
        }),
        ("nothing", Vec::new()),
    ] {
        let cid = crate::crafted::cid_of(&changed);
        let frame = commit(cid, Some(sound), &[create(&low[0], r)], [&changed]).frame();
        assert_eq!(word(&frame), "node", "{name}");
    }
}

/// What a host may send so that a proof takes long; quadratic work would take minutes.
#[test]
fn wide_nodes_and_many_ops_take_linear_time() {
    let wide: Vec<String> = keys(0, "com.example.note/").take(16_000).collect();
    let r = record("r");
    let entries: Vec<_> = wide.iter().map(|key| (key.as_str(), r, None)).collect();
    let mut nodes = BTreeMap::new();
    let root = node(None, &entries, &mut nodes);
    let step = wide.len() / 200;
    let created: Vec<Op> = wide.iter().step_by(step).take(200).map(|key| create(key, r)).collect();
    let left: Records =
        wide.iter().filter(|key| !created.iter().any(|op| op.path == **key)).map(|key| (key.clone(), r)).collect();
    let before = build(&left).root;
    let frame = commit(root, Some(before), &created, nodes.values()).frame();
    let deleted: Vec<Op> =
        created.iter().map(|op| Op { action: "delete", cid: None, prev: op.cid, ..op.clone() }).collect();
    let back = commit(before, Some(root), &deleted, build(&left).nodes.values()).frame();
    let started = Instant::now();
    assert_eq!((word(&frame), word(&back)), ("", ""));
    println!("{:?} for both", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn keys_that_share_nearly_everything_do_not_multiply() {
    let long = format!("com.example.note/{}", "a".repeat(990));
    let r = record("r");
    let wide: Vec<String> = keys(0, &long).take(6_000).collect();
    let entries: Vec<_> = wide.iter().map(|key| (key.as_str(), r, None)).collect();
    let mut nodes = BTreeMap::new();
    let root = node(None, &entries, &mut nodes);
    let frame = commit(root, Some(root), &[create(&wide[0], r)], nodes.values()).frame();
    assert!(frame.len() < 600_000, "{} bytes that say 6 MB", frame.len());
    assert_eq!(word(&frame), "too_large");
}
