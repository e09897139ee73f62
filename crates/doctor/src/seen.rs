//! What was seen at both servers: facts alone, from which `judge` draws its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use penstock_core::live::{Claim, Source, Status};
use penstock_core::stream::StreamId;

use crate::look::dialect::Dialect;

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// What the settings say, as far as it matters here.
    pub(crate) policy: Policy,
    /// Redis.
    pub(crate) redis: Side<RedisSeen>,
    /// PostgreSQL; none where no address is set.
    pub(crate) postgres: Option<Side<PostgresSeen>>,
    /// The directory of accounts; none where no account is resolved.
    pub(crate) directory: Option<DirectorySeen>,
}

/// What became of asking the directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirectorySeen {
    /// Why it cannot be used, where it cannot.
    pub(crate) error: Option<String>,
}

/// What the settings say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// Where Redis is, masked.
    pub(crate) redis_url: String,
    /// Where PostgreSQL is, masked.
    pub(crate) postgres_url: String,
    /// The port in PostgreSQL's address.
    pub(crate) postgres_port: u16,
    /// Whether the address of Redis names a Cluster.
    pub(crate) cluster: bool,
    /// The name of the stream.
    pub(crate) stream: String,
    /// The name of the second stream.
    pub(crate) bulk: String,
    /// The name of the cursor.
    pub(crate) cursor_key: String,
    /// The group of the workers.
    pub(crate) group: String,
    /// The name of the pipeline.
    pub(crate) pipeline: String,
    /// The hosts of the relays.
    pub(crate) hosts: Vec<String>,
    /// The cap of the stream.
    pub(crate) max_len: u64,
    /// The share of the cap at which reading stops, in percent.
    pub(crate) high_watermark: u64,
    /// After how long an entry is taken from its consumer.
    pub(crate) claim_time: Duration,
    /// How long a group without a sign of life holds the stream.
    pub(crate) foreign_group_hold: Duration,
    /// How often the checkpoint is kept.
    pub(crate) checkpoint_interval: Duration,
    /// Whether a Redis that evicts is allowed.
    pub(crate) allow_eviction: bool,
    /// Whether ingest keeps the cursor of the AppView's ingestion.
    pub(crate) appview_cursor: bool,
    /// How many connections a process holds.
    pub(crate) pool_size: u32,
    /// Where the directory of accounts is.
    pub(crate) directory: String,
    /// Whether events wait while it does not answer.
    pub(crate) holds: bool,
}

/// One server: reached or not, and what it would not tell.
#[derive(Clone, Debug)]
pub(crate) struct Side<T> {
    /// Why nothing, or no more, could be seen.
    pub(crate) error: Option<String>,
    /// What was refused: what would have been seen, and the server's words.
    pub(crate) unseen: Vec<(String, String)>,
    /// What was seen.
    pub(crate) seen: T,
}

/// What was seen in Redis.
#[derive(Clone, Debug, Default)]
pub(crate) struct RedisSeen {
    /// The fields of INFO.
    pub(crate) info: BTreeMap<String, String>,
    /// The fields of CONFIG GET.
    pub(crate) config: BTreeMap<String, String>,
    /// The server's clock, in ms since the epoch; the own one where it was not told.
    pub(crate) now_ms: u64,
    /// Keys that hold another kind of value than they should: name, found, wanted.
    pub(crate) wrong_types: Vec<(String, String, String)>,
    /// The stream at the first look; none where there is none.
    pub(crate) stream: Option<Moment>,
    /// The stream at the second look.
    pub(crate) later: Option<Moment>,
    /// How much later that was.
    pub(crate) pause: Duration,
    /// What came in between, by who wrote it.
    pub(crate) between: BTreeMap<Dialect, u64>,
    /// Whether more came in between than was looked at.
    pub(crate) between_more: bool,
    /// The newest entries, newest first.
    pub(crate) newest: Vec<EntrySeen>,
    /// How many entries the second stream has; none where there is no such stream.
    pub(crate) bulk: Option<u64>,
    /// The groups.
    pub(crate) groups: Vec<GroupSeen>,
    /// Consumers that show that they are processes of ours.
    pub(crate) alive: BTreeSet<String>,
    /// The cursor's text.
    pub(crate) cursor: Option<String>,
    /// Whose the cursor is.
    pub(crate) source: Option<Source>,
    /// The cursor as ingest had written it before the cursor itself was read: both move while it writes.
    pub(crate) ours_before: Option<u64>,
    /// What ingest knows beside the cursor, read after it.
    pub(crate) state: BTreeMap<String, String>,
    /// The connection state of whoever reads the relay.
    pub(crate) status: Option<Status>,
    /// Whether somebody holds the lease.
    pub(crate) lease: bool,
    /// Who owns the prefix, as it stands.
    pub(crate) claim: Option<String>,
    /// The random id of this Redis' life.
    pub(crate) incarnation: Option<String>,
    /// How many dead letters there are.
    pub(crate) dead_letters: u64,
    /// The ID of the newest.
    pub(crate) newest_dead_letter: Option<StreamId>,
    /// The counts of rows; none where nobody set them.
    pub(crate) record_counts: BTreeMap<String, String>,
}

