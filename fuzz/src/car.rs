//! The blocks of a commit or `#sync`, in a frame that is sound around them: no mutation survives a hash by chance, so
//! the hashes are made to fit.
//!
//! The first byte says how the rest is taken: as the CAR itself, or as records, each behind its length (one byte, from
//! 251 on one more), that become blocks with ops.

use ciborium::Value as Cbor;
use ipld_core::ipld::Ipld;
use penstock_core::json;
use penstock_wire::{Frame, Limits, decode};
use serde_json::Value as Json;

use crate::{cbor, frame};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const REV: &str = "3kaaaaaaaaaaa";

/// Records less deep than this are read by the other strict decoder too.
const READ_TWICE: usize = 100;

/// What the first byte's bits say.
const RAW: u8 = 1;
const TOO_BIG: u8 = 2;
const SYNC: u8 = 4;
const REVERSED: u8 = 8;
const UPDATE: u8 = 16;

/// Decodes a frame with these blocks and checks the answer.
pub fn car(input: &[u8]) {
    let Some((&flags, rest)) = input.split_first() else { return };
    if flags & RAW != 0 {
        let commit = root(rest).unwrap_or_else(|| cbor::cid(b""));
        let frame = wrapped(flags, rest, &commit, &[]);
        return frame::check(&frame, &decode(&frame, &Limits::default()));
    }

    let records = records(rest);
    let mut block = Vec::new();
    cbor::map(&mut block, 3);
    cbor::text(&mut block, "did");
    cbor::text(&mut block, DID);
    cbor::text(&mut block, "rev");
    cbor::text(&mut block, REV);
    cbor::text(&mut block, "version");
    cbor::number(&mut block, 3);
    let commit = cbor::cid(&block);
    let cids: Vec<_> = records.iter().map(|record| cbor::cid(record)).collect();
    let mut blocks: Vec<_> = cids.iter().map(|cid| &cid[..]).zip(records.iter().copied()).collect();
    blocks.insert(0, (&commit, &block));
    if flags & REVERSED != 0 {
        blocks.reverse();
    }
    let frame = wrapped(flags, &written(&commit, &blocks), &commit, &cids);
    let answer = decode(&frame, &Limits::default());
    frame::check(&frame, &answer);

    match answer {
        Ok(Frame::Event(event)) => {
            let data: Json = json::from_slice(&event.data).expect("data is json");
            let ops = data["ops"].as_array().expect("ops is a list");
            assert_eq!(ops.len(), records.len(), "an op is lost with its record");
            for (index, (op, record)) in ops.iter().zip(&records).enumerate() {
                let has_record = op.get("record").is_some();
                let path = format!("com.example.note/{index}");
                let is_told = event.left_out.iter().any(|part| part.path.as_deref() == Some(&*path));
                assert!(has_record != is_told, "a record is neither carried nor told: {path}");
                // Deeper than the other decoder reads, only what is carried can be checked: `frame::check` did.
                if depth(record).is_some_and(|depth| depth < READ_TWICE) {
                    assert_eq!(has_record, is_carried(record), "{path}: {:?}", event.left_out);
                }
            }
            assert_eq!(event.missing, 0, "every block is there");
        }
        Ok(answer) => assert!(flags & SYNC != 0, "{answer:?}"),
        Err(error) => panic!("a sound frame is refused: {error}"),
    }
}

/// Takes parts, each behind its length, at most 200 of them.
pub(crate) fn records(mut input: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [first, rest @ ..] = input
        && records.len() < 200
    {
        let (len, rest) = match (first, rest) {
            (251.., [second, rest @ ..]) => (usize::from(first - 251) << 8 | usize::from(*second), rest),
            _ => (usize::from(*first), rest),
        };
        let (record, rest) = rest.split_at(len.min(rest.len()));
        records.push(record);
        input = rest;
    }
    records
}

