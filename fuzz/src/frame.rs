//! Frames: what is accepted means what a second decoder says it means, what is refused is told in few words.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use penstock_core::data::EventKind;
use penstock_core::entry::{self, RawEntry};
use penstock_core::json;
use penstock_core::stream::field;
use penstock_wire::{Event, Frame, FrameError, Limits, decode};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::second;

/// The longest text of an error, in bytes.
const ERROR: usize = 500;

/// Decodes one message and checks the answer.
pub fn frame(input: &[u8]) {
    let answer = decode(input, &Limits::default());
    check(input, &answer);
}

/// Checks what was decoded of `input`, whatever it is.
pub(crate) fn check(input: &[u8], answer: &Result<Frame, FrameError>) {
    match answer {
        Ok(frame) => {
            // What is passed over is not looked into: a text there that is not UTF-8, say. The second decoder reads all.
            let agrees = second::agrees(input, frame) || objects(input).is_none();
            assert!(agrees, "the second decoder reads it otherwise: {frame:?}");
            match frame {
                Frame::Event(event) => check_event(event),
                Frame::Sync(sync) => assert!((1..1 << 53).contains(&sync.seq)),
                Frame::Info(_) | Frame::Error(_) | Frame::Ignored(_) => {}
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= ERROR, "an error of {} bytes", text.len());
            assert!(!error.name().is_empty());
            match error {
                FrameError::Bad(bad) => assert!((1..1 << 53).contains(&bad.seq)),
                FrameError::Unreadable { .. } => {
                    assert!(!could_be_set_aside(input), "a frame with a number would drop the connection: {text}");
                }
            }
        }
    }
}

/// The data is JSON with the contract's keys in order, and reads back as what was decoded.
fn check_event(event: &Event) {
    let limits = Limits::default();
    assert!((1..1 << 53).contains(&event.seq));
    assert!(event.ops <= 1_000);
    let told: usize = event.left_out.iter().map(|part| part.block.len() + part.reason.to_string().len()).sum();
    assert!(event.left_out.len() <= 201 && told <= limits.frame + 201 * ERROR);
    assert!(event.data.len() <= limits.data + 8 * limits.record);
    let data: Json = json::from_slice(&event.data).expect("data is json");
    let keys = data.as_object().expect("data is an object").keys().map(String::as_str);
    let keys: Vec<&str> = keys.filter(|key| *key != "missing").collect();
    assert_eq!(data["missing"].as_u64().unwrap_or_default(), event.missing as u64);
    let expected: &[&str] = match event.kind {
        EventKind::Commit => &["commit", "ops", "repo", "rev", "since", "time"],
        EventKind::Identity => &["did", "handle", "time"],
        EventKind::Account => &["active", "did", "status", "time"],
    };
    assert_eq!(keys, expected);
    if let Some(time) = data["time"].as_str() {
        assert_eq!(penstock_core::time::parse(time), event.time, "{time}");
    }

    let seq = event.seq.to_string();
    let fields: [(&str, &[u8]); 3] =
        [(field::TYPE, event.kind.as_str().as_bytes()), (field::DATA, &event.data), (field::SEQ, seq.as_bytes())];
    let entry = RawEntry::from_fields("1-0".parse().expect("an id"), fields).decode().expect("our own entry is read");
    assert_eq!(entry.seq.map(|seq| seq.get()), Some(event.seq));
    assert_eq!(entry.event.kind(), event.kind);
    assert_eq!(entry.event.did(), &*event.did);
    if let entry::Event::Commit(commit) = &entry.event {
        assert_eq!((commit.rev.as_deref(), commit.since.as_deref()), (event.rev.as_deref(), event.since.as_deref()));
        assert_eq!((commit.ops.len(), commit.time), (event.ops, event.time));
        assert_eq!(commit.missing, event.missing as u64);
        for (op, written) in commit.ops.iter().zip(data["ops"].as_array().expect("ops is a list")) {
            assert_eq!(written["path"], format!("{}/{}", op.collection, op.rkey));
            assert_eq!(written.get("cid").and_then(Json::as_str), op.cid.as_deref());
            assert_eq!(written.get("record").is_some(), op.record.is_some());
        }
    }
}

/// Whether the frame is two strict objects of a known kind with a sequence number: whatever else is wrong with it, it
/// can be set aside.
fn could_be_set_aside(input: &[u8]) -> bool {
    let Some((header, body)) = objects(input) else { return false };
    let known = ["#commit", "#sync", "#identity", "#account"];
    header.get("op") == Some(&Ipld::Integer(1))
        && matches!(header.get("t"), Some(Ipld::String(t)) if known.contains(&t.as_str()))
        && matches!(body.get("seq"), Some(Ipld::Integer(seq)) if (1..1 << 53).contains(seq))
}

type Object = BTreeMap<String, Ipld>;

/// Reads a frame as two strict objects, whatever is in them.
fn objects(input: &[u8]) -> Option<(Object, Object)> {
    let mut input = serde_ipld_dagcbor::de::Deserializer::from_slice(input);
    let objects = (Object::deserialize(&mut input).ok()?, Object::deserialize(&mut input).ok()?);
    input.end().is_ok().then_some(objects)
}
