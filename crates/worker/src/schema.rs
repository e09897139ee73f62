//! The database's schema: made by `penstock migrate`, checked by workers, which wait until it is there.

mod appview;
mod indexes;
mod pieces;
mod profiles;
mod rebuild;
mod recount;
mod relocate;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, SqlSafeStr};
use thiserror::Error;
use tracing::{info, warn};

use crate::store::table::Table;
pub use rebuild::{Rebuilt, rebuild};
pub use recount::{Mended, recount};

/// Why the schema could not be made or is not as it should be.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The URL is none.
    #[error("database url is not understood")]
    Url(#[source] sqlx::Error),
    /// No connection could be made.
    #[error("could not connect to postgresql")]
    Connect(#[source] sqlx::Error),
    /// A migration failed; what it did is undone.
    #[error("could not migrate the database")]
    Migrate(#[source] MigrateError),
    /// PostgreSQL could not be asked what is there.
    #[error("could not read the schema")]
    Read(#[from] sqlx::Error),
    /// Something is not there yet: `penstock migrate` makes it.
    #[error("schema lacks {}: run penstock migrate", .0.join(", "))]
    Missing(Vec<String>),
    /// What an older version made is only moved in part.
    #[error("a migration was interrupted: run penstock migrate again")]
    Moving,
    /// The profiles and handles that the AppView has could not be copied.
    #[error("could not copy profiles")]
    Profiles(#[source] sqlx::Error),
    /// What follows from records could not be made anew.
    #[error("could not rebuild projections")]
    Rebuild(#[source] sqlx::Error),
    /// Counts could not be made anew.
    #[error("could not recount")]
    Recount(#[source] sqlx::Error),
}

const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "appview", include_str!("../migrations/0001_appview.sql")),
    (2, "penstock", include_str!("../migrations/0002_penstock.sql")),
];

/// The schema that holds all that is ours.
const SCHEMA: &str = "penstock";

const TABLE: &str = "penstock.migrations";

/// How long a statement may wait for a lock: a migration that queues behind a long query would hold up everybody else. The
/// statements that read a whole table take as long as they take, whatever limit the role has.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '3s'; SET statement_timeout = 0; SET client_min_messages = warning";

/// Else a statement of a migration that was killed would run to its end, and the next one wait for it. Not every server can
/// tell.
const NOTICE: &str = "SET client_connection_check_interval = '5s'";

/// Leaves our own schema out of the path. A role of that name has it first there, and would make the AppView's tables in it.
pub(crate) const SEARCH_PATH: &str = "\
SELECT set_config('search_path', coalesce(nullif((SELECT string_agg(quote_ident(name), ', ' ORDER BY at)
  FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, at) WHERE name <> 'penstock'), ''), 'public'), false)";

/// How long to go on trying to get a lock, from the last step that was taken.
const DEADLINE: Duration = Duration::from_secs(120);

/// The columns of the tables that hold no records, as far as the worker uses them.
const OTHERS: [(&str, &[&str]); 16] = [
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
    ("penstock.counts", &["worker", "field", "total"]),
    ("penstock.checkpoint", &["host", "seq", "stream_id", "updated_at"]),
    ("penstock.dead_letters", &["orig_id", "kind", "data", "seq", "deliveries", "error", "consumer", "created_at"]),
    ("penstock.meta", &["key", "value"]),
    ("penstock.waiting_cids", &["uri", "cid"]),
    ("penstock.unfinished_posts", &["uri"]),
];

/// The columns of the message system's table, and of what we keep beside it.
const MESSAGES: [(&str, &[&str]); 2] = [
    ("messages", &["id", "user_id", "channel_id", "content", "created_at", "inserted_at"]),
    ("penstock.message_keys", &["dedupe_key", "message_id", "tracking_id"]),
];

