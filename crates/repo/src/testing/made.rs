//! Repos that are made: records in, a signed tree and its CAR out, by the letter of the specification and by code of its own.

use std::collections::BTreeMap;

use penstock_wire::{BlockCid, Key};
use secp256k1::{Message, PublicKey, SecretKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::cbor::{dag_cbor, head, link, string};

/// An account with a key that hangs on its DID and on how often it was changed: no secret, anybody can compute it.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its DID.
    pub did: String,
    /// How often its key was changed.
    pub rotations: u32,
}

/// A repo, as somebody wishes it.
#[derive(Clone, Debug)]
pub struct MadeRepo {
    /// Whose it is, and who signs it.
    pub account: Account,
    /// Its rev.
    pub rev: String,
    /// Its records as DAG-CBOR, by their paths.
    pub records: BTreeMap<String, Vec<u8>>,
}

/// The blocks of a repo.
#[derive(Clone, Debug)]
pub struct MadeBlocks {
    /// The signed commit.
    pub commit: BlockCid,
    /// The root of the tree.
    pub tree: BlockCid,
    /// All of them: the commit, then the nodes, then the records in order.
    pub blocks: Vec<(BlockCid, Vec<u8>)>,
}

/// A key of the tree on its way there.
struct Leaf<'a> {
    path: &'a str,
    layer: u32,
    record: BlockCid,
}

/// Returns the nth DID of many.
#[must_use]
pub fn did(n: u64) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let digit = |at: u32| letters.get((n >> (5 * at) & 31) as usize).copied().map_or('a', char::from);
    format!("did:plc:{}{}", "a".repeat(12), (0..12).rev().map(digit).collect::<String>())
}

/// Writes a CAR.
#[must_use]
pub fn car(root: &BlockCid, blocks: &[(BlockCid, Vec<u8>)]) -> Vec<u8> {
    car_of(Some(root), blocks)
}

/// Writes a CAR that names no root, as `com.atproto.sync.getBlocks` does.
#[must_use]
pub fn car_of_blocks(blocks: &[(BlockCid, Vec<u8>)]) -> Vec<u8> {
    car_of(None, blocks)
}

fn car_of(root: Option<&BlockCid>, blocks: &[(BlockCid, Vec<u8>)]) -> Vec<u8> {
    let mut header = Vec::new();
    head(&mut header, 0xA0, 2);
    string(&mut header, "roots");
    head(&mut header, 0x80, u64::from(root.is_some()));
    if let Some(root) = root {
        link(&mut header, root.bytes());
    }
    string(&mut header, "version");
    head(&mut header, 0x00, 1);
    let size = blocks.iter().map(|(_, block)| block.len() + 40).sum::<usize>();
    let mut out = Vec::with_capacity(size + 64);
    put_section(&mut out, &header, &[]);
    for (cid, block) in blocks {
        put_section(&mut out, cid.bytes(), block);
    }
    out
}

