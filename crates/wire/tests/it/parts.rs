//! One bad part of a commit: it is told, and everything beside it is carried.

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use penstock_wire::{Event, Frame, LeftOut, Limits, decode};
use serde_json::{Value as Json, json};

use crate::crafted::{Commit, cid_of, data, encode, event, map, reason, record, section, text};

/// A commit with a delete, a good create and an update whose block is given, in that order.
fn with_update(block: &[u8]) -> Commit {
    let good = record("good");
    Commit::new()
        .op("delete", "com.example.note/gone", None)
        .op("create", "com.example.note/good", Some(cid_of(&good)))
        .op("update", "com.example.note/odd", Some(cid_of(block)))
        .block(good)
        .block(block.to_vec())
}

/// The neighbours are whole, and the third op is there without its record.
fn is_alone(event: &Event) -> &LeftOut {
    let data = data(event);
    let ops = data["ops"].as_array().unwrap();
    assert_eq!(ops[0], json!({"action": "delete", "path": "com.example.note/gone"}));
    assert_eq!(ops[1]["record"]["text"], "good");
    assert_eq!(ops.len(), event.ops);
    if let Some(odd) = ops.get(2) {
        assert_eq!((&odd["path"], odd.get("record")), (&json!("com.example.note/odd"), None));
    }
    let [part] = &event.left_out[..] else { panic!("{:?}", event.left_out) };
    part
}

#[test]
fn a_record_that_cannot_be_carried_is_left_out_alone() {
    let deep = (0..300).fold(Ipld::Null, |value, _| Ipld::List(vec![value]));
    let deep = std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || encode(&map([("a", deep)])))
        .unwrap()
        .join()
        .unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("unsorted keys", vec![0xA2, 0x61, b'b', 0, 0x61, b'a', 0], "record"),
        ("a key twice", vec![0xA2, 0x61, b'a', 0, 0x61, b'a', 0], "record"),
        ("a single float", vec![0xA1, 0x61, b'a', 0xFA, 0x3F, 0x80, 0, 0], "record"),
        ("undefined", vec![0xA1, 0x61, b'a', 0xF7], "record"),
        ("an integer beyond 64 bits", vec![0xA1, 0x61, b'a', 0x3B, 0x80, 0, 0, 0, 0, 0, 0, 0], "record"),
        ("a text that is not utf-8", vec![0xA1, 0x61, b'a', 0x61, 0xFF], "record"),
        ("no map", vec![0x80], "record"),
        ("over a megabyte", record(&"x".repeat(1_000_000)), "record_too_large"),
        ("too deep", deep, "record_too_deep"),
    ];
    for (what, block, reason) in cases {
        let event = event(&with_update(&block).frame());
        let part = is_alone(&event);
        assert_eq!(part.reason.name(), reason, "{what}");
        assert_eq!(part.path.as_deref(), Some("com.example.note/odd"));
        assert_eq!(part.cid.as_deref(), Some(&*cid_of(&block).to_string()));
        assert!(part.block == block, "{what}");
        assert_eq!((event.missing, event.ops), (0, 3), "nobody else could carry {what}");
    }
}

#[test]
fn a_block_that_is_not_what_its_cid_says_costs_its_own_op() {
    let block = record("odd");
    let mut commit = with_update(&block);
    let last = commit.blocks.last_mut().unwrap();
    *last.1.last_mut().unwrap() ^= 1;
    let spoilt = last.1.clone();
    let event = event(&commit.frame());
    let part = is_alone(&event);
    assert_eq!((part.reason.name(), &part.block, event.missing), ("block_hash", &spoilt, 1));

    // A good copy beside it is as good as any.
    let event = self::event(&commit.block(block).frame());
    assert_eq!(data(&event)["ops"][2]["record"]["text"], "odd");
    assert_eq!((event.left_out.len(), event.missing), (1, 0));

    // The commit's own block vouches for the rest.
    let mut commit = with_update(&record("odd"));
    commit.blocks[0].1.push(0);
    assert_eq!(reason(&commit.frame()), "block_hash");
}

