//! Frames made by hand: the oddities seen in the wild, each bound, and each way in which DAG-CBOR is not minimal.

use std::collections::BTreeMap;

use ipld_core::cid::{Cid, multihash::Multihash};
use ipld_core::ipld::Ipld;
use penstock_core::data::Action;
use penstock_wire::{BadFrame, BadReason, BodyKind, Event, Frame, FrameError, Headline, Limits, Part, decode};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

const DID: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
const REV: &str = "3kaaaaaaaaaaa";

/// A commit frame to be spoilt.
pub(crate) struct Commit {
    /// The body's fields.
    pub(crate) body: BTreeMap<String, Ipld>,
    /// Its ops.
    pub(crate) ops: Vec<Ipld>,
    /// Its blocks: CID and bytes.
    pub(crate) blocks: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) fn encode(value: &Ipld) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).unwrap()
}

pub(crate) fn cid_of(block: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x12, &Sha256::digest(block)).unwrap())
}

/// Returns the first op's record, or what is wrong with the first part that was left out.
pub(crate) fn record_of(frame: &[u8], limits: &Limits) -> Result<Json, BadReason> {
    match decode(frame, limits) {
        Ok(Frame::Event(event)) => match event.left_out.first() {
            Some(part) => Err(part.reason.clone()),
            None => Ok(data(&event)["ops"][0]["record"].clone()),
        },
        Err(FrameError::Bad(bad)) => Err(bad.reason),
        other => panic!("neither an event nor a bad frame: {other:?}"),
    }
}

pub(crate) fn map<const N: usize>(entries: [(&str, Ipld); N]) -> Ipld {
    Ipld::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

pub(crate) fn text(text: &str) -> Ipld {
    Ipld::String(text.to_owned())
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

pub(crate) fn section(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len()), bytes].concat()
}

pub(crate) fn frame_of(t: &str, body: &Ipld) -> Vec<u8> {
    [encode(&map([("op", Ipld::Integer(1)), ("t", text(t))])), encode(body)].concat()
}

pub(crate) fn event(frame: &[u8]) -> Event {
    match decode(frame, &Limits::default()) {
        Ok(Frame::Event(event)) => event,
        other => panic!("not an event: {other:?}"),
    }
}

pub(crate) fn bad(frame: &[u8]) -> BadFrame {
    match decode(frame, &Limits::default()) {
        Err(FrameError::Bad(bad)) => bad,
        other => panic!("not a bad frame: {other:?}"),
    }
}

pub(crate) fn reason(frame: &[u8]) -> &'static str {
    bad(frame).reason.name()
}

pub(crate) fn data(event: &Event) -> Json {
    penstock_core::json::from_slice(&event.data).unwrap()
}

pub(crate) fn record(text: &str) -> Vec<u8> {
    encode(&map([("$type", self::text("com.example.note")), ("text", self::text(text))]))
}

impl Commit {
    /// A sound commit without ops.
    pub(crate) fn new() -> Self {
        let commit = encode(&map([("did", text(DID)), ("rev", text(REV)), ("version", Ipld::Integer(3))]));
        let cid = cid_of(&commit);
        let body = [
            ("seq", Ipld::Integer(7)),
            ("repo", text(DID)),
            ("rev", text(REV)),
            ("since", Ipld::Null),
            ("time", text("2026-07-04T14:38:07.877Z")),
            ("commit", Ipld::Link(cid)),
        ];
        let body = body.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { body, ops: Vec::new(), blocks: vec![(cid.to_bytes(), commit)] }
    }

    /// A commit that creates one record, given as its block.
    pub(crate) fn of_block(block: Vec<u8>) -> Self {
        Self::new().op("create", "com.example.note/1", Some(cid_of(&block))).block(block)
    }

    pub(crate) fn op(mut self, action: &str, path: &str, cid: Option<Cid>) -> Self {
        let cid = cid.map_or(Ipld::Null, Ipld::Link);
        self.ops.push(map([("action", text(action)), ("path", text(path)), ("cid", cid)]));
        self
    }

    pub(crate) fn block(mut self, block: Vec<u8>) -> Self {
        self.blocks.push((cid_of(&block).to_bytes(), block));
        self
    }

    pub(crate) fn with(mut self, key: &str, value: Ipld) -> Self {
        self.body.insert(key.to_owned(), value);
        self
    }

