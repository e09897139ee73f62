//! A stream that several producers wrote, some of it nonsense.

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
                    "ref": {"$link": "the CID of the blob"},
                },
            }],
        },
    })
}

/// The same post as the Python producer writes it.
const PYTHON_POST: &str = r#"{"created_at": "2026-07-04T16:38:08.5+02:00", "text": "Gr\u00fc\u00dfe \ud83e\udd8b", "embed": {"images": [{"alt": "", "image": {"mime_type": "image/jpeg", "size": 12, "ref": "BLOB", "py_type": "blob"}, "aspect_ratio": {"height": 3, "width": 4, "py_type": "app.bsky.embed.defs#aspectRatio"}, "py_type": "app.bsky.embed.images#image"}], "py_type": "app.bsky.embed.images"}, "entities": null, "facets": [{"features": [{"uri": "https://example.com", "py_type": "app.bsky.richtext.facet#link"}], "index": {"byte_end": 7, "byte_start": 0, "py_type": "app.bsky.richtext.facet#byteSlice"}, "py_type": "app.bsky.richtext.facet"}], "labels": null, "langs": ["de"], "reply": null, "tags": null, "py_type": "app.bsky.feed.post", "$type": "app.bsky.feed.post"}"#;

/// The CID of the blob, in the two spellings of its bytes.
const BLOB: [u8; 36] = {
    let mut cid = [0x07; 36];
    (cid[0], cid[1], cid[2], cid[3]) = (0x01, 0x55, 0x12, 0x20);
    cid
};

fn like(subject: Value) -> Value {
    json!({"$type": "app.bsky.feed.like", "createdAt": "2026-07-04T14:00:00Z", "subject": subject})
}

fn create(path: &str, record: &Value) -> Value {
    json!({"action": "create", "path": path, "cid": "bafyrecord", "record": record})
}