/// Finds the first link, which in a CAR is the first root.
fn root(car: &[u8]) -> Option<Vec<u8>> {
    let tag = [0xD8, 0x2A, 0x58, 0x25, 0x00];
    let at = car.windows(tag.len()).position(|window| window == tag)? + tag.len();
    car.get(at..at + 36).map(<[u8]>::to_vec)
}

/// Writes a CAR.
pub(crate) fn written(root: &[u8], blocks: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut header = Vec::new();
    cbor::map(&mut header, 2);
    cbor::text(&mut header, "roots");
    cbor::list(&mut header, 1);
    cbor::link(&mut header, root);
    cbor::text(&mut header, "version");
    cbor::number(&mut header, 1);
    let mut car = Vec::new();
    cbor::section(&mut car, &[&header]);
    blocks.iter().for_each(|(cid, block)| cbor::section(&mut car, &[cid, block]));
    car
}

/// Writes the frame around a CAR, with one op for each record.
fn wrapped(flags: u8, car: &[u8], commit: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let is_sync = flags & SYNC != 0;
    let mut out = Vec::new();
    cbor::map(&mut out, 2);
    cbor::text(&mut out, "t");
    cbor::text(&mut out, if is_sync { "#sync" } else { "#commit" });
    cbor::text(&mut out, "op");
    cbor::number(&mut out, 1);
    cbor::map(&mut out, if is_sync { 4 } else { 7 });
    if is_sync {
        cbor::text(&mut out, "did");
        cbor::text(&mut out, DID);
    } else {
        cbor::text(&mut out, "ops");
        cbor::list(&mut out, records.len());
        for (index, cid) in records.iter().enumerate() {
            cbor::map(&mut out, 3);
            cbor::text(&mut out, "cid");
            cbor::link(&mut out, cid);
            cbor::text(&mut out, "path");
            cbor::text(&mut out, &format!("com.example.note/{index}"));
            cbor::text(&mut out, "action");
            cbor::text(&mut out, if flags & UPDATE != 0 { "update" } else { "create" });
        }
    }
    cbor::text(&mut out, "rev");
    cbor::text(&mut out, REV);
    cbor::text(&mut out, "seq");
    cbor::number(&mut out, 7);
    if !is_sync {
        cbor::text(&mut out, "repo");
        cbor::text(&mut out, DID);
    }
    cbor::text(&mut out, "blocks");
    cbor::bytes(&mut out, car);
    if !is_sync {
        cbor::text(&mut out, "commit");
        cbor::link(&mut out, commit);
        cbor::text(&mut out, "tooBig");
        cbor::bool(&mut out, flags & TOO_BIG != 0);
    }
    out
}

/// Whether a record is a map of strict DAG-CBOR, told by writing it again: each value has one form only.
fn is_carried(record: &[u8]) -> bool {
    match serde_ipld_dagcbor::from_slice::<Ipld>(record) {
        Ok(tree @ Ipld::Map(_)) => {
            numbers_fit(&tree) && serde_ipld_dagcbor::to_vec(&tree).is_ok_and(|again| again == record)
        }
        _ => false,
    }
}

/// Whether every number has a place in 64 bits, signed or not.
fn numbers_fit(tree: &Ipld) -> bool {
    match tree {
        Ipld::Integer(number) => (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number),
        Ipld::List(items) => items.iter().all(numbers_fit),
        Ipld::Map(entries) => entries.values().all(numbers_fit),
        _ => true,
    }
}

/// How many maps and lists are inside each other, if it is CBOR.
fn depth(record: &[u8]) -> Option<usize> {
    fn of(tree: &Cbor) -> usize {
        match tree {
            Cbor::Array(items) => 1 + items.iter().map(of).max().unwrap_or_default(),
            Cbor::Map(entries) => {
                1 + entries.iter().map(|(key, value)| of(key).max(of(value))).max().unwrap_or_default()
            }
            Cbor::Tag(_, inner) => of(inner),
            _ => 0,
        }
    }
    ciborium::from_reader::<Cbor, _>(record).ok().map(|tree| of(&tree))
}
