//! Entries of the stream as readers see them, in all four dialects.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::data::{Action, EventKind};
use crate::stream::{Seq, StreamId, field};
use crate::{dialect, json, time};

/// The fields of one entry, undecoded, as Redis returned them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEntry<B> {
    /// The entry's ID.
    pub id: StreamId,
    /// The `type` field.
    pub kind: Option<B>,
    /// The `data` field.
    pub data: Option<B>,
    /// The `seq` field.
    pub seq: Option<B>,
    /// The `origId` field, which a replayed dead letter carries.
    pub orig_id: Option<B>,
    /// The `traceparent` field of a sampled entry.
    pub traceparent: Option<B>,
    /// The `root` field of a commit.
    pub root: Option<B>,
    /// The `sync` field of a commit.
    pub sync: Option<B>,
}

/// One decoded entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it stands in the stream; what is acknowledged.
    pub id: StreamId,
    /// What it is ordered by: `origId` of a replayed dead letter, else the ID.
    pub order: StreamId,
    /// The relay's sequence number; none in the entries of a backfill.
    pub seq: Option<Seq>,
    /// What happened.
    pub event: Event,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Records of one repo changed.
    Commit(Commit),
    /// A handle or DID document may have changed.
    Identity(Identity),
    /// An account's hosting status changed.
    Account(Account),
}

/// A commit to one repo.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The DID of the repo.
    pub repo: String,
    /// The revision, a TID; absent in the older dialects.
    pub rev: Option<String>,
    /// The revision before; absent at first and in the older dialects.
    pub since: Option<String>,
    /// The CID of the commit block; absent in the older dialects.
    pub commit: Option<String>,
    /// When the host made it; absent in the older dialects and where the text was no time.
    pub time: Option<Timestamp>,
    /// The changes, in the order of the commit.
    pub ops: Vec<Op>,
    /// How many records or ops the repo has that the frame did not bring; 0 in the older dialects, which do not say.
    pub missing: u64,
    /// What ingest found out about it beside what it says.
    pub proven: Proven,
}

/// What ingest found out about a commit when it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// The beginning of the digest of the tree that the commit leaves; none where commits are not verified.
    pub root: Option<Root>,
    /// Why the repo is desynchronized since this commit or one before it.
    pub sync: Option<String>,
}

/// The first bytes of the digest of a repo's tree: enough to tell trees of one repo apart.
pub type Root = [u8; 8];

/// The longest word that says why a repo is desynchronized.
const MAX_SYNC: usize = 32;

/// One change of a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// What was done to the record.
    pub action: Action,
    /// The record's collection, an NSID.
    pub collection: String,
    /// The record's key.
    pub rkey: String,
    /// The record's CID; none on a delete.
    pub cid: Option<String>,
    /// The record as lexicon JSON, whatever the dialect; none on a delete or where the frame did not hold its block.
    pub record: Option<Value>,
}

/// An identity event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account's DID.
    pub did: String,
    /// The handle it now has, where the host says so.
    pub handle: Option<String>,
    /// When.
    pub time: Option<Timestamp>,
}

/// An account event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account's DID.
    pub did: String,
    /// Whether the repo can be shown.
    pub active: bool,
    /// Why not: `deleted`, `takendown`, `suspended`, `deactivated`, or another word.
    pub status: Option<String>,
    /// When.
    pub time: Option<Timestamp>,
}

/// Why an entry cannot be read: the data's fault, whoever reads it.
#[derive(Debug, Error)]
pub enum EntryError {
    /// A field is absent.
    #[error("field {field} is missing")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// The type is none of the three.
    #[error("type {kind:?} is none of commit, identity, account")]
    Type {
        /// The type, shortened.
        kind: String,
    },
    /// The sequence number is no number.
    #[error("seq {seq:?} is neither empty nor a number in 1..2^53")]
    Seq {
        /// The text, shortened.
        seq: String,
    },
    /// The original ID of a replayed dead letter is no ID.
    #[error("origId {id:?} is not a stream id")]
    OrigId {
        /// The text, shortened.
        id: String,
    },
    /// The data is not the JSON of its type.
    #[error("data is not the json of an entry of type {kind}")]
    Data {
        /// The entry's type.
        kind: &'static str,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// The DID is empty or not one.
    #[error("{did:?} is not a did")]
    Did {
        /// The text, shortened.
        did: String,
    },
    /// An op's path is not `collection/rkey`.
    #[error("op {index}: path {path:?} is not collection/rkey")]
    Path {
        /// Which op of the commit, from 0.
        index: usize,
        /// The path, shortened.
        path: String,
    },
    /// An op's action is none of the three.
    #[error("op {index}: action {action:?} is none of create, update, delete")]
    Action {
        /// Which op of the commit, from 0.
        index: usize,
        /// The action, shortened.
        action: String,
    },
}

/// A commit as it is spelt, its records as trees or, to be read later, as text.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>, 'de: 'a"))]
pub(crate) struct CommitData<'a, R> {
    #[serde(borrow)]
    repo: Cow<'a, str>,
    pub(crate) ops: Vec<OpData<'a, R>>,
    #[serde(default, borrow)]
    rev: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    since: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    commit: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(default)]
    missing: Option<u64>,
}

