//! An independent reading of frames: ciborium and a CAR walker of its own. It shares no code with the crate.

use std::collections::{HashMap, HashSet};

use ciborium::Value;
use sha2::{Digest, Sha256};

/// One frame, decoded.
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) body: Value,
    /// The CAR's root, and its blocks in order: CID and content.
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) blocks: Vec<(Vec<u8>, Value)>,
}

/// Decodes a frame, asserting that all of it is canonical DAG-CBOR and that every block hashes to its CID.
pub(crate) fn decode(frame: &[u8]) -> Event {
    let mut rest = frame;
    let header: Value = ciborium::from_reader(&mut rest).unwrap();
    let split = frame.len() - rest.len();
    let body = canonical(&frame[split..]);
    assert_eq!(encode(&header), frame[..split]);
    let mut event = Event { kind: text(get(&header, "t").unwrap()), body, root: None, blocks: Vec::new() };
    if let Some(Value::Bytes(car)) = get(&event.body, "blocks") {
        let mut sections = sections(car).into_iter();
        let header = canonical(sections.next().unwrap());
        let Some(Value::Array(roots)) = get(&header, "roots") else { panic!("no roots") };
        event.root = Some(link(&roots[0]).unwrap());
        for section in sections {
            let (cid, data) = section.split_at(36);
            assert_eq!(cid[..4], [1, 0x71, 0x12, 0x20]);
            assert_eq!(Sha256::digest(data)[..], cid[4..], "a block does not hash to its CID");
            event.blocks.push((cid.to_vec(), canonical(data)));
        }
    }
    event
}

impl Event {
    pub(crate) fn seq(&self) -> u64 {
        u64::try_from(get(&self.body, "seq").unwrap().as_integer().unwrap()).unwrap()
    }

    pub(crate) fn did(&self) -> String {
        text(get(&self.body, "repo").or(get(&self.body, "did")).unwrap())
    }

    pub(crate) fn rev(&self) -> Option<String> {
        get(&self.body, "rev").map(text)
    }

    pub(crate) fn since(&self) -> Option<String> {
        get(&self.body, "since").and_then(Value::as_text).map(str::to_owned)
    }

    pub(crate) fn prev_data(&self) -> Option<Vec<u8>> {
        get(&self.body, "prevData").and_then(link)
    }

    /// The tree's root, as the commit has it.
    pub(crate) fn tree(&self) -> Option<Vec<u8>> {
        link(get(self.commit()?, "data")?)
    }

    fn commit(&self) -> Option<&Value> {
        self.blocks.iter().find(|(cid, _)| Some(cid) == self.root.as_ref()).map(|(_, commit)| commit)
    }

    pub(crate) fn time(&self) -> String {
        text(get(&self.body, "time").unwrap())
    }

    /// Asserts what a consumer relies on: the root is the commit, the commit block agrees with the frame, the tree's root and
    /// the records of the ops are there.
    pub(crate) fn assert_whole(&self) {
        let Some(root) = &self.root else { return };
        let blocks: HashMap<&Vec<u8>, &Value> = self.blocks.iter().map(|(cid, block)| (cid, block)).collect();
        let commit = blocks[root];
        assert!(text(get(commit, "did").unwrap()) == self.did(), "commit and frame name different repos");
        assert_eq!(Some(text(get(commit, "rev").unwrap())), self.rev());
        if self.kind != "#commit" {
            return;
        }
        assert_eq!(link(get(&self.body, "commit").unwrap()).as_ref(), Some(root));
        let tree = get(commit, "data").unwrap();
        // A commit that leaves the tree as it was need not bring it.
        assert!(blocks.contains_key(&link(tree).unwrap()) || get(&self.body, "prevData") == Some(tree));
        let ops = get(&self.body, "ops").unwrap().as_array().unwrap();
        for (n, op) in ops.iter().enumerate() {
            let again = ops[n + 1..].iter().any(|later| get(later, "path") == get(op, "path"));
            if let Some(cid) = link(get(op, "cid").unwrap()) {
                // A record that its own commit overwrites or deletes is not in the CAR.
                assert!(blocks.contains_key(&cid) || again, "op {n} has no record");
            }
        }
    }
}

/// What an event's commit signs, and the signature.
pub(crate) fn signed(event: &Event) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut fields = event.commit()?.as_map()?.clone();
    let at = fields.iter().position(|(key, _)| key.as_text() == Some("sig"))?;
    let (_, signature) = fields.remove(at);
    Some((encode(&Value::Map(fields)), signature.into_bytes().ok()?))
}

/// Holds a rewritten loop against its recording, and what became of what. No message repeats a text: some recordings are of
/// real people.
#[derive(Default)]
pub(crate) struct Mapping {
    pub(crate) dids: HashMap<String, String>,
    cids: HashMap<Vec<u8>, Vec<u8>>,
    taken: HashMap<Vec<u8>, Vec<u8>>,
    /// Microseconds by which revs moved.
    moved: HashSet<i128>,
    pub(crate) handles: HashMap<String, String>,
    /// Whether times are moved by other than whole seconds.
    millis_change: bool,
}