fn put_section(out: &mut Vec<u8>, start: &[u8], rest: &[u8]) {
    let mut len = start.len() + rest.len();
    while len >= 0x80 {
        out.push((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(start);
    out.extend_from_slice(rest);
}

/// Returns the CID of a DAG-CBOR block.
#[must_use]
pub fn cid_of(block: &[u8]) -> BlockCid {
    BlockCid::dag_cbor(&Sha256::digest(block).into())
}

/// Returns the root of the tree of these records, in the order of their paths: there is one such tree.
#[must_use]
pub fn tree(records: &[(String, BlockCid)]) -> BlockCid {
    let leaves = records.iter().map(|(path, record)| Leaf { path, layer: layer_of(path), record: *record });
    let leaves: Vec<Leaf<'_>> = leaves.collect();
    let top = leaves.iter().map(|leaf| leaf.layer).max().unwrap_or_default();
    put_node(&mut Vec::new(), &leaves, top)
}

// === impl Account ===

impl Account {
    /// Makes one.
    #[must_use]
    pub fn new(did: &str) -> Self {
        Self { did: did.to_owned(), rotations: 0 }
    }

    /// Returns its public key, as a document has it.
    #[must_use]
    pub fn multikey(&self) -> String {
        let point = self.key().map(|key| PublicKey::from_secret_key(&key).serialize());
        let key = point.and_then(|point| Key::from_bytes(&[&[0xE7][..], &point].concat()).ok());
        key.map(|key| key.to_string()).unwrap_or_default()
    }

    /// Returns its document, with a host.
    #[must_use]
    pub fn document(&self, host: &str) -> Value {
        let did = &self.did;
        json!({
            "id": did,
            "alsoKnownAs": [format!("at://{}.example.com", did.rsplit(':').next().unwrap_or_default())],
            "verificationMethod": [{
                "id": format!("{did}#atproto"), "type": "Multikey", "controller": did, "publicKeyMultibase": self.multikey(),
            }],
            "service": [{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": host}],
        })
    }

    /// Signs a commit without its signature.
    #[must_use]
    pub fn sign(&self, unsigned: &[u8]) -> Vec<u8> {
        let message = Message::from_digest(Sha256::digest(unsigned).into());
        self.key().map(|key| key.sign_ecdsa(message).serialize_compact().to_vec()).unwrap_or_default()
    }

    fn key(&self) -> Option<SecretKey> {
        let seed = format!("penstock-repo testing {} {}", self.rotations, self.did);
        // Nearly every number of 256 bits is a key; of those that are none, the next one is.
        let mut secret: [u8; 32] = Sha256::digest(seed).into();
        for _ in 0..8 {
            if let Ok(key) = SecretKey::from_secret_bytes(secret) {
                return Some(key);
            }
            secret = Sha256::digest(secret).into();
        }
        None
    }
}

// === impl MadeRepo ===

impl MadeRepo {
    /// Makes one without records.
    #[must_use]
    pub fn new(did: &str, rev: &str) -> Self {
        Self { account: Account::new(did), rev: rev.to_owned(), records: BTreeMap::new() }
    }

    /// Makes one with this many posts.
    #[must_use]
    pub fn of_posts(did: &str, rev: &str, posts: u64) -> Self {
        let mut repo = Self::new(did, rev);
        for n in 0..posts {
            let path =
                format!("app.bsky.feed.post/{}", penstock_wire::rev_text((1_700_000_000_000_000 + n * 977) << 10));
            let text = format!("post {n} of {did}, of no importance to anybody");
            repo.put(
                &path,
                &json!({"$type": "app.bsky.feed.post", "text": text, "createdAt": "2024-01-01T00:00:00.000Z"}),
            );
        }
        repo
    }

    /// Puts a record.
    pub fn put(&mut self, path: &str, record: &Value) {
        self.records.insert(path.to_owned(), dag_cbor(record));
    }

    /// Returns the CID of a record.
    #[must_use]
    pub fn cid(&self, path: &str) -> Option<BlockCid> {
        self.records.get(path).map(|record| cid_of(record))
    }

    /// Builds the tree and signs it.
    #[must_use]
    pub fn blocks(&self) -> MadeBlocks {
        let mut records = Vec::with_capacity(self.records.len());
        let mut leaves = Vec::with_capacity(self.records.len());
        for (path, record) in &self.records {
            let cid = cid_of(record);
            records.push((cid, record.clone()));
            leaves.push(Leaf { path, layer: layer_of(path), record: cid });
        }
        let mut nodes = Vec::new();
        let top = leaves.iter().map(|leaf| leaf.layer).max().unwrap_or_default();
        let tree = put_node(&mut nodes, &leaves, top);
        let (commit, block) = self.commit(&tree);
        let mut blocks = vec![(commit, block)];
        // The root first, as servers send them.
        blocks.extend(nodes.into_iter().rev());
        blocks.extend(records);
        MadeBlocks { commit, tree, blocks }
    }

    /// Signs a tree.
    #[must_use]
    pub fn commit(&self, tree: &BlockCid) -> (BlockCid, Vec<u8>) {
        let write = |signature: Option<&[u8]>| {
            let mut out = Vec::new();
            head(&mut out, 0xA0, 5 + u64::from(signature.is_some()));
            string(&mut out, "did");
            string(&mut out, &self.account.did);
            string(&mut out, "rev");
            string(&mut out, &self.rev);
            if let Some(signature) = signature {
                string(&mut out, "sig");
                head(&mut out, 0x40, signature.len() as u64);
                out.extend_from_slice(signature);
            }
            string(&mut out, "data");
            link(&mut out, tree.bytes());
            string(&mut out, "prev");
            out.push(0xF6);
            string(&mut out, "version");
            out.push(3);
            out
        };
        let block = write(Some(&self.account.sign(&write(None))));
        (cid_of(&block), block)
    }

    /// Returns its CAR.
    #[must_use]
    pub fn car(&self) -> Vec<u8> {
        let made = self.blocks();
        car(&made.commit, &made.blocks)
    }
}

/// Half the number of zero bits that the hash of a key begins with.
fn layer_of(path: &str) -> u32 {
    let digest: [u8; 32] = Sha256::digest(path).into();
    let zeros = digest.iter().take_while(|byte| **byte == 0).count();
    let rest = digest.get(zeros).map_or(0, |byte| byte.leading_zeros());
    (8 * zeros as u32 + rest) / 2
}

/// Writes the node of a layer with these keys, and those below it.
fn put_node(nodes: &mut Vec<(BlockCid, Vec<u8>)>, leaves: &[Leaf<'_>], layer: u32) -> BlockCid {
    let below = |nodes: &mut Vec<_>, gap: &[Leaf<'_>]| match layer.checked_sub(1) {
        Some(layer) if !gap.is_empty() => Some(put_node(nodes, gap, layer)),
        _ => None,
    };
    let mut gaps = leaves.split(|leaf| leaf.layer == layer);
    let first = below(nodes, gaps.next().unwrap_or_default());
    let own: Vec<&Leaf<'_>> = leaves.iter().filter(|leaf| leaf.layer == layer).collect();
    let mut entries = Vec::with_capacity(own.len());
    for (leaf, gap) in own.into_iter().zip(gaps) {
        entries.push((leaf.path, leaf.record, below(nodes, gap)));
    }
    let block = node(first.as_ref(), &entries);
    let cid = cid_of(&block);
    nodes.push((cid, block));
    cid
}

/// Writes one node as it is told: what hangs before all keys, then each key with its record and what hangs behind it.
#[must_use]
pub fn node(first: Option<&BlockCid>, entries: &[(&str, BlockCid, Option<BlockCid>)]) -> Vec<u8> {
    let mut block = Vec::new();
    head(&mut block, 0xA0, 2);
    string(&mut block, "e");
    head(&mut block, 0x80, entries.len() as u64);
    let mut before = "";
    for (path, record, behind) in entries {
        let shared = before.bytes().zip(path.bytes()).take_while(|(old, new)| old == new).count();
        let rest = path.get(shared..).unwrap_or_default();
        head(&mut block, 0xA0, 4);
        string(&mut block, "k");
        head(&mut block, 0x40, rest.len() as u64);
        block.extend_from_slice(rest.as_bytes());
        string(&mut block, "p");
        head(&mut block, 0x00, shared as u64);
        string(&mut block, "t");
        put_link(&mut block, behind.as_ref());
        string(&mut block, "v");
        put_link(&mut block, Some(record));
        before = path;
    }
    string(&mut block, "l");
    put_link(&mut block, first);
    block
}

fn put_link(out: &mut Vec<u8>, cid: Option<&BlockCid>) {
    match cid {
        Some(cid) => link(out, cid.bytes()),
        None => out.push(0xF6),
    }
}
