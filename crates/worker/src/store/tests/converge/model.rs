//! What the database has to hold: each repo's events applied once and in order, and nothing of how they came.
//!
//! Besides, a row says which entry wrote it: the last one by which the last event of its record came.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use penstock_core::data::Action;
use penstock_core::entry::{Entry, Event};
use penstock_core::stream::StreamId;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::derived;
use super::history::{Case, REPOS, Says, Step, Written};
use super::records::{Kind, Op, Stamped, without_nul};

/// The rows of each table, as JSON.
pub(super) type Tables = BTreeMap<String, Vec<Value>>;

/// The last word on a record: whose, and the record but where it was deleted.
struct Stands<'s> {
    by: &'s Written,
    op: Option<&'s Op>,
    /// The rev that guards it: where an op came without its record, the one just below.
    rev: Option<String>,
}

/// What the events of one repo amount to.
#[derive(Default)]
struct Repo<'s> {
    /// By collection and key.
    records: BTreeMap<String, Stands<'s>>,
    handle: Option<(&'s Written, String)>,
    account: Option<(&'s Written, bool, Option<&'static str>)>,
    /// The greatest rev that any entry said.
    rev: Option<&'s str>,
    /// The last entry that said that the account is active.
    returned: Option<StreamId>,
    /// The last entry that deleted the account, or after which it opted out or came back.
    through: Option<StreamId>,
    /// Whether it opted out.
    forbidden: bool,
}

/// What the steps of a run make besides what the events say.
#[derive(Default)]
pub(super) struct Course {
    /// Whose rows stand: those seen or pointed at since they were pruned last.
    users: BTreeSet<String>,
    /// Who was seen.
    actors: BTreeSet<&'static str>,
    /// Whether each account forbids, and up to where that took its records.
    opt_outs: BTreeMap<&'static str, (bool, StreamId)>,
    /// The last entry that came until now and deleted each account, and the last that said that it is active.
    said: BTreeMap<String, (Option<StreamId>, Option<StreamId>)>,
    /// Up to where accounts were deleted when their time was over.
    passed: BTreeMap<String, StreamId>,
}

/// Where only one record may stand: the table and the columns that say where; the first may be none.
const PLACES: [(&str, &str, &str); 8] = [
    ("likes", "user_did", "post_uri"),
    ("reposts", "user_did", "post_uri"),
    ("bookmarks", "user_did", "post_uri"),
    ("follows", "follower_did", "following_did"),
    ("blocks", "blocker_did", "blocked_did"),
    ("list_items", "list_uri", "subject_did"),
    ("list_blocks", "blocker_did", "list_uri"),
    ("verifications", "", "subject_did"),
];

/// What counts for a post: the table, its column with the post, and the count.
const COUNTS: [(&str, &str, &str); 5] = [
    ("likes", "post_uri", "like_count"),
    ("reposts", "post_uri", "repost_count"),
    ("posts", "parent_uri", "reply_count"),
    ("quotes", "quoted_uri", "quote_count"),
    ("bookmarks", "post_uri", "bookmark_count"),
];

/// Returns every row that has to stand once all is applied and swept.
pub(super) fn expected(case: &Case, stream: &[Written], steps: &[(usize, Step)]) -> Tables {
    let mut tables = Tables::new();
    let course = Course::of(steps);
    let repos = fold(case, stream, &course);
    for did in course.users.iter().filter(|did| did.len() <= 255) {
        let none = Repo::default();
        tell_user(&mut tables, did, repos.get(&**did).unwrap_or(&none));
    }
    for (did, repo) in repos {
        tell_repo(&mut tables, did, &repo);
        for (path, Stands { by, op, rev }) in &repo.records {
            let uri = format!("at://{did}/{path}");
            match op {
                _ if path.starts_with(Kind::Profile.collection()) => {}
                Some(op) => tell_record(&mut tables, &repo, did, &uri, by, op),
                None => {
                    let row = json!({"uri": key(&uri), "commit_rev": rev, "entry_id": by.entry_id()});
                    add(&mut tables, "penstock.tombstones", row);
                }
            }
        }
    }
    settle_places(&mut tables);
    count(&mut tables);
    derived::derive(&mut tables);
    stamp(&mut tables);
    tables
}

