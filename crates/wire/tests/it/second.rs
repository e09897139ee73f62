//! A second decoder, as plain as can be: ciborium for the CBOR, its own walk of the CAR, trees everywhere.
//!
//! It shares nothing with the first but the frames, and it is lenient: what the first accepts, it has to read the same.

use std::collections::HashMap;
use std::ops::Range;

use ciborium::Value as Cbor;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD};
use penstock_wire::{Event, Frame};
use serde_json::{Map, Value as Json, json};

/// The two objects of a frame.
pub(crate) struct Objects {
    header: Cbor,
    body: Cbor,
}

/// Reads a frame, if ciborium can.
pub(crate) fn read(frame: &[u8]) -> Option<Objects> {
    let mut rest = frame;
    let header = ciborium::from_reader(&mut rest).ok()?;
    let body = ciborium::from_reader(&mut rest).ok()?;
    rest.is_empty().then_some(Objects { header, body })
}

/// Says whether the first decoder's answer is the right one for these bytes.
pub(crate) fn agrees(frame: &[u8], answer: &Frame) -> bool {
    let header_only = || ciborium::from_reader::<Cbor, _>(frame).ok();
    if let Frame::Ignored(ignored) = answer {
        let Some(header) = header_only() else { return false };
        let t = get(&header, "t").and_then(Cbor::as_text).map(str::to_owned);
        let known = ["#commit", "#sync", "#identity", "#account", "#info"].map(Some);
        return int(&header, "op") == Some(i128::from(ignored.op))
            && (ignored.op != 1 || !known.contains(&t.as_deref()));
    }
    let Some(Objects { header, body }) = read(frame) else { return false };
    let text = |key| get(&body, key).and_then(Cbor::as_text);
    let is =
        |op, t: &str| int(&header, "op") == Some(op) && get(&header, "t").and_then(Cbor::as_text).unwrap_or("") == t;
    match answer {
        Frame::Event(event) => is(1, event.kind.frame_type()) && same_event(&body, event),
        Frame::Sync(sync) => {
            is(1, "#sync")
                && int(&body, "seq") == Some(i128::from(sync.seq))
                && text("did") == Some(&*sync.did)
                && text("rev") == Some(&*sync.rev)
                && same_time(text("time"), None, sync.time)
        }
        Frame::Info(info) => {
            is(1, "#info") && text("name") == Some(&*info.name) && text("message") == info.message.as_deref()
        }
        Frame::Error(error) => {
            int(&header, "op") == Some(-1)
                && text("error") == Some(&*error.error)
                && text("message") == error.message.as_deref()
        }
        Frame::Ignored(_) => false,
    }
}

fn same_event(body: &Cbor, event: &Event) -> bool {
    let text = |key| get(body, key).and_then(Cbor::as_text);
    let data: Json = serde_json::from_slice(&event.data).unwrap();
    if int(body, "seq") != Some(i128::from(event.seq)) || !same_time(text("time"), data["time"].as_str(), event.time) {
        return false;
    }
    let mut expected = match event.kind.as_str() {
        "identity" => json!({"did": text("did"), "handle": text("handle")}),
        "account" => {
            json!({"did": text("did"), "active": get(body, "active").and_then(Cbor::as_bool), "status": text("status")})
        }
        _ => commit(body),
    };
    expected["time"] = data["time"].clone();
    let commit = event.kind.as_str() == "commit";
    data == expected
        && Some(&*event.did) == text(if commit { "repo" } else { "did" })
        && event.rev.as_deref() == text("rev").filter(|_| commit)
        && event.since.as_deref() == data["since"].as_str()
        && event.ops == data["ops"].as_array().map_or(0, Vec::len)
}

/// The text that goes on is the host's, or a time where the host's has another shape, or nothing where it is no time.
fn same_time(sent: Option<&str>, written: Option<&str>, at: Option<jiff::Timestamp>) -> bool {
    let strict = sent.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match at {
        None => strict.is_none() && written.is_none(),
        Some(at) => {
            strict.is_none_or(|strict| strict == at)
                && written
                    .is_none_or(|text| sent == Some(text) || text.parse().is_ok_and(|text: jiff::Timestamp| text == at))
        }
    }
}