/// What stands around the changes of an entry: the kind, the data as it is, the number and the order.
pub(crate) type Head<'a> = (EventKind, &'a [u8], Option<Seq>, StreamId);

/// An op as it is spelt.
#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>, 'de: 'a"))]
pub(crate) struct OpData<'a, R> {
    #[serde(borrow)]
    pub(crate) action: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) path: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(crate) cid: Option<Cow<'a, str>>,
    #[serde(default = "none")]
    pub(crate) record: Option<R>,
}

#[derive(Deserialize)]
struct IdentityData<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    #[serde(default, borrow)]
    handle: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    time: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct AccountData<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    active: bool,
    #[serde(default, borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    time: Option<Cow<'a, str>>,
}

// === impl RawEntry ===

impl<B: AsRef<[u8]>> RawEntry<B> {
    /// Collects the fields of an entry; unknown ones are passed over.
    pub fn from_fields<K: AsRef<[u8]>>(id: StreamId, fields: impl IntoIterator<Item = (K, B)>) -> Self {
        let mut raw =
            Self { id, kind: None, data: None, seq: None, orig_id: None, traceparent: None, root: None, sync: None };
        for (name, value) in fields {
            let slot = match str::from_utf8(name.as_ref()) {
                Ok(field::TYPE) => &mut raw.kind,
                Ok(field::DATA) => &mut raw.data,
                Ok(field::SEQ) => &mut raw.seq,
                Ok(field::ORIG_ID) => &mut raw.orig_id,
                Ok(field::TRACEPARENT) => &mut raw.traceparent,
                Ok(field::ROOT) => &mut raw.root,
                Ok(field::SYNC) => &mut raw.sync,
                _ => continue,
            };
            *slot = Some(value);
        }
        raw
    }

    /// Decodes the entry, whichever of the four dialects it is in.
    ///
    /// # Errors
    /// Names the field, or the op by its index, that is not as the contract says.
    pub fn decode(&self) -> Result<Entry, EntryError> {
        let (kind, data, seq, order) = self.head()?;
        let mut event = match parse(kind, data) {
            // Python writes what it holds: a lone surrogate is an escape that is no character.
            Err(EntryError::Data { kind: name, source }) => match dialect::mend_lone_surrogates(data) {
                Some(mended) => parse(kind, &mended)?,
                None => return Err(EntryError::Data { kind: name, source }),
            },
            other => other?,
        };
        if let Event::Commit(commit) = &mut event {
            commit.proven = self.proven();
        }
        Ok(Entry { id: self.id, order, seq, event })
    }

    /// Reads what ingest found out about a commit; what is not as it writes it is passed over.
    pub(crate) fn proven(&self) -> Proven {
        let sync = text(self.sync.as_ref()).filter(|word| !word.is_empty() && word.len() <= MAX_SYNC);
        Proven {
            root: text(self.root.as_ref()).and_then(|digits| read_root(&digits)),
            sync: sync.filter(|word| word.bytes().all(|byte| byte.is_ascii_graphic())).map(Cow::into_owned),
        }
    }

    /// Reads all but the data: the kind, the data as it is, the number and the order.
    pub(crate) fn head(&self) -> Result<Head<'_>, EntryError> {
        let kind = text(self.kind.as_ref()).ok_or(EntryError::Missing { field: field::TYPE })?;
        let data = self.data.as_ref().map(AsRef::as_ref).ok_or(EntryError::Missing { field: field::DATA })?;
        let seq = match text(self.seq.as_ref()).as_deref() {
            None | Some("") => None,
            Some(seq) => Some(seq.parse().map_err(|_| EntryError::Seq { seq: shorten(seq) })?),
        };
        let order = match text(self.orig_id.as_ref()).as_deref() {
            None | Some("") => self.id,
            Some(id) => id.parse().map_err(|_| EntryError::OrigId { id: shorten(id) })?,
        };
        let kind: EventKind = kind.parse().map_err(|_| EntryError::Type { kind: shorten(&kind) })?;
        Ok((kind, data, seq, order))
    }
}

