//! Frames as the stream entries that must come of them, read with ciborium: nothing of the decoder under test.

use std::collections::HashMap;

use ciborium::Value as Cbor;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};
use penstock_replay::Settings;
use serde_json::{Map, Value, json};

use crate::faults::{MISSING, UNCARRIED};

/// An entry of the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// `commit`, `identity` or `account`.
    pub(crate) kind: String,
    /// The event as JSON.
    pub(crate) data: Value,
    /// The relay's number of it.
    pub(crate) seq: u64,
}

/// Everything that a relay says.
pub(crate) struct Recording {
    /// The entries, in order.
    pub(crate) entries: Vec<Entry>,
    /// The number of the last frame, whether or not it made an entry.
    pub(crate) last: u64,
    /// The numbers of all frames.
    pub(crate) seqs: Vec<u64>,
}

// === impl Entry ===

impl Entry {
    /// The DID that the event is of.
    pub(crate) fn did(&self) -> &str {
        self.data["repo"].as_str().or(self.data["did"].as_str()).unwrap()
    }
}

// === impl Recording ===

impl Recording {
    /// Reads what a relay of these settings serves.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::of_some(settings, |_| true)
    }

    /// Reads some of what a relay of these settings serves: the frames at the positions that are wanted.
    pub(crate) fn of_some(settings: &Settings, wanted: impl Fn(u64) -> bool) -> Self {
        let mut recording = Self { entries: Vec::new(), last: 0, seqs: Vec::new() };
        for (_, frame) in (0..).zip(penstock_replay::frames(settings).unwrap()).filter(|(at, _)| wanted(*at)) {
            let (seq, entry) = read(&frame);
            recording.entries.extend(entry);
            recording.last = seq;
            recording.seqs.push(seq);
        }
        recording
    }
}

/// What a relay of these settings says, frame by frame: its number, and the entry if it makes one.
pub(crate) fn said(settings: &Settings) -> impl Iterator<Item = (u64, Option<Entry>)> + use<> {
    penstock_replay::frames(settings).unwrap().map(|frame| read(&frame))
}

/// Reads a frame: its number, and the entry if it makes one.
pub(crate) fn read(frame: &[u8]) -> (u64, Option<Entry>) {
    let mut rest = frame;
    let header: Cbor = ciborium::from_reader(&mut rest).unwrap();
    let body: Cbor = ciborium::from_reader(rest).unwrap();
    let seq = get(&body, "seq").as_integer().unwrap().try_into().unwrap();
    (seq, entry(&text(&header, "t"), &body, seq))
}

fn entry(frame_type: &Value, body: &Cbor, seq: u64) -> Option<Entry> {
    let (kind, data) = match frame_type.as_str().unwrap() {
        "#commit" => ("commit", commit(body)),
        "#identity" => {
            ("identity", json!({"did": text(body, "did"), "handle": text(body, "handle"), "time": text(body, "time")}))
        }
        "#account" => {
            let active = get(body, "active").as_bool();
            let status = text(body, "status");
            (
                "account",
                json!({"did": text(body, "did"), "active": active, "status": status, "time": text(body, "time")}),
            )
        }
        // A repo's new state moves the cursor, and that is all.
        "#sync" => return None,
        other => panic!("the recording has no {other}"),
    };
    Some(Entry { kind: kind.to_owned(), data, seq })
}

fn commit(body: &Cbor) -> Value {
    let blocks = blocks(get(body, "blocks").as_bytes().unwrap());
    let ops: Vec<Value> = get(body, "ops").as_array().unwrap().iter().map(|op| self::op(op, &blocks)).collect();
    let since = Some(text(body, "since")).filter(|since| since != "").unwrap_or_default();
    let missing = ops.iter().filter(|op| collection(op) == MISSING).count();
    let mut commit = json!({
        "repo": text(body, "repo"), "ops": ops, "rev": text(body, "rev"), "time": text(body, "time"),
        "commit": cid(get(body, "commit")), "since": since,
    });
    if missing > 0 {
        commit["missing"] = json!(missing);
    }
    commit
}

fn op(op: &Cbor, blocks: &HashMap<&[u8], &[u8]>) -> Value {
    let mut out = json!({"action": text(op, "action"), "path": text(op, "path")});
    if out["action"] != "delete" {
        out["cid"] = cid(get(op, "cid")).into();
        // A record that the same commit deletes again is not in the frame.
        if !UNCARRIED.contains(&collection(&out))
            && let Some(block) = blocks.get(cid_bytes(get(op, "cid")))
        {
            out["record"] = lexicon_json(&ciborium::from_reader(*block).unwrap());
        }
    }
    out
}

/// The collection of an op.
fn collection(op: &Value) -> &str {
    op["path"].as_str().unwrap().split('/').next().unwrap()
}

/// Walks a CAR: a length, then as many bytes, and so on; first the header, then blocks that begin with their CID.
fn blocks(mut car: &[u8]) -> HashMap<&[u8], &[u8]> {
    let mut sections = Vec::new();
    while !car.is_empty() {
        let end = car.iter().position(|byte| byte & 0x80 == 0).unwrap();
        let len = car[..=end].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7F));
        let (section, rest) = car[end + 1..].split_at(len);
        sections.push(section);
        car = rest;
    }
    sections[1..].iter().map(|section| section.split_at(36)).collect()
}

fn lexicon_json(value: &Cbor) -> Value {
    match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(value) => json!(value),
        Cbor::Integer(value) => json!(i64::try_from(*value).unwrap()),
        Cbor::Float(value) => json!(value),
        Cbor::Text(text) => json!(text),
        Cbor::Bytes(bytes) => json!({"$bytes": BASE64_NOPAD.encode(bytes)}),
        Cbor::Tag(..) => json!({"$link": cid(value)}),
        Cbor::Array(items) => items.iter().map(lexicon_json).collect(),
        Cbor::Map(entries) => {
            let entry = |(key, value): &(Cbor, Cbor)| (key.as_text().unwrap().to_owned(), lexicon_json(value));
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        other => panic!("{other:?} is not of the data model"),
    }
}

fn get<'a>(map: &'a Cbor, key: &str) -> &'a Cbor {
    let entry = map.as_map().unwrap().iter().find(|(name, _)| name.as_text() == Some(key));
    entry.map_or(&Cbor::Null, |(_, value)| value)
}

fn text(map: &Cbor, key: &str) -> Value {
    get(map, key).as_text().map_or(Value::Null, Value::from)
}

fn cid(value: &Cbor) -> String {
    format!("b{}", BASE32_NOPAD.encode(cid_bytes(value)).to_ascii_lowercase())
}

/// A CID is bytes under tag 42, behind a zero.
fn cid_bytes(value: &Cbor) -> &[u8] {
    let Cbor::Tag(42, bytes) = value else { panic!("{value:?} is not a cid") };
    &bytes.as_bytes().unwrap()[1..]
}
