//! What must come of some entries: the specification by example.
//!
//! Each repo is folded in order into the records that are left; rows are made of those, and counts of the rows. Nothing
//! is shared with the worker. Collections of which the recording has none are left out.

use std::collections::BTreeMap;
use std::fmt::Display;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::frames::Entry;

/// Rows by table and primary key, each as `to_jsonb` shows it, without the columns in [`IGNORED`].
pub(crate) type Tables = BTreeMap<&'static str, BTreeMap<String, Value>>;

/// The tables that hold what the relay said, with their primary keys.
pub(crate) const TABLES: [(&str, &str); 23] = [
    ("users", "did"),
    ("posts", "uri"),
    ("post_aggregations", "post_uri"),
    ("penstock.waiting_counts", "post_uri"),
    ("feed_items", "uri"),
    ("likes", "uri"),
    ("reposts", "uri"),
    ("bookmarks", "uri"),
    ("follows", "uri"),
    ("blocks", "uri"),
    ("lists", "uri"),
    ("list_items", "uri"),
    ("list_blocks", "uri"),
    ("feed_generators", "uri"),
    ("starter_packs", "uri"),
    ("labeler_services", "uri"),
    ("labels", "uri"),
    ("verifications", "uri"),
    ("generic_records", "uri"),
    ("thread_gates", "post_uri"),
    ("post_gates", "post_uri"),
    ("quotes", "uri"),
    ("penstock.records", "uri"),
];

/// When a row was written is not said by the events.
pub(crate) const IGNORED: [&str; 2] = ["indexed_at", "updated_at"];

/// Collections with a table of their own of which the recordings have no record.
const NOT_MODELLED: [&str; 8] = [
    "app.bsky.bookmark",
    "app.bsky.feed.generator",
    "app.bsky.graph.listblock",
    "app.bsky.graph.listitem",
    "app.bsky.graph.starterpack",
    "app.bsky.graph.verification",
    "app.bsky.labeler.service",
    "com.atproto.label.label",
];

/// The fields of `db:record_counts`.
pub(crate) const COUNTED: [&str; 8] =
    ["users", "posts", "likes", "reposts", "follows", "blocks", "feed_items", "post_aggregations"];

/// A repo after some of its events.
#[derive(Default)]
struct Repo {
    handle: Option<String>,
    /// By path.
    records: BTreeMap<String, Record>,
}

/// A record that stands, and the commit that wrote it.
struct Record {
    uri: String,
    cid: String,
    value: Value,
    rev: Value,
    seq: u64,
    time: Value,
}

/// Folds entries, each repo's in its order, and returns every row that is left.
pub(crate) fn tables(entries: &[Entry]) -> Tables {
    let mut repos = BTreeMap::<&str, Repo>::new();
    for entry in entries {
        // Whoever is seen or pointed at has a row.
        repos.entry(entry.did()).or_default().apply(entry);
        for subject in subjects(entry) {
            repos.entry(subject).or_default();
        }
    }
    let mut tables: Tables = TABLES.iter().map(|(table, _)| (*table, BTreeMap::new())).collect();
    for (did, repo) in &repos {
        repo.rows(did, &mut |table, row| insert(&mut tables, table, row));
    }
    count(&mut tables);
    tables
}

/// What `db:record_counts` must say of these rows.
pub(crate) fn record_counts(tables: &Tables) -> BTreeMap<String, i64> {
    COUNTED.iter().map(|table| ((*table).to_owned(), tables[table].len() as i64)).collect()
}

/// What `cluster:metrics` must say when each of these entries was delivered so many times.
pub(crate) fn event_counts(entries: &[Entry], times: i64) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        let kind = format!("#{}", entry.kind);
        for field in ["totalEvents", &kind] {
            *counts.entry(field.to_owned()).or_default() += times;
        }
    }
    counts
}

