//! What the relay said, as far as a verdict needs it, and what must come of each record.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use penstock_replay::Settings;
use serde_json::Value;

use super::dialect::Dialect;
use crate::frames::{self, Entry};

/// The tables that both systems fill.
pub(crate) const TABLES: [&str; 5] = ["posts", "likes", "reposts", "follows", "blocks"];

const COLLECTIONS: [&str; 5] = [
    "app.bsky.feed.post",
    "app.bsky.feed.like",
    "app.bsky.feed.repost",
    "app.bsky.graph.follow",
    "app.bsky.graph.block",
];

/// An event of the relay's.
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) makes_entry: bool,
    /// The data by which an entry without a number is known.
    pub(crate) unnumbered: Option<String>,
    pub(crate) ops: Vec<Op>,
    /// Whose account it deletes.
    deletes: Option<String>,
}

/// An op on a record that both systems have a table for.
pub(crate) struct Op {
    pub(crate) uri: String,
    action: Action,
    /// The posts whose counts it changes.
    pub(crate) points: Vec<String>,
    /// Who and whom, where only one record of them may stand.
    pair: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Create,
    Update,
    Delete,
    /// Its record is not in the frame.
    Nothing,
}

/// What must come of a record.
#[derive(Default)]
pub(crate) struct Outcome {
    /// The events that had to do with it.
    pub(crate) seqs: BTreeSet<u64>,
    /// It was created, and that is all that ever was said of it, its pair or its account.
    pub(crate) stands: bool,
    /// The last thing that was said of it is that it is deleted.
    pub(crate) deleted: bool,
}

/// What a relay of these settings says, from one number to another.
pub(crate) fn said(settings: &Settings, from: u64, to: u64) -> Vec<Event> {
    let said = frames::said(settings).skip_while(|(seq, _)| *seq < from).take_while(|(seq, _)| *seq <= to);
    said.map(|(seq, entry)| Event::new(seq, entry)).collect()
}

/// What must come of each record.
pub(crate) fn outcomes(events: &[Event]) -> BTreeMap<&str, Outcome> {
    let deleted: HashSet<&str> = events.iter().filter_map(|event| event.deletes.as_deref()).collect();
    let (mut pairs, mut shared) = (HashSet::new(), HashSet::new());
    let ops = || events.iter().flat_map(|event| event.ops.iter().map(move |op| (event.seq, op)));
    for pair in ops().filter_map(|(_, op)| op.pair.as_deref()) {
        if !pairs.insert(pair) {
            shared.insert(pair);
        }
    }
    let mut outcomes = BTreeMap::<&str, Outcome>::new();
    for (seq, op) in ops() {
        let first = !outcomes.contains_key(op.uri.as_str());
        let outcome = outcomes.entry(&op.uri).or_default();
        outcome.seqs.insert(seq);
        let alone = op.pair.as_deref().is_none_or(|pair| !shared.contains(pair));
        let account_stays = !deleted.contains(op.uri.split('/').nth(2).unwrap());
        outcome.stands = first && op.action == Action::Create && alone && account_stays && op.uri.len() <= 512;
        outcome.deleted = op.action == Action::Delete;
    }
    outcomes
}

// === impl Event ===

impl Event {
    fn new(seq: u64, entry: Option<Entry>) -> Self {
        let Some(entry) = entry else {
            return Self { seq, makes_entry: false, unnumbered: None, ops: Vec::new(), deletes: None };
        };
        let unnumbered = (entry.kind != "commit").then(|| {
            let [_, data, _] = Dialect::TypeScript.fields(&entry);
            data
        });
        let ops = entry.data["ops"].as_array().into_iter().flatten();
        let ops = ops.filter_map(|op| Op::new(entry.did(), op)).collect();
        let deletes = (entry.data["status"] == "deleted").then(|| entry.did().to_owned());
        Self { seq, makes_entry: true, unnumbered, ops, deletes }
    }
}

// === impl Op ===

impl Op {
    fn new(did: &str, op: &Value) -> Option<Self> {
        let path = op["path"].as_str()?;
        let collection = path.split('/').next().filter(|collection| COLLECTIONS.contains(collection))?;
        let record = &op["record"];
        let action = match op["action"].as_str()? {
            "delete" => Action::Delete,
            _ if record.is_null() => Action::Nothing,
            "create" => Action::Create,
            _ => Action::Update,
        };
        let embed = &record["embed"];
        let points = [
            &record["subject"]["uri"],
            &record["reply"]["parent"]["uri"],
            &embed["record"]["uri"],
            &embed["record"]["record"]["uri"],
        ];
        let points: Vec<String> = points.into_iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let subject = record["subject"].as_str().or(record["subject"]["uri"].as_str());
        let pair = subject.map(|subject| format!("{did} {collection} {subject}"));
        Some(Self { uri: format!("at://{did}/{path}"), action, points, pair })
    }
}