    pub(crate) fn car(&self) -> Vec<u8> {
        let roots = Ipld::List(vec![self.body["commit"].clone()]);
        let mut car = section(&encode(&map([("roots", roots), ("version", Ipld::Integer(1))])));
        for (cid, block) in &self.blocks {
            car.extend(section(&[&cid[..], block].concat()));
        }
        car
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut body = self.body.clone();
        body.insert("ops".into(), Ipld::List(self.ops.clone()));
        body.entry("blocks".into()).or_insert_with(|| Ipld::Bytes(self.car()));
        frame_of("#commit", &Ipld::Map(body))
    }
}

#[test]
fn blocks_come_in_any_order_twice_and_in_excess() {
    let (one, two) = (record("one"), record("two"));
    let mut commit = Commit::new()
        .op("create", "com.example.note/1", Some(cid_of(&one)))
        .op("update", "com.example.note/2", Some(cid_of(&two)))
        .block(two.clone())
        .block(one)
        .block(two)
        .block(record("nobody asked"));
    commit.blocks.rotate_left(1);
    let event = event(&commit.frame());
    let data = data(&event);
    assert_eq!(data["ops"][0]["record"]["text"], "one");
    assert_eq!(data["ops"][1]["record"]["text"], "two");
    let first = Some((Action::Create, "com.example.note/1".into()));
    assert_eq!((event.head, event.ops), (Headline::Commit { first }, 2));
}

#[test]
fn two_hundred_ops_share_one_block_and_one_more_is_too_many() {
    let block = record("shared");
    let mut commit = Commit::new().block(block.clone());
    // So many blocks that they are sorted to be found.
    for index in 0..100 {
        commit = commit.block(record(&format!("filler {index}")));
    }
    for index in 0..200 {
        commit = commit.op("create", &format!("com.example.note/{index}"), Some(cid_of(&block)));
    }
    let whole = event(&commit.frame());
    let data = data(&whole);
    assert!(data["ops"].as_array().unwrap().iter().all(|op| op["record"]["text"] == "shared"));
    assert_eq!((whole.left_out, whole.missing), (vec![], 0));

    // Behind the bound a record is left out, and a delete takes effect.
    let commit = commit.op("update", "com.example.note/new", Some(cid_of(&block)));
    let commit = commit.op("delete", "com.example.note/0", None);
    let more = event(&commit.frame());
    let data = self::data(&more);
    let op = |at: usize| (data["ops"][at]["action"].as_str().unwrap(), data["ops"][at].get("record").is_some());
    assert_eq!((op(199), op(200), op(201)), (("create", true), ("update", false), ("delete", false)));
    let reasons = |event: &Event| event.left_out.iter().map(|part| part.reason.clone()).collect::<Vec<_>>();
    assert_eq!((reasons(&more), more.missing), (vec![BadReason::TooManyOps { count: 202, limit: 200 }], 1));

    let many = (0..3_000).fold(commit, |commit, _| commit.op("delete", "com.example.note/0", None));
    let many = event(&many.frame());
    assert_eq!(many.ops, 1_000, "no more are held");
    assert_eq!((reasons(&many), many.missing), (vec![BadReason::TooManyOps { count: 3_202, limit: 200 }], 2_203));
}

#[test]
fn a_create_that_is_deleted_in_the_same_commit_has_no_record() {
    let gone = cid_of(&record("gone"));
    let commit = Commit::new().op("create", "com.example.note/1", Some(gone)).op("delete", "com.example.note/1", None);
    let expected = json!([
        {"action": "create", "path": "com.example.note/1", "cid": gone.to_string()},
        {"action": "delete", "path": "com.example.note/1"},
    ]);
    assert_eq!(data(&event(&commit.frame()))["ops"], expected);
}

#[test]
fn a_commit_that_was_too_big_is_carried_without_records() {
    let cid = cid_of(&record("far away"));
    let commit = Commit::new().op("create", "com.example.note/1", Some(cid)).with("blocks", Ipld::Bytes(Vec::new()));
    assert_eq!(reason(&commit.frame()), "commit_missing");
    let commit = commit.with("tooBig", Ipld::Bool(true));
    assert_eq!(data(&event(&commit.frame()))["ops"][0].get("record"), None);
    let mut commit = Commit::new();
    commit.blocks.clear();
    assert_eq!(reason(&commit.frame()), "commit_missing");
    let event = event(&commit.with("tooBig", Ipld::Bool(true)).frame());
    assert_eq!(data(&event)["ops"], json!([]));
}

