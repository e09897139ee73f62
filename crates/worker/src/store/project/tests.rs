use serde_json::json;

use super::*;

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

/// Projects a record and returns its table and its row as JSON.
fn projected(collection: &str, record: &Value) -> Result<(Table, Value), Misfit> {
    let row = row(source(collection, record))?;
    assert!(fits(row.table, &row.cells), "{row:?}");
    Ok((row.table, serde_json::from_str(&row.to_json()).unwrap()))
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
        assert_eq!(projected(collection, &record).unwrap().0, table, "{collection}");
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
    let row = row(source("app.bsky.feed.post", record)).unwrap();
    assert_eq!(row.counted(), Some("at://p"));
    let derived = row.derived.unwrap();
    assert_eq!(derived.quote, Some(("at://q".into(), Some("qc".into()))));
    assert_eq!(derived.created_at, Micros::parse(AT).unwrap());
}

#[test]
fn a_thread_gate_says_whom_it_lets_in() {
    let gate = |record: Value| {
        let (_, row) = projected("app.bsky.feed.threadgate", &record).unwrap();
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
    let said = |collection: &str, record: Value| projected(collection, &record).unwrap_err().to_string();
    assert_eq!(said("app.bsky.feed.like", json!({"subject": {}})), "subject.uri is missing");
    assert_eq!(said("app.bsky.feed.like", json!({"subject": {"uri": "a\0"}})), "subject.uri holds a nul character");
    assert_eq!(said("app.bsky.feed.post", json!({"text": 5})), "text is missing");
    assert_eq!(said("app.bsky.graph.follow", json!({"subject": "d".repeat(256)})), "subject is longer than 255 bytes");
    assert_eq!(said("com.example.any", json!([])), "record is not an object");
    assert_eq!(said(&"c".repeat(256), json!({})), "collection is longer than 255 bytes");
    let record = json!({"text": ""});
    let bare = Source { cid: None, ..source("app.bsky.feed.post", &record) };
    assert_eq!(row(bare).unwrap_err().to_string(), "cid is missing");
}

#[test]
fn a_starter_pack_names_its_feeds_by_uri() {
    let feeds =
        |feeds: Value| projected("app.bsky.graph.starterpack", &json!({"name": "n", "feeds": feeds})).unwrap().1;
    let pack = feeds(json!([{"uri": "at://f/1"}, "at://f/2", {"cid": "no uri"}, 7, {"uri": "at://f/3\0"}]));
    assert_eq!(pack["feeds"], json!(["at://f/1", "at://f/2", "at://f/3"]));
    assert_eq!(feeds(Value::Null)["feeds"], json!([]));
    assert_eq!(feeds(json!("at://f/1"))["feeds"], json!([]));
}

#[test]
fn what_claims_to_come_from_the_future_is_sorted_by_its_event_and_keeps_its_date() {
    let subject = json!({"uri": "at://did:plc:b/app.bsky.feed.post/p", "cid": "c"});
    let times = |collection: &str, created_at: &str| {
        let record = json!({"text": "", "subject": subject, "createdAt": created_at});
        let derived = row(source(collection, &record)).unwrap().derived.unwrap();
        (derived.created_at.to_text(), derived.sort_at.to_text())
    };
    for collection in ["app.bsky.feed.post", "app.bsky.feed.repost"] {
        for (created_at, sort_at) in [
            ("2026-07-04T14:00:00.000000", "2026-07-04T14:00:00.000000"),
            ("2026-07-04T15:05:00.000000", "2026-07-04T15:05:00.000000"),
            ("2026-07-04T15:05:00.000001", "2026-07-04T15:00:00.000000"),
            ("2999-01-01T00:00:00.000000", "2026-07-04T15:00:00.000000"),
        ] {
            assert_eq!(times(collection, created_at), (created_at.to_owned(), sort_at.to_owned()));
        }
    }
}
