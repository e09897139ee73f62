//! Entries in all three dialects: what is read can be written in our own and read again.
//!
//! An input is four lines: type, seq, origId, data (all that is left). A line of `-` is a field that is absent.

use std::error::Error;

use penstock_core::data::{Action, CommitWriter, write_account, write_identity};
use penstock_core::dialect::mend_lone_surrogates;
use penstock_core::entry::{Commit, Entry, Event, RawEntry};
use penstock_core::json;
use penstock_core::stream::{Seq, StreamId, field};
use penstock_core::time;
use serde_json::Value as Json;

/// The longest text of an error, in bytes, its source's not counted: 64 characters are repeated, each escaped.
const ERROR: usize = 1000;

/// How deep a record may be to be read again: one that stands at the reader's bound gains a level by its blobs' links.
const NESTING: usize = json::MAX_DEPTH - 6;

/// Decodes one entry and checks the answer.
pub fn entry(input: &[u8]) {
    let mut lines = input.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().filter(|line| *line != b"-");
    let raw = RawEntry {
        id: StreamId { ms: 9, seq: 1 },
        kind: line(),
        seq: line(),
        orig_id: line(),
        data: line(),
        traceparent: None,
        root: None,
        sync: None,
    };
    for text in [raw.seq, raw.orig_id].into_iter().flatten().filter_map(|text| str::from_utf8(text).ok()) {
        check_words(text);
    }
    if let Some(mended) = raw.data.and_then(mend_lone_surrogates) {
        assert_eq!(Some(mended.len()), raw.data.map(<[u8]>::len));
        assert_eq!(mend_lone_surrogates(&mended), None, "a lone surrogate is left");
    }

    match raw.decode() {
        Ok(entry) => check_entry(&entry),
        Err(error) => {
            assert!(error.to_string().len() <= ERROR, "{error}");
            assert!(error.source().is_none_or(|source| !source.to_string().is_empty()));
        }
    }
}

fn check_words(text: &str) {
    if let Ok(id) = text.parse::<StreamId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.next() > id || id == StreamId { ms: u64::MAX, seq: u64::MAX });
    }
    if let Ok(seq) = text.parse::<Seq>() {
        assert_eq!(Seq::new(seq.get()), Some(seq));
        assert_eq!(seq.to_string().parse(), Ok(seq));
    }
    if let Some(at) = time::parse(text) {
        assert_eq!(time::parse(&at.to_string()), Some(at));
        assert!(
            time::parse(&time::format(at)).is_some_and(|rounded| rounded.duration_since(at).abs().as_millis() <= 1)
        );
        assert_eq!(time::clock(at).len(), 8);
    }
}

fn check_entry(entry: &Entry) {
    assert!(entry.event.did().starts_with("did:"));
    if let Event::Commit(commit) = &entry.event {
        for op in &commit.ops {
            assert!(!op.collection.is_empty() && !op.collection.contains('/'));
            assert!(!op.rkey.is_empty() && !op.rkey.contains('/'));
        }
        if commit.ops.iter().filter_map(|op| op.record.as_ref()).any(|record| depth(record) > NESTING) {
            return;
        }
    }

    let mut data = Vec::new();
    write(&mut data, &entry.event);
    let seq = entry.seq.map(|seq| seq.to_string()).unwrap_or_default();
    let order = entry.order.to_string();
    let fields: [(&str, &[u8]); 4] = [
        (field::TYPE, entry.event.kind().as_str().as_bytes()),
        (field::DATA, &data),
        (field::SEQ, seq.as_bytes()),
        (field::ORIG_ID, order.as_bytes()),
    ];
    let again = RawEntry::from_fields(entry.id, fields).decode().expect("our own entry is read");
    let mut expected = entry.clone();
    if let Event::Commit(commit) = &mut expected.event {
        // A delete is written with its path alone.
        for op in commit.ops.iter_mut().filter(|op| op.action == Action::Delete) {
            (op.cid, op.record) = (None, None);
        }
    }
    assert_eq!(again, expected, "{}", String::from_utf8_lossy(&data));
}

fn write(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Commit(commit) => write_commit(out, commit),
        Event::Identity(identity) => {
            let time = identity.time.map(|time| time.to_string());
            write_identity(out, &identity.did, identity.handle.as_deref(), time.as_deref());
        }
        Event::Account(account) => {
            let time = account.time.map(|time| time.to_string());
            write_account(out, &account.did, account.active, account.status.as_deref(), time.as_deref());
        }
    }
}

fn write_commit(out: &mut Vec<u8>, commit: &Commit) {
    let mut writer = CommitWriter::start(out, &commit.repo);
    for op in &commit.ops {
        let path = format!("{}/{}", op.collection, op.rkey);
        let cid = op.cid.as_deref().unwrap_or_default();
        match (op.action, &op.record) {
            (Action::Delete, _) => writer.delete(&path),
            (action, None) => writer.op(action, &path, cid),
            (action, Some(record)) => {
                let written = writer.op_with_record(action, &path, cid, |out| serde_json::to_writer(out, record));
                written.expect("a tree is always written");
            }
        }
    }
    let time = commit.time.map(|time| time.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (rev, since) = (text(&commit.rev), commit.since.as_deref());
    writer.finish_missing(&rev, time.as_deref(), &text(&commit.commit), since, commit.missing as usize);
}

/// How many maps and lists are inside each other.
fn depth(tree: &Json) -> usize {
    match tree {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Json::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}
