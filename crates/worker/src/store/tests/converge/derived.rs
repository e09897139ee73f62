//! What has to follow from the rows of records: each cause once, and nothing without a cause.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{Tables, add};

/// The CID of every record that stands, which not every table has a column for. No table of the database.
pub(super) const CIDS: &str = "cids";

/// A post: its author and what it answers.
struct Post {
    author: String,
    parent: Option<String>,
    root: Option<String>,
    row: Value,
}

/// Adds what follows from all other tables.
pub(super) fn derive(tables: &mut Tables) {
    let posts: BTreeMap<String, Post> =
        rows(tables, "posts").into_iter().map(|row| (text(&row, "uri"), post(row))).collect();
    let cids: BTreeMap<String, String> =
        rows(tables, CIDS).iter().map(|row| (text(row, "uri"), text(row, "cid"))).collect();
    notify_subjects(tables, &posts, &cids);
    notify_posts(tables, &posts);
    tell_contexts(tables, &posts);
    tell_states(tables);
    for label in rows(tables, "labels") {
        add(tables, "label_events", json!({"label_uri": label["uri"], "action": "created"}));
    }
}

fn rows(tables: &Tables, table: &str) -> Vec<Value> {
    tables.get(table).cloned().unwrap_or_default()
}

fn text(row: &Value, column: &str) -> String {
    row[column].as_str().unwrap().to_owned()
}

fn post(row: Value) -> Post {
    let uri = |column: &str| row[column].as_str().map(str::to_owned);
    Post { author: text(&row, "author_did"), parent: uri("parent_uri"), root: uri("root_uri"), row }
}

/// Likes and reposts tell the author of their post, follows the followed.
fn notify_subjects(tables: &mut Tables, posts: &BTreeMap<String, Post>, cids: &BTreeMap<String, String>) {
    let kinds = [("likes", "like", "user_did", "post_uri"), ("reposts", "repost", "user_did", "post_uri")];
    for (table, reason, by, of) in kinds.into_iter().chain([("follows", "follow", "follower_did", "following_did")]) {
        for row in rows(tables, table) {
            let (uri, author, subject) = (text(&row, "uri"), text(&row, by), text(&row, of));
            let recipient = match posts.get(&subject) {
                _ if reason == "follow" => subject.clone(),
                Some(post) => post.author.clone(),
                None => {
                    let of_another = !subject.starts_with(&format!("at://{author}/"));
                    let is_told = format!("{uri}#notification").len() <= 512;
                    if reason == "like" && of_another && is_told && subject.contains("/app.bsky.feed.post/") {
                        add(tables, "penstock.waiting_cids", json!({"uri": uri, "cid": cids[&uri]}));
                    }
                    continue;
                }
            };
            let about = (reason != "follow").then_some(&*subject);
            notify(tables, (&uri, ""), reason, (&recipient, &author), about, &cids[&uri], &row);
        }
    }
}

/// Posts tell those whom they answer, quote or mention.
fn notify_posts(tables: &mut Tables, posts: &BTreeMap<String, Post>) {
    let mention = "app.bsky.richtext.facet#mention";
    for (uri, Post { author, parent, row, .. }) in posts {
        let mut told: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        if let Some(answered) = parent.as_ref().and_then(|parent| posts.get(parent)) {
            told.insert("/reply".to_owned(), ("reply", &answered.author));
        }
        for quote in rows(tables, "quotes").iter().filter(|quote| quote["post_uri"] == **uri) {
            if let Some(quoted) = posts.get(quote["quoted_uri"].as_str().unwrap()) {
                told.insert("/quote".to_owned(), ("quote", &quoted.author));
            }
        }
        let facets = row["facets"].as_array().into_iter().flatten();
        for feature in facets.flat_map(|facet| facet["features"].as_array().unwrap()) {
            if feature["$type"] == mention {
                let did = feature["did"].as_str().unwrap();
                told.insert(format!("/mention/{did}"), ("mention", did));
            }
        }
        for (suffix, (reason, recipient)) in told {
            notify(tables, (uri, &suffix), reason, (recipient, author), Some(uri), &text(row, "cid"), row);
        }
    }
}

fn notify(
    tables: &mut Tables,
    (record, suffix): (&str, &str),
    reason: &str,
    (recipient, author): (&str, &str),
    subject: Option<&str>,
    cid: &str,
    row: &Value,
) {
    let uri = format!("{record}#notification{suffix}");
    if recipient != author && uri.len() <= 512 && recipient.len() <= 255 {
        let notification = json!({
            "uri": uri, "recipient_did": recipient, "author_did": author,
            "reason": reason, "reason_subject": subject, "cid": cid, "is_read": false, "created_at": row["created_at"],
        });
        add(tables, "notifications", notification);
    }
}

/// A reply whose thread has its first post says whether the author of that likes it.
fn tell_contexts(tables: &mut Tables, posts: &BTreeMap<String, Post>) {
    let likes = rows(tables, "likes");
    for (uri, Post { root, .. }) in posts.iter().filter(|(_, post)| post.parent.is_some()) {
        let Some(root) = root.as_ref().and_then(|root| posts.get(root)) else { continue };
        let like = likes.iter().find(|like| like["user_did"] == root.author && like["post_uri"] == **uri);
        let liked = like.map(|like| text(like, "uri"));
        add(tables, "thread_contexts", json!({"post_uri": uri, "root_author_like_uri": liked}));
    }
}

fn tell_states(tables: &mut Tables) {
    let mut states: BTreeMap<(String, String), [Value; 3]> = BTreeMap::new();
    for (at, table) in ["likes", "reposts", "bookmarks"].into_iter().enumerate() {
        for row in rows(tables, table) {
            let state = states.entry((text(&row, "post_uri"), text(&row, "user_did")));
            state.or_insert([Value::Null, Value::Null, false.into()])[at] =
                if table == "bookmarks" { true.into() } else { row["uri"].clone() };
        }
    }
    for ((post, viewer), [like, repost, bookmarked]) in states {
        let state = json!({
            "post_uri": post, "viewer_did": viewer, "like_uri": like, "repost_uri": repost, "bookmarked": bookmarked,
            "thread_muted": false, "reply_disabled": false, "embedding_disabled": false, "pinned": false,
        });
        add(tables, "post_viewer_states", state);
    }
}
