//! The signed commit: which form it has, and what its signature covers.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use penstock_wire::{Frame, Key, ProofFault, SignatureFault, decode};
use secp256k1::{Message, PublicKey, SecretKey};
use sha2::{Digest, Sha256};

use super::reference::{Records, build, commit};
use super::{PROVED, proof, word};
use crate::crafted::{Commit, cid_of, encode, frame_of, map, section, text};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const REV: &str = "3kaaaaaaaaaaa";

fn secret() -> SecretKey {
    SecretKey::from_secret_bytes([7; 32]).unwrap()
}

fn key() -> Key {
    let point = PublicKey::from_secret_key(&secret()).serialize();
    Key::from_bytes(&[&[0xE7][..], &point].concat()).unwrap()
}

fn fields() -> BTreeMap<String, Ipld> {
    let data = build(&Records::new()).root;
    let fields = [
        ("did", text(DID)),
        ("rev", text(REV)),
        ("data", Ipld::Link(data)),
        ("prev", Ipld::Null),
        ("version", Ipld::Integer(3)),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn sign(mut fields: BTreeMap<String, Ipld>) -> Vec<u8> {
    let digest = Sha256::digest(encode(&Ipld::Map(fields.clone())));
    let signature = secp256k1::ecdsa::sign(Message::from_digest(digest.into()), &secret());
    fields.insert("sig".into(), Ipld::Bytes(signature.serialize_compact().to_vec()));
    encode(&Ipld::Map(fields))
}

/// A commit frame around a commit block as it stands.
fn frame(block: Vec<u8>) -> Vec<u8> {
    let tree = build(&Records::new());
    let mut commit: Commit = commit(tree.root, Some(tree.root), &[], tree.nodes.values());
    let cid = cid_of(&block);
    commit.blocks[0] = (cid.to_bytes(), block);
    commit.with("commit", Ipld::Link(cid)).frame()
}

#[test]
fn whatever_stands_in_the_commit_is_covered_by_the_signature() {
    let with = |more: &[(&str, Ipld)]| {
        let mut fields = fields();
        fields.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        fields
    };
    let many: Vec<(String, Ipld)> = (0..30).map(|number| (format!("field{number}"), Ipld::Integer(number))).collect();
    let many: Vec<(&str, Ipld)> = many.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let deep = map([("list", Ipld::List(vec![Ipld::Bytes(vec![1; 300]), Ipld::Null])), ("at", Ipld::Float(0.5))]);
    for more in [&[][..], &[("a", Ipld::Bool(true))], &[("zzzzzzzzzz", deep)], &many] {
        let block = sign(with(more));
        let sound = proof(&frame(block.clone()));
        assert_eq!((sound.fault, sound.signed.verify(&key())), (None, Ok(())), "{more:?}");
        let mut fields = with(more);
        for (name, _) in more {
            let Ok(Ipld::Map(signed)) = serde_ipld_dagcbor::from_slice(&block) else { panic!("no map") };
            fields.insert("sig".into(), signed["sig"].clone());
            fields.remove(*name);
            let less = proof(&frame(encode(&Ipld::Map(fields.clone()))));
            assert_eq!(less.signed.verify(&key()), Err(SignatureFault::Mismatch), "without {name}");
        }
    }
}

#[test]
fn a_commit_that_is_none_is_refused_by_name() {
    let changed = |key: &str, value: Option<Ipld>| {
        let mut fields = fields();
        match value {
            Some(value) => fields.insert(key.into(), value),
            None => fields.remove(key),
        };
        fields
    };
    let raw = ipld_core::cid::Cid::new_v1(0x55, *build(&Records::new()).root.hash());
    for (fields, detail) in [
        (changed("version", Some(Ipld::Integer(2))), "version is not 3"),
        (changed("version", None), "version is not 3"),
        (changed("data", None), "data is missing"),
        (changed("data", Some(Ipld::Null)), "data is no cid of a tree"),
        (changed("data", Some(Ipld::Link(raw))), "data is no cid of a tree"),
        (changed("prev", Some(text("none"))), "prev is neither null nor a cid"),
    ] {
        assert_eq!(proof(&frame(sign(fields))).fault, Some(ProofFault::Commit { detail }));
    }
    let unsigned = encode(&Ipld::Map(fields()));
    assert_eq!(proof(&frame(unsigned)).fault, Some(ProofFault::Commit { detail: "sig is missing" }));
    for sound in [changed("prev", None), changed("prev", Some(Ipld::Link(build(&Records::new()).root)))] {
        let proof = proof(&frame(sign(sound)));
        assert_eq!((proof.fault, proof.signed.verify(&key())), (None, Ok(())));
    }
}

#[test]
fn a_commit_has_one_form() {
    let block = sign(fields());
    assert_eq!(word(&frame(block.clone())), "");
    // Keys in another order: `did` and `rev` change places.
    let (did, rev) =
        ([&b"\x63did\x78\x20"[..], DID.as_bytes()].concat(), [&b"\x63rev\x6D"[..], REV.as_bytes()].concat());
    let find = |part: &[u8]| block.windows(part.len()).position(|window| window == part).unwrap();
    let (first, second) = (find(&did), find(&rev));
    let turned =
        [&block[..first], &rev, &block[first + did.len()..second], &did, &block[second + rev.len()..]].concat();
    let long = [&[0xB8, 6][..], &block[1..]].concat();
    for spoilt in [turned, long] {
        match decode(&frame(spoilt), &PROVED()) {
            Ok(Frame::Event(event)) => assert_eq!(event.proof.unwrap().fault.map(|fault| fault.word()), Some("commit")),
            Err(error) => assert_eq!(error.name(), "commit"),
            other => panic!("neither a commit nor refused: {other:?}"),
        }
    }
}

#[test]
fn a_sync_is_proved_by_its_signature() {
    let block = sign(fields());
    let cid = cid_of(&block);
    let roots = Ipld::List(vec![Ipld::Link(cid)]);
    let mut car = section(&encode(&map([("roots", roots), ("version", Ipld::Integer(1))])));
    car.extend(section(&[&cid.to_bytes()[..], &block].concat()));
    let body = map([
        ("seq", Ipld::Integer(7)),
        ("did", text(DID)),
        ("rev", text(REV)),
        ("time", text("2026-07-04T14:38:07.877Z")),
        ("blocks", Ipld::Bytes(car)),
    ]);
    let Ok(Frame::Sync(sync)) = decode(&frame_of("#sync", &body), &PROVED()) else { panic!("no sync") };
    let proof = sync.proof.unwrap();
    assert_eq!((proof.fault, proof.signed.verify(&key())), (None, Ok(())));
    assert_eq!(proof.data.to_vec(), build(&Records::new()).root.hash().digest());
    assert_eq!(penstock_wire::rev_text(proof.rev), REV);
}