/// What moves in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// How many entries it has.
    pub(crate) length: u64,
    /// The ID of the newest entry there ever was.
    pub(crate) last: StreamId,
    /// How many entries there ever were; not told before Redis 7.
    pub(crate) added: Option<u64>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntrySeen {
    /// Its ID.
    pub(crate) id: StreamId,
    /// Its number.
    pub(crate) seq: Option<u64>,
    /// Who wrote it.
    pub(crate) dialect: Dialect,
}

/// A consumer group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupSeen {
    /// Its name.
    pub(crate) name: String,
    /// How many entries it has not read; unknown where Redis cannot tell.
    pub(crate) lag: Option<u64>,
    /// Whether that is all, and not the least it can be.
    pub(crate) lag_exact: bool,
    /// How many it has read and not acknowledged.
    pub(crate) pending: u64,
    /// How many it has read.
    pub(crate) read: Option<u64>,
    /// How many of those not acknowledged are no longer in the stream.
    pub(crate) trimmed_pending: u64,
    /// Its consumers.
    pub(crate) consumers: Vec<ConsumerSeen>,
}

/// A consumer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerSeen {
    /// Its name.
    pub(crate) name: String,
    /// What it has not acknowledged.
    pub(crate) pending: u64,
    /// How long it has not asked for anything.
    pub(crate) idle: Duration,
}

/// What was seen in PostgreSQL.
#[derive(Clone, Debug, Default)]
pub(crate) struct PostgresSeen {
    /// The version as a number, such as 150018.
    pub(crate) version: i32,
    /// What the session was given: settings by name, with the role's and the database's own.
    pub(crate) settings: BTreeMap<String, String>,
    /// The facts of server, database and role.
    pub(crate) facts: Facts,
    /// Whether two connections reached the same session of the server.
    pub(crate) shared_session: bool,
    /// Where one does, why statements that were prepared cannot be used.
    pub(crate) confused_statements: Option<String>,
    /// Who is connected.
    pub(crate) sessions: Vec<Sessions>,
    /// Tables in `public`, with their columns.
    pub(crate) public: BTreeMap<String, BTreeSet<String>>,
    /// Tables in `penstock`.
    pub(crate) ours: BTreeSet<String>,
    /// What a worker would miss; none where that could not be seen.
    pub(crate) lacks: Option<Vec<String>>,
    /// Migrations of ours that failed half way.
    pub(crate) dirty: Vec<i64>,
    /// Unique keys that are not there: table and columns.
    pub(crate) missing_keys: Vec<String>,
    /// Indexes that PostgreSQL does not use because their making failed.
    pub(crate) invalid_indexes: Vec<String>,
    /// Rights that the role has not: table or schema, and which.
    pub(crate) missing_rights: Vec<String>,
    /// Tables that stand in `public` for a migration to change, and belong to another role.
    pub(crate) foreign_owned: Vec<String>,
    /// The cursors that the AppView keeps.
    pub(crate) cursors: Vec<CursorRow>,
    /// Whether the ingestion's row moved between the two looks.
    pub(crate) cursor_moved: bool,
    /// Up to where events are settled.
    pub(crate) checkpoints: Vec<CheckpointRow>,
    /// The random id of the database.
    pub(crate) incarnation: Option<String>,
    /// Replication slots that hold the log: name, bytes, whether somebody reads them.
    pub(crate) slots: Vec<(String, i64, bool)>,
    /// Whether the archiver failed last.
    pub(crate) archive_failing: Option<bool>,
    /// How many repos are known to lack something, and one of them; none where that could not be seen.
    pub(crate) desynchronized: Option<(i64, Option<String>)>,
}