// === impl Event ===

impl Event {
    /// Returns the DID whose repo or account the event is of.
    #[must_use]
    pub fn did(&self) -> &str {
        match self {
            Self::Commit(commit) => &commit.repo,
            Self::Identity(identity) => &identity.did,
            Self::Account(account) => &account.did,
        }
    }

    /// Returns the event's kind.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Commit(_) => EventKind::Commit,
            Self::Identity(_) => EventKind::Identity,
            Self::Account(_) => EventKind::Account,
        }
    }
}

fn parse(kind: EventKind, data: &[u8]) -> Result<Event, EntryError> {
    let fault = |source| EntryError::Data { kind: kind.as_str(), source };
    Ok(match kind {
        EventKind::Commit => Event::Commit(commit(json::from_slice(data).map_err(fault)?)?),
        EventKind::Identity => {
            let data: IdentityData<'_> = json::from_slice(data).map_err(fault)?;
            let did = did(data.did)?;
            // Both producers before us write the DID in its place where they know no handle.
            let handle = data.handle.filter(|handle| !handle.is_empty() && *handle != did).map(Cow::into_owned);
            Event::Identity(Identity { did, handle, time: data.time.as_deref().and_then(time::parse) })
        }
        EventKind::Account => {
            let data: AccountData<'_> = json::from_slice(data).map_err(fault)?;
            Event::Account(Account {
                did: did(data.did)?,
                active: data.active,
                status: data.status.map(Cow::into_owned),
                time: data.time.as_deref().and_then(time::parse),
            })
        }
    })
}

fn commit(mut data: CommitData<'_, Value>) -> Result<Commit, EntryError> {
    let ops = std::mem::take(&mut data.ops);
    let ops = ops.into_iter().enumerate().map(|(index, op)| self::op(index, op)).collect::<Result<_, _>>()?;
    Ok(Commit { ops, ..bare(data)? })
}

/// Reads a commit without its ops.
pub(crate) fn bare<R>(data: CommitData<'_, R>) -> Result<Commit, EntryError> {
    Ok(Commit {
        repo: did(data.repo)?,
        rev: owned(data.rev),
        since: owned(data.since),
        commit: owned(data.commit),
        time: data.time.as_deref().and_then(time::parse),
        ops: Vec::new(),
        missing: data.missing.unwrap_or_default(),
        proven: Proven::default(),
    })
}

/// Reads the `root` field; none where it is not 16 hexadecimal digits.
#[must_use]
pub fn read_root(digits: &str) -> Option<Root> {
    let is_whole = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = if is_whole { u64::from_str_radix(digits, 16).ok()? } else { return None };
    Some(number.to_be_bytes())
}

/// Writes the `root` field.
#[must_use]
pub fn write_root(root: Root) -> String {
    format!("{:016x}", u64::from_be_bytes(root))
}

pub(crate) fn op(index: usize, data: OpData<'_, Value>) -> Result<Op, EntryError> {
    let action = data.action.parse().map_err(|_| EntryError::Action { index, action: shorten(&data.action) })?;
    let (collection, rkey) = data
        .path
        .split_once('/')
        .filter(|(collection, rkey)| !collection.is_empty() && !rkey.is_empty() && !rkey.contains('/'))
        .ok_or_else(|| EntryError::Path { index, path: shorten(&data.path) })?;
    Ok(Op {
        action,
        collection: collection.to_owned(),
        rkey: rkey.to_owned(),
        cid: owned(data.cid),
        record: data.record.filter(|record| !record.is_null()).map(dialect::normalise),
    })
}

fn none<R>() -> Option<R> {
    None
}

fn did(text: Cow<'_, str>) -> Result<String, EntryError> {
    if text.starts_with("did:") && text.len() > 4 {
        Ok(text.into_owned())
    } else {
        Err(EntryError::Did { did: shorten(&text) })
    }
}

fn owned(text: Option<Cow<'_, str>>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(Cow::into_owned)
}

fn text<B: AsRef<[u8]>>(value: Option<&B>) -> Option<Cow<'_, str>> {
    value.map(|value| String::from_utf8_lossy(value.as_ref()))
}