#[test]
fn unknown_fields_and_since_that_is_no_rev_do_no_harm() {
    let commit = Commit::new()
        .with("since", text(""))
        .with("blobs", Ipld::List(vec![]))
        .with("novelty", map([("deep", Ipld::List(vec![Ipld::Null]))]))
        .with("time", text("no time"));
    let event = event(&commit.frame());
    assert_eq!((event.since.as_deref(), event.time, event.seq), (None, None, 7));
    assert_eq!(data(&event)["since"], Json::Null);
    assert_eq!(data(&event)["time"], Json::Null);
    let since = |since| self::event(&Commit::new().with("since", text(since)).frame()).since;
    assert_eq!(since("3jzzzzzzzzzzz").as_deref(), Some("3jzzzzzzzzzzz"));
    assert_eq!(since("yesterday"), None);
    let mut commit = Commit::new();
    commit.body.remove("since");
    assert_eq!(self::event(&commit.frame()).since, None);
}

#[test]
fn the_sequence_number_is_in_its_range_or_the_frame_is_unreadable() {
    for seq in [1, (1 << 53) - 1] {
        assert_eq!(event(&Commit::new().with("seq", Ipld::Integer(seq)).frame()).seq, seq as u64);
    }
    for seq in [0, 1 << 53] {
        let error = decode(&Commit::new().with("seq", Ipld::Integer(seq)).frame(), &Limits::default()).unwrap_err();
        assert_eq!(error.name(), "invalid_seq", "{seq}: {error}");
    }
    for seq in [Ipld::Integer(-1), text("7"), Ipld::Null] {
        let error = decode(&Commit::new().with("seq", seq).frame(), &Limits::default()).unwrap_err();
        assert_eq!(error.name(), "unreadable_body", "{error}");
    }
    let mut commit = Commit::new();
    commit.body.remove("seq");
    let error = decode(&commit.frame(), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("seq is missing"), "{error}");
}

#[test]
fn a_body_that_is_not_as_the_lexicon_says_keeps_its_number() {
    let mut commit = Commit::new();
    commit.body.remove("rev");
    let refused = bad(&commit.frame());
    assert_eq!((refused.seq, refused.kind, refused.did.as_deref()), (7, BodyKind::Commit, Some(DID)));
    assert_eq!(refused.time, "2026-07-04T14:38:07.877Z".parse().ok());
    assert_eq!(refused.reason.name(), "body");
    let refused = bad(&Commit::new().with("repo", Ipld::Integer(1)).frame());
    assert_eq!((refused.seq, refused.did), (7, None));
}

#[test]
fn names_are_held_against_their_syntax() {
    assert_eq!(reason(&Commit::new().with("repo", text("alice.test")).frame()), "did");
    for rev in ["", "zzzzzzzzzzzzz", "3kaaaaaaaaaa", "3Kaaaaaaaaaaa"] {
        assert_eq!(reason(&Commit::new().with("rev", text(rev)).frame()), "rev", "{rev}");
    }
    let long = "x".repeat(100_000);
    assert!(bad(&Commit::new().with("repo", text(&long)).frame()).to_string().len() < 300);
}

#[test]
fn the_car_is_of_the_commit_that_the_body_names() {
    let other = cid_of(&record("other"));
    let car = Commit::new().car();
    assert_eq!(
        reason(&Commit::new().with("commit", Ipld::Link(other)).with("blocks", Ipld::Bytes(car)).frame()),
        "root"
    );
    for (key, value) in [("rev", "3kbbbbbbbbbbb"), ("repo", "did:web:example.com")] {
        assert_eq!(reason(&Commit::new().with(key, text(value)).frame()), "commit", "{key}");
    }
    // The record itself as the commit.
    let block = record("no commit");
    let commit = Commit::new().with("commit", Ipld::Link(cid_of(&block))).block(block);
    assert_eq!(reason(&commit.frame()), "commit");
}

