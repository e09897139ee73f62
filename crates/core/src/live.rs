//! The shapes of the small keys: connection status, broadcast events, cursor source, pipeline claim, ingest state.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::data::{Action, EventKind};
use crate::stream::StreamId;
use crate::time;

/// How long the status and the recent events live without their writer, in seconds.
pub const STATUS_TTL_SECONDS: u32 = 10;

/// For how long one sign of life of a worker counts; it gives five in that time.
pub const PULSE_TTL: Duration = Duration::from_secs(2);

/// How many broadcast events are kept as recent.
pub const RECENT_EVENTS: usize = 50;

/// How much of a handle the live streams show, in bytes: as long as a valid one may be.
const MAX_HANDLE: usize = 253;

/// The value of the status key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the relay's socket is open.
    pub connected: bool,
    /// The relay as configured, without path and cursor.
    pub url: String,
    /// The last sequence number written, in decimal.
    #[serde(rename = "currentCursor")]
    pub current_cursor: Option<String>,
}

/// One event as the live streams show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// `#commit`, `#identity` or `#account`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The collection, or `com.atproto.identity`, or `com.atproto.account`.
    pub lexicon: String,
    /// The DID of the repo.
    pub did: String,
    /// `create`, `update`, `delete`; `→ <handle>` or `update`; `active` or `inactive`.
    pub action: String,
    /// The time of day in UTC, `HH:MM:SS`.
    pub timestamp: String,
    /// The record's key, of a commit; with the DID and the collection it makes the record's URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rkey: Option<String>,
    /// The revision, of a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
    /// The relay's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// The value of the source key: whose the cursor is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The relay's host, and port where it is not the scheme's own.
    pub host: String,
    /// The ID of the first entry that came from there; empty until there is one.
    #[serde(rename = "firstId")]
    pub first_id: String,
    /// The name of the cursor's key; none where it was not noted. Of another cursor this says nothing.
    #[serde(rename = "cursorKey", default, skip_serializing_if = "Option::is_none")]
    pub cursor_key: Option<String>,
}

/// The value of the pipeline key: who owns everything under the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The pipeline's name, `namespace/name` in a cluster.
    pub pipeline: String,
    /// The random name that its database got when it was migrated first.
    pub incarnation: String,
}

/// The head of a standby host at one moment: where a failover would begin there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its sequence number.
    pub seq: u64,
    /// Its event time.
    pub time: Timestamp,
    /// When it was taken, by our clock; none where that was not noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
}

/// The fields of the ingest state hash.
pub mod state {
    /// The cursor as ingest wrote it: where the cursor itself is another one, somebody else wrote it since.
    pub const CURSOR: &str = "cursor";
    /// The newest entry of the stream as ingest left it: an entry with a number behind it is another program's.
    pub const NEWEST: &str = "newest";
    /// The newest entry of the second stream: where that stream, or its group, is gone although this stands here, entries are.
    pub const BULK: &str = "bulk";
    /// The last entry that was put back at the tail: until the group has settled it, the next two bound what is settled.
    pub const REQUEUED: &str = "requeued";
    /// The least number among those put back; empty where none has one.
    pub const REQUEUED_SEQ: &str = "requeuedSeq";
    /// The least first ID among those put back.
    pub const REQUEUED_ORDER: &str = "requeuedOrder";
    /// The greatest ID that an entry had which was put back: behind it, what is not pending was acknowledged by a worker.
    pub const REQUEUED_THROUGH: &str = "requeuedThrough";
    /// The last entry that was put back not for the first time: more of that kind follow once it was delivered.
    pub const REQUEUED_AGAIN: &str = "requeuedAgain";
    /// What was written last, as far as reading on may bring it again: numbers, each with a print of its event.
    pub const WRITTEN: &str = "written";
    /// Event time of the cursor, RFC 3339.
    pub const EVENT_TIME: &str = "eventTime";
    /// `1` while ingest does not read because the stream is full, else `0`.
    pub const PAUSED: &str = "paused";
    /// How many possible gaps were seen.
    pub const GAPS: &str = "gaps";
    /// How many times a host's sequence went back.
    pub const RESETS: &str = "resets";
    /// What tells the dead letters written last from others: sixteen digits and a space each, the newest at the end.
    pub const SET_ASIDE: &str = "setAside";
    /// What the user of ingest lacks in Redis, as a sentence; not there where it lacks nothing.
    pub const LACKING: &str = "lacking";
    /// How many times events are known to be lost.
    pub const DATA_LOSS: &str = "dataLoss";
    /// What is carried, as a [`Summary`](crate::filter::Summary): the rules under which the events up to the cursor were chosen.
    pub const FILTER: &str = "filter";
    /// Backfills that ingest has still to register, as a list: of what a change of the filter let in.
    pub const OWED: &str = "owed";
    /// What the filter left out, as [`LeftOut`](crate::filter::LeftOut).
    pub const LEFT_OUT: &str = "leftOut";
    /// What was found of the commits, as [`Verified`](crate::verified::Verified).
    pub const VERIFIED: &str = "verified";

