//! CARs without a network: whole ones, and what is not.

use std::collections::BTreeMap;

use penstock_wire::BlockCid;
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, proptest};
use rand::seq::SliceRandom as _;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::car::intake::{Bounds, Intake, IntakeFault, Whole};
use crate::car::spool::Budget;
use crate::testing::{car, cid_of, dag_cbor, node};

fn bounds(spill: u64) -> Bounds {
    Bounds::new(1 << 30, Budget::new(spill, std::env::temp_dir()))
}

fn take(did: &str, bytes: &[u8], piece: usize, bounds: &Bounds) -> Result<Whole, IntakeFault> {
    let mut intake = Intake::new(did, bounds);
    for piece in bytes.chunks(piece) {
        intake.push(piece)?;
    }
    intake.finish()
}

fn read(mut whole: Whole) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    loop {
        let records = whole.records.next(100, 1_000_000).unwrap();
        if records.is_empty() {
            return found;
        }
        for record in records {
            let value: Value = serde_json::from_str(record.record.get()).unwrap();
            assert!(found.last_key_value().is_none_or(|(last, _): (&String, _)| **last < *record.path));
            found.insert(record.path.into(), dag_cbor(&value));
        }
    }
}

fn made() -> impl Strategy<Value = MadeRepo> {
    let path = ("[a-c]{1,2}", "[a-zA-Z0-9._:~-]{1,12}").prop_map(|(name, key)| format!("com.example.{name}/{key}x"));
    prop::collection::btree_map(path, any::<i64>(), 0..120).prop_map(|records| {
        let mut repo = MadeRepo::new(&did(7), REV);
        for (path, n) in records {
            repo.put(&path, &json!({"n": n}));
        }
        repo
    })
}

/// The first thing that is wrong with a signed tree of these nodes, in any order of its blocks.
fn fault_of(nodes: &[Vec<u8>], root: &[u8], record: &[u8]) -> String {
    let repo = MadeRepo::new(&did(7), REV);
    let (commit, block) = repo.commit(&cid_of(root));
    let mut blocks = vec![(commit, block), (cid_of(root), root.to_vec()), (cid_of(record), record.to_vec())];
    blocks.extend(nodes.iter().map(|node| (cid_of(node), node.clone())));
    let taken = take(&did(7), &car(&commit, &blocks), 1_000, &bounds(0));
    taken.map_or_else(|fault| fault.to_string(), |whole| format!("{} records", whole.count))
}

proptest! {
    #![proptest_config(Config::with_cases(64))]

    #[test]
    fn a_repo_is_read_as_it_was_made(
        repo in made(),
        seed in any::<u64>(),
        piece in 1_usize..5_000,
        spill in prop::sample::select(vec![0_u64, 3_000, 1 << 30]),
    ) {
        let made = repo.blocks();
        let mut random = StdRng::seed_from_u64(seed);
        let mut blocks = made.blocks.clone();
        // In any order, some twice, and some that nothing refers to.
        blocks.extend(made.blocks.iter().take(5).cloned());
        let extra = seed.to_be_bytes().to_vec();
        blocks.push((cid_of(&extra), extra));
        blocks.shuffle(&mut random);
        let bounds = bounds(spill);
        let whole = take(&did(7), &car(&made.commit, &blocks), piece, &bounds).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(&*whole.commit.rev, REV);
        prop_assert_eq!(whole.commit.root, made.tree);
        prop_assert_eq!(whole.count, repo.records.len() as u64);
        let key = penstock_wire::Key::from_multikey(&repo.account.multikey()).unwrap();
        prop_assert_eq!(whole.commit.signed.verify(&key), Ok(()));
        prop_assert_eq!(read(whole), repo.records);
    }

    #[test]
    fn a_car_that_was_cut_or_changed_is_nothing_or_the_same(
        repo in made(),
        at in any::<prop::sample::Index>(),
        bit in 0_u32..8,
        dropped in any::<prop::sample::Index>(),
    ) {
        let made = repo.blocks();
        let whole = car(&made.commit, &made.blocks);
        let at = at.index(whole.len());
        prop_assert!(take(&did(7), &whole[..at], 512, &bounds(1 << 30)).is_err());
        let mut changed = whole.clone();
        changed[at] ^= 1 << bit;
        if let Ok(taken) = take(&did(7), &changed, 512, &bounds(1 << 30)) {
            prop_assert_eq!((taken.commit.root, read(taken)), (made.tree, repo.records.clone()));
        }
        // One block less: two records may share one, but here each is another.
        let mut blocks = made.blocks.clone();
        let lost = blocks.remove(dropped.index(blocks.len()));
        if !blocks.contains(&lost) {
            prop_assert!(matches!(
                take(&did(7), &car(&made.commit, &blocks), 512, &bounds(1 << 30)),
                Err(IntakeFault::Missing(cid)) if cid == lost.0
            ));
        }
    }
}