/// Lists the first few differences of each table.
pub(crate) fn differences(expected: &Tables, found: &Tables) -> String {
    let mut said = String::new();
    for (table, expected) in expected {
        let found = &found[table];
        let keys: Vec<_> = expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))).collect();
        let wrong: Vec<_> = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key)).collect();
        if wrong.is_empty() {
            continue;
        }
        said += &format!("{table}: {} rows expected, {} found, {} differ\n", expected.len(), found.len(), wrong.len());
        for key in wrong.iter().take(4) {
            let difference = match (expected.get(*key), found.get(*key)) {
                (Some(expected), Some(found)) => columns(expected, found),
                (Some(row), _) => format!("is missing: {}", shorten(row)),
                (None, row) => format!("must not be: {}", row.map(shorten).unwrap_or_default()),
            };
            said += &format!("  {}: {difference}\n", shorten(key));
        }
    }
    said
}

fn columns(expected: &Value, found: &Value) -> String {
    let (expected, found) = (expected.as_object().unwrap(), found.as_object().unwrap());
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    let wrong = names.filter(|name| expected.get(*name) != found.get(*name));
    let shown = |value: Option<&Value>| value.map_or_else(|| "no such column".to_owned(), Value::to_string);
    let said = wrong
        .map(|name| format!("{name} must be {:.200}, is {:.200};", shown(expected.get(name)), shown(found.get(name))));
    said.collect::<Vec<_>>().join(" ")
}

fn shorten(shown: &impl Display) -> String {
    shown.to_string().chars().take(240).collect()
}

/// Returns whom the follows, blocks and list items of an entry point at: they have a row too.
fn subjects(entry: &Entry) -> impl Iterator<Item = &str> {
    let ops = entry.data["ops"].as_array().map_or(&[][..], Vec::as_slice);
    let points = |op: &&Value| {
        let collection = op["path"].as_str().unwrap().split('/').next().unwrap();
        ["app.bsky.graph.follow", "app.bsky.graph.block", "app.bsky.graph.listitem"].contains(&collection)
    };
    let subjects = ops.iter().filter(points).filter_map(|op| op["record"]["subject"].as_str());
    subjects.filter(|subject| subject.starts_with("did:"))
}

fn insert(tables: &mut Tables, table: &'static str, row: Value) {
    let (_, key) = TABLES.iter().find(|(name, _)| *name == table).unwrap();
    let key = row[*key].as_str().unwrap().to_owned();
    assert!(tables.get_mut(table).unwrap().insert(key, row).is_none(), "two rows with one key");
}

/// Counts the rows that point at each post, and apart from them those that point at what is no post here.
fn count(tables: &mut Tables) {
    let none = |uri: &str| json!({"post_uri": uri, "like_count": 0, "repost_count": 0, "reply_count": 0, "quote_count": 0, "bookmark_count": 0});
    let mut posts: BTreeMap<String, Value> = tables["posts"].keys().map(|uri| (uri.clone(), none(uri))).collect();
    let mut others = BTreeMap::<String, Value>::new();
    let counted = [("likes", "post_uri"), ("reposts", "post_uri"), ("posts", "parent_uri"), ("quotes", "quoted_uri")];
    let counts = ["like_count", "repost_count", "reply_count", "quote_count"];
    for ((table, column), count) in counted.iter().zip(counts) {
        for uri in tables[table].values().filter_map(|row| row[*column].as_str()) {
            let row = match posts.get_mut(uri) {
                Some(row) => row,
                None => others.entry(uri.to_owned()).or_insert_with(|| none(uri)),
            };
            row[count] = json!(row[count].as_i64().unwrap() + 1);
        }
    }
    tables.insert("post_aggregations", posts);
    tables.insert("penstock.waiting_counts", others);
}

// === impl Repo ===

impl Repo {
    fn apply(&mut self, entry: &Entry) {
        let data = &entry.data;
        match entry.kind.as_str() {
            "identity" => {
                if let Some(handle) = data["handle"].as_str() {
                    self.handle = Some(handle.to_owned());
                }
            }
            "account" => {
                // Any other status only hides what is there.
                if data["active"] == false && data["status"] == "deleted" {
                    self.records.clear();
                }
            }
            _ => {
                for op in data["ops"].as_array().unwrap() {
                    let path = op["path"].as_str().unwrap();
                    if op["action"] == "delete" {
                        self.records.remove(path);
                    } else if let Some(record) = op.get("record") {
                        let record = Record {
                            uri: format!("at://{}/{path}", entry.did()),
                            cid: op["cid"].as_str().unwrap().to_owned(),
                            value: without_nul(record),
                            rev: data["rev"].clone(),
                            seq: entry.seq,
                            time: data["time"].clone(),
                        };
                        self.records.insert(path.to_owned(), record);
                    }
                }
            }
        }
    }