impl Mapping {
    /// One of events whose times are moved by other than whole seconds.
    pub(crate) fn of_live_times() -> Self {
        Self { millis_change: true, ..Self::default() }
    }

    /// Learns the DIDs of a loop: same repo, same new name.
    pub(crate) fn learn(&mut self, before: &Event, after: &Event) {
        let name = self.dids.entry(before.did()).or_insert_with(|| after.did());
        assert!(*name == after.did(), "one repo became two");
        assert_eq!(before.did().len(), name.len());
    }

    /// Asserts that `after` is `before` with nothing changed but what a loop changes, and that consistently.
    pub(crate) fn check(&mut self, before: &Event, after: &Event) {
        assert_eq!(before.kind, after.kind);
        assert_eq!(before.blocks.len(), after.blocks.len());
        if let (Some(before), Some(after)) = (&before.root, &after.root) {
            self.cid(before, after);
        }
        for ((old_cid, old), (new_cid, new)) in before.blocks.iter().zip(&after.blocks) {
            self.cid(old_cid, new_cid);
            self.value("", old, new);
        }
        self.value("", &before.body, &after.body);
    }

    /// Asserts at the end that all revs moved by one and the same time; returns it in seconds.
    pub(crate) fn seconds(&self) -> i128 {
        assert_eq!(self.moved.len(), 1, "revs moved by different times");
        let moved = *self.moved.iter().next().unwrap();
        assert_eq!(moved % 1_000_000, 0);
        moved / 1_000_000
    }

    fn cid(&mut self, before: &[u8], after: &[u8]) {
        assert_eq!(self.cids.entry(before.into()).or_insert(after.into()), after, "one CID became two");
        assert_eq!(self.taken.entry(after.into()).or_insert(before.into()), before, "two CIDs became one");
    }

    fn value(&mut self, key: &str, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Map(before), Value::Map(after)) => {
                assert_eq!(before.len(), after.len());
                for ((key, before), (same, after)) in before.iter().zip(after) {
                    assert_eq!(key, same);
                    self.value(key.as_text().unwrap(), before, after);
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                assert_eq!(before.len(), after.len());
                before.iter().zip(after).for_each(|(before, after)| self.value("", before, after));
            }
            (Value::Tag(42, _), Value::Tag(42, _)) => self.cid(&link(before).unwrap(), &link(after).unwrap()),
            (Value::Text(before), Value::Text(after)) => self.text(key, before, after),
            _ if key == "seq" || key == "blocks" => {}
            _ => assert!(before == after, "{key} changed"),
        }
    }

    fn text(&mut self, key: &str, before: &str, after: &str) {
        let expected = self.dids.iter().fold(before.to_owned(), |text, (old, new)| text.replace(old, new));
        match key {
            "rev" | "since" if !before.is_empty() => {
                let (old, new) = (tid(before), tid(after));
                assert_eq!(old & 1023, new & 1023, "the clock id changed");
                self.moved.insert((new >> 10) - (old >> 10));
            }
            "handle" => {
                assert!(after.ends_with(before));
                self.handles.insert(before.into(), after.into());
            }
            "time" | "createdAt" if before != after => {
                let kept = if self.millis_change { 23 } else { 19 };
                assert_eq!((before.len(), &before[kept..]), (after.len(), &after[kept..]));
            }
            _ if before.starts_with("bafyrei") && before.len() == 59 => self.cid(&cid(before), &cid(after)),
            "path" => assert!(before == after, "a path changed"),
            _ => assert!(expected == after, "{key} changed"),
        }
    }
}

fn canonical(bytes: &[u8]) -> Value {
    let value = ciborium::from_reader(bytes).unwrap();
    assert!(encode(&value) == bytes, "not canonical, or not read to its end");
    value
}

fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

fn sections(mut car: &[u8]) -> Vec<&[u8]> {
    let mut sections = Vec::new();
    while !car.is_empty() {
        let width = car.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let length = car[..width].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        sections.push(&car[width..width + length]);
        car = &car[width + length..];
    }
    sections
}

fn get<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    map.as_map()?.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
}

fn text(value: &Value) -> String {
    value.as_text().unwrap().to_owned()
}

fn link(value: &Value) -> Option<Vec<u8>> {
    let Value::Tag(42, bytes) = value else { return None };
    Some(bytes.as_bytes().unwrap().strip_prefix(&[0]).unwrap().to_vec())
}

fn tid(text: &str) -> i128 {
    assert_eq!(text.len(), 13);
    let digit = |char| "234567abcdefghijklmnopqrstuvwxyz".find(char).unwrap() as i128;
    text.chars().fold(0, |tid, char| tid << 5 | digit(char))
}

fn cid(text: &str) -> Vec<u8> {
    let digits = text[1..].chars().map(|char| "abcdefghijklmnopqrstuvwxyz234567".find(char).unwrap());
    let (mut bits, mut width, mut out) = (0_usize, 0, Vec::new());
    for digit in digits {
        bits = (bits << 5 | digit) & 0xfff;
        width += 5;
        if width >= 8 {
            width -= 8;
            out.push((bits >> width) as u8);
        }
    }
    out
}