    /// The field that holds the head of a standby host.
    #[must_use]
    pub fn standby(host: &str) -> String {
        format!("standby:{host}")
    }
}

/// The fields of the hash of applied events.
pub mod cluster {
    use crate::data::EventKind;

    /// Events applied, of all kinds.
    pub const TOTAL: &str = "totalEvents";
    /// Entries that failed for good.
    pub const ERRORS: &str = "errors";

    /// The field that counts one kind.
    #[must_use]
    pub fn kind(kind: EventKind) -> &'static str {
        kind.frame_type()
    }
}

/// The field of a minute's activity that counts the entries that ingest wrote; ingest sets it at least every few seconds, to 0
/// too, so that a minute without it is one without ingest.
pub const INCOMING: &str = "incoming";

/// The fields of the hash of row counts, one a table.
pub const RECORD_COUNTS: [&str; 8] =
    ["users", "posts", "likes", "reposts", "follows", "blocks", "feed_items", "post_aggregations"];

/// The field of the published totals that says after which recount the hash of row counts was set. No worker's: theirs
/// have a `/`.
pub const COUNTS_NOTE: &str = "counts";

// === impl Broadcast ===

impl Broadcast {
    /// Makes the event of a commit's first op, of which `path` is `collection/rkey`.
    #[must_use]
    pub fn commit(did: &str, path: &str, action: Action, now: Timestamp) -> Self {
        let (collection, rkey) = path.split_once('/').unwrap_or((path, ""));
        let event = Self::new(EventKind::Commit, collection, did, action.as_str().to_owned(), now);
        Self { rkey: Some(rkey.to_owned()).filter(|rkey| !rkey.is_empty()), ..event }
    }

    /// Says which revision and which number of the relay it is.
    #[must_use]
    pub fn of(self, rev: Option<&str>, seq: u64) -> Self {
        Self { rev: rev.map(str::to_owned), seq: Some(seq), ..self }
    }

    /// Makes the event of an identity.
    #[must_use]
    pub fn identity(did: &str, handle: Option<&str>, now: Timestamp) -> Self {
        // A host may call an account whatever it likes; this is kept for each of the newest events, and sent to every client.
        let cut = |handle: &str| handle.get(..handle.floor_char_boundary(MAX_HANDLE)).unwrap_or_default().to_owned();
        let action = handle.map_or_else(|| "update".to_owned(), |handle| format!("→ {}", cut(handle)));
        Self::new(EventKind::Identity, "com.atproto.identity", did, action, now)
    }

    /// Makes the event of an account.
    #[must_use]
    pub fn account(did: &str, active: bool, now: Timestamp) -> Self {
        let action = if active { "active" } else { "inactive" };
        Self::new(EventKind::Account, "com.atproto.account", did, action.to_owned(), now)
    }

    fn new(kind: EventKind, lexicon: &str, did: &str, action: String, now: Timestamp) -> Self {
        Self {
            kind: kind.frame_type().to_owned(),
            lexicon: lexicon.to_owned(),
            did: did.to_owned(),
            action,
            timestamp: time::clock(now),
            rkey: None,
            rev: None,
            seq: None,
        }
    }
}