fn fold<'s>(case: &Case, stream: &'s [Written], course: &Course) -> BTreeMap<&'static str, Repo<'s>> {
    let mut repos: BTreeMap<&str, Repo<'_>> = BTreeMap::new();
    for by in stream {
        let event = &case.events[by.event];
        let repo = repos.entry(REPOS[event.repo]).or_default();
        if let Says::Commit(_) = event.says {
            repo.rev = repo.rev.max(by.rev.as_deref());
        }
    }
    let last: BTreeMap<usize, &Written> = stream.iter().map(|by| (by.event, by)).collect();
    let mut fills = Vec::new();
    for (event, by) in case.events.iter().zip(last.into_values()) {
        let repo = repos.entry(REPOS[event.repo]).or_default();
        match &event.says {
            Says::Commit(_) => {
                for op in &by.ops {
                    let deletes = op.action == Action::Delete;
                    let stands = (!deletes && !op.bare).then_some(op);
                    let rev = if op.bare && !deletes { by.rev.as_deref().map(just_below) } else { by.rev.clone() };
                    repo.records.insert(op.path(), Stands { by, op: stands, rev });
                }
            }
            Says::Fill(_) => fills.push((REPOS[event.repo], by)),
            Says::Handle(Some(handle)) => repo.handle = Some((by, format!("h{handle}.example"))),
            Says::Handle(None) => {}
            Says::Account(active, status) => {
                repo.account = Some((by, *active, *status));
                if *active {
                    repo.returned = Some(by.order);
                }
                if !case.defers && (*active, *status) == (false, Some("deleted")) {
                    repo.records.clear();
                    repo.through = Some(by.order);
                }
            }
        }
    }
    for did in &course.actors {
        repos.entry(did).or_default();
    }
    for (did, repo) in &mut repos {
        if let Some(through) = course.passed.get(*did).filter(|_| case.defers) {
            repo.through = Some(*through);
            repo.records.retain(|_, stands| stands.by.order > *through);
        }
    }
    for (did, (forbidden, through)) in &course.opt_outs {
        let repo = repos.entry(did).or_default();
        repo.forbidden = *forbidden;
        repo.through = repo.through.max(Some(*through));
        repo.records.retain(|_, stands| !forbidden && stands.by.order > *through);
    }
    // A backfill fills what the relay says nothing of, and a deletion takes what was filled before it.
    for (did, by) in fills {
        let repo = repos.entry(did).or_default();
        if Some(by.order) > repo.through && !repo.forbidden {
            for op in by.ops.iter().filter(|op| op.action != Action::Delete && !op.bare) {
                repo.records.entry(op.path()).or_insert(Stands { by, op: Some(op), rev: None });
            }
        }
    }
    repos
}

/// The greatest text below a rev of the history: those end in a digit.
fn just_below(rev: &str) -> String {
    let (before, last) = rev.split_at(rev.len() - 1);
    format!("{before}{}~", char::from(last.as_bytes()[0] - 1))
}

pub(super) fn add(tables: &mut Tables, table: &str, row: Value) {
    tables.entry(table.to_owned()).or_default().push(row);
}

/// Returns what stands of a profile, and the columns that follow from it.
fn profile(did: &str, repo: &Repo<'_>) -> (Value, Value) {
    let profile = repo.records.get("app.bsky.actor.profile/self");
    let profile = profile.and_then(|stands| stands.op);
    let record = profile.map_or(Value::Null, |op| without_nul(&op.record(did)));
    let created_at = record["createdAt"].as_str().map(|at| at.trim_end_matches('Z'));
    let columns = json!({
        "did": did, "display_name": profile.map(Op::name), "description": record["description"], "avatar_url": null,
        "banner_url": null, "pinned_post": record["pinnedPost"], "created_at": created_at,
    });
    (record, columns)
}

fn tell_user(tables: &mut Tables, did: &str, repo: &Repo<'_>) {
    let (record, mut user) = profile(did, repo);
    user["handle"] = repo.handle.as_ref().map_or("handle.invalid", |(_, handle)| handle).into();
    user["profile_record"] = record;
    add(tables, "users", user);
}

