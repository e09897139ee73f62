//! The suites of the specification, where they are at hand.

use ipld_core::cid::Cid;
use serde_json::Value as Json;

use super::reference::{Records, build, commit, layer_of, ops};
use super::{proof, word};
use crate::fixtures::shared;

fn suite(name: &str) -> Vec<Json> {
    let Some(bytes) = shared(&format!("interop/{name}")) else {
        println!("skipped: the fixtures beside the checkout are absent ({name})");
        return Vec::new();
    };
    serde_json::from_slice(&bytes).unwrap()
}

fn keys(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn cid(text: &Json) -> Cid {
    text.as_str().unwrap().parse().unwrap()
}

#[test]
fn the_blocks_of_the_commit_proof_suite_lead_back() {
    for case in suite("firehose/commit-proof-fixtures.json") {
        let comment = case["comment"].as_str().unwrap();
        let leaf = cid(&case["leafValue"]);
        let before: Records = keys(&case["keys"]).into_iter().map(|key| (key, leaf)).collect();
        let mut after = before.clone();
        for key in keys(&case["dels"]) {
            after.remove(&key).unwrap();
        }
        after.extend(keys(&case["adds"]).into_iter().map(|key| (key, leaf)));
        let (old, new) = (build(&before), build(&after));
        assert_eq!(old.root, cid(&case["rootBeforeCommit"]), "{comment}: the reference");
        assert_eq!(new.root, cid(&case["rootAfterCommit"]), "{comment}: the reference");
        let told: Vec<Cid> = case["blocksInProof"].as_array().unwrap().iter().map(cid).collect();
        let nodes: Vec<_> = told.iter().map(|cid| new.nodes[cid].clone()).collect();
        let frame = commit(new.root, Some(old.root), &ops(&before, &after), &nodes).frame();
        assert_eq!(word(&frame), "", "{comment}: {:?}", proof(&frame).fault);
        let wrong = commit(new.root, Some(new.root), &ops(&before, &after), &nodes).frame();
        assert_eq!(word(&wrong), "prev_data", "{comment}");
    }
}

#[test]
fn keys_have_the_layer_that_the_suite_says() {
    for case in suite("mst/key_heights.json") {
        let (key, height) = (case["key"].as_str().unwrap(), case["height"].as_u64().unwrap());
        assert_eq!(u64::from(layer_of(key)), height, "{key}: the reference");
        // The suite has keys that are none of a repo.
        if !key.contains('/') {
            continue;
        }
        let records = Records::from([(key.to_owned(), super::reference::record("r"))]);
        let tree = build(&records);
        let empty = build(&Records::new());
        let frame = commit(tree.root, Some(empty.root), &ops(&Records::new(), &records), tree.nodes.values()).frame();
        assert_eq!(word(&frame), "", "{key}");
    }
}

#[test]
fn trees_of_the_example_keys_lead_back_key_by_key() {
    let Some(list) = shared("interop/mst/example_keys.txt") else {
        return println!("skipped: the fixtures beside the checkout are absent (example_keys.txt)");
    };
    let list = String::from_utf8(list).unwrap();
    let mut records = Records::new();
    for key in list.lines().filter(|line| !line.is_empty()) {
        let before = records.clone();
        records.insert(key.to_owned(), super::reference::record(key));
        let (old, new) = (build(&before), build(&records));
        let forth = commit(new.root, Some(old.root), &ops(&before, &records), new.nodes.values()).frame();
        assert_eq!(word(&forth), "", "create {key}");
        let back = commit(old.root, Some(new.root), &ops(&records, &before), old.nodes.values()).frame();
        assert_eq!(word(&back), "", "delete {key}");
    }
}