#[test]
fn a_car_that_is_cut_gives_what_it_has() {
    let commit = with_update(&record("odd"));
    let car = commit.car();
    let cut = Ipld::Bytes(car[..car.len() - 1].to_vec());
    let event = event(&commit.with("blocks", cut).frame());
    let part = is_alone(&event);
    assert_eq!((part.reason.name(), event.missing), ("car", 1));
    let limits = Limits { blocks: car.len() - 1, ..Limits::default() };
    let Ok(Frame::Event(event)) = decode(&with_update(&record("odd")).frame(), &limits) else { panic!("an event") };
    assert_eq!((is_alone(&event).reason.name(), event.missing), ("blocks_too_large", 1));
}

#[test]
fn an_op_whose_names_are_wrong_is_left_out_alone() {
    let odd = record("odd");
    let raw = Cid::new_v1(0x55, *cid_of(b"").hash());
    let commit = || {
        let mut commit = with_update(&odd);
        commit.ops.pop();
        commit
    };
    let cases: Vec<(Commit, &str, usize)> = vec![
        (commit().op("merge", "com.example.note/odd", Some(cid_of(&odd))), "action", 1),
        (commit().op("update", "com.example.note/odd", None), "op_cid", 1),
        (commit().op("create", "com.example.note/odd", Some(raw)), "op_cid", 1),
    ];
    for (commit, reason, missing) in cases {
        let event = event(&commit.frame());
        assert_eq!((is_alone(&event).reason.name(), event.missing), (reason, missing));
        // Without a CID the op still says that what stood there stands no more.
        assert_eq!(event.ops, if reason == "action" { 2 } else { 3 });
    }
    for path in
        ["", "com.example.note", "com.example.note/", "/1", "note/1", "com.example.note/1/2", "com.example.note/a b"]
    {
        for action in ["delete", "create"] {
            let event = event(&commit().op(action, path, Some(cid_of(&odd))).frame());
            let part = is_alone(&event);
            assert_eq!((part.reason.name(), part.path.as_deref(), event.ops), ("path", Some(path), 2), "{path}");
            assert_eq!(event.missing, 0, "no repo has such a path");
        }
    }
    // Neither op nor text.
    for op in [Ipld::Null, map([("action", Ipld::Integer(1)), ("path", text("com.example.note/odd"))])] {
        let mut commit = commit();
        commit.ops.push(op);
        is_alone(&event(&commit.frame()));
    }
}

#[test]
fn what_one_commit_lacks_is_told_within_bounds() {
    let block = [&[0xA2, 0x61, b'b', 0x79, 0xFF, 0xFF][..], &[b'x'; 0xFFFF], &[0x61, b'a', 0]].concat();
    let mut commit = Commit::new().block(block.clone());
    for index in 0..1_500 {
        let cid = (index % 2 == 0).then(|| cid_of(&block));
        commit = commit.op("create", &format!("com.example.note/{index}/{}", "y".repeat(index)), cid);
    }
    let event = event(&commit.frame());
    assert_eq!((event.ops, event.left_out.len()), (0, 201));
    assert_eq!(event.left_out[200].reason.name(), "more");
    let told: usize =
        event.left_out.iter().map(|part| part.path.as_deref().map_or(0, str::len) + part.block.len()).sum();
    assert!(told < 201 * 1_100 + block.len(), "{told}");
}