// === impl Source ===

impl Source {
    /// Returns the first entry's ID, once there is one.
    #[must_use]
    pub fn first_id(&self) -> Option<StreamId> {
        self.first_id.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_pinned() {
        let now = time::parse("2026-07-04T14:38:08Z").unwrap();
        let json = |value: &Broadcast| serde_json::to_string(value).unwrap();
        assert_eq!(
            json(&Broadcast::commit("did:plc:a", "app.bsky.feed.like/3k", Action::Create, now).of(Some("3m"), 7)),
            r##"{"type":"#commit","lexicon":"app.bsky.feed.like","did":"did:plc:a","action":"create","timestamp":"14:38:08","rkey":"3k","rev":"3m","seq":7}"##
        );
        assert_eq!(
            json(&Broadcast::identity("did:plc:a", Some("a.test"), now)),
            r##"{"type":"#identity","lexicon":"com.atproto.identity","did":"did:plc:a","action":"→ a.test","timestamp":"14:38:08"}"##
        );
        assert_eq!(Broadcast::identity("did:plc:a", None, now).action, "update");
        let endless = "ä".repeat(1_000_000);
        assert_eq!(Broadcast::identity("did:plc:a", Some(&endless), now).action, format!("→ {}", "ä".repeat(126)));
        assert_eq!(
            json(&Broadcast::account("did:plc:a", false, now)),
            r##"{"type":"#account","lexicon":"com.atproto.account","did":"did:plc:a","action":"inactive","timestamp":"14:38:08"}"##
        );
        let status = Status { connected: true, url: "wss://bsky.network".into(), current_cursor: None };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"connected":true,"url":"wss://bsky.network","currentCursor":null}"#
        );
        let source = Source { host: "bsky.network".into(), first_id: "1-0".into(), cursor_key: None };
        assert_eq!(serde_json::to_string(&source).unwrap(), r#"{"host":"bsky.network","firstId":"1-0"}"#);
        let claim = Claim { pipeline: "ns/name".into(), incarnation: "i".into() };
        assert_eq!(serde_json::to_string(&claim).unwrap(), r#"{"pipeline":"ns/name","incarnation":"i"}"#);
        assert_eq!(state::standby("a.test:80"), "standby:a.test:80");
        let state = [state::EVENT_TIME, state::PAUSED, state::GAPS, state::RESETS, state::DATA_LOSS];
        assert_eq!(state, ["eventTime", "paused", "gaps", "resets", "dataLoss"]);
        let stream = [state::CURSOR, state::NEWEST, state::REQUEUED, state::REQUEUED_SEQ, state::REQUEUED_ORDER];
        assert_eq!(stream, ["cursor", "newest", "requeued", "requeuedSeq", "requeuedOrder"]);
        assert_eq!(state::BULK, "bulk");
        assert_eq!(state::WRITTEN, "written");
        assert_eq!(state::VERIFIED, "verified");
        let now = time::parse("2026-07-04T14:38:08Z").unwrap();
        let head = Head { seq: 7, time: now, taken: Some(now) };
        let json = r#"{"seq":7,"time":"2026-07-04T14:38:08Z","taken":"2026-07-04T14:38:08Z"}"#;
        assert_eq!(serde_json::to_string(&head).unwrap(), json);
        let before = r#"{"seq":7,"time":"2026-07-04T14:38:08Z"}"#;
        assert_eq!(serde_json::from_str::<Head>(before).unwrap(), Head { taken: None, ..head });
        assert_eq!([state::REQUEUED_THROUGH, state::REQUEUED_AGAIN], ["requeuedThrough", "requeuedAgain"]);
        assert_eq!((cluster::TOTAL, cluster::ERRORS), ("totalEvents", "errors"));
        let kinds = [EventKind::Commit, EventKind::Identity, EventKind::Account];
        assert_eq!(kinds.map(cluster::kind), ["#commit", "#identity", "#account"]);
    }
}
