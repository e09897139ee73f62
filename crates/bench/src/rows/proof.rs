//! What it costs to prove commits, on one core and in memory, beside another library that undoes ops.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use ciborium::Value as Cbor;
use penstock_wire::{Frame, Key, Limits, decode};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secp256k1::{Message, PublicKey, SecretKey};
use shrike::cbor::{Cid, Codec, Value, encode_value};
use shrike::mst::{BlockStore, DetachedTree, MemBlockStore};
use tokio::task::spawn_blocking;

use super::{Bench, kilo};
use crate::error::Error;
use crate::figures::Runs;
use crate::table::Line;

/// Frames that are looked at; those that are no commits with a state before are passed over.
const FRAMES: u64 = 4_000;

/// How often the commits are gone through in a run.
const ROUNDS: u32 = 5;

const INVERSION: f64 = 80_000.0;
const SIGNED: f64 = 15_000.0;

/// How many times as fast as the other library.
const RATIO: f64 = 2.0;

/// What stands in for a commit that is signed.
const MESSAGE: [u8; 180] = [7; 180];

/// A commit as the other library takes it.
struct Peer {
    /// The signed commit.
    commit: Vec<u8>,
    blocks: MemBlockStore,
    root: Cid,
    prev_data: Cid,
    /// Action, path, and the record before.
    ops: Vec<(String, String, Option<Cid>)>,
}

/// A key, and its signature of [`MESSAGE`].
struct Signer {
    key: Key,
    signature: Vec<u8>,
}

/// Measures the proof of commits.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    eprintln!("proof: preparing {FRAMES} frames");
    let frames: Vec<Bytes> = penstock_replay::frames(&bench.replay(FRAMES))?.collect();
    let runs = bench.runs;
    spawn_blocking(move || compare(&frames, runs)).await?
}

fn compare(frames: &[Bytes], runs: u64) -> Result<Vec<Line>, Error> {
    let (plain, proved) = (Limits::default(), Limits { proof: true, ..Limits::default() });
    let holds = |frame: &&Bytes| match decode(frame, &proved) {
        Ok(Frame::Event(event)) => event.proof.is_some_and(|proof| proof.is_provable() && proof.fault.is_none()),
        _ => false,
    };
    let commits: Vec<&Bytes> = frames.iter().filter(holds).collect();
    let peers: Vec<Peer> = commits.iter().filter_map(|frame| Peer::of(frame)).filter(Peer::holds).collect();
    let signers = [Signer::p256()?, Signer::k256()?];
    let [mut undone, mut whole, mut peer] = [Runs::default(), Runs::default(), Runs::default()];
    let mut signed = [Runs::default(), Runs::default()];
    for _ in 0..runs {
        let without = micros(&commits, |frame| drop(black_box(decode(frame, &plain))));
        let with = micros(&commits, |frame| drop(black_box(decode(frame, &proved))));
        let proof = (with - without).max(0.01);
        undone.push(1e6 / proof);
        whole.push(1e6 / with);
        for (rates, signer) in signed.iter_mut().zip(&signers) {
            rates.push(1e6 / (proof + micros(&commits, |_| _ = black_box(signer.holds()))));
        }
        peer.push(1e6 / micros(&peers, |commit| _ = black_box(commit.holds())));
    }
    let ratio = undone.median() / peer.median().max(1.0);
    let [p256, k256] = signed;
    Ok(vec![
        Line {
            what: "commits proved without signatures, on one core",
            budget: "≥ 80 k/s, ≥ 2 × the other",
            measured: format!("{} ({} to {})", kilo(undone.median()), kilo(undone.least()), kilo(undone.greatest())),
            met: Some(undone.median() >= INVERSION && ratio >= RATIO),
            beside: format!(
                "shrike {} ({ratio:.1} ×) of {} of {} commits, decoding and proof together {}",
                kilo(peer.median()),
                peers.len(),
                commits.len(),
                kilo(whole.median())
            ),
        },
        Line {
            what: "commits proved with signatures, on one core",
            budget: "≥ 15 k/s",
            measured: format!("P-256 {}, K-256 {}", kilo(p256.median()), kilo(k256.median())),
            met: Some(p256.median() >= SIGNED && k256.median() >= SIGNED),
            beside: String::new(),
        },
    ])
}

