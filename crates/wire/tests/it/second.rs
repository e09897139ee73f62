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
                // Which rev it is the signed commit says.
                && text("rev").is_some()
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
    let data: Json = penstock_core::json::from_slice(&event.data).unwrap();
    if int(body, "seq") != Some(i128::from(event.seq)) || !same_time(text("time"), data["time"].as_str(), event.time) {
        return false;
    }
    let mut expected = match event.kind.as_str() {
        "identity" => json!({"did": text("did"), "handle": text("handle")}),
        "account" => {
            json!({"did": text("did"), "active": get(body, "active").and_then(Cbor::as_bool), "status": text("status")})
        }
        _ if !same_ops(body, event, &data["ops"]) => return false,
        _ => commit(body),
    };
    expected["time"] = data["time"].clone();
    let commit = event.kind.as_str() == "commit";
    if commit {
        expected["ops"] = data["ops"].clone();
        if event.missing > 0 {
            expected["missing"] = json!(event.missing);
        }
    }
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
    let text = |key| get(body, key).and_then(Cbor::as_text);
    // Only a TID is let through as `since`.
    let since = text("since").filter(|since| {
        since.len() == 13
            && since.bytes().all(|byte| b"234567abcdefghijklmnopqrstuvwxyz".contains(&byte))
            && since.as_bytes()[0] <= b'j'
    });
    json!({"repo": text("repo"), "rev": text("rev"), "commit": link(get(body, "commit").unwrap()), "since": since})
}

/// Every op that is written is one of the commit's, in order and with its own record; what is not written is told.
fn same_ops(body: &Cbor, event: &Event, written: &Json) -> bool {
    let car = get(body, "blocks").and_then(Cbor::as_bytes).unwrap();
    let blocks: HashMap<&[u8], &[u8]> =
        blocks(car).into_iter().filter_map(|range| car[range].split_at_checked(36)).collect();
    let is_whole = event.left_out.is_empty();
    let block = |op: &Cbor| cid_bytes(op).and_then(|cid| blocks.get(cid));
    let is_unchanged = |op: &Cbor| get(op, "prev") == get(op, "cid") && block(op).is_none();
    let mut ops = get(body, "ops").and_then(Cbor::as_array).unwrap().iter();
    for said in written.as_array().unwrap() {
        let text = |op: &Cbor, key: &str| get(op, key).and_then(Cbor::as_text) == said[key].as_str();
        let is_it = |op: &Cbor| {
            text(op, "action")
                && text(op, "path")
                && (said["cid"].is_null() || cid_bytes(op).is_some_and(|cid| text_of(cid) == said["cid"]))
        };
        let found = ops.by_ref().find(|op| is_it(op) || (is_whole && !is_unchanged(op)));
        let Some(op) = found.filter(|op| is_it(op)) else { return false };
        let agrees = match (said.get("record"), block(op)) {
            (Some(record), Some(block)) => *record == to_json(&ciborium::from_reader(*block).unwrap()),
            (Some(_), None) => false,
            (None, Some(_)) => !is_whole || said["action"] == "delete",
            (None, None) => said["action"] == "delete" || !is_whole || event.missing > 0 || is_excused(body, op),
        };
        if !agrees {
            return false;
        }
    }
    ops.all(|op| !is_whole || is_unchanged(op))
}

/// Whether nobody misses the record of an op: the commit was too big, or another op is on the same path.
fn is_excused(body: &Cbor, op: &Cbor) -> bool {
    let ops = get(body, "ops").and_then(Cbor::as_array).unwrap();
    get(body, "tooBig").and_then(Cbor::as_bool) == Some(true)
        || ops.iter().filter(|other| get(other, "path") == get(op, "path")).count() > 1
}

fn cid_bytes(op: &Cbor) -> Option<&[u8]> {
    match get(op, "cid") {
        Some(Cbor::Tag(42, inner)) => inner.as_bytes()?.get(1..),
        _ => None,
    }
}

/// Returns where each block of a CAR stands, its CID first.
pub(crate) fn blocks(car: &[u8]) -> Vec<Range<usize>> {
    let mut sections = Vec::new();
    let mut at = 0;
    while at < car.len() {
        let mut len = 0;
        for shift in (0..63).step_by(7) {
            let Some(byte) = car.get(at) else { break };
            at += 1;
            len |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        // Behind a section that does not end there is nothing.
        let Some(end) = at.checked_add(len).filter(|end| *end <= car.len()) else { break };
        sections.push(at..end);
        at = end;
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
    text_of(&link_bytes(value)[1..])
}

fn text_of(cid: &[u8]) -> Json {
    match cid {
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
