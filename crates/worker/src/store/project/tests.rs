use serde_json::json;

use super::*;
use crate::store::micros::Micros;

const AT: &str = "2026-07-04T15:00:00Z";

fn source<'a>(collection: &'a str, record: &'a Value) -> Source<'a, 'a> {
    Source {
        repo: "did:plc:a",
        uri: "at://did:plc:a/x/r",
        collection,
        cid: Some("bafy"),
        record,
        at: Micros::parse(AT).unwrap(),
        commit_time: None,
    }
}

/// Makes the row of a record that has one.
fn row_of<'a>(collection: &'a str, record: &'a Value) -> Row<'a> {
    super::record(source(collection, record)).unwrap().row.unwrap()
}

/// Projects a record that its row says whole, and returns the table and the row as JSON.
fn projected(collection: &str, record: &Value) -> (Table, Value) {
    let Projected { row, kept } = super::record(source(collection, record)).unwrap();
    let row = row.unwrap();
    assert!(fits(row.table, &row.cells), "{row:?}");
    assert_eq!(kept, None, "{row:?}");
    (row.table, serde_json::from_str(&row.to_json()).unwrap())
}

#[test]
fn every_collection_fits_its_table() {
    let subject = json!({"uri": "at://did:plc:b/app.bsky.feed.post/p", "cid": "c"});
    let records = [
        ("app.bsky.feed.post", json!({"text": ""}), Table::Posts),
        ("app.bsky.feed.like", json!({"subject": subject}), Table::Likes),
        ("app.bsky.feed.repost", json!({"subject": subject}), Table::Reposts),
        ("app.bsky.bookmark", json!({"subject": subject}), Table::Bookmarks),
        ("app.bsky.feed.threadgate", json!({}), Table::ThreadGates),
        ("app.bsky.feed.postgate", json!({}), Table::PostGates),
        ("app.bsky.feed.generator", json!({"did": "did:web:g", "displayName": "G"}), Table::FeedGenerators),
        ("app.bsky.graph.follow", json!({"subject": "did:plc:b"}), Table::Follows),
        ("app.bsky.graph.block", json!({"subject": "did:plc:b"}), Table::Blocks),
        ("app.bsky.graph.list", json!({"name": "n", "purpose": "p"}), Table::Lists),
        ("app.bsky.graph.listitem", json!({"list": "at://did:plc:a/l/1", "subject": "did:plc:b"}), Table::ListItems),
        ("app.bsky.graph.listitem", json!({"list": "at://did:plc:b/l/1", "subject": "x"}), Table::GenericRecords),
        ("app.bsky.graph.listblock", json!({"subject": "at://did:plc:b/l/1"}), Table::ListBlocks),
        ("app.bsky.graph.starterpack", json!({"name": "n"}), Table::StarterPacks),
        ("app.bsky.graph.verification", json!({"subject": "did:plc:b", "handle": "h"}), Table::Verifications),
        ("app.bsky.labeler.service", json!({"policies": {}}), Table::LabelerServices),
        ("com.atproto.label.label", json!({"uri": "at://x", "val": "v"}), Table::Labels),
        ("com.example.any", json!({}), Table::GenericRecords),
    ];
    for (collection, record, table) in records {
        assert_eq!(projected(collection, &record).0, table, "{collection}");
    }
}

#[test]
fn a_post_keeps_its_thread_its_quote_and_its_event_time() {
    let record = json!({
        "text": "t", "createdAt": "no time",
        "reply": {"parent": {"uri": "at://p", "cid": "pc"}, "root": {"uri": "at://r", "cid": "rc"}},
        "embed": {"$type": "app.bsky.embed.recordWithMedia", "record": {"record": {"uri": "at://q", "cid": "qc"}}},
    });
    let record = &record;
    let row = row_of("app.bsky.feed.post", record);
    assert_eq!(row.counted(), Some("at://p"));
    let derived = row.derived.unwrap();
    assert_eq!(derived.quote, Some(("at://q".into(), Some("qc".into()))));
    assert_eq!(derived.created_at, Micros::parse(AT).unwrap());
}

#[test]
fn a_thread_gate_says_whom_it_lets_in() {
    let gate = |record: Value| {
        let (_, row) = projected("app.bsky.feed.threadgate", &record);
        let of = |name: &str| row[name].as_bool().unwrap();
        ((of("allow_mentions"), of("allow_following"), of("allow_list_members")), row["allow_list_uris"].clone())
    };
    let rule = |name: &str| json!({"$type": format!("app.bsky.feed.threadgate#{name}"), "list": "at://l"});
    assert_eq!(gate(json!({})), ((true, true, false), json!([])));
    assert_eq!(gate(json!({"allow": []})), ((false, false, false), json!([])));
    assert_eq!(gate(json!({"allow": [rule("mentionRule")]})), ((true, false, false), json!([])));
    assert_eq!(gate(json!({"allow": [rule("listRule")]})), ((false, false, true), json!(["at://l"])));
}