/// Returns how long one item takes, in microseconds: the quickest of several rounds, as other work only makes it slower.
fn micros<T>(items: &[T], mut each: impl FnMut(&T)) -> f64 {
    let round = |_| {
        let started = Instant::now();
        items.iter().for_each(&mut each);
        started.elapsed().as_secs_f64() * 1e6 / items.len().max(1) as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

// === impl Signer ===

impl Signer {
    fn p256() -> Result<Self, Error> {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = || {
            let document = EcdsaKeyPair::generate_pkcs8(kind, &random).ok()?;
            let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).ok()?;
            let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
            let point = [&[0x80, 2 | (y.last()? & 1)][..], x].concat();
            let key = Key::from_bytes(&point).ok()?;
            // One of two is low-S, which alone counts.
            let signatures = (0..64).filter_map(|_| pair.sign(&random, &MESSAGE).ok());
            let signature = signatures.map(|signature| signature.as_ref().to_vec());
            let signature = signature.into_iter().find(|signature| key.verify(&MESSAGE, signature).is_ok())?;
            Some(Self { key, signature })
        };
        made().ok_or(Error::Sign)
    }

    fn k256() -> Result<Self, Error> {
        let made = || {
            let secret = SecretKey::from_secret_bytes([7; 32]).ok()?;
            let point = PublicKey::from_secret_key(&secret).serialize();
            let key = Key::from_bytes(&[&[0xE7][..], &point].concat()).ok()?;
            let digest = *Cid::compute(Codec::Raw, &MESSAGE).hash();
            let signature = secp256k1::ecdsa::sign(Message::from_digest(digest), &secret).serialize_compact().to_vec();
            key.verify(&MESSAGE, &signature).ok()?;
            Some(Self { key, signature })
        };
        made().ok_or(Error::Sign)
    }

    fn holds(&self) -> bool {
        self.key.verify(&MESSAGE, &self.signature).is_ok()
    }
}

// === impl Peer ===

impl Peer {
    fn of(frame: &[u8]) -> Option<Self> {
        let mut rest = frame;
        let _header: Cbor = ciborium::from_reader(&mut rest).ok()?;
        let body: Cbor = ciborium::from_reader(&mut rest).ok()?;
        let (roots, held) = shrike::car::read_slice(field(&body, "blocks")?.as_bytes()?).ok()?;
        let blocks = MemBlockStore::new();
        let (mut root, mut signed) = (None, Vec::new());
        for block in held {
            if roots.first() == Some(&block.cid) {
                let commit: Cbor = ciborium::from_reader(block.data).ok()?;
                root = cid(field(&commit, "data")?);
                signed = block.data.to_vec();
            }
            blocks.put_block(block.cid, block.data.to_vec()).ok()?;
        }
        let op = |op: &Cbor| {
            let text = |name| field(op, name)?.as_text().map(str::to_owned);
            Some((text("action")?, text("path")?, field(op, "prev").and_then(cid)))
        };
        let ops = field(&body, "ops")?.as_array()?.iter().map(op).collect::<Option<Vec<_>>>()?;
        Some(Self { commit: signed, blocks, root: root?, prev_data: cid(field(&body, "prevData")?)?, ops })
    }

    /// Reads the signed commit, as far as what is signed, and undoes the ops, last first: what our own proof does.
    fn holds(&self) -> bool {
        let Ok(Value::Map(mut fields)) = shrike::cbor::decode(&self.commit) else { return false };
        let has_root =
            fields.iter().any(|(key, value)| *key == "data" && matches!(value, Value::Cid(data) if *data == self.root));
        fields.retain(|(key, _)| *key != "sig");
        let Ok(unsigned) = encode_value(&Value::Map(fields)) else { return false };
        black_box(unsigned);
        has_root && self.undoes()
    }

    fn undoes(&self) -> bool {
        let mut tree = DetachedTree::load(self.root);
        for (action, path, prev) in self.ops.iter().rev() {
            let undone = match (action.as_str(), prev) {
                ("create", _) => tree.remove(&self.blocks, path),
                (_, Some(prev)) => tree.insert(&self.blocks, path.clone(), *prev),
                (_, None) => return false,
            };
            if undone.is_err() {
                return false;
            }
        }
        tree.flush().is_ok_and(|written| written.root == self.prev_data)
    }
}

fn field<'a>(map: &'a Cbor, name: &str) -> Option<&'a Cbor> {
    map.as_map()?.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}

fn cid(link: &Cbor) -> Option<Cid> {
    match link {
        Cbor::Tag(42, bytes) => Cid::from_tag42_bytes(bytes.as_bytes()?).ok(),
        _ => None,
    }
}
