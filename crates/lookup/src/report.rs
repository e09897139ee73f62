//! What was found out, as it is told to programs; `text` tells it to people.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

/// What is known of a repo, or of one record.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RepoReport")]
pub struct Report {
    /// What was asked for.
    pub asked: String,
    /// The account's DID; null where a handle led to none.
    pub did: Option<String>,
    /// The record's URI; null where the whole repo is asked for.
    pub uri: Option<String>,
    /// When, epoch milliseconds.
    pub at: i64,
    /// What follows from all below.
    pub answer: Answer,
    /// What PostgreSQL holds.
    pub held: Part<Held>,
    /// What the account's host has.
    pub host: Part<Host>,
    /// What of it waits in the stream.
    pub waiting: Part<Waiting>,
    /// Dead letters of it, the newest first.
    pub letters: Letters,
    /// The rule (`filter.*`) that leaves it out now; null where none does.
    pub left_out_by: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RepoAnswer")]
pub struct Answer {
    /// What is the case, in a word.
    pub word: Word,
    /// Whether all is as it should be; null where that is not known.
    pub good: Option<bool>,
    /// The same in a sentence.
    pub text: String,
    /// What to do, if anything.
    pub advice: Vec<String>,
}

/// What is the case with a record or a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RepoAnswerWord")]
pub enum Word {
    /// The record is stored.
    Stored,
    /// The record is stored, in `penstock.records` alone.
    StoredAlone,
    /// Another record of the account holds its place.
    Shadowed,
    /// The record is stored, and the host has another version.
    Outdated,
    /// The record is stored, and the host no longer has it.
    Leftover,
    /// A delete took it away.
    Deleted,
    /// A delete took it away, and the host has it.
    WronglyDeleted,
    /// It is a dead letter.
    DeadLetter,
    /// A filter leaves it out.
    LeftOut,
    /// Its commit is in the stream and was not applied yet.
    Waiting,
    /// The account opted out.
    OptedOut,
    /// The account is deleted, deactivated, suspended or taken down.
    NotActive,
    /// Commits of the repo were missed.
    Desynchronized,
    /// The repo is listed for repair.
    Repair,
    /// It is older than what was read.
    BeforeReading,
    /// The host does not have it either.
    NotAtHost,
    /// The host has it, and nothing says why it is not here.
    Missing,
    /// Nothing of the account was ever seen.
    NeverSeen,
    /// What is held is behind the host.
    Behind,
    /// What is held is ahead of the host.
    Ahead,
    /// What is held is as new as what the host has.
    InStep,
    /// The repo is held; its host was not asked.
    Held,
    /// No account has this handle.
    NoAccount,
    /// What would have to be known could not be asked.
    Unknown,
}

/// One side, or why it is not known.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}Part")]
pub struct Part<T> {
    /// What was found; null where that is not known.
    pub found: Option<T>,
    /// Why it is not known; null where it is.
    pub unknown: Option<String>,
}

/// What PostgreSQL holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldRepo")]
pub struct Held {
    /// The repo's state; null where no event of it was ever applied.
    pub repo: Option<RepoRow>,
    /// The account's document as the table of identities has it; null where nothing is known.
    pub identity: Option<IdentityRow>,
    /// An event that says that the account is gone, until it is known whether that is true.
    pub claim: Option<ClaimRow>,
    /// Listed for repair.
    pub repair: Option<RepairRow>,
    /// Rows by collection.
    pub collections: Vec<Collection>,
    /// Whether there may be more collections than are listed.
    pub more_collections: bool,
    /// When this database was made, epoch milliseconds: nothing was read into it before. Null: not known.
    pub since: Option<i64>,
    /// The record that is asked for; null where the whole repo is.
    pub record: Option<RecordRows>,
}

/// The row of `penstock.repos`. Times are epoch milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldRepoState")]
pub struct RepoRow {
    /// The rev of the last commit that was applied.
    pub rev: Option<String>,
    /// When that commit was made, by its rev.
    pub rev_at: Option<i64>,
    /// The beginning of the tree's digest at that rev, in hexadecimal; null where commits are not verified.
    pub root: Option<String>,
    /// Whether the account is active; null where no account event came.
    pub active: Option<bool>,
    /// Why it is not, such as `deactivated`.
    pub status: Option<String>,
    /// The handle of the last identity event.
    pub handle: Option<String>,
    /// Why commits of it are known to be missed.
    pub sync: Option<String>,
    /// Since when.
    pub sync_at: Option<i64>,
    /// When the last identity event came.
    pub identity_at: Option<i64>,
    /// When the last account event came.
    pub account_at: Option<i64>,
    /// Up to when its records are deleted with the account.
    pub deleted_through: Option<i64>,
    /// Whether rows of a deleted account are still to be removed.
    pub sweeping: bool,
    /// Whether the account opted out (`user_settings.data_collection_forbidden`).
    pub opted_out: bool,
}

/// The row of `penstock.identities`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldIdentity")]
pub struct IdentityRow {
    /// The account's host.
    pub host: Option<String>,
    /// The handle that the document claims.
    pub handle: Option<String>,
    /// Whether it leads back to the account; null where that was not checked.
    pub handle_valid: Option<bool>,
    /// When that was checked, epoch milliseconds.
    pub handle_checked_at: Option<i64>,
    /// When the document was fetched, epoch milliseconds.
    pub fetched_at: Option<i64>,
    /// Why it has to be fetched again.
    pub stale: Option<String>,
    /// Why it could not be fetched the last time.
    pub error: Option<String>,
}

/// The row of `penstock.account_claims`. Times are epoch milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldClaim")]
pub struct ClaimRow {
    /// What the event says.
    pub status: Option<String>,
    /// Since when.
    pub since: Option<i64>,
    /// When the next step is.
    pub due: Option<i64>,
    /// When the account's host confirmed it.
    pub confirmed_at: Option<i64>,
    /// Why the host could not be asked.
    pub error: Option<String>,
}

/// The row of `penstock.repairs`. Times are epoch milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldRepair")]
pub struct RepairRow {
    /// Why.
    pub reason: String,
    /// How urgent; the greatest comes first.
    pub priority: i16,
    /// When it may begin.
    pub due: Option<i64>,
    /// How often it was begun in vain.
    pub attempts: i32,
    /// Whether a healer is at it.
    pub running: bool,
    /// Why it failed the last time.
    pub error: Option<String>,
    /// Since when it is listed.
    pub since: Option<i64>,
}

/// How many rows of one collection are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldCollection")]
pub struct Collection {
    /// The collection.
    pub collection: String,
    /// The table.
    pub table: String,
    /// The rows, counted up to 10,000.
    pub rows: u64,
    /// Whether there are more.
    pub more: bool,
}

/// Where a record stands. Times are epoch milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldRecord")]
pub struct RecordRows {
    /// Its row in an AppView's table.
    pub row: Option<Place>,
    /// Its row in `penstock.records`: the AppView's columns are too narrow for it, or for all of it.
    pub wide: Option<Place>,
    /// It waits for its place in a table, which another record holds.
    pub shadow: Option<Shadow>,
    /// A delete that is remembered.
    pub tombstone: Option<Place>,
}

/// One place where a record stands. Times are epoch milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldPlace")]
pub struct Place {
    /// The table.
    pub table: String,
    /// The record's CID, where the table has a column for it.
    pub cid: Option<String>,
    /// The rev of the commit that wrote it.
    pub rev: Option<String>,
    /// When that commit was made, by its rev.
    pub rev_at: Option<i64>,
    /// When its entry was put into the stream.
    pub entry_at: Option<i64>,
    /// When the row was made.
    pub indexed_at: Option<i64>,
}

/// A record whose place another one holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HeldShadow")]
pub struct Shadow {
    /// The table where it would stand.
    pub table: String,
    /// The rev of the commit that wrote it.
    pub rev: Option<String>,
    /// The columns that only one row may have like this, and their values.
    pub place: Vec<(String, String)>,
    /// The URI of the record that holds the place; null where it just became free.
    pub holder: Option<String>,
}

/// What the account's host says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HostRepo")]
pub struct Host {
    /// Its address, from the account's document.
    pub host: Option<String>,
    /// The handle of the document.
    pub handle: Option<String>,
    /// Whether it leads back to the account; null where that could not be checked.
    pub handle_valid: Option<bool>,
    /// Whether the account is active; null where the host did not say.
    pub active: Option<bool>,
    /// Why it is not, or `notFound`.
    pub status: Option<String>,
    /// The rev of the repo.
    pub rev: Option<String>,
    /// When its last commit was made, by its rev, epoch milliseconds.
    pub rev_at: Option<i64>,
    /// Why the host could not be asked for its rev.
    pub error: Option<String>,
    /// The record that is asked for; null where the whole repo is, or the host could not be asked.
    pub record: Option<HostRecord>,
    /// Why the host could not be asked for the record.
    pub record_error: Option<String>,
}

/// What the host has of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "HostRecord")]
pub struct HostRecord {
    /// Whether it has it.
    pub exists: bool,
    /// Its CID.
    pub cid: Option<String>,
}

/// What waits in the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WaitingEntries")]
pub struct Waiting {
    /// Entries of the repo that were not applied yet, at most 20, the oldest first.
    pub entries: Vec<WaitingEntry>,
    /// How many entries were looked through.
    pub searched: u64,
    /// Whether these were all that wait.
    pub complete: bool,
}

/// One entry that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WaitingEntry")]
pub struct WaitingEntry {
    /// The stream.
    pub stream: String,
    /// Its ID.
    pub id: String,
    /// When it was written, epoch milliseconds.
    pub at: i64,
    /// `commit`, `identity` or `account`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a worker has it in hand.
    pub delivered: bool,
    /// Whether it names the record that is asked for.
    pub names_record: bool,
}

/// Dead letters of the repo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RepoLetters")]
pub struct Letters {
    /// At most 20, the newest first.
    pub letters: Vec<Letter>,
    /// Whether there may be more.
    pub more: bool,
    /// Why those in Redis are not known; null where they are.
    pub redis_unknown: Option<String>,
    /// Why those in PostgreSQL are not known; null where they are.
    pub postgres_unknown: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RepoLetter")]
pub struct Letter {
    /// `redis`, or `postgres` where only the table `penstock.dead_letters` has it.
    pub source: &'static str,
    /// Its ID there.
    pub id: String,
    /// The ID of its entry in the stream; empty where it never was there.
    pub orig_id: String,
    /// When it was added, epoch milliseconds.
    pub at: i64,
    /// `commit`, `identity`, `account` or `raw`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why it failed, cut after 500 bytes.
    pub error: String,
    /// Whether it names the record that is asked for.
    pub names_record: bool,
}

// === impl Report ===

impl Report {
    /// Writes the report for programs.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

// === impl Part ===

impl<T> Part<T> {
    /// What was found.
    pub fn found(found: T) -> Self {
        Self { found: Some(found), unknown: None }
    }

    /// Why it is not known.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self { found: None, unknown: Some(why.into()) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.found.as_ref()
    }
}

impl<T> From<Result<T, String>> for Part<T> {
    fn from(result: Result<T, String>) -> Self {
        result.map_or_else(Self::unknown, Self::found)
    }
}

// === impl RecordRows ===

impl RecordRows {
    /// Whether it stands anywhere as a record that is there.
    pub(crate) fn is_held(&self) -> bool {
        self.row.is_some() || self.wide.is_some() || self.shadow.is_some()
    }

    /// The CID that is held, where a table has it.
    pub(crate) fn cid(&self) -> Option<&str> {
        [&self.row, &self.wide].into_iter().flatten().find_map(|place| place.cid.as_deref())
    }
}

/// When a commit was made, by its rev, or a record, by its key; none where it is no TID, or none of a time there can be.
pub(crate) fn tid_time(tid: &str) -> Option<i64> {
    let ms = i64::try_from(penstock_wire::rev_number(tid)? >> 10).ok()? / 1000;
    // The first TIDs are of 2022; what says otherwise was made up.
    let range = 1_577_836_800_000..4_102_444_800_000;
    (range.contains(&ms) && Timestamp::from_millisecond(ms).is_ok()).then_some(ms)
}