#[test]
fn an_empty_repo_is_a_repo() {
    let repo = MadeRepo::new(&did(7), REV);
    let whole = take(&did(7), &repo.car(), 64, &bounds(0)).unwrap();
    assert_eq!((whole.count, *whole.commit.root.digest()), (0, penstock_wire::EMPTY_TREE));
    assert!(read(whole).is_empty());
}

#[test]
fn a_tree_that_is_not_as_specified_is_refused() {
    let record = dag_cbor(&json!({"n": 1}));
    let cid = cid_of(&record);
    // Of layers 0, 1 and 2, found by trying: half the zeros of a key's hash.
    let keys = |layer: u8| -> Vec<String> {
        let all = (0..10_000).map(|n| format!("com.example.a/k{n:05}"));
        all.filter(|key| layer_of(key) == layer).take(6).collect()
    };
    let (low, middle, high) = (keys(0), keys(1), keys(2));
    let before: Vec<&String> = low.iter().filter(|key| **key < high[0]).collect();
    let entry = |key: &'static str| (key, cid, None);
    let leak = |key: &String| -> &'static str { Box::leak(key.clone().into_boxed_str()) };
    let (a, b, top) = (leak(&low[0]), leak(&low[1]), leak(&high[0]));
    let one = node(None, &[entry(a)]);
    assert_eq!(fault_of(&[], &one, &record), "1 records");
    // Keys out of order, and twice.
    assert!(fault_of(&[], &node(None, &[entry(b), entry(a)]), &record).contains("not in order"));
    assert!(fault_of(&[], &node(None, &[entry(a), entry(a)]), &record).contains("not in order"));
    // Keys of two layers in one node.
    assert!(fault_of(&[], &node(None, &[entry(leak(&middle[0])), entry(leak(&high[5]))]), &record).contains("layer"));
    // A node that is not there, and a record that is not.
    let child = cid_of(&one);
    assert!(fault_of(&[], &node(Some(&child), &[entry(top)]), &record).contains(&child.to_string()));
    let lost = BlockCid::dag_cbor(&[7; 32]);
    assert!(fault_of(&[], &node(None, &[(a, lost, None)]), &record).contains(&lost.to_string()));
    // A node two layers below its parent without one between them.
    assert!(fault_of(std::slice::from_ref(&one), &node(Some(&child), &[entry(top)]), &record).contains("layer"));
    // As it should be: the node between them has no keys.
    if let Some(key) = before.first() {
        let lowest = node(None, &[entry(leak(key))]);
        let between = node(Some(&cid_of(&lowest)), &[]);
        let root = node(Some(&cid_of(&between)), &[entry(top)]);
        assert_eq!(fault_of(&[lowest, between], &root, &record), "2 records");
    }
    // A key on the wrong side of the one above its node.
    let after = low.iter().chain(&middle).find(|key| **key > high[0] && layer_of(key) == 0).map(leak);
    if let Some(after) = after {
        let lowest = node(None, &[entry(after)]);
        let between = node(Some(&cid_of(&lowest)), &[]);
        let root = node(Some(&cid_of(&between)), &[entry(top)]);
        assert!(fault_of(&[lowest, between], &root, &record).contains("above its node"));
    }
    // The same node in two gaps, a root without keys, an empty node below the root, something below the lowest layer.
    let lowest = node(None, &[entry(leak(&middle[0]))]);
    let twice = node(Some(&cid_of(&lowest)), &[(top, cid, Some(cid_of(&lowest)))]);
    assert!(fault_of(&[lowest], &twice, &record).contains("above its node"));
    assert!(fault_of(std::slice::from_ref(&one), &node(Some(&child), &[]), &record).contains("no keys"));
    let empty = node(None, &[]);
    let above = node(Some(&cid_of(&empty)), &[entry(leak(&middle[0]))]);
    assert!(fault_of(&[empty], &above, &record).contains("is empty"));
    assert!(fault_of(std::slice::from_ref(&one), &node(Some(&child), &[entry(b)]), &record).contains("lowest layer"));
    // What is no node at all.
    assert!(fault_of(&[], &dag_cbor(&json!({"e": [], "l": null, "x": 1})), &record).contains("{e, l}"));
}