/// An error must not grow with its input.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(kind: &str, data: &str, seq: &str) -> Result<Entry, EntryError> {
        let fields = [(field::TYPE, kind), (field::DATA, data), (field::SEQ, seq)];
        RawEntry::from_fields("5-1".parse().unwrap(), fields).decode()
    }

    fn only_op(entry: Entry) -> Op {
        match entry.event {
            Event::Commit(mut commit) => commit.ops.remove(0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn our_own_entry_is_read_back_whole() {
        let data = r#"{"repo":"did:plc:aa","ops":[{"action":"create","path":"a.b.c/r","cid":"bafy","record":{"$type":"a.b.c","createdAt":"x"}},{"action":"delete","path":"a.b.c/s"}],"rev":"3m","time":"2026-07-04T14:38:08.999Z","commit":"bafyc","since":null}"#;
        let entry = decode("commit", data, "42").unwrap();
        assert_eq!((entry.id, entry.order), ("5-1".parse().unwrap(), "5-1".parse().unwrap()));
        assert_eq!(entry.seq.map(Seq::get), Some(42));
        let Event::Commit(commit) = entry.event else { panic!() };
        assert_eq!((commit.rev.as_deref(), commit.since, commit.commit.as_deref()), (Some("3m"), None, Some("bafyc")));
        assert_eq!(commit.ops[0].record, Some(json!({"$type": "a.b.c", "createdAt": "x"})));
        assert_eq!((commit.ops[1].action, &*commit.ops[1].rkey, &commit.ops[1].record), (Action::Delete, "s", &None));
    }

    #[test]
    fn what_ingest_found_out_is_read_and_anything_else_passed_over() {
        let data = r#"{"repo":"did:plc:aa","ops":[],"rev":"3m"}"#;
        let read = |root: &str, sync: &str| {
            let fields = [(field::TYPE, "commit"), (field::DATA, data), (field::ROOT, root), (field::SYNC, sync)];
            let entry = RawEntry::from_fields("5-1".parse().unwrap(), fields).decode().unwrap();
            let Event::Commit(commit) = entry.event else { panic!() };
            (commit.proven.root, commit.proven.sync)
        };
        let root = [0, 1, 2, 3, 4, 5, 0xfe, 0xff];
        assert_eq!(read(&write_root(root), "since"), (Some(root), Some("since".to_owned())));
        for odd in ["", "000102030405fe", "+00102030405feff", "000102030405feffx", "g00102030405feff"] {
            assert_eq!(read(odd, ""), (None, None), "{odd}");
        }
        for odd in ["two words", "\0", &"x".repeat(33)] {
            assert_eq!(read("", odd), (None, None), "{odd}");
        }
    }

    #[test]
    fn python_dialect_becomes_lexicon_json() {
        let data = r#"{"repo": "did:plc:aa", "ops": [{"action": "create", "path": "app.bsky.feed.like/3m", "cid": "bafyrei", "record": {"created_at": "2026-07-04T14:38:08.999Z", "subject": {"cid": "bafyrei", "uri": "at://x", "py_type": "com.atproto.repo.strongRef"}, "via": null, "py_type": "app.bsky.feed.like", "$type": "app.bsky.feed.like"}}]}"#;
        let entry = decode("commit", data, "7").unwrap();
        assert_eq!(
            only_op(entry).record,
            Some(json!({
                "$type": "app.bsky.feed.like",
                "createdAt": "2026-07-04T14:38:08.999Z",
                "subject": {"$type": "com.atproto.repo.strongRef", "cid": "bafyrei", "uri": "at://x"},
            }))
        );
    }

    #[test]
    fn a_did_in_the_place_of_a_handle_is_none() {
        let handle = |data: &str, seq: &str| match decode("identity", data, seq).unwrap().event {
            Event::Identity(identity) => identity.handle,
            other => panic!("{other:?}"),
        };
        assert_eq!(handle(r#"{"did":"did:plc:aa","handle":"did:plc:aa"}"#, ""), None);
        assert_eq!(handle(r#"{"did":"did:plc:aa","handle":"did:plc:aa","time":"2026-07-04T14:38:08Z"}"#, "5"), None);
        assert_eq!(handle(r#"{"did":"did:plc:aa","handle":"a.test"}"#, "").as_deref(), Some("a.test"));
    }

    #[test]
    fn the_ingestion_before_writes_lexicon_json_with_a_number_and_no_rev() {
        let record = r#"{"$type":"app.bsky.feed.post","createdAt":"2026-07-04T14:38:08.999Z","text":"py_type","embed":{"$type":"app.bsky.embed.images","images":[{"alt":"","image":{"$type":"blob","ref":{"$link":"bafkrei"},"mimeType":"image/png","size":3}}]},"key":{"$bytes":"AAEC"},"via":null}"#;
        let data = format!(
            r#"{{"repo":"did:plc:aa","ops":[{{"action":"create","path":"app.bsky.feed.post/3m","cid":"bafyrei","record":{record}}},{{"action":"delete","path":"app.bsky.feed.like/3n"}}]}}"#
        );
        let entry = decode("commit", &data, "42").unwrap();
        assert_eq!(entry.seq.map(Seq::get), Some(42));
        let Event::Commit(commit) = &entry.event else { panic!("{entry:?}") };
        assert_eq!((&commit.rev, &commit.time, commit.ops.len()), (&None, &None, 2));
        assert_eq!((commit.ops[1].action, &commit.ops[1].cid), (Action::Delete, &None));
        assert_eq!(only_op(entry).record, Some(serde_json::from_str(record).unwrap()), "as it is");
        let account = decode("account", r#"{"did":"did:plc:aa","active":false}"#, "").unwrap();
        assert_eq!((account.seq, account.event.kind()), (None, EventKind::Account));
    }

    #[test]
    fn backfill_has_neither_seq_nor_rev() {
        let data =
            r#"{"repo":"did:plc:aa","ops":[{"action":"create","path":"a.b.c/r","cid":"b","record":{"via":null}}]}"#;
        let entry = decode("commit", data, "").unwrap();
        assert_eq!(entry.seq, None);
        assert_eq!(only_op(entry).record, Some(json!({"via": null})), "raw lexicon json is left as it is");
    }

    #[test]
    fn a_float_is_read_as_it_was_written() {
        // Lexicons know no floats, yet records hold them. Every bit of the mantissa is in use.
        let mut bits = 0x3ff0_dead_beef_cafe_u64;
        for _ in 0..1_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let float = f64::from_bits(bits & 0x3fff_ffff_ffff_ffff);
            let data = format!(
                r#"{{"repo":"did:plc:aa","ops":[{{"action":"create","path":"a.b.c/r","cid":"b","record":{{"x":{float:e}}}}}]}}"#
            );
            assert_eq!(only_op(decode("commit", &data, "").unwrap()).record, Some(json!({"x": float})));
        }
    }

    #[test]
    fn replayed_dead_letter_orders_by_its_first_id() {
        let fields =
            [("type", "account"), ("data", r#"{"did":"did:plc:a","active":true}"#), ("seq", "1"), ("origId", "3-2")];
        let entry = RawEntry::from_fields("9-0".parse().unwrap(), fields).decode().unwrap();
        assert_eq!((entry.id.to_string(), entry.order.to_string()), ("9-0".into(), "3-2".into()));
    }

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        let data = r#"{"repo":"did:plc:aa","ops":[{"action":"create","path":"a.b.c/r","cid":"b","record":{"text":"a\ud83d b \ud83d\ude00 \\ud83d"}}]}"#;
        let record = only_op(decode("commit", data, "1").unwrap()).record;
        assert_eq!(record, Some(json!({"text": "a\u{fffd} b \u{1f600} \\ud83d"})));
    }

    #[test]
    fn a_bad_entry_says_what_is_wrong() {
        let said = |kind: &str, data: &str, seq: &str| decode(kind, data, seq).unwrap_err().to_string();
        assert_eq!(said("post", "{}", "1"), r#"type "post" is none of commit, identity, account"#);
        assert_eq!(said("account", "{}", "x1"), r#"seq "x1" is neither empty nor a number in 1..2^53"#);
        assert_eq!(said("account", "{", "1"), "data is not the json of an entry of type account");
        assert_eq!(said("account", r#"{"did":"","active":true}"#, "1"), r#""" is not a did"#);
        let op = |action: &str, path: &str| {
            format!(r#"{{"repo":"did:plc:a","ops":[{{"action":"{action}","path":"{path}"}}]}}"#)
        };
        assert!(said("commit", &op("create", "nopath"), "1").contains("op 0: path"));
        assert!(said("commit", &op("merge", "a/b"), "1").contains("op 0: action"));
        let none: [(&str, &str); 0] = [];
        assert!(matches!(
            RawEntry::from_fields(StreamId::MIN, none).decode(),
            Err(EntryError::Missing { field: "type" })
        ));
    }
}
