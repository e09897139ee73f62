//! The database's schema: created by `penstock migrate` and checked by workers, which wait for it.
//!
//! In: a database that is empty, an AppView's, or an older version's.
//! Out: the tables, columns and indexes that workers need; or what is missing.
//! Called by `penstock migrate`, by `store::check`, and by `penstock doctor`.

mod appview;
mod database;
mod foreign;
mod indexes;
mod locks;
mod needed;
mod news;
mod pieces;
mod place;
mod plan;
mod planning;
mod profiles;
mod rebuild;
mod recount;
mod relocate;
mod session;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use penstock_postgres::Address;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use thiserror::Error;
use tokio::task::JoinSet;

use crate::store::table::Table;
use crate::store::{Answer, check_statements};
pub use database::{CONNECT_TIMEOUT, Database};
pub use locks::StepError;
use locks::{Step, Wait, patiently, tell_waits};
pub use news::{News, log};
pub use penstock_postgres::PasswordSource;
pub(crate) use place::{check as check_place, grants};
pub use plan::{Change, Lock, Plan, Planned};
pub use rebuild::{Rebuilt, rebuild};
pub use recount::{Mended, recount};
use session::Turn;
pub use stage::Stage;

/// Why the schema could not be created, or is not as it should be.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The URL is not valid.
    #[error(transparent)]
    Url(penstock_postgres::AddressError),
    /// No connection could be made.
    #[error("could not connect to postgresql")]
    Connect(#[source] sqlx::Error),
    /// No connection was made in time: the server may be gone without a word, or something between here and there drops packets.
    #[error(
        "postgresql at {address} does not answer within {waited:?}: check that the address is right and reachable from here"
    )]
    Silent {
        /// Where it should be.
        address: String,
        /// For how long it was tried.
        waited: Duration,
    },
    /// A command made no connection.
    #[error("could not connect to postgresql at {address}")]
    Reach {
        /// Where it should be.
        address: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A step of the migration failed; what it did is undone, what others did before it stays.
    #[error("could not migrate the database")]
    Migrate(#[source] StepError),
    /// The connection that kept other migrations waiting is gone: one of them may have begun.
    #[error("the connection that holds the lock of migrations was lost: run penstock migrate again")]
    Turn(#[source] sqlx::Error),
    /// The schema could not be read.
    #[error("could not read the schema")]
    Read(#[from] sqlx::Error),
    /// The database cannot hold every letter.
    #[error(
        "the database is encoded in {0} and cannot hold every letter of a post: use one in UTF8, made with createdb --template=template0 --encoding=UTF8"
    )]
    Encoding(String),
    /// What is Penstock's own in this database belongs to tables in another schema.
    #[error(
        "postgres.schema is {wanted}, but in this database Penstock writes to the tables in the schema {found}: set postgres.schema to {found}, or use another database"
    )]
    OtherSchema {
        /// The one that is set.
        wanted: String,
        /// The one that was recorded, or found.
        found: String,
    },
    /// The schema that is set does not exist.
    #[error(
        "the schema {0} (postgres.schema) does not exist, or this role may not use it: run CREATE SCHEMA or GRANT USAGE ON SCHEMA, see docs/postgres.md"
    )]
    NoSchema(String),
    /// The role may not do what it has to.
    #[error("role {role} lacks privileges: {}", .grants.join("; "))]
    Grants {
        /// The role.
        role: String,
        /// The statements that give them.
        grants: Vec<String>,
    },
    /// The database is another program's.
    #[error(
        "the database has tables of another program: {}; nothing was changed. Use an empty database, or the AppView's",
        .0.join("; ")
    )]
    Foreign(Vec<String>),
    /// Something is missing: `penstock migrate` creates it.
    #[error("schema lacks {}: run penstock migrate", .0.join(", "))]
    Missing(Vec<String>),
    /// What an older version created is moved only in part.
    #[error("a migration was interrupted: run penstock migrate again")]
    Moving,
    /// The AppView's profiles and handles could not be copied.
    #[error("could not copy profiles")]
    Profiles(#[source] sqlx::Error),
    /// Tables derived from records could not be rebuilt.
    #[error("could not rebuild projections")]
    Rebuild(#[source] sqlx::Error),
    /// Counts could not be recomputed.
    #[error("could not recount")]
    Recount(#[source] sqlx::Error),
}

impl Answer for SchemaError {
    fn sql(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// The AppView's tables where they are missing: one transaction, which takes no lock on a table that is there but for the one
/// that another refers to.
const APPVIEW: &str = include_str!("../../../migrations/0001_appview.sql");

/// What is ours, with all that was added since: each block is a transaction, and changes nothing where it was run before.
const OURS: &str = include_str!("../../../migrations/0002_penstock.sql");

/// Leaves our own schema out of the path, until the transaction ends. A role of that name has it first there, and would make the
/// AppView's tables in it.
pub(crate) const SEARCH_PATH: &str = penstock_postgres::schema::SEARCH_PATH_LOCAL;

/// The columns of the tables that hold no records, as far as the worker uses them.
const OTHERS: [(&str, &[&str]); 25] = [
    (
        "users",
        &[
            "did",
            "handle",
            "display_name",
            "avatar_url",
            "banner_url",
            "description",
            "profile_record",
            "pinned_post",
            "search_vector",
            "created_at",
            "indexed_at",
        ],
    ),
    (
        "post_aggregations",
        &["post_uri", "like_count", "repost_count", "reply_count", "quote_count", "bookmark_count", "updated_at"],
    ),
    ("feed_items", &["uri", "post_uri", "originator_did", "type", "sort_at", "cid", "created_at"]),
    ("quotes", &["uri", "cid", "post_uri", "quoted_uri", "quoted_cid", "created_at"]),
    (
        "penstock.repos",
        &[
            "did",
            "rev",
            "active",
            "status",
            "deleted_through",
            "swept_through",
            "identity_entry",
            "account_entry",
            "profile_rev",
            "profile_entry",
            "handle",
            "forbidden",
            "returned_entry",
            "root",
            "sync",
            "sync_at",
            "snapshot_rev",
            "snapshot_entry",
            "writing_rev",
            "writing_entry",
            "writing_through",
            "proven_at",
            "proven_rev",
            "writing_fresh",
        ],
    ),
    ("penstock.stamps", &["uri", "commit_rev", "entry_id"]),
    (
        "penstock.waiting_counts",
        &["post_uri", "like_count", "repost_count", "reply_count", "quote_count", "bookmark_count"],
    ),
    (
        "penstock.profiles",
        &["did", "display_name", "description", "avatar_url", "banner_url", "record", "pinned_post", "created_at"],
    ),
    ("penstock.tombstones", &["uri", "commit_rev", "entry_id"]),
    ("penstock.shadowed", &["uri", "repo", "kind", "key_a", "key_b", "commit_rev", "entry_id", "row"]),
    ("penstock.counts", &["worker", "field", "total", "written_at"]),
    ("penstock.checkpoint", &["host", "seq", "stream_id", "updated_at"]),
    (
        "penstock.dead_letters",
        &["orig_id", "kind", "data", "seq", "deliveries", "error", "consumer", "created_at", "repo", "settled_at"],
    ),
    ("penstock.meta", &["key", "value"]),
    ("penstock.waiting_cids", &["uri", "cid"]),
    ("penstock.cids", &["uri", "cid"]),
    ("penstock.unfinished_posts", &["uri"]),
    ("penstock.sweeps", &["what", "due", "attempts", "step", "error"]),
    ("penstock.records", &["key", "uri", "did", "collection", "cid", "record", "created_at", "commit_rev", "entry_id"]),
    (
        "penstock.repairs",
        &[
            "did",
            "reason",
            "priority",
            "due",
            "attempts",
            "lease",
            "holder",
            "error",
            "progress",
            "backfill",
            "created_at",
            "updated_at",
        ],
    ),
    ("penstock.unhealed", &["did", "reason", "word", "error", "backfill", "attempts", "at"]),
    (
        "penstock.backfills",
        &[
            "name",
            "scope",
            "relay",
            "rate",
            "parallelism",
            "priority",
            "state",
            "suspended",
            "cursor",
            "listed",
            "total",
            "done",
            "failed",
            "records",
            "pace",
            "next_at",
            "lease",
            "holder",
            "attempts",
            "next_list_at",
            "created_at",
            "updated_at",
            "finished_at",
            "error",
        ],
    ),
    (
        "penstock.identities",
        &[
            "did",
            "key",
            "host",
            "handle",
            "handle_checked_at",
            "handle_valid",
            "fetched_at",
            "stale",
            "stale_at",
            "failures",
            "failed_at",
            "error",
        ],
    ),
    (
        "penstock.account_claims",
        &[
            "did",
            "entry",
            "status",
            "deleted_entry",
            "since",
            "host",
            "due",
            "asked_at",
            "attempts",
            "confirmed_at",
            "hidden",
            "error",
        ],
    ),
    ("penstock.handle_checks", &["did", "entry", "due", "checked_at", "attempts", "error"]),
];

/// The columns of the message system's table, and of what we keep beside it.
const MESSAGES: [(&str, &[&str]); 2] = [
    ("messages", &["id", "user_id", "channel_id", "content", "created_at", "inserted_at"]),
    ("penstock.message_keys", &["dedupe_key", "message_id", "tracking_id"]),
];

/// Creates or migrates the schema: on an empty database all of it, on the AppView's what is Penstock's own, and of what an
/// older version made there it moves what does not belong there. With `messages`, the table of the message system too.
///
/// It may run while everybody reads and writes: each table is changed in a short transaction of its own, indexes are built beside
/// their readers and writers, and no table is waited for in a way that holds its readers up for half a second in all. One process
/// migrates at a time, the others wait for it. What a newer version added is left alone.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses a statement, or a table is in use for two minutes without a gap; before anything is
/// changed, when a table is there in another shape than the AppView's.
pub async fn migrate(url: &str, messages: bool) -> Result<(), SchemaError> {
    Database::new(url).migrate(messages).await
}

impl Database<'_> {
    /// Does what [`migrate`] does.
    ///
    /// # Errors
    /// As [`migrate`].
    pub async fn migrate(self, messages: bool) -> Result<(), SchemaError> {
        let options = self.options()?;
        let mut conn = self.connect(&options).await?;
        let (database, telling) = self.accompanied(&options, &mut conn).await.map_err(SchemaError::Connect)?;
        {
            let mut tx = session::begin_waiting(&mut conn).await.map_err(SchemaError::Connect)?;
            place::settle(&mut tx, self.wanted_schema()).await?;
            tx.commit().await?;
        }
        {
            let mut tx = session::begin_reading(&mut conn).await.map_err(SchemaError::Connect)?;
            foreign::refuse(&mut tx, messages).await?;
            tx.rollback().await?;
        }
        let mut turn = Turn::take(database, &options).await?;
        let outcome = tokio::select! {
            biased;
            outcome = change(&mut conn, messages, database) => outcome.map_err(SchemaError::Migrate),
            error = turn.lost() => Err(SchemaError::Turn(error)),
        };
        drop(telling);
        turn.end().await;
        let changed = outcome?;
        let filled = profiles::fill_profiles(&mut conn, self);
        self.taking(&changed, Stage::Profiles, filled).await.map_err(SchemaError::Profiles)?;
        // The outcome counts, not the farewell's.
        let _ = conn.close().await;
        self.tell(News::Done { schema: &hash(), changed: !changed.is_empty() });
        Ok(())
    }

    /// Makes a connection that tells whom the migration waits for, until dropped, and learns by it whether a pooler shares sessions.
    /// It is only news: where there is no room for it all goes on.
    async fn accompanied(self, options: &Address, conn: &mut PgConnection) -> sqlx::Result<(Self, JoinSet<()>)> {
        session::begin_reading(conn).await?.rollback().await?;
        let mut telling = JoinSet::new();
        let Ok(mut other) = options.connect().await else { return Ok((self, telling)) };
        check_statements(conn, &mut other).await?;
        let is_shared = session::is_shared(conn, &mut other).await?;
        telling.spawn(tell_waits(other));
        Ok((self.sharing_sessions(is_shared), telling))
    }

    /// Takes a step; it is told of where it is planned.
    async fn taking<T, E>(self, plan: &Plan, stage: Stage, step: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let planned = plan.has(stage);
        if planned {
            self.tell(News::Begins(stage));
        }
        let began = Instant::now();
        let taken = step.await?;
        if planned {
            self.tell(News::Ends { stage, took: began.elapsed() });
        }
        Ok(taken)
    }
}

/// Takes every step, and says which of them had something to do.
async fn change(conn: &mut PgConnection, messages: bool, database: Database<'_>) -> Step<Plan> {
    let mut tx = session::begin_reading(conn).await?;
    let plan = planning::plan(&mut tx, messages).await?;
    tx.rollback().await?;
    if !plan.is_empty() {
        database.tell(News::Planned(&plan));
    }
    database.taking(&plan, Stage::MoveTables, relocate::tables(conn)).await?;
    database.taking(&plan, Stage::AppView, patiently(conn, Wait::Table, "labels", APPVIEW)).await?;
    database.taking(&plan, Stage::Own, own(conn)).await?;
    database.taking(&plan, Stage::MergeTables, relocate::merge(conn)).await?;
    database.taking(&plan, Stage::MoveColumns, relocate::columns(conn, database)).await?;
    if messages {
        database.taking(&plan, Stage::Messages, appview::messages(conn)).await?;
    }
    database.taking(&plan, Stage::Indexes, indexes::complete(conn, database)).await?;
    Ok(plan)
}

/// Makes what is ours, each block a transaction.
async fn own(conn: &mut PgConnection) -> Step<()> {
    for block in blocks(OURS) {
        patiently(conn, Wait::Table, changed_by(block), block).await?;
    }
    Ok(())
}

/// Cuts statements at blank lines, but not within the body of a block of code.
fn blocks(sql: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut from = 0;
    for at in sql.match_indices("\n\n").map(|(at, _)| at).chain([sql.len()]) {
        let block = sql.get(from..at).unwrap_or_default();
        if block.matches("$$").count().is_multiple_of(2) {
            blocks.push(block);
            from = at;
        }
    }
    blocks.retain(|block| block.lines().any(|line| !line.trim().is_empty() && !line.starts_with("--")));
    blocks
}

/// Returns the table that a block changes first.
fn changed_by(block: &str) -> &str {
    let name = block.find("penstock.").and_then(|at| block.get(at..)).unwrap_or_default();
    name.split(|c: char| !c.is_alphanumeric() && c != '.' && c != '_').next().unwrap_or_default()
}

/// What decides what a migration leaves.
const STEPS: [&str; 13] = [
    APPVIEW,
    OURS,
    include_str!("appview.rs"),
    include_str!("indexes.rs"),
    include_str!("indexes.sql"),
    include_str!("locks.rs"),
    include_str!("merge.sql"),
    include_str!("needed.rs"),
    include_str!("pieces.rs"),
    include_str!("place.rs"),
    include_str!("profiles.rs"),
    include_str!("relocate.rs"),
    include_str!("session.rs"),
];

/// Returns what tells this version's migration from another's: 16 hexadecimal digits of all that decides what it leaves.
#[must_use]
pub fn hash() -> String {
    let mut hasher = Sha256::new();
    for step in STEPS {
        hasher.update(format!("{}\n{step}", step.len()));
    }
    HEXLOWER.encode(&hasher.finalize()[..8])
}

const COLUMNS: &str = "\
SELECT t.name, array_agg(a.attname::text) FROM unnest($1::text[]) AS t (name)
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY t.name";

/// Whether a migration was interrupted that moves what an older version made.
const IS_MOVING: &str = "SELECT EXISTS (SELECT FROM penstock.meta WHERE key = 'moving')";

/// Lists what a worker would miss, nothing where all is there. Called within a transaction, whose search path it sets.
///
/// # Errors
/// When PostgreSQL cannot be asked.
pub async fn lacks(conn: &mut PgConnection, messages: bool) -> Result<Vec<String>, SchemaError> {
    conn.execute(SEARCH_PATH).await?;
    match check(conn, messages).await {
        Err(SchemaError::Missing(missing)) => Ok(missing),
        Err(SchemaError::Moving) => Ok(vec!["the end of a migration that was interrupted".to_owned()]),
        other => other.map(|()| Vec::new()),
    }
}

/// Checks that every table and column is there that the worker writes, and every index that its statements need; with `messages`,
/// those of the message system too.
pub(crate) async fn check(conn: &mut PgConnection, messages: bool) -> Result<(), SchemaError> {
    let wanted = wanted(messages);
    let names: Vec<&str> = wanted.keys().copied().collect();
    let rows: Vec<(String, Vec<String>)> =
        sqlx::query_as(COLUMNS).bind(names).fetch_all(&mut *conn).await.map_err(SchemaError::Read)?;
    let found: BTreeMap<_, BTreeSet<_>> =
        rows.into_iter().map(|(table, columns)| (table, columns.into_iter().collect())).collect();
    let missing: Vec<String> = wanted
        .into_iter()
        .flat_map(|(table, columns)| match found.get(table) {
            None => vec![format!("table {table}")],
            Some(found) => columns
                .into_iter()
                .filter(|column| !found.contains(*column))
                .map(|column| format!("column {table}.{column}"))
                .collect(),
        })
        .collect();
    let indexes = needed::missing(conn).await?;
    let missing: Vec<String> = missing.into_iter().chain(indexes.iter().map(ToString::to_string)).collect();
    if !missing.is_empty() {
        return Err(SchemaError::Missing(missing));
    }
    if sqlx::query_scalar(IS_MOVING).fetch_one(conn).await? { Err(SchemaError::Moving) } else { Ok(()) }
}

/// What workers write that follows from records, where it is there.
const DERIVED: [&str; 4] = ["notifications", "thread_contexts", "post_viewer_states", "label_events"];

/// Names the tables that workers may write.
pub(crate) fn tables() -> Vec<&'static str> {
    wanted(true).into_keys().chain(DERIVED).collect()
}

fn wanted(messages: bool) -> BTreeMap<&'static str, Vec<&'static str>> {
    let records = Table::ALL.map(|table| {
        let spec = table.spec();
        let columns = spec.columns.iter().map(|(name, _)| *name);
        let guard: &[&str] = if spec.commit { &["commit_rev", "commit_seq"] } else { &[] };
        (spec.name, [spec.key].into_iter().chain(guard.iter().copied()).chain(columns).collect())
    });
    let others = OTHERS.into_iter().chain(MESSAGES.into_iter().filter(|_| messages));
    records.into_iter().chain(others.map(|(table, columns)| (table, columns.to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_at_blank_lines_but_not_within_code() {
        let sql =
            "-- Only words.\n\n-- One.\nCREATE TABLE penstock.one (a int);\n\nDO $$\nBEGIN\n\nEND\n$$;\n\nSELECT 1;\n";
        let cut = blocks(sql);
        assert_eq!(cut.len(), 3, "{cut:?}");
        assert_eq!(changed_by(cut[0]), "penstock.one");
        assert!(cut[1].contains("BEGIN") && cut[1].contains("END"));
        assert!(blocks(OURS).len() > 10);
    }
}