fn tell_repo(tables: &mut Tables, did: &str, repo: &Repo<'_>) {
    let (record, mut copy) = profile(did, repo);
    if !record.is_null() {
        copy["record"] = record;
        add(tables, "penstock.profiles", copy);
    }
    let profile = repo.records.get("app.bsky.actor.profile/self");
    let (active, status) = repo.account.map_or((None, None), |(_, active, status)| (Some(active), status));
    let through = repo.through.map(entry_id);
    let guards = json!({
        "did": did, "rev": repo.rev, "active": active, "status": status, "deleted_through": through,
        "swept_through": through, "identity_entry": repo.handle.as_ref().map(|(by, _)| entry_id(by.order)),
        "account_entry": repo.account.map(|(by, ..)| entry_id(by.order)),
        "profile_rev": profile.and_then(|stands| stands.rev.as_deref()),
        "profile_entry": profile.map(|stands| stands.by.entry_id()),
        "handle": repo.handle.as_ref().map(|(_, handle)| handle), "forbidden": repo.forbidden.then_some(true),
        "returned_entry": repo.returned.map(entry_id),
    });
    add(tables, "penstock.repos", guards);
}

fn tell_record(tables: &mut Tables, repo: &Repo<'_>, did: &str, uri: &str, by: &Written, op: &Op) {
    add(tables, derived::CIDS, json!({"uri": uri, "cid": op.cid()}));
    let stamped = by.stamped();
    let at = op.created_at(&stamped);
    if !(op.has_row(did) && op.is_whole(did)) {
        let record = json!({
            "key": key(uri), "uri": uri, "did": did, "collection": op.kind.collection(), "cid": op.cid(),
            "record": without_nul(&op.record(did)), "created_at": at, "commit_rev": by.rev, "entry_id": by.entry_id(),
        });
        add(tables, "penstock.records", record);
    }
    if !op.has_row(did) {
        return;
    }
    let (table, mut row) = op.row(did, &stamped);
    match table {
        "thread_gates" | "post_gates" => {
            let post = uri.replace(".threadgate/", ".post/").replace(".postgate/", ".post/");
            row.insert("post_uri".to_owned(), post.into());
        }
        _ => {
            row.insert("uri".to_owned(), uri.into());
        }
    }
    row.insert("commit_rev".to_owned(), by.rev.clone().into());
    row.insert("entry_id".to_owned(), by.entry_id().into());
    row.insert("seq".to_owned(), by.seq.into());
    let shown = |kind: &str, post: &str| {
        json!({
            "uri": uri, "post_uri": post, "originator_did": did, "type": kind, "cid": op.cid(),
            "sort_at": op.sort_at(&stamped), "created_at": at,
        })
    };
    match op.kind {
        Kind::Post | Kind::Reply | Kind::Quote | Kind::QuoteWithMedia => {
            for (column, kind) in [("has_thread_gate", Kind::ThreadGate), ("has_post_gate", Kind::PostGate)] {
                let gate = repo.records.get(&Op { kind, ..op.clone() }.path());
                let gate = gate.and_then(|gate| gate.op).filter(|gate| gate.has_row(did));
                row.insert(column.to_owned(), gate.is_some().into());
            }
            add(tables, "feed_items", shown("post", uri));
        }
        Kind::Repost => add(tables, "feed_items", shown("repost", &op.subject())),
        _ => {}
    }
    if matches!(op.kind, Kind::Quote | Kind::QuoteWithMedia) && op.has_quote(did) {
        let quote = json!({
            "uri": format!("{uri}#quote"), "cid": op.cid(), "post_uri": uri, "quoted_uri": op.subject(),
            "quoted_cid": "bafysubject", "created_at": at,
        });
        add(tables, "quotes", quote);
    }
    add(tables, table, row.into());
}

/// What a record is called where its URI is too long.
pub(super) fn key(uri: &str) -> String {
    if uri.len() <= 512 {
        return uri.to_owned();
    }
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(uri)))
}