#[test]
fn a_car_that_is_none_is_refused() {
    let car = Commit::new().car();
    let header = |header: Ipld| section(&encode(&header));
    let roots = |version| {
        let root = Commit::new().body["commit"].clone();
        header(map([("roots", Ipld::List(vec![root])), ("version", Ipld::Integer(version))]))
    };
    let cars = [
        b"noise".to_vec(),
        vec![0],
        vec![0xFF; 20],
        car[..car.len() - 1].to_vec(),
        roots(2),
        header(map([("roots", Ipld::List(vec![])), ("version", Ipld::Integer(1))])),
        header(map([("version", Ipld::Integer(1))])),
    ];
    for (index, car) in cars.into_iter().enumerate() {
        let refused = bad(&Commit::new().with("blocks", Ipld::Bytes(car)).frame());
        assert_eq!(refused.reason.name(), "car", "{index}: {refused}");
        assert_eq!(refused.did.as_deref(), Some(DID));
    }
    // With the commit at hand, what is behind it costs nothing but itself.
    for more in [&[0][..], &[0x80, 0x00], &section(&[7; 50])] {
        let event = event(&Commit::new().with("blocks", Ipld::Bytes([&car, more].concat())).frame());
        let told: Vec<_> = event.left_out.iter().map(|part| (part.path.clone(), part.reason.name())).collect();
        assert_eq!(told, [(None, "car")], "{more:?}");
    }
    let mut commit = Commit::new().block(record("raw blocks may be there"));
    commit.blocks[1].0[1] = 0x55;
    assert_eq!(event(&commit.frame()).left_out, []);
    commit.blocks[1].1.push(0);
    assert_eq!(event(&commit.frame()).left_out[0].reason.name(), "block_hash");
}

#[test]
fn each_bound_is_named_when_crossed() {
    let commit = Commit::of_block(record(&"x".repeat(5_000)));
    let frame = commit.frame();
    let record = record(&"x".repeat(5_000)).len();
    let (default, car) = (Limits::default(), commit.car().len());
    let crossed = |limits: Limits| match decode(&frame, &limits) {
        Err(FrameError::Bad(bad)) => bad.reason.name(),
        Ok(Frame::Event(event)) => event.left_out.first().map_or("", |part| part.reason.name()),
        other => panic!("{other:?}"),
    };
    assert_eq!(crossed(Limits { frame: frame.len() - 1, ..default }), "frame_too_large");
    assert_eq!(crossed(Limits { blocks: car - 1, ..default }), "blocks_too_large");
    assert_eq!(crossed(Limits { ops: 0, ..default }), "too_many_ops");
    assert_eq!(crossed(Limits { record: record - 1, ..default }), "record_too_large");
    assert_eq!(crossed(Limits { data: 5_000, ..default }), "data_too_large");
    assert_eq!(
        crossed(Limits { frame: frame.len(), blocks: car, ops: 1, record, nesting: 1, data: 5_500, ..default }),
        ""
    );
}

/// A record whose innermost list or map is `depth` deep, itself counted.
fn nested(depth: usize, list: bool) -> Vec<u8> {
    let mut value = Ipld::Integer(1);
    for _ in 1..depth {
        value = if list { Ipld::List(vec![value]) } else { map([("a", value)]) };
    }
    encode(&map([("a", value)]))
}

#[test]
fn nesting_is_bounded_and_safe_on_a_small_stack() {
    let check = || {
        for list in [true, false] {
            for (allowed, most) in [(1, 1), (64, 64), (127, 127), (128, 128), (200, 200), (252, 252), (5_000, 252)] {
                let limits = Limits { nesting: allowed, ..Limits::default() };
                assert!(record_of(&Commit::of_block(nested(most, list)).frame(), &limits).is_ok(), "{most}");
                for deep in [most + 1, 300, 5_000] {
                    let refused = record_of(&Commit::of_block(nested(deep, list)).frame(), &limits).unwrap_err();
                    assert_eq!(refused.name(), "record_too_deep", "{deep}");
                }
            }
        }
    };
    // Encoding and reading back the deepest ones needs a stack of its own.
    std::thread::Builder::new().stack_size(64 << 20).spawn(check).unwrap().join().unwrap();
    let frame = Commit::of_block(nested(252, false)).frame();
    let limits = Limits::default();
    let decode = move || decode(&frame, &limits).is_ok();
    assert!(std::thread::Builder::new().stack_size(1 << 20).spawn(decode).unwrap().join().unwrap());
}