#[test]
fn a_profile_names_its_blobs_by_cid() {
    let record = json!({
        "displayName": "n".repeat(300),
        "avatar": {"$type": "blob", "ref": {"$link": "bafy1"}, "mimeType": "image/png", "size": 1},
        "banner": {"cid": "bafy2", "mimeType": "image/png"},
        "createdAt": "2026-01-01T00:00:00Z",
    });
    let profile = profile(source("app.bsky.actor.profile", &record)).unwrap();
    assert_eq!((profile.avatar.as_deref(), profile.banner.as_deref()), (Some("bafy1"), Some("bafy2")));
    assert_eq!(profile.display_name.unwrap().len(), 255);
    assert_eq!(profile.created_at, Micros::parse("2026-01-01T00:00:00Z"));
}

#[test]
fn misfits_are_named() {
    let said = |collection: &str, record: Value| super::record(source(collection, &record)).unwrap_err().to_string();
    assert_eq!(said("app.bsky.feed.like", json!({"subject": {}})), "subject.uri is missing");
    assert_eq!(said("app.bsky.feed.post", json!({"text": 5})), "text is missing");
    assert_eq!(said("com.example.any", json!([])), "record is not an object");
    let record = json!({"text": ""});
    let bare = Source { cid: None, ..source("app.bsky.feed.post", &record) };
    assert_eq!(super::record(bare).unwrap_err().to_string(), "cid is missing");
}

/// Every column that rows are found by: what is longer, or holds a NUL, stands in `penstock.records` alone.
#[test]
fn what_its_table_cannot_be_asked_for_has_no_row_and_is_kept_whole() {
    let (uri, did) = ("u".repeat(513), "d".repeat(256));
    let collection = "c".repeat(256);
    for (collection, record) in [
        ("app.bsky.feed.like", json!({"subject": {"uri": uri}})),
        ("app.bsky.feed.like", json!({"subject": {"uri": "a\0"}})),
        ("app.bsky.feed.repost", json!({"subject": {"uri": uri}})),
        ("app.bsky.bookmark", json!({"subject": {"uri": uri}})),
        ("app.bsky.graph.follow", json!({"subject": did})),
        ("app.bsky.graph.block", json!({"subject": did})),
        ("app.bsky.graph.list", json!({"name": "n", "purpose": "p".repeat(65)})),
        ("app.bsky.graph.listitem", json!({"list": format!("at://did:plc:a/{uri}"), "subject": "did:plc:b"})),
        ("app.bsky.graph.listitem", json!({"list": "at://did:plc:a/l/1", "subject": did})),
        ("app.bsky.graph.listblock", json!({"subject": uri})),
        ("app.bsky.feed.generator", json!({"did": did, "displayName": "G"})),
        ("app.bsky.graph.verification", json!({"subject": did, "handle": "h"})),
        ("app.bsky.graph.verification", json!({"subject": "did:plc:b", "handle": "h".repeat(256)})),
        ("com.atproto.label.label", json!({"uri": uri, "val": "v"})),
        ("com.atproto.label.label", json!({"uri": "at://x", "val": "v".repeat(129)})),
        ("com.atproto.label.label", json!({"uri": "at://x", "val": "v", "src": did})),
        (&*collection, json!({"n": 1})),
    ] {
        let Projected { row, kept } = super::record(source(collection, &record)).unwrap();
        assert_eq!(row, None, "{collection} {record}");
        let kept = kept.unwrap();
        let said: Value = serde_json::from_str(&kept.record).unwrap();
        assert_eq!((said.to_string(), &*kept.collection), (record.to_string().replace("\\u0000", ""), collection));
    }
    let record = json!({"text": "t"});
    let long = Source { uri: &uri, ..source("app.bsky.feed.post", &record) };
    let owner = Source { repo: &did, ..source("app.bsky.feed.post", &record) };
    let cid = Source { cid: Some(&did), ..source("app.bsky.feed.post", &record) };
    for source in [long, owner, cid] {
        let Projected { row, kept } = super::record(source).unwrap();
        assert_eq!((row, kept.unwrap().record), (None, record.to_string()));
    }
}