#[test]
fn a_missing_block_is_told_unless_the_commit_says_why() {
    let far = cid_of(&record("far away"));
    let create = || Commit::new().op("create", "com.example.note/1", Some(far));
    let missing = |commit: Commit| {
        let event = event(&commit.frame());
        assert_eq!(event.left_out, []);
        let said = data(&event)["missing"].as_u64().unwrap_or_default();
        assert_eq!(said, event.missing as u64);
        event.missing
    };
    assert_eq!(missing(create()), 1);
    assert_eq!(missing(create().op("delete", "com.example.note/1", None)), 0, "undone");
    assert_eq!(missing(create().op("delete", "com.example.note/2", None)), 1);
    assert_eq!(missing(create().op("create", "com.example.note/2", Some(far))), 2);
    assert_eq!(missing(create().with("tooBig", Ipld::Bool(true))), 0);
    assert_eq!(missing(Commit::new().op("delete", "com.example.note/1", None)), 0);
}

#[test]
fn an_update_that_changes_nothing_is_no_op() {
    let same = cid_of(&record("same"));
    let update = |prev: Cid| {
        let mut commit = Commit::new().op("delete", "com.example.note/gone", None);
        commit.ops.push(map([
            ("action", text("update")),
            ("path", text("com.example.note/1")),
            ("cid", Ipld::Link(same)),
            ("prev", Ipld::Link(prev)),
        ]));
        let event = event(&commit.frame());
        (event.ops, event.missing, data(&event)["ops"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(update(same), (1, 0, 1), "its block is not new, so it is not in the commit");
    assert_eq!(update(cid_of(b"other")), (2, 1, 2));
}

#[test]
fn a_sync_with_a_bad_part_is_refused_with_its_number() {
    let sync = |car: Vec<u8>| {
        let header = encode(&map([("op", Ipld::Integer(1)), ("t", text("#sync"))]));
        let commit = Commit::new();
        let body = map([
            ("seq", Ipld::Integer(9)),
            ("did", commit.body["repo"].clone()),
            ("rev", commit.body["rev"].clone()),
            ("blocks", Ipld::Bytes(car)),
        ]);
        [header, encode(&body)].concat()
    };
    let car = Commit::new().car();
    assert!(matches!(decode(&sync(car.clone()), &Limits::default()), Ok(Frame::Sync(_))));
    assert_eq!(reason(&sync([&car[..], &[0]].concat())), "car");
    assert_eq!(reason(&sync([&car[..], &section(&[7; 50])].concat())), "car");
}

#[test]
fn a_record_of_every_depth_is_the_same_by_either_reader() {
    let check = || {
        for depth in [1, 2, 60, 126, 127, 128, 129, 200, 251] {
            let core = map([
                ("a", Ipld::List(vec![Ipld::Null, Ipld::Bool(true), Ipld::Bool(false)])),
                ("b", Ipld::Bytes(vec![1, 2, 3])),
                ("c", Ipld::Link(cid_of(b"x"))),
                ("d", Ipld::Integer(-5)),
                ("e", Ipld::Float(1.5)),
                ("f", text("\"\u{1}é")),
                ("g", map([])),
                ("h", Ipld::List(vec![])),
            ]);
            let mut value = core.clone();
            for level in 1..depth {
                value = if level % 2 == 0 { map([("a", value), ("b", text("x"))]) } else { map([("aa", value)]) };
            }
            // At depth 251 the list inside is the 252nd.
            let event = event(&Commit::of_block(encode(&value)).frame());
            assert_eq!((&event.left_out, event.missing), (&vec![], 0), "{depth}");
            let mut found = &penstock_core::json::from_slice::<Json>(&event.data).unwrap()["ops"][0]["record"];
            for level in (1..depth).rev() {
                found = &found[if level % 2 == 0 { "a" } else { "aa" }];
            }
            let expected = json!({
                "a": [null, true, false], "b": {"$bytes": "AQID"}, "c": {"$link": cid_of(b"x").to_string()},
                "d": -5, "e": 1.5, "f": "\"\u{1}é", "g": {}, "h": [],
            });
            assert_eq!(*found, expected, "{depth}");
        }
    };
    std::thread::Builder::new().stack_size(64 << 20).spawn(check).unwrap().join().unwrap();
}