#[tokio::test(flavor = "multi_thread")]
async fn three_dialects_and_poison_in_one_stream_give_right_rows_and_named_dead_letters() {
    let blob = format!("b{}", data_encoding::BASE32_NOPAD.encode(&BLOB).to_ascii_lowercase());
    let mut post = post();
    post["embed"]["images"][0]["image"]["ref"]["$link"] = blob.into();
    let python_post = PYTHON_POST.replace("BLOB", &data_encoding::HEXLOWER.encode(&BLOB));
    let subject = json!({"uri": LIKED, "cid": "bafyliked"});

    let rig = Rig::new().await;
    // Our own dialect: revs and times.
    let ours = json!({
        "repo": "did:plc:ours",
        "ops": [create("app.bsky.feed.post/3mpost", &post), create("app.bsky.feed.like/3mlike", &like(subject.clone()))],
        "rev": "3mlrev2222222", "time": "2026-07-04T14:38:09.25Z", "commit": "bafycommit", "since": null,
    });
    rig.add("commit", &ours.to_string(), "11").await;
    // The Python producer: neither, snake_case, nulls, py_type, hex.
    let python = format!(
        r#"{{"repo": "did:plc:python", "ops": [{{"action": "create", "path": "app.bsky.feed.post/3mpost", "cid": "bafyrecord", "record": {python_post}}}, {{"action": "create", "path": "app.bsky.feed.like/3mlike", "cid": "bafyrecord", "record": {{"created_at": "2026-07-04T14:00:00Z", "subject": {{"cid": "bafyliked", "uri": "{LIKED}", "py_type": "com.atproto.repo.strongRef"}}, "via": null, "py_type": "app.bsky.feed.like", "$type": "app.bsky.feed.like"}}}}, {{"action": "delete", "path": "app.bsky.feed.like/3mundone"}}]}}"#
    );
    rig.add("commit", &python, "12").await;
    rig.add("identity", r#"{"did": "did:plc:python", "handle": "snake.example"}"#, "13").await;
    rig.add("account", r#"{"did": "did:plc:python", "active": false}"#, "14").await;
    // A backfill: lexicon JSON without seq. It fills what is not known, and only that.
    let backfill = |repo: &str, ops: Value| json!({"repo": repo, "ops": ops}).to_string();
    let filled = json!([
        create("app.bsky.feed.post/3mpost", &post),
        create("app.bsky.feed.like/3mlike", &like(subject.clone()))
    ]);
    rig.add("commit", &backfill("did:plc:filled", filled), "").await;
    let older =
        json!([create("app.bsky.feed.post/3mpost", &json!({"text": "older", "createdAt": "2026-07-01T00:00:00Z"}))]);
    rig.add("commit", &backfill("did:plc:ours", older), "").await;
    let undone = json!([create("app.bsky.feed.like/3mundone", &like(subject.clone()))]);
    rig.add("commit", &backfill("did:plc:python", undone), "").await;

    let torn = r#"{"repo":"did:plc:torn","ops":["#;
    let poison = [
        (
            rig.add("commit", torn, "21").await,
            "commit",
            torn.to_owned(),
            "data is not the json of an entry of type commit",
        ),
        (
            rig.add("post", "{}", "22").await,
            "post",
            "{}".to_owned(),
            "type \"post\" is none of commit, identity, account",
        ),
    ];
    let without_subject = create("app.bsky.feed.like/3mbad", &like(Value::Null));
    let long = create(&format!("com.example.note/{}", "k".repeat(500)), &json!({"note": 1}));
    let mixed = |repo: &str, bad: &Value| {
        let note = |path| create(path, &json!({"$type": "com.example.note", "note": 1}));
        json!({
            "repo": repo, "ops": [note("com.example.note/3mfirst"), bad, note("com.example.note/3mlast")],
            "rev": "3mlrev2222222", "time": "2026-07-04T14:38:09Z", "commit": "bafycommit", "since": null,
        })
    };
    let only = |mut data: Value, bad: &Value| {
        data["ops"] = json!([bad]);
        data
    };
    let partial = [
        (mixed("did:plc:nosubject", &without_subject), without_subject, "subject.uri is missing"),
        (mixed("did:plc:longuri", &long), long, "uri is longer than 512 bytes"),
    ];
    let mut partial_ids = Vec::new();
    for (data, ..) in &partial {
        partial_ids.push(rig.add("commit", &data.to_string(), "23").await);
    }
    rig.add("identity", r#"{"did":"did:plc:last","handle":"last.example","time":"2026-07-04T14:38:10Z"}"#, "24").await;

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
        assert_eq!((&row["tags"], &row["parent_uri"]), (&json!([]), &Value::Null));
        assert_eq!((&row["created_at"], &row["cid"]), (&json!("2026-07-04T14:38:08.5"), &json!("bafyrecord")));
    }
    for row in tables["likes"].values() {
        assert_eq!(
            (&row["post_uri"], &row["subject_cid"], &row["via"]),
            (&json!(LIKED), &json!("bafyliked"), &Value::Null)
        );
    }
    assert_eq!(tables["post_aggregations"][LIKED]["like_count"], 3);
    let guards = |did: &str| {
        let row = &tables["posts"][&format!("at://{did}/app.bsky.feed.post/3mpost")];
        json!([row["commit_rev"], row["commit_seq"], row["commit_time"]])
    };
    assert_eq!(guards("did:plc:ours"), json!(["3mlrev2222222", "11", "2026-07-04T14:38:09.25"]));
    assert_eq!(guards("did:plc:python"), json!([null, "12", null]));
    assert_eq!(guards("did:plc:filled"), json!([null, null, null]));
    let python = &tables["users"]["did:plc:python"];
    assert_eq!(json!([python["handle"], python["active"], python["status"]]), json!(["snake.example", false, null]));
    assert_eq!(tables["users"]["did:plc:last"]["handle"], "last.example");
    let neighbours = ["longuri", "nosubject"]
        .map(|repo| ["first", "last"].map(|rkey| format!("at://did:plc:{repo}/com.example.note/3m{rkey}")));
    assert_eq!(keys("generic_records"), neighbours.concat());

    let letters = rig.dead_letters().await;
    assert_eq!(letters.len(), 4, "{letters:?}");
    let letter = |id: &String| letters.iter().find(|letter| letter["origId"] == *id).unwrap();
    for (id, kind, data, error) in &poison {
        let letter = letter(id);
        assert_eq!((&*letter["type"], &letter["data"], &*letter["consumer"]), (*kind, data, "w-1"));
        assert!(letter["error"].contains(error) && letter["deliveries"] == "1", "{letter:?}");
    }
    for (id, (data, bad, error)) in partial_ids.iter().zip(&partial) {
        let letter = letter(id);
        let kept: Value = serde_json::from_str(&letter["data"]).unwrap();
        assert_eq!((&kept, &*letter["seq"]), (&only(data.clone(), bad), "23"), "only what failed is put aside");
        assert!(letter["error"].contains(error), "{letter:?}");
    }
    for letter in &letters {
        let kept = "SELECT kind || '|' || convert_from(data, 'UTF8') || '|' || seq || '|' || error
            FROM penstock_dead_letters WHERE orig_id = $1";
        let kept: String = sqlx::query_scalar(kept).bind(&letter["origId"]).fetch_one(&rig.pool).await.unwrap();
        let fields = ["type", "data", "seq", "error"].map(|field| letter[field].as_str());
        assert_eq!(kept, fields.join("|"), "postgresql keeps the same");
    }

    let counted = rig.hash(&rig.keys.cluster_metrics()).await;
    let counted = json!(counted);
    // Of an entry that failed in part, the other part was applied.
    assert_eq!(counted, json!({"totalEvents": 10, "#commit": 7, "#identity": 2, "#account": 1, "errors": 4}));
}