#[test]
fn ops_that_share_a_block_cannot_multiply_it_without_bound() {
    let block = record(&"\u{1}".repeat(900_000));
    let mut commit = Commit::new().block(block.clone());
    for index in 0..200 {
        commit = commit.op("create", &format!("com.example.note/{index}"), Some(cid_of(&block)));
    }
    let event = event(&commit.frame());
    let with: Vec<_> = data(&event)["ops"].as_array().unwrap().iter().map(|op| op.get("record").is_some()).collect();
    let carried = with.iter().take_while(|with| **with).count();
    assert_eq!((carried, with.len()), (2, 200), "each is 5.4 MB of json");
    assert!(!with[carried..].contains(&true) && event.data.len() <= 16_000_000);
    assert_eq!((event.left_out.len(), event.missing), (198, 198));
    assert!(event.left_out.iter().all(|part| part.reason == BadReason::DataTooLarge { limit: 16_000_000 }));
    assert!(event.left_out[1..].iter().all(|part| part.block.is_empty()), "the block is told once");
    assert_eq!(event.left_out[0].block, block);
}

/// The record `{"a": <value>}` with the value's bytes as given.
fn with_value(value: &[u8]) -> Vec<u8> {
    [&[0xA1, 0x61, b'a'], value].concat()
}

