//! A whole repo's CAR: what is accepted is the one tree that its records have, and in order.

use penstock_repo::testing::{MadeRepo, Taken, car, cid_of, did, node, take, tree};
use penstock_wire::BlockCid;

/// The record that every key has where the input does not say more.
const RECORD: &[u8] = b"\xA1\x61n\x01";

/// Reads a CAR: the input itself, or one of nodes that the input describes, sound or not.
pub fn repo(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else { return };
    let own = did(1);
    let bytes = match flags & 3 {
        0 => rest.to_vec(),
        1 => described(rest),
        // A sound one, of which one bit may be another.
        _ => {
            let mut repo = MadeRepo::new(&own, "3kaaaaaaaaaaa");
            let (place, keys) = rest.split_at(rest.len().min(3));
            for key in keys.chunks_exact(2) {
                repo.records.insert(path(key), RECORD.to_vec());
            }
            let mut bytes = repo.car();
            if let ([high, low, bit], true) = (place, flags & 4 != 0) {
                let at = (usize::from(*high) << 8 | usize::from(*low)) % bytes.len();
                bytes[at] ^= 1 << (bit & 7);
            }
            bytes
        }
    };
    let piece = usize::from(flags >> 3) * 8 + 1;
    match take(&own, &bytes, piece) {
        Ok(taken) => check(&taken),
        Err(said) => assert!(said.len() < 400 && !said.is_empty(), "{said}"),
    }
}

fn check(taken: &Taken) {
    assert!(taken.records.windows(2).all(|two| two[0].path < two[1].path), "paths are in order");
    assert_eq!(taken.records.len() + taken.unfit.len().min(200), usize::try_from(taken.count).unwrap_or(usize::MAX));
    if taken.unfit.is_empty() {
        let cid = |text: &str| {
            let cid = ipld_core::cid::Cid::try_from(text).expect("a cid as text").to_bytes();
            BlockCid::take(&cid).expect("a cid of the repo").0
        };
        let records: Vec<(String, BlockCid)> =
            taken.records.iter().map(|record| (record.path.to_string(), cid(&record.cid))).collect();
        assert_eq!(tree(&records), taken.root, "there is one tree of these records");
    }
    for record in &taken.records {
        serde_json::from_str::<serde_json::Value>(record.record.get()).expect("a record is JSON");
    }
}

/// Nodes, each of keys and of nodes before it; the last one is the root.
fn described(mut input: &[u8]) -> Vec<u8> {
    let record = cid_of(RECORD);
    let mut nodes: Vec<(BlockCid, Vec<u8>)> = Vec::new();
    while let Some((&count, rest)) = input.split_first() {
        input = rest;
        let older = |index: u8| usize::from(index).checked_sub(1).and_then(|index| nodes.get(index)).map(|(cid, _)| *cid);
        let Some((&first, rest)) = input.split_first() else { break };
        input = rest;
        let mut keys: Vec<(String, Option<BlockCid>)> = Vec::new();
        for entry in input.chunks_exact(3).take(usize::from(count % 8)) {
            keys.push((path(&entry[..2]), older(entry[2])));
        }
        input = input.get(3 * keys.len()..).unwrap_or_default();
        let entries: Vec<(&str, BlockCid, Option<BlockCid>)> =
            keys.iter().map(|(key, behind)| (key.as_str(), record, *behind)).collect();
        let block = node(older(first).as_ref(), &entries);
        nodes.push((cid_of(&block), block));
    }
    let root = nodes.last().map_or(BlockCid::dag_cbor(&[0; 32]), |(cid, _)| *cid);
    let (commit, block) = MadeRepo::new(&did(1), "3kaaaaaaaaaaa").commit(&root);
    nodes.push((commit, block));
    nodes.push((record, RECORD.to_vec()));
    car(&commit, &nodes)
}

fn path(key: &[u8]) -> String {
    format!("com.example.a/{:02x}{:02x}", key.first().unwrap_or(&0), key.get(1).unwrap_or(&0))
}