/// What a row can do without is left out or cut, and the record is kept besides.
#[test]
fn what_is_only_derived_and_does_not_fit_leaves_its_row_standing() {
    let uri = "u".repeat(513);
    let reply =
        json!({"text": "t", "reply": {"parent": {"uri": uri, "cid": "pc"}, "root": {"uri": "at://r", "cid": uri}}});
    let quote = json!({"text": "t", "embed": {"$type": "app.bsky.embed.record", "record": {"uri": uri, "cid": "qc"}}});
    let quote_cid =
        json!({"text": "t", "embed": {"$type": "app.bsky.embed.record", "record": {"uri": "at://q", "cid": uri}}});
    let subject_cid = json!({"subject": {"uri": "at://s", "cid": uri}});
    let pack = json!({"name": "n", "list": uri});
    let name = json!({"name": "e\u{301}".repeat(200), "purpose": "p"});
    let cases = [
        (
            "app.bsky.feed.post",
            &reply,
            json!({"parent_uri": null, "parent_cid": "pc", "root_uri": "at://r", "root_cid": null}),
        ),
        ("app.bsky.feed.post", &quote, json!({"embed": quote["embed"]})),
        ("app.bsky.feed.post", &quote_cid, json!({"embed": quote_cid["embed"]})),
        ("app.bsky.feed.like", &subject_cid, json!({"post_uri": "at://s", "subject_cid": null})),
        ("app.bsky.graph.starterpack", &pack, json!({"name": "n", "list_uri": null})),
        ("app.bsky.graph.list", &name, json!({"name": "e\u{301}".repeat(127)})),
    ];
    for (collection, record, columns) in cases {
        let Projected { row, kept } = super::record(source(collection, record)).unwrap();
        let row = row.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&kept.unwrap().record).unwrap(), *record);
        let shown: Value = serde_json::from_str(&row.to_json()).unwrap();
        for (column, value) in columns.as_object().unwrap() {
            assert_eq!(&shown[column], value, "{collection}: {column}");
        }
        let quoted = row.derived.and_then(|derived| derived.quote);
        assert_eq!(quoted, (*record == quote_cid).then(|| ("at://q".into(), None)), "{record}");
    }
    // The post fits, the URI of its quote does not.
    let quote =
        json!({"text": "t", "embed": {"$type": "app.bsky.embed.record", "record": {"uri": "at://q", "cid": "qc"}}});
    for (length, quotes) in [(506, true), (507, false)] {
        let uri = "u".repeat(length);
        let Projected { row, kept } =
            super::record(Source { uri: &uri, ..source("app.bsky.feed.post", &quote) }).unwrap();
        assert_eq!((row.unwrap().derived.unwrap().quote.is_some(), kept.is_none()), (quotes, quotes));
    }
}

#[test]
fn a_starter_pack_names_its_feeds_by_uri() {
    let feeds = |feeds: Value| projected("app.bsky.graph.starterpack", &json!({"name": "n", "feeds": feeds})).1;
    let pack = feeds(json!([{"uri": "at://f/1"}, "at://f/2", {"cid": "no uri"}, 7, {"uri": "at://f/3"}]));
    assert_eq!(pack["feeds"], json!(["at://f/1", "at://f/2", "at://f/3"]));
    assert_eq!(feeds(Value::Null)["feeds"], json!([]));
    assert_eq!(feeds(json!("at://f/1"))["feeds"], json!([]));
}

#[test]
fn a_feed_sorts_by_the_earlier_of_record_and_event_and_the_record_keeps_its_date() {
    let subject = json!({"uri": "at://did:plc:b/app.bsky.feed.post/p", "cid": "c"});
    let times = |collection: &str, created_at: &str| {
        let record = json!({"text": "", "subject": subject, "createdAt": created_at});
        let derived = row_of(collection, &record).derived.unwrap();
        (derived.created_at.to_text(), derived.sort_at.to_text())
    };
    for collection in ["app.bsky.feed.post", "app.bsky.feed.repost"] {
        for (created_at, sort_at) in [
            ("2026-07-04T14:00:00.000000", "2026-07-04T14:00:00.000000"),
            ("2026-07-04T15:00:00.000000", "2026-07-04T15:00:00.000000"),
            ("2026-07-04T15:00:00.000001", "2026-07-04T15:00:00.000000"),
            ("0001-01-01T00:00:00.000000", "0001-01-01T00:00:00.000000"),
            ("2999-01-01T00:00:00.000000", "2026-07-04T15:00:00.000000"),
        ] {
            assert_eq!(times(collection, created_at), (created_at.to_owned(), sort_at.to_owned()));
        }
    }
}