/// Leaves each place to the one it belongs to, and lets the others wait: the greatest rev has it, where there is none
/// the last entry, then the greatest URI; a verification of the lowest URI.
fn settle_places(tables: &mut Tables) {
    for (table, a, b) in PLACES {
        let mut places: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
        for row in tables.remove(table).unwrap_or_default() {
            let text = |column: &str| row.get(column).unwrap_or(&Value::Null).to_string();
            places.entry((text(a), text(b))).or_default().push(row);
        }
        for mut wanting in places.into_values() {
            wanting.sort_by_cached_key(|row| {
                let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
                let number = row["seq"].as_u64().filter(|_| row["commit_rev"].is_null());
                let entry = if row["commit_rev"].is_null() { text("entry_id") } else { String::new() };
                (text("commit_rev"), number, entry, text("uri"))
            });
            if table == "verifications" {
                wanting.sort_by_cached_key(|row| std::cmp::Reverse(row["uri"].to_string()));
            }
            let has = wanting.pop().unwrap();
            add(tables, table, has);
            for row in wanting {
                wait(tables, table, (a, b), row);
            }
        }
    }
}

fn wait(tables: &mut Tables, table: &str, (a, b): (&str, &str), mut row: Value) {
    let fields = row.as_object_mut().unwrap();
    let mut take = |column: &str| fields.remove(column).unwrap();
    let (uri, rev, entry, _) = (take("uri"), take("commit_rev"), take("entry_id"), take("seq"));
    let repo = uri.as_str().unwrap().split('/').nth(2).unwrap().to_owned();
    if table == "reposts" {
        // Its item in the feeds waits with it, and keeps only its CID and its place.
        let shown = tables.get_mut("feed_items").unwrap();
        let at = shown.iter().position(|item| item["uri"] == uri).unwrap();
        let mut shown = shown.remove(at);
        for column in ["cid", "sort_at"] {
            row[column] = shown[column].take();
        }
    }
    let a = row.get(a).cloned().unwrap_or_else(|| "".into());
    let shadow = json!({
        "uri": uri, "repo": repo, "kind": table, "key_a": a, "key_b": row[b], "commit_rev": rev, "entry_id": entry,
        "row": row,
    });
    add(tables, "penstock.shadowed", shadow);
}

/// The tables that say themselves which entry wrote a row.
const STAMPED: [&str; 5] = ["posts", "likes", "reposts", "follows", "blocks"];

/// Puts beside the rows which entries wrote them, as the tables have room for it.
fn stamp(tables: &mut Tables) {
    let mut stamps = Vec::new();
    for (table, rows) in tables.iter_mut().filter(|(table, _)| !table.starts_with("penstock.")) {
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            let Some(entry) = row.remove("entry_id") else { continue };
            row.remove("seq");
            if STAMPED.contains(&table.as_str()) {
                row.insert("commit_seq".to_owned(), entry);
                continue;
            }
            let uri = match table.as_str() {
                "thread_gates" => row["post_uri"].as_str().unwrap().replace(".post/", ".threadgate/").into(),
                "post_gates" => row["post_uri"].as_str().unwrap().replace(".post/", ".postgate/").into(),
                _ => row["uri"].clone(),
            };
            stamps.push(json!({"uri": uri, "commit_rev": row.remove("commit_rev"), "entry_id": entry}));
        }
    }
    tables.insert("penstock.stamps".to_owned(), stamps);
}