/// The facts of server, database and role.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The database.
    pub(crate) database: String,
    /// Its encoding.
    pub(crate) encoding: String,
    /// Its size in bytes.
    pub(crate) size: i64,
    /// The role.
    pub(crate) role: String,
    /// Whether the server is a standby.
    pub(crate) recovery: bool,
    /// The schemas that are looked in, in order.
    pub(crate) search_path: Vec<String>,
    /// How many connections there may be for such a role.
    pub(crate) max_connections: i64,
    /// How many there are.
    pub(crate) connections: i64,
    /// The server's port; none over a socket.
    pub(crate) port: Option<i32>,
    /// How long the longest transaction lasts, in seconds.
    pub(crate) longest_transaction: i64,
    /// The transactions since the oldest row that was not frozen.
    pub(crate) transaction_age: i64,
    /// Sessions that wait for a lock.
    pub(crate) waiting: i64,
    /// Whether the role may make a schema.
    pub(crate) may_create_schema: bool,
}

/// Sessions of one program from one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    /// What the program calls itself.
    pub(crate) application: String,
    /// Where it is.
    pub(crate) address: String,
    /// How many there are.
    pub(crate) count: i64,
    /// The tables that their last statements inserted into.
    pub(crate) inserts: Vec<String>,
    /// Whether they leave their sessions as Python's driver does.
    pub(crate) python: bool,
    /// Whether what they do may not be seen.
    pub(crate) hidden: bool,
}

/// A row of `firehose_cursor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CursorRow {
    /// Whose cursor it is.
    pub(crate) service: String,
    /// The cursor's text.
    pub(crate) cursor: Option<String>,
    /// How old the row is.
    pub(crate) age: Duration,
}

/// A row of `penstock.checkpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointRow {
    /// The host whose events are settled.
    pub(crate) host: String,
    /// Up to which number.
    pub(crate) seq: u64,
    /// The newest entry of the stream when that was so.
    pub(crate) stream_id: Option<StreamId>,
    /// How old the row is.
    pub(crate) age: Duration,
}

// === impl Side ===

impl<T: Default> Default for Side<T> {
    fn default() -> Self {
        Self { error: None, unseen: Vec::new(), seen: T::default() }
    }
}

// === impl RedisSeen ===

impl RedisSeen {
    /// Returns a field of INFO as a number.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.info.get(field)?.trim().parse().ok()
    }

    /// Returns a field of INFO.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.info.get(field).map(|text| text.trim())
    }

    /// Returns the newest entry that tells a number and stands there for the first time.
    pub(crate) fn newest_numbered(&self) -> Option<&EntrySeen> {
        self.newest.iter().find(|entry| entry.seq.is_some() && entry.dialect != Dialect::Again)
    }

    /// Returns the claim, where it can be read.
    pub(crate) fn parsed_claim(&self) -> Option<Claim> {
        serde_json::from_str(self.claim.as_deref()?).ok()
    }

    /// Says whether a worker of ours reads the group.
    pub(crate) fn our_worker_lives(&self) -> bool {
        !self.alive.is_empty()
    }
}

// === impl PostgresSeen ===

impl PostgresSeen {
    /// Says whether the AppView's own tables are there, beside those that ours makes too.
    pub(crate) fn has_appview(&self) -> bool {
        ["sessions", "user_settings", "oauth_states", "user_preferences"]
            .iter()
            .any(|table| self.public.contains_key(*table))
    }

    /// Returns the row of the ingestion's cursor.
    pub(crate) fn ingestion_cursor(&self) -> Option<&CursorRow> {
        self.cursors.iter().find(|row| row.service == "firehose")
    }
}