    /// Makes the rows of the repo: its user, and those of each record that is visible.
    fn rows(&self, did: &str, insert: &mut impl FnMut(&'static str, Value)) {
        let profile = self.records.get("app.bsky.actor.profile/self").map_or(&Value::Null, |record| &record.value);
        insert(
            "users",
            json!({
                "did": did, "handle": self.handle.as_deref().unwrap_or("handle.invalid"),
                "display_name": profile["displayName"], "description": profile["description"],
                "avatar_url": profile["avatar"]["ref"]["$link"], "banner_url": profile["banner"]["ref"]["$link"],
                "profile_record": profile, "pinned_post": profile["pinnedPost"], "search_vector": null,
                "created_at": timestamp(&profile["createdAt"]),
            }),
        );
        // Of records that want the same pair, the one with the greatest rev, then URI, is visible.
        let mut visible = BTreeMap::<(String, String), &Record>::new();
        for (path, record) in self.records.iter().filter(|(path, _)| *path != "app.bsky.actor.profile/self") {
            let collection = path.split('/').next().unwrap().to_owned();
            let subject = match collection.as_str() {
                "app.bsky.feed.like" | "app.bsky.feed.repost" => &record.value["subject"]["uri"],
                "app.bsky.graph.follow" | "app.bsky.graph.block" => &record.value["subject"],
                _ => &Value::Null,
            };
            let place = visible.entry((collection, subject.as_str().unwrap_or(path).to_owned())).or_insert(record);
            if (record.rev.as_str(), &record.uri) > (place.rev.as_str(), &place.uri) {
                *place = record;
            }
        }
        for ((collection, _), record) in visible {
            self.record_rows(did, &collection, record, insert);
        }
    }

    fn record_rows(&self, did: &str, collection: &str, record: &Record, insert: &mut impl FnMut(&'static str, Value)) {
        let Record { uri, cid, value, rev, seq, time } = record;
        let created_at = Some(timestamp(&value["createdAt"])).filter(|time| !time.is_null()).unwrap_or(timestamp(time));
        // Feeds sort by the earlier of record and event.
        let at = |time: &Value| time.as_str().unwrap().parse::<DateTime>().unwrap();
        let event = timestamp(time);
        let sort_at = if at(&created_at) > at(&event) { event } else { created_at.clone() };
        if uri.len() > 512 || collection.len() > 255 {
            let row = json!({
                "uri": uri, "did": did, "collection": collection, "cid": cid, "record": value, "created_at": created_at,
                "commit_rev": rev, "entry_id": seq.to_string(),
            });
            return insert("penstock.records", row);
        }
        // Where a gate stands is said by its record key.
        let rkey = uri.rsplit('/').next().unwrap();
        let post = format!("at://{did}/app.bsky.feed.post/{rkey}");
        let feed_item = |kind: &str, post: &Value| {
            json!({
                "uri": uri, "post_uri": post, "originator_did": did, "type": kind, "sort_at": sort_at, "cid": cid,
                "created_at": created_at,
            })
        };
        let with_commit = |mut row: Value| {
            row["commit_time"] = timestamp(time);
            row["commit_seq"] = json!(seq.to_string());
            row["commit_rev"] = rev.clone();
            row
        };
        let subject = |row: Value| {
            let subject = &value["subject"];
            let more = json!({
                "uri": uri, "post_uri": subject["uri"], "subject_cid": subject["cid"], "via": value["via"],
                "created_at": created_at,
            });
            with_commit(merge(row, more))
        };
        match collection {
            "app.bsky.feed.post" => {
                let gate = |kind: &str| self.records.contains_key(&format!("app.bsky.feed.{kind}/{rkey}"));
                let reply = &value["reply"];
                insert(
                    "posts",
                    with_commit(json!({
                        "uri": uri, "cid": cid, "author_did": did, "text": value["text"], "langs": value["langs"],
                        "parent_uri": reply["parent"]["uri"], "parent_cid": reply["parent"]["cid"],
                        "root_uri": reply["root"]["uri"], "root_cid": reply["root"]["cid"],
                        "embed": value["embed"], "facets": value["facets"],
                        "tags": value.get("tags").cloned().unwrap_or(json!([])),
                        "violates_thread_gate": false, "violates_embedding_rules": false,
                        "has_thread_gate": gate("threadgate"), "has_post_gate": gate("postgate"),
                        "search_vector": null, "created_at": created_at,
                    })),
                );
                insert("feed_items", feed_item("post", &json!(uri)));
                let quoted = match value["embed"]["$type"].as_str() {
                    Some("app.bsky.embed.record") => &value["embed"]["record"],
                    Some("app.bsky.embed.recordWithMedia") => &value["embed"]["record"]["record"],
                    _ => &Value::Null,
                };
                if quoted["uri"].is_string() {
                    insert(
                        "quotes",
                        json!({
                            "uri": format!("{uri}#quote"), "cid": cid, "post_uri": uri, "quoted_uri": quoted["uri"],
                            "quoted_cid": quoted["cid"], "created_at": created_at,
                        }),
                    );
                }
            }
            "app.bsky.feed.like" => insert("likes", subject(json!({"user_did": did}))),
            "app.bsky.feed.repost" => {
                insert("reposts", subject(json!({"user_did": did})));
                insert("feed_items", feed_item("repost", &value["subject"]["uri"]));
            }
            "app.bsky.graph.follow" => insert(
                "follows",
                with_commit(json!({
                    "uri": uri, "follower_did": did, "following_did": value["subject"], "created_at": created_at,
                })),
            ),
            "app.bsky.graph.block" => insert(
                "blocks",
                with_commit(json!({
                    "uri": uri, "blocker_did": did, "blocked_did": value["subject"], "created_at": created_at,
                })),
            ),
            "app.bsky.graph.list" => insert(
                "lists",
                json!({
                    "uri": uri, "cid": cid, "creator_did": did, "name": value["name"], "purpose": value["purpose"],
                    "description": value["description"], "avatar_url": value["avatar"]["ref"]["$link"],
                    "created_at": created_at,
                }),
            ),
            "app.bsky.feed.threadgate" => {
                let rules = value["allow"].as_array();
                let allows = |kind: &str| {
                    let kind = format!("app.bsky.feed.threadgate#{kind}");
                    rules.into_iter().flatten().filter(move |rule| rule["$type"] == *kind)
                };
                let lists: Vec<_> = allows("listRule").map(|rule| rule["list"].clone()).collect();
                insert(
                    "thread_gates",
                    json!({
                        "post_uri": post, "owner_did": did,
                        "allow_mentions": rules.is_none() || allows("mentionRule").count() > 0,
                        "allow_following": rules.is_none() || allows("followingRule").count() > 0,
                        "allow_list_members": !lists.is_empty(), "allow_list_uris": lists,
                        "created_at": created_at,
                    }),
                );
            }
            "app.bsky.feed.postgate" => insert(
                "post_gates",
                json!({
                    "post_uri": post, "embedding_rules": value.get("embeddingRules").cloned().unwrap_or(json!({})),
                    "created_at": created_at,
                }),
            ),
            other => {
                assert!(!NOT_MODELLED.contains(&other), "the model knows nothing of {other}");
                insert(
                    "generic_records",
                    json!({
                        "uri": uri, "cid": cid, "author_did": did, "record_type": other, "record": value,
                        "created_at": created_at,
                    }),
                );
            }
        }
    }
}

fn merge(mut row: Value, more: Value) -> Value {
    let Value::Object(more) = more else { return row };
    row.as_object_mut().unwrap().extend(more);
    row
}

/// A time as PostgreSQL shows a `timestamp` in JSON: UTC, whatever the offset was; null where the text is no time.
pub(crate) fn timestamp(text: &Value) -> Value {
    let Some(text) = text.as_str() else { return Value::Null };
    let utc = |time: Timestamp| time.to_zoned(TimeZone::UTC).datetime();
    let time = text.parse::<Timestamp>().map(utc).or_else(|_| text.parse::<DateTime>());
    time.map_or(Value::Null, |time| json!(time.to_string()))
}

/// PostgreSQL holds no NUL, in texts or in JSON.
pub(crate) fn without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "").into(),
        Value::Array(items) => items.iter().map(without_nul).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.replace('\0', ""), without_nul(value))).collect(),
        other => other.clone(),
    }
}