/// Creates or migrates the schema: on an empty database all of it, on the AppView's what is Penstock's own, and of what an
/// older version made there it moves what does not belong there. With `messages`, the table of the message system too.
///
/// One process migrates at a time, the others wait for it. Migrations that this version does not know are left alone.
///
/// # Errors
/// When PostgreSQL cannot be reached, refuses a statement, or is too busy to be changed for two minutes.
pub async fn migrate(url: &str, messages: bool) -> Result<(), SchemaError> {
    let options: PgConnectOptions = url.parse().map_err(SchemaError::Url)?;
    // A migration is one statement of some hundred lines, and slow on purpose.
    let options = options.application_name("penstock-migrate").disable_statement_logging();
    let mut deadline = Instant::now() + DEADLINE;
    let mut waits = false;
    loop {
        // Each attempt has a connection of its own: closing it gives up the advisory lock, whatever happened.
        let mut conn = PgConnection::connect_with(&options).await.map_err(SchemaError::Connect)?;
        conn.execute(LOCK_TIMEOUT).await.map_err(SchemaError::Connect)?;
        conn.execute(SEARCH_PATH).await.map_err(SchemaError::Connect)?;
        let _ = conn.execute(NOTICE).await;
        let outcome = change(&mut conn, messages).await;
        // The migration's outcome counts, not the farewell's.
        let _ = conn.close().await;
        match outcome {
            Ok(true) => break,
            Ok(false) => {
                // The other one is not stuck as long as its connection lives.
                deadline = Instant::now() + DEADLINE;
                if !std::mem::replace(&mut waits, true) {
                    info!("another migration is running, waiting for it");
                }
            }
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                warn!(%error, "database is busy, trying to migrate again");
            }
            Err(error) => return Err(SchemaError::Migrate(error)),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut conn = PgConnection::connect_with(&options).await.map_err(SchemaError::Connect)?;
    conn.execute(SEARCH_PATH).await.map_err(SchemaError::Connect)?;
    profiles::fill_profiles(&mut conn).await.map_err(SchemaError::Profiles)?;
    let _ = conn.close().await;
    info!(version = MIGRATIONS.len(), "database is migrated");
    Ok(())
}

/// Held by the connection that migrates; workers take turns at other numbers.
const TURN: i64 = 0x7065_6e73_746f_636e;

/// Takes every step; `false` where another process does.
async fn change(conn: &mut PgConnection, messages: bool) -> Result<bool, MigrateError> {
    let turn = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(TURN);
    if !turn.fetch_one(&mut *conn).await.map_err(MigrateError::Execute)? {
        return Ok(false);
    }
    relocate::tables(conn).await.map_err(MigrateError::Execute)?;
    migrator().run_direct(None, conn, false).await?;
    relocate::merge(conn).await.map_err(MigrateError::Execute)?;
    relocate::columns(conn).await.map_err(MigrateError::Execute)?;
    if messages {
        appview::messages(conn).await.map_err(MigrateError::Execute)?;
    }
    Ok(true)
}

/// What a migration does besides the migrations proper.
const STEPS: [&str; 7] = [
    include_str!("schema/appview.rs"),
    include_str!("schema/indexes.rs"),
    include_str!("schema/indexes.sql"),
    include_str!("schema/merge.sql"),
    include_str!("schema/pieces.rs"),
    include_str!("schema/profiles.rs"),
    include_str!("schema/relocate.rs"),
];

/// Returns what tells this version's migration from another's: 16 hexadecimal digits of all that decides what it leaves.
#[must_use]
pub fn hash() -> String {
    let mut hasher = Sha256::new();
    for (version, name, sql) in MIGRATIONS {
        hasher.update(format!("{version} {name} {}\n{sql}", sql.len()));
    }
    for step in STEPS {
        hasher.update(format!("{}\n{step}", step.len()));
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema(SCHEMA);
    migrator.set_ignore_missing(true);
    migrator
}

fn is_busy(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    is_locked(error)
}

/// Whether a statement waited for a lock in vain.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

const COLUMNS: &str = "\
SELECT t.name, array_agg(a.attname::text) FROM unnest($1::text[]) AS t (name)
  JOIN pg_attribute AS a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped
 GROUP BY t.name";

/// Whether a migration was interrupted that moves what an older version made.
const IS_MOVING: &str = "SELECT EXISTS (SELECT FROM penstock.meta WHERE key = 'moving')";

/// Lists what a worker would miss, nothing where all is there; it sets the search path of the session, which a caller's transaction
/// undoes.
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

/// Checks that every table and column is there that the worker writes; with `messages`, those of the message system too.
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
    if !missing.is_empty() {
        return Err(SchemaError::Missing(missing));
    }
    if sqlx::query_scalar(IS_MOVING).fetch_one(conn).await? { Err(SchemaError::Moving) } else { Ok(()) }
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