#[test]
fn numbers_are_carried_over_their_whole_range() {
    let cases: [(&[u8], &str); 10] = [
        (&[0x00], "0"),
        (&[0x17], "23"),
        (&[0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "18446744073709551615"),
        (&[0x20], "-1"),
        (&[0x3B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "-9223372036854775808"),
        (&[0xFB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0], "1.5"),
        (&[0xFB, 0x00, 0x00, 0, 0, 0, 0, 0, 0], "0.0"),
        (&[0xFB, 0x7F, 0xEF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], "1.7976931348623157e308"),
        (&[0xFB, 0x00, 0x00, 0, 0, 0, 0, 0, 1], "5e-324"),
        (&[0xF6], "null"),
    ];
    for (value, text) in cases {
        let event = event(&Commit::of_block(with_value(value)).frame());
        let data = String::from_utf8(event.data.to_vec()).unwrap();
        assert!(data.contains(&format!(r#""record":{{"a":{text}}}"#)), "{data}");
    }
}

#[test]
fn dag_cbor_that_is_not_strict_is_refused() {
    let cid = [&[0x58, 0x25, 0x00][..], &cid_of(b"").to_bytes()].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a long head of an integer", with_value(&[0x18, 0x05])),
        ("a longer head of an integer", with_value(&[0x1B, 0, 0, 0, 0, 0, 0, 0, 5])),
        ("a long head of a negative", with_value(&[0x38, 0x05])),
        ("a long head of a text", with_value(&[0x78, 0x01, b'x'])),
        ("a long head of bytes", with_value(&[0x58, 0x01, 0])),
        ("a long head of a list", with_value(&[0x98, 0x01, 0])),
        ("a long head of a map", with_value(&[0xB8, 0x01, 0x61, b'b', 0])),
        ("a long head of a key", vec![0xA1, 0x78, 0x01, b'a', 0]),
        ("a long head of the record", vec![0xB8, 0x01, 0x61, b'a', 0]),
        ("a negative beyond 64 bits", with_value(&[0x3B, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        ("an indefinite text", with_value(&[0x7F, 0x61, b'x', 0xFF])),
        ("indefinite bytes", with_value(&[0x5F, 0x41, 0, 0xFF])),
        ("an indefinite list", with_value(&[0x9F, 0, 0xFF])),
        ("an indefinite map", with_value(&[0xBF, 0x61, b'b', 0, 0xFF])),
        ("an indefinite record", vec![0xBF, 0x61, b'a', 0, 0xFF]),
        ("an indefinite key", vec![0xA1, 0x7F, 0x61, b'a', 0xFF, 0]),
        ("an indefinite key of nothing", vec![0xA1, 0x7F, 0xFF, 0]),
        ("an indefinite cid", with_value(&[&[0xD8, 0x2A, 0x5F][..], &cid, &[0xFF]].concat())),
        ("a key twice", vec![0xA2, 0x61, b'a', 0, 0x61, b'a', 0]),
        ("keys out of order", vec![0xA2, 0x61, b'b', 0, 0x61, b'a', 0]),
        ("a longer key first", vec![0xA2, 0x62, b'a', b'a', 0, 0x61, b'b', 0]),
        ("a key that is no text", vec![0xA1, 0x01, 0]),
        ("a key of bytes", vec![0xA1, 0x41, b'a', 0]),
        ("a text that is not utf-8", with_value(&[0x61, 0xFF])),
        ("a surrogate", with_value(&[0x63, 0xED, 0xA0, 0x80])),
        ("a half float", with_value(&[0xF9, 0x3C, 0x00])),
        ("a single float", with_value(&[0xFA, 0x3F, 0x80, 0, 0])),
        ("NaN", with_value(&[0xFB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0])),
        ("infinity", with_value(&[0xFB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0])),
        ("negative infinity", with_value(&[0xFB, 0xFF, 0xF0, 0, 0, 0, 0, 0, 0])),
        ("negative zero", with_value(&[0xFB, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        ("undefined", with_value(&[0xF7])),
        ("another simple value", with_value(&[0xE0])),
        ("a long simple value", with_value(&[0xF8, 0x14])),
        ("a break", with_value(&[0xFF])),
        ("a reserved head", with_value(&[0x1C])),
        ("a big number", with_value(&[0xC2, 0x41, 0x01])),
        ("a time tag", with_value(&[0xC1, 0x01])),
        ("tag 42 with a long head", with_value(&[&[0xD9, 0x00, 0x2A][..], &cid].concat())),
        ("tag 42 on a text", with_value(&[0xD8, 0x2A, 0x61, b'x'])),
        ("a cid without its zero", with_value(&[&[0xD8, 0x2A, 0x58, 0x24][..], &cid[3..]].concat())),
        ("a cid of one byte", with_value(&[0xD8, 0x2A, 0x42, 0x00, b'.'])),
        ("a cid with more behind it", with_value(&[&[0xD8, 0x2A, 0x58, 0x26][..], &cid[2..], &[0]].concat())),
        ("a value cut off", with_value(&[0x62, b'x'])),
        ("a list longer than the block", with_value(&[0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])),
        ("more behind the record", [with_value(&[0]), vec![0]].concat()),
        ("a list as record", vec![0x80]),
        ("a text as record", vec![0x61, b'x']),
        ("a link as record", [&[0xD8, 0x2A][..], &cid].concat()),
        ("no record at all", vec![]),
    ];
    for (what, block) in cases {
        let refused = record_of(&Commit::of_block(block).frame(), &Limits::default());
        assert!(matches!(refused, Err(BadReason::Record { .. })), "{what}: {refused:?}");
    }
    let sound = [&[0xD8, 0x2A][..], &cid].concat();
    assert!(record_of(&Commit::of_block(with_value(&sound)).frame(), &Limits::default()).is_ok());
}

#[test]
fn a_frame_may_be_written_in_any_way_but_two() {
    let body = encode(&map([("did", text(DID)), ("seq", Ipld::Integer(7)), ("active", Ipld::Bool(true))]));
    let header = encode(&map([("op", Ipld::Integer(1)), ("t", text("#account"))]));
    assert!(decode(&[&header[..], &body].concat(), &Limits::default()).is_ok());
    let twice = [&[0xA2, 0x63][..], b"seq", &[0x07, 0x63], b"seq", &[0x08]].concat();
    let answer = decode(&[&header[..], &twice].concat(), &Limits::default());
    assert!(matches!(answer, Err(FrameError::Unreadable { part: Part::Body, .. })), "{answer:?}");
    let indefinite = [&[0xBF][..], &body[1..], &[0xFF]].concat();
    let long = [&[0xB8, 3][..], &body[1..]].concat();
    for body in [indefinite, long] {
        let Ok(Frame::Event(event)) = decode(&[&header[..], &body].concat(), &Limits::default()) else {
            panic!("{body:?}")
        };
        assert_eq!((event.seq, &*event.did), (7, DID));
    }
}

#[test]
fn a_sync_is_checked_like_a_commit() {
    let commit = Commit::new();
    let sync = |did: &str, rev: &str, car: Vec<u8>| {
        let body = map([
            ("seq", Ipld::Integer(9)),
            ("did", text(did)),
            ("rev", text(rev)),
            ("time", text("2026-07-04T14:38:07.877Z")),
            ("blocks", Ipld::Bytes(car)),
        ]);
        frame_of("#sync", &body)
    };
    let Ok(Frame::Sync(said)) = decode(&sync(DID, REV, commit.car()), &Limits::default()) else { panic!("a sync") };
    assert_eq!((said.seq, &*said.did, &*said.rev), (9, DID, REV));
    let mut spoilt = commit.car();
    *spoilt.last_mut().unwrap() ^= 1;
    let refused = bad(&sync(DID, REV, spoilt));
    assert_eq!((refused.kind, refused.reason.name()), (BodyKind::Sync, "block_hash"));
    // The server that an account has moved to says a later rev than that of the commit, which it did not sign.
    let Ok(Frame::Sync(moved)) = decode(&sync(DID, "3mbbbbbbbbbbb", commit.car()), &Limits::default()) else {
        panic!("a sync")
    };
    assert_eq!(*moved.rev, *REV);
    assert_eq!(reason(&sync("did:web:a.test", REV, commit.car())), "commit");
    assert_eq!(reason(&sync(DID, "1", commit.car())), "rev");
    assert_eq!(reason(&sync("plc", REV, commit.car())), "did");
    assert_eq!(reason(&sync(DID, REV, Vec::new())), "commit_missing");
}

#[test]
fn identities_and_accounts_are_carried_whole() {
    let body = map([
        ("seq", Ipld::Integer(1)),
        ("did", text(DID)),
        ("time", text("2026-07-04T14:38:07.877Z")),
        ("handle", text("\"quoted\".test")),
    ]);
    let identity = event(&frame_of("#identity", &body));
    assert_eq!(identity.head, Headline::Identity { handle: Some("\"quoted\".test".into()) });
    assert_eq!(data(&identity), json!({"did": DID, "handle": "\"quoted\".test", "time": "2026-07-04T14:38:07.877Z"}));
    let body = map([
        ("seq", Ipld::Integer(1)),
        ("did", text(DID)),
        ("time", text("2026-07-04T14:38:07.877Z")),
        ("active", Ipld::Bool(false)),
        ("status", text("deleted")),
    ]);
    let account = event(&frame_of("#account", &body));
    assert_eq!(account.head, Headline::Account { active: false });
    assert_eq!(data(&account)["status"], "deleted");
    let body = map([("seq", Ipld::Integer(1)), ("did", text("nobody")), ("active", Ipld::Bool(true))]);
    assert_eq!(reason(&frame_of("#account", &body)), "did");
    let body = map([("seq", Ipld::Integer(1)), ("did", text(DID))]);
    assert_eq!(reason(&frame_of("#account", &body)), "body");
}

#[test]
fn infos_and_errors_are_told_and_unknown_kinds_passed_over() {
    let info = frame_of("#info", &map([("name", text("OutdatedCursor")), ("message", text("too old"))]));
    let Ok(Frame::Info(info)) = decode(&info, &Limits::default()) else { panic!("an info") };
    assert_eq!((&*info.name, info.message.as_deref()), ("OutdatedCursor", Some("too old")));

    let header = |op, t: Ipld| encode(&map([("op", Ipld::Integer(op)), ("t", t)]));
    let error = [header(-1, text("")), encode(&map([("error", text("ConsumerTooSlow"))]))].concat();
    let Ok(Frame::Error(error)) = decode(&error, &Limits::default()) else { panic!("an error") };
    assert_eq!(&*error.error, "ConsumerTooSlow");

    let tombstone = frame_of("#tombstone", &map([("seq", Ipld::Integer(5)), ("did", text(DID))]));
    let Ok(Frame::Ignored(ignored)) = decode(&tombstone, &Limits::default()) else { panic!("ignored") };
    assert_eq!((ignored.op, ignored.t.as_deref(), ignored.seq), (1, Some("#tombstone"), Some(5)));
    let novel = [header(2, Ipld::Null), vec![0xFF]].concat();
    let Ok(Frame::Ignored(ignored)) = decode(&novel, &Limits::default()) else { panic!("ignored") };
    assert_eq!((ignored.op, ignored.t, ignored.seq), (2, None, None));

    let unreadable = [vec![], vec![0xA0], header(1, Ipld::Null), encode(&Ipld::Null), header(-1, Ipld::Null)];
    for frame in unreadable {
        let answer = decode(&frame, &Limits::default());
        assert!(matches!(answer, Err(FrameError::Unreadable { .. })), "{answer:?}");
    }
}