fn commit(body: &Cbor) -> Json {
    let car = get(body, "blocks").and_then(Cbor::as_bytes).unwrap();
    let blocks: HashMap<&[u8], &[u8]> = blocks(car).into_iter().map(|range| car[range].split_at(36)).collect();
    let ops: Vec<Json> =
        get(body, "ops").and_then(Cbor::as_array).unwrap().iter().map(|op| self::op(op, &blocks)).collect();
    let text = |key| get(body, key).and_then(Cbor::as_text);
    // Only a TID is let through as `since`.
    let since = text("since").filter(|since| {
        since.len() == 13
            && since.bytes().all(|byte| b"234567abcdefghijklmnopqrstuvwxyz".contains(&byte))
            && since.as_bytes()[0] <= b'j'
    });
    json!({
        "repo": text("repo"), "ops": ops, "rev": text("rev"),
        "commit": link(get(body, "commit").unwrap()), "since": since,
    })
}

fn op(op: &Cbor, blocks: &HashMap<&[u8], &[u8]>) -> Json {
    let text = |key| get(op, key).and_then(Cbor::as_text);
    let mut out = json!({"action": text("action"), "path": text("path")});
    if text("action") == Some("delete") {
        return out;
    }
    let cid = get(op, "cid").unwrap();
    out["cid"] = link(cid);
    if let Some(block) = blocks.get(&link_bytes(cid)[1..]) {
        out["record"] = to_json(&ciborium::from_reader(*block).unwrap());
    }
    out
}

/// Returns where each block of a CAR stands, its CID first.
pub(crate) fn blocks(car: &[u8]) -> Vec<Range<usize>> {
    let mut sections = Vec::new();
    let mut at = 0;
    while at < car.len() {
        let mut len = 0;
        for shift in (0..).step_by(7) {
            let byte = car[at];
            at += 1;
            len |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        sections.push(at..at + len);
        at += len;
    }
    // The header; a frame that was too big for its blocks has none.
    sections.drain(..sections.len().min(1));
    sections
}

/// Returns a frame's CAR, if it has one.
pub(crate) fn car(frame: &[u8]) -> Option<Vec<u8>> {
    get(&read(frame)?.body, "blocks").and_then(Cbor::as_bytes).cloned()
}

/// Turns a tree into lexicon JSON.
pub(crate) fn to_json(value: &Cbor) -> Json {
    match value {
        Cbor::Null => Json::Null,
        Cbor::Bool(value) => json!(value),
        Cbor::Integer(value) => {
            let value = i128::from(*value);
            u64::try_from(value).map_or_else(|_| json!(i64::try_from(value).unwrap()), |value| json!(value))
        }
        Cbor::Float(value) => json!(value),
        Cbor::Text(text) => json!(text),
        Cbor::Bytes(bytes) => json!({"$bytes": BASE64_NOPAD.encode(bytes)}),
        Cbor::Tag(..) => json!({"$link": link(value)}),
        Cbor::Array(items) => items.iter().map(to_json).collect(),
        Cbor::Map(entries) => {
            let entry = |(key, value): &(Cbor, Cbor)| (key.as_text().unwrap().to_owned(), to_json(value));
            Json::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        other => unreachable!("{other:?} is not of the data model"),
    }
}

fn link(value: &Cbor) -> Json {
    match &link_bytes(value)[1..] {
        // Version 0 is written as its bare hash, in base58.
        v0 @ [0x12, 0x20, ..] => json!(ipld_core::cid::Cid::try_from(v0).unwrap().to_string()),
        v1 => json!(format!("b{}", BASE32_NOPAD.encode(v1).to_ascii_lowercase())),
    }
}

fn link_bytes(value: &Cbor) -> &[u8] {
    match value {
        Cbor::Tag(42, inner) => inner.as_bytes().unwrap(),
        other => unreachable!("{other:?} is no link"),
    }
}

fn get<'a>(map: &'a Cbor, key: &str) -> Option<&'a Cbor> {
    map.as_map()?.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
}

fn int(map: &Cbor, key: &str) -> Option<i128> {
    get(map, key).and_then(Cbor::as_integer).map(i128::from)
}
