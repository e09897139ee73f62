//! A stream that several producers wrote, some of it nonsense.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use crate::rig::Rig;

const LIKED: &str = "at://did:plc:somebody/app.bsky.feed.post/3mliked";

/// The post that each producer tells of.
fn post() -> Value {
    json!({
        "$type": "app.bsky.feed.post",
        "createdAt": "2026-07-04T16:38:08.5+02:00",
        "text": "Grüße 🦋",
        "langs": ["de"],
        "facets": [{
            "$type": "app.bsky.richtext.facet",
            "index": {"$type": "app.bsky.richtext.facet#byteSlice", "byteStart": 0, "byteEnd": 7},
            "features": [{"$type": "app.bsky.richtext.facet#link", "uri": "https://example.com"}],
        }],
        "embed": {
            "$type": "app.bsky.embed.images",
            "images": [{
                "$type": "app.bsky.embed.images#image",
                "alt": "",
                "aspectRatio": {"$type": "app.bsky.embed.defs#aspectRatio", "width": 4, "height": 3},
                "image": {
                    "$type": "blob", "mimeType": "image/jpeg", "size": 12,
                    "ref": {"$link": format!("b{}", BASE32_NOPAD.encode(&BLOB).to_ascii_lowercase())},
                },
            }],
        },
    })
}

/// The same post as the Python producer writes it.
const PYTHON_POST: &str = r#"{"created_at": "2026-07-04T16:38:08.5+02:00", "text": "Gr\u00fc\u00dfe \ud83e\udd8b", "embed": {"images": [{"alt": "", "image": {"mime_type": "image/jpeg", "size": 12, "ref": "BLOB", "py_type": "blob"}, "aspect_ratio": {"height": 3, "width": 4, "py_type": "app.bsky.embed.defs#aspectRatio"}, "py_type": "app.bsky.embed.images#image"}], "py_type": "app.bsky.embed.images"}, "entities": null, "facets": [{"features": [{"uri": "https://example.com", "py_type": "app.bsky.richtext.facet#link"}], "index": {"byte_end": 7, "byte_start": 0, "py_type": "app.bsky.richtext.facet#byteSlice"}, "py_type": "app.bsky.richtext.facet"}], "labels": null, "langs": ["de"], "reply": null, "tags": null, "py_type": "app.bsky.feed.post", "$type": "app.bsky.feed.post"}"#;

const PYTHON_LIKE: &str = r#"{"created_at": "2026-07-04T14:00:00Z", "subject": {"cid": "bafyliked", "uri": "at://did:plc:somebody/app.bsky.feed.post/3mliked", "py_type": "com.atproto.repo.strongRef"}, "via": null, "py_type": "app.bsky.feed.like", "$type": "app.bsky.feed.like"}"#;

/// The CID of the blob, which each producer spells in its way.
const BLOB: [u8; 36] = {
    let mut cid = [0x07; 36];
    (cid[0], cid[1], cid[2], cid[3]) = (0x01, 0x55, 0x12, 0x20);
    cid
};

fn like(subject: &Value) -> Value {
    json!({"$type": "app.bsky.feed.like", "createdAt": "2026-07-04T14:00:00Z", "subject": subject})
}

fn create(path: &str, record: &Value) -> Value {
    json!({"action": "create", "path": path, "cid": "bafyrecord", "record": record})
}