/// Counts for each post that is there, and apart from them for whatever else something counts for.
fn count(tables: &mut Tables) {
    let mut counted: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for (table, column, count) in COUNTS {
        for row in tables.get(table).into_iter().flatten() {
            if let Some(post) = row[column].as_str() {
                *counted.entry(post.to_owned()).or_default().entry(count).or_default() += 1;
            }
        }
    }
    for table in ["feed_generators", "labeler_services"] {
        for row in tables.get_mut(table).into_iter().flatten() {
            let counts = counted.get(row["uri"].as_str().unwrap());
            let likes = counts.and_then(|counts| counts.get("like_count")).copied().unwrap_or_default();
            row["like_count"] = likes.into();
        }
    }
    let posts: Vec<String> =
        tables.get("posts").into_iter().flatten().map(|row| row["uri"].as_str().unwrap().to_owned()).collect();
    let row = |post: &str, counts: &BTreeMap<&str, u64>| {
        let mut row = json!({ "post_uri": post });
        for (_, _, count) in COUNTS {
            row[count] = counts.get(count).copied().unwrap_or_default().into();
        }
        row
    };
    for post in posts {
        let counts = counted.remove(&post).unwrap_or_default();
        add(tables, "post_aggregations", row(&post, &counts));
    }
    for (uri, counts) in counted {
        add(tables, "penstock.waiting_counts", row(&uri, &counts));
    }
}

// === impl Course ===

impl Course {
    /// Goes along the steps in their order.
    fn of(steps: &[(usize, Step)]) -> Self {
        let mut course = Self::default();
        for (_, step) in steps {
            match step {
                Step::Apply(entries) => entries.iter().for_each(|entry| course.see(entry)),
                Step::Prune(did) => {
                    course.users.remove(*did);
                }
                Step::OptOut(did, forbids, last) if *forbids != course.forbids(did) => {
                    course.opt_outs.insert(did, (*forbids, last.next()));
                }
                Step::Pass => course.pass(),
                Step::Sweep(_) | Step::OptOut(..) => {}
            }
        }
        course
    }

    fn forbids(&self, did: &str) -> bool {
        self.opt_outs.get(did).is_some_and(|(forbidden, _)| *forbidden)
    }

    /// Whoever was deleted and has not come back since loses what came before.
    fn pass(&mut self) {
        for (did, (deleted, returned)) in &self.said {
            if let Some(deleted) = deleted.filter(|deleted| Some(*deleted) > *returned) {
                let passed = self.passed.entry(did.clone()).or_insert(deleted);
                *passed = (*passed).max(deleted);
            }
        }
    }

    /// An account was seen, and whom its follows, blocks and list items point at.
    fn see(&mut self, entry: &Entry) {
        let did = entry.event.did();
        self.users.insert(did.to_owned());
        self.actors.extend(REPOS.into_iter().find(|repo| *repo == did));
        if let Event::Account(account) = &entry.event {
            let (deleted, returned) = self.said.entry(did.to_owned()).or_default();
            let last = match account.status.as_deref() {
                _ if account.active => returned,
                Some("deleted") => deleted,
                _ => return,
            };
            *last = (*last).max(Some(entry.order));
        }
        let Event::Commit(commit) = &entry.event else { return };
        if self.forbids(did) {
            return;
        }
        for op in commit.ops.iter().filter(|op| op.action != Action::Delete) {
            if let ("app.bsky.graph.follow" | "app.bsky.graph.block" | "app.bsky.graph.listitem", Some(record)) =
                (&*op.collection, &op.record)
            {
                self.users.extend(record["subject"].as_str().map(str::to_owned));
            }
        }
    }
}

// === impl Written ===

impl Written {
    /// Returns the ID as rows carry it; that of a backfill sorts before all others.
    fn entry_id(&self) -> String {
        let id = entry_id(self.order);
        match self.seq {
            None => format!("!{id}"),
            Some(seq) if seq.to_string().len() <= 11 => format!("{id}:{seq}"),
            Some(mut seq) => {
                let mut digits = Vec::new();
                for _ in 0..11 {
                    digits.push(char::from_digit((seq % 36) as u32, 36).unwrap());
                    seq /= 36;
                }
                format!("{id}_{}", digits.into_iter().rev().collect::<String>())
            }
        }
    }

    fn stamped(&self) -> Stamped {
        let came = i64::try_from(self.order.ms / 1000).unwrap();
        let commit_time = self.time.map(datetime);
        Stamped { at: commit_time.clone().unwrap_or_else(|| datetime(came)), commit_time }
    }
}

fn entry_id(StreamId { ms, seq }: StreamId) -> String {
    format!("{ms:013}-{seq:06}")
}

fn datetime(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap().to_zoned(TimeZone::UTC).datetime().to_string()
}