/// Half the zeros that the hash of a key begins with.
fn layer_of(key: &str) -> u8 {
    let mut layer = 0;
    // The wire's own reader says it of a node with this one key.
    let block = node(None, &[(key, BlockCid::dag_cbor(&[0; 32]), None)]);
    if let Ok(node) = penstock_wire::RepoNode::read(&block, penstock_wire::NodePlace::Root) {
        layer = node.layer().unwrap_or_default();
    }
    layer
}

#[test]
fn what_is_beyond_the_bounds_is_refused() {
    let repo = MadeRepo::of_posts(&did(7), REV, 50);
    let car = repo.car();
    let small = Bounds::new(car.len() as u64 - 1, Budget::new(0, std::env::temp_dir()));
    assert!(
        matches!(take(&did(7), &car, 100, &small), Err(IntakeFault::TooLarge { what, .. }) if what.contains("bytes"))
    );
    let mut few = bounds(0);
    few.blocks = 20;
    assert!(matches!(take(&did(7), &car, 100, &few), Err(IntakeFault::TooLarge { what: "blocks", limit: 20 })));
    let claimed = [&car[..car.len() / 2], &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F][..]].concat();
    assert!(take(&did(7), &claimed, 100, &bounds(0)).is_err());
}

#[test]
fn records_that_no_event_could_carry_are_named_and_the_others_handed_out() {
    let mut repo = MadeRepo::of_posts(&did(7), REV, 10);
    let sound = repo.records.clone();
    repo.records.insert("com.example.bad/list".into(), dag_cbor(&json!([1, 2])));
    repo.records.insert("com.example.bad/float32".into(), b"\xA1\x61n\xFA\x3F\x00\x00\x00".to_vec());
    repo.records.insert("com.example.bad/large".into(), dag_cbor(&json!({"text": "x".repeat(1_000_001)})));
    repo.records
        .insert("com.example.bad/deep".into(), dag_cbor(&(0..300).fold(json!({}), |inner, _| json!({"n": inner}))));
    // A key of the tree, and yet no path of a record.
    repo.records.insert("nonsid/key".into(), dag_cbor(&json!({"n": 1})));
    let mut whole = take(&did(7), &repo.car(), 4_096, &bounds(0)).unwrap();
    assert_eq!(whole.count, 15);
    let read = whole.records.next(1_000, usize::MAX).unwrap();
    let paths: Vec<&str> = read.iter().map(|record| &*record.path).collect();
    assert_eq!(paths, sound.keys().collect::<Vec<_>>());
    assert!(whole.records.next(1_000, usize::MAX).unwrap().is_empty());
    let unfit: Vec<(&str, &str)> =
        whole.records.unfit.iter().map(|unfit| (&*unfit.path, unfit.reason.name())).collect();
    assert_eq!(whole.records.unfit_count, 5);
    let expected = [
        ("com.example.bad/deep", "record_too_deep"),
        ("com.example.bad/float32", "record"),
        ("com.example.bad/large", "record_too_large"),
        ("com.example.bad/list", "record"),
        ("nonsid/key", "path"),
    ];
    assert_eq!(unfit, expected);
}