#[tokio::test(flavor = "multi_thread")]
async fn three_dialects_in_one_stream_give_the_same_rows() {
    let rig = Rig::new().await;
    let (post, subject) = (post(), json!({"uri": LIKED, "cid": "bafyliked"}));
    let both =
        json!([create("app.bsky.feed.post/3mpost", &post), create("app.bsky.feed.like/3mlike", &like(&subject))]);
    // Our own dialect: revs and times.
    let ours = json!({
        "repo": "did:plc:ours", "ops": both, "rev": "3mlrev2222222", "time": "2026-07-04T14:38:09.25Z",
        "commit": "bafycommit", "since": null,
    });
    rig.add("commit", &ours.to_string(), "11").await;
    // The Python producer: neither; snake_case, nulls, py_type, hex.
    let record = PYTHON_POST.replace("BLOB", &HEXLOWER.encode(&BLOB));
    let op = |path: &str, record: &str| {
        format!(r#"{{"action": "create", "path": "{path}", "cid": "bafyrecord", "record": {record}}}"#)
    };
    let (created, liked) = (op("app.bsky.feed.post/3mpost", &record), op("app.bsky.feed.like/3mlike", PYTHON_LIKE));
    let undone = r#"{"action": "delete", "path": "app.bsky.feed.like/3mundone"}"#;
    let python = format!(r#"{{"repo": "did:plc:python", "ops": [{created}, {liked}, {undone}]}}"#);
    rig.add("commit", &python, "12").await;
    rig.add("identity", r#"{"did": "did:plc:python", "handle": "snake.example"}"#, "13").await;
    rig.add("account", r#"{"did": "did:plc:python", "active": false}"#, "14").await;
    // A backfill: lexicon JSON without seq. It fills what is not known, and only that.
    let older = json!({"text": "older", "createdAt": "2026-07-01T00:00:00Z"});
    for (repo, ops) in [
        ("did:plc:filled", both),
        ("did:plc:ours", json!([create("app.bsky.feed.post/3mpost", &older)])),
        ("did:plc:python", json!([create("app.bsky.feed.like/3mundone", &like(&subject))])),
    ] {
        rig.add("commit", &json!({"repo": repo, "ops": ops}).to_string(), "").await;
    }
    let worker = rig.worker("w-1");
    rig.settled().await;
    worker.stop().await;

    let tables = rig.tables().await;
    let keys = |table: &str| tables[table].keys().map(String::as_str).collect::<Vec<_>>();
    let repos = ["did:plc:filled", "did:plc:ours", "did:plc:python"];
    assert_eq!(keys("posts"), repos.map(|did| format!("at://{did}/app.bsky.feed.post/3mpost")));
    assert_eq!(keys("likes"), repos.map(|did| format!("at://{did}/app.bsky.feed.like/3mlike")));
    for row in tables["posts"].values() {
        for column in ["text", "langs", "facets", "embed"] {
            assert_eq!(row[column], post[column], "{column} of {}", row["uri"]);
        }
        let others = json!([row["cid"], row["created_at"], row["tags"], row["parent_uri"]]);
        assert_eq!(others, json!(["bafyrecord", "2026-07-04T14:38:08.5", [], null]));
    }
    for row in tables["likes"].values() {
        let columns = json!([row["post_uri"], row["subject_cid"], row["via"], row["created_at"]]);
        assert_eq!(columns, json!([LIKED, "bafyliked", null, "2026-07-04T14:00:00"]));
    }
    assert_eq!(tables["penstock.waiting_counts"][LIKED]["like_count"], 3, "the post itself is not there");
    let guards = |did: &str| {
        let row = &tables["posts"][&format!("at://{did}/app.bsky.feed.post/3mpost")];
        json!([row["commit_rev"], row["commit_seq"], row["commit_time"]])
    };
    assert_eq!(guards("did:plc:ours"), json!(["3mlrev2222222", "11", "2026-07-04T14:38:09.25"]));
    assert_eq!(guards("did:plc:python"), json!([null, "12", null]));
    assert_eq!(guards("did:plc:filled"), json!([null, null, null]));
    let python = &tables["users"]["did:plc:python"];
    assert_eq!(python["handle"], "snake.example");
    let active: Option<bool> = sqlx::query_scalar("SELECT active FROM penstock.repos WHERE did = 'did:plc:python'")
        .fetch_one(&rig.pool)
        .await
        .unwrap();
    assert_eq!(active, Some(false));
    assert!(rig.dead_letters().await.is_empty());
    let counted = rig.hash(&rig.keys.cluster_metrics()).await;
    assert_eq!(json!(counted), json!({"totalEvents": 7, "#commit": 5, "#identity": 1, "#account": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_by_name_and_its_neighbours_are_written() {
    let rig = Rig::new().await;
    let note = |path| create(path, &json!({"$type": "com.example.note", "note": 1}));
    let notes = |repo: &str, between: &Value| {
        json!({
            "repo": repo, "ops": [note("com.example.note/3mfirst"), between, note("com.example.note/3mlast")],
            "rev": "3mlrev2222222", "time": "2026-07-04T14:38:09Z", "commit": "bafycommit", "since": null,
        })
    };
    let no_subject = create("app.bsky.feed.like/3mbad", &like(&Value::Null));
    let no_object = create("com.example.note/3mbad", &json!(["note", 1]));
    let reduced = |data: &Value, bad: &Value| {
        let mut data = data.clone();
        data["ops"] = json!([bad]);
        data.to_string()
    };
    let torn = r#"{"repo":"did:plc:torn","ops":["#.to_owned();
    let (with_like, with_list) = (notes("did:plc:a", &no_subject), notes("did:plc:b", &no_object));
    // What is added, what of it must be put aside, and why.
    let poison = [
        ("commit", torn.clone(), torn, "data is not the json of an entry of type commit"),
        ("post", "{}".to_owned(), "{}".to_owned(), "type \"post\" is none of commit, identity, account"),
        ("commit", with_like.to_string(), reduced(&with_like, &no_subject), "subject.uri is missing"),
        ("commit", with_list.to_string(), reduced(&with_list, &no_object), "record is not an object"),
    ];
    let mut ids = Vec::new();
    rig.add("commit", &notes("did:plc:first", &note("com.example.note/3mmiddle")).to_string(), "20").await;
    for (kind, data, ..) in &poison {
        ids.push(rig.add(kind, data, "21").await);
    }
    rig.add("identity", r#"{"did":"did:plc:last","handle":"last.example","time":"2026-07-04T14:38:10Z"}"#, "22").await;
    let worker = rig.worker("w-1");
    rig.settled().await;
    worker.stop().await;

    let letters = rig.dead_letters().await;
    assert_eq!(letters.len(), poison.len(), "{letters:?}");
    for (id, (kind, _, data, error)) in ids.iter().zip(&poison) {
        let letter = letters.iter().find(|letter| letter["origId"] == *id).unwrap();
        // Commits are taken apart and put together again: the order of their keys is free.
        let parsed = |data: &str| serde_json::from_str::<Value>(data).unwrap_or_else(|_| data.into());
        assert_eq!(parsed(&letter["data"]), parsed(data), "only what failed is put aside");
        let said = ["type", "seq", "deliveries", "consumer"].map(|field| letter[field].as_str());
        assert_eq!(said, [*kind, "21", "1", "w-1"]);
        assert!(letter["error"].contains(error), "{letter:?}");
        let kept = "SELECT jsonb_build_array(kind, convert_from(data, 'UTF8'), seq, error)
            FROM penstock.dead_letters WHERE orig_id = $1";
        let kept: Value = sqlx::query_scalar(kept).bind(id).fetch_one(&rig.pool).await.unwrap();
        assert_eq!(
            kept,
            json!(["type", "data", "seq", "error"].map(|field| &letter[field])),
            "postgresql keeps the same"
        );
    }

    let tables = rig.tables().await;
    let written: Vec<_> =
        tables["generic_records"].keys().map(|uri| uri.replace("/com.example.note/3m", " ")).collect();
    let expected = ["a first", "a last", "b first", "b last", "first first", "first last", "first middle"];
    assert_eq!(written, expected.map(|record| format!("at://did:plc:{record}")));
    assert_eq!(tables["users"]["did:plc:last"]["handle"], "last.example");
    // Of an entry that failed in part, the other part was applied.
    let counted = rig.hash(&rig.keys.cluster_metrics()).await;
    assert_eq!(json!(counted), json!({"totalEvents": 4, "#commit": 3, "#identity": 1, "errors": 4}));
}
