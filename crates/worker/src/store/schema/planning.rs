//! Reads from the catalog what a migration will change.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection, PgConnection};

use super::database::Database;
use super::locks::{Step, is_locked};
use super::plan::{Change, Lock, Plan};
use super::stage::Stage;
use super::{APPVIEW, OURS, SchemaError, blocks, indexes, needed, relocate, session};
use crate::store::table::Table;

/// What a disk of this time does at least, in bytes a second: an index is built, rows are moved, rows are counted.
const BUILT: u64 = 40_000_000;
const MOVED: u64 = 8_000_000;
const COUNTED: u64 = 20_000_000;

/// Which tables of 0.1 are where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// In the AppView's schema.
    old: bool,
    /// In ours.
    new: bool,
    /// Something of what is in columns still has to move.
    moving: bool,
}

/// What a statement of ours makes, if it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Made<'a> {
    Table(&'a str),
    Column { table: &'a str, column: &'a str },
    Index { table: &'a str, index: String },
    NoIndex(&'a str),
}

impl Database<'_> {
    /// Says what [`Self::migrate`] would do, and then a recount and a rebuild where they are asked for. Nothing is changed.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or asked, or a table is there in another shape than the AppView's.
    pub async fn plan(&self, messages: bool, recount: bool, rebuild: bool) -> Result<Plan, SchemaError> {
        let mut conn = self.connect(&self.options()?).await?;
        let mut tx = session::begin_reading(&mut conn).await.map_err(SchemaError::Read)?;
        super::place::check(&mut tx, self.wanted_schema()).await?;
        super::foreign::refuse(&mut tx, messages).await?;
        let mut plan = plan(&mut tx, messages).await.map_err(SchemaError::Migrate)?;
        let asked =
            [(recount, Stage::Recount, super::recount::LOCKED), (rebuild, Stage::Rebuild, super::rebuild::LOCKED)];
        for (_, stage, tables) in asked.into_iter().filter(|(asked, ..)| *asked) {
            plan.add(stage, vec![whole(&mut tx, stage, tables).await.map_err(SchemaError::Read)?]);
        }
        let _ = tx.rollback().await;
        let _ = conn.close().await;
        Ok(plan)
    }
}

/// Says what a command does that holds up writers of some tables while it reads them all.
pub(super) async fn whole(conn: &mut PgConnection, stage: Stage, tables: &[&str]) -> sqlx::Result<Change> {
    let sizes = sizes(conn, tables).await?;
    let what = format!("{} from {}", stage.title(), tables.join(", "));
    Ok(Change { what, lock: Lock::Writers, bytes: sizes.values().sum(), rate: COUNTED })
}

/// Says what a migration will do.
pub(super) async fn plan(conn: &mut PgConnection, messages: bool) -> Step<Plan> {
    let found = found(conn).await?;
    let mut plan = Plan::default();
    if found.old && !found.new {
        let what = "move the tables penstock_… into the schema penstock".to_owned();
        plan.add(Stage::MoveTables, vec![Change::new(what, Lock::Instant)]);
    }
    let tables = appview_tables();
    let there = sizes(conn, &tables).await?;
    let missing = tables.iter().filter(|table| !there.contains_key(**table));
    plan.add(Stage::AppView, missing.map(|table| Change::new(format!("create table {table}"), Lock::New)).collect());
    plan.add(Stage::Own, own(conn, found).await?);
    if found.old && found.new {
        let what = "merge the tables penstock_… into those of the schema penstock".to_owned();
        plan.add(Stage::MergeTables, vec![Change::new(what, Lock::Instant)]);
    }
    if found.moving {
        plan.add(Stage::MoveColumns, columns(conn, &there).await?);
    }
    if messages && sizes(conn, &["messages"]).await?.is_empty() {
        plan.add(Stage::Messages, vec![Change::new("create table messages".to_owned(), Lock::New)]);
    }
    let mut built = Vec::new();
    for needed in needed::missing(conn).await? {
        let bytes = sizes(conn, &[needed.table]).await?.values().sum();
        built.push(Change { what: format!("build {needed}"), lock: Lock::Beside, bytes, rate: BUILT });
    }
    plan.add(Stage::Indexes, built);
    if there.contains_key("users") && has_rows(conn, "users").await? && !are_profiles_copied(conn).await? {
        let bytes = there.get("users").copied().unwrap_or_default();
        let what = "copy handles and profiles of users, 2,000 accounts at a time".to_owned();
        plan.add(Stage::Profiles, vec![Change { what, lock: Lock::Rows, bytes, rate: MOVED }]);
    }
    Ok(plan)
}

async fn found(conn: &mut PgConnection) -> Step<Found> {
    let (old, new) = sqlx::query_as(relocate::FOUND).fetch_one(&mut *conn).await?;
    let marked = sqlx::query_scalar::<_, bool>(relocate::IS_MARKED).fetch_one(&mut *conn).await?
        && sqlx::query_scalar::<_, bool>(super::IS_MOVING).fetch_one(conn).await?;
    Ok(Found { old, new, moving: marked || old && !new })
}

/// What of our own tables is missing.
async fn own(conn: &mut PgConnection, found: Found) -> Step<Vec<Change>> {
    let made: Vec<Made<'_>> = blocks(OURS).into_iter().flat_map(made_by).collect();
    let names: Vec<&str> = made.iter().flat_map(Made::names).collect();
    // What is to be moved first is looked for where it is now.
    let there: BTreeMap<String, i64> = sqlx::query_as::<_, (String, i64)>(
        "SELECT DISTINCT t.name, greatest(c.relpages, 0)::bigint * current_setting('block_size')::bigint
           FROM unnest($1::text[]) AS t (name)
           JOIN pg_class AS c ON c.oid = coalesce(to_regclass(t.name), CASE WHEN $2 THEN coalesce(
             to_regclass(replace(t.name, 'penstock.', 'penstock_')), to_regclass(replace(t.name, 'penstock.', 'idx_penstock_'))) END)",
    )
    .bind(&names)
    .bind(found.old && !found.new)
    .fetch_all(&mut *conn)
    .await?
    .into_iter()
    .collect();
    let columns: BTreeSet<(String, String)> = sqlx::query_as::<_, (String, String)>(
        "SELECT t.name, a.attname::text FROM unnest($1::text[]) AS t (name)
           JOIN pg_attribute AS a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped",
    )
    .bind(&names)
    .fetch_all(conn)
    .await?
    .into_iter()
    .collect();
    let size = |table: &str| there.get(table).map(|bytes| bytes.cast_unsigned());
    Ok(made
        .into_iter()
        .filter_map(|made| match made {
            Made::Table(table) if size(table).is_none() => {
                Some(Change::new(format!("create table {table}"), Lock::New))
            }
            // It comes with its table.
            Made::Column { table, .. } | Made::Index { table, .. } if size(table).is_none() => None,
            Made::Column { table, column } if !columns.contains(&(table.to_owned(), column.to_owned())) => {
                Some(Change::new(format!("add column {table}.{column}"), Lock::Instant))
            }
            Made::Index { table, index } if !there.contains_key(&index) => {
                let what = format!("build index {index} on {table}");
                Some(Change { what, lock: Lock::Share, bytes: size(table).unwrap_or_default(), rate: BUILT })
            }
            Made::NoIndex(index) if there.contains_key(index) => {
                Some(Change::new(format!("drop index {index}"), Lock::Instant))
            }
            _ => None,
        })
        .collect())
}

/// What stands in columns that are not the AppView's.
async fn columns(conn: &mut PgConnection, sizes: &BTreeMap<String, u64>) -> Step<Vec<Change>> {
    let mut changes = Vec::new();
    let bytes = |table: &str| sizes.get(table).copied().unwrap_or_default();
    for table in Table::ALL.map(|table| table.spec().name) {
        if relocate::has_column(conn, table, "entry_id").await? {
            let what =
                format!("move the stamps of {table}, 4 MiB of the table at a time, then drop column {table}.entry_id");
            changes.push(Change { what, lock: Lock::Rows, bytes: bytes(table), rate: MOVED });
        }
    }
    if relocate::has_column(conn, "messages", "dedupe_key").await? {
        let bytes = self::sizes(conn, &["messages"]).await?.values().sum();
        let what = "move the keys of messages, 4 MiB of the table at a time, then drop their columns".to_owned();
        changes.push(Change { what, lock: Lock::Rows, bytes, rate: MOVED });
    }
    if relocate::has_column(conn, "users", "active").await? {
        changes.push(Change::new("drop columns users.active, users.status".to_owned(), Lock::Instant));
    }
    let what = "give each post a row in post_aggregations, 4 MiB of the tables at a time".to_owned();
    changes.push(Change { what, lock: Lock::Rows, bytes: bytes("posts") + bytes("post_aggregations"), rate: COUNTED });
    for (table, first, many) in indexes::remade() {
        if indexes::is_there(conn, first).await? {
            let what = format!("build {many} indexes on {table} in place of those of version 0.1");
            changes.push(Change { what, lock: Lock::Beside, bytes: bytes(table) * many as u64, rate: BUILT });
        }
    }
    Ok(changes)
}

/// Whether there is anything in a table; one that somebody has for himself is taken to have something.
async fn has_rows(conn: &mut PgConnection, table: &str) -> Step<bool> {
    let sql = format!("SELECT EXISTS (SELECT FROM {table})");
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut *tx).await;
    tx.rollback().await?;
    match found {
        Err(error) if is_locked(&error) => Ok(true),
        answer => Ok(answer?),
    }
}

async fn are_profiles_copied(conn: &mut PgConnection) -> Step<bool> {
    if !sqlx::query_scalar::<_, bool>(relocate::IS_MARKED).fetch_one(&mut *conn).await? {
        return Ok(false);
    }
    let done = "SELECT EXISTS (SELECT FROM penstock.meta WHERE key = 'profiles' AND value = 'done')";
    Ok(sqlx::query_scalar(done).fetch_one(conn).await?)
}

/// Tells how big those tables are that there are. It takes no lock on them: a table that is in use is no reason to wait.
async fn sizes(conn: &mut PgConnection, tables: &[&str]) -> sqlx::Result<BTreeMap<String, u64>> {
    let sql = "SELECT t.name, greatest(c.relpages, 0)::bigint * current_setting('block_size')::bigint
      FROM unnest($1::text[]) AS t (name) JOIN pg_class AS c ON c.oid = to_regclass(t.name)";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(tables).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(table, bytes)| (table, bytes.cast_unsigned())).collect())
}

/// Names the tables of the AppView that are created.
fn appview_tables() -> Vec<&'static str> {
    let words: Vec<&'static str> = APPVIEW.split_whitespace().collect();
    let name = |words: &[&'static str]| match words {
        ["CREATE", "TABLE", name, "("] => Some(*name),
        _ => None,
    };
    words.windows(4).filter_map(name).collect()
}

/// Reads what a block of our statements makes.
fn made_by(block: &str) -> Vec<Made<'_>> {
    let lines = block.lines().filter(|line| !line.trim_start().starts_with("--"));
    let words: Vec<&str> =
        lines.flat_map(str::split_whitespace).map(|word| word.trim_end_matches([',', ';'])).collect();
    let mut made = Vec::new();
    let mut altered = "";
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        match rest {
            ["CREATE", "TABLE", "IF", "NOT", "EXISTS", table, ..] => made.push(Made::Table(table)),
            ["CREATE", "INDEX", "IF", "NOT", "EXISTS", index, "ON", table, ..] => {
                made.push(Made::Index { table, index: format!("penstock.{index}") });
            }
            ["ALTER", "TABLE", table, ..] => altered = table,
            ["ADD", "COLUMN", "IF", "NOT", "EXISTS", column, ..] => made.push(Made::Column { table: altered, column }),
            ["DROP", "INDEX", "IF", "EXISTS", index, ..] => made.push(Made::NoIndex(index)),
            _ => {}
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    made
}

// === impl Made ===

impl Made<'_> {
    /// Names what it makes, and the table that it belongs to.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Table(name) | Self::NoIndex(name) => vec![name],
            Self::Column { table, .. } => vec![table],
            Self::Index { table, index } => vec![index, table],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_ours_are_read_for_what_they_make() {
        let block = "-- ALTER TABLE penstock.no ADD COLUMN IF NOT EXISTS no\n\
            ALTER TABLE penstock.a ADD COLUMN IF NOT EXISTS b text, ADD COLUMN IF NOT EXISTS c bool;\n\
            CREATE INDEX IF NOT EXISTS d\n  ON penstock.a (b);\nCREATE TABLE IF NOT EXISTS penstock.e (\n  x int\n);\n\
            DROP INDEX IF EXISTS penstock.f;";
        assert_eq!(
            made_by(block),
            [
                Made::Column { table: "penstock.a", column: "b" },
                Made::Column { table: "penstock.a", column: "c" },
                Made::Index { table: "penstock.a", index: "penstock.d".to_owned() },
                Made::Table("penstock.e"),
                Made::NoIndex("penstock.f"),
            ]
        );
    }

    #[test]
    fn every_statement_that_makes_something_is_read() {
        let made: Vec<_> = blocks(OURS).into_iter().flat_map(made_by).collect();
        let code: Vec<&str> = OURS.lines().filter(|line| !line.starts_with("--")).collect();
        let code = code.join("\n");
        let all = code.matches(" IF NOT EXISTS ").count() + code.matches(" IF EXISTS ").count();
        // The schema itself.
        assert_eq!(made.len() + 1, all, "{made:#?}");
        let tables = appview_tables();
        assert_eq!(tables.len(), APPVIEW.matches("CREATE TABLE ").count());
        assert!(tables.contains(&"users") && tables.contains(&"firehose_cursor"));
    }

    #[test]
    fn nothing_is_made_to_be_dropped_again() {
        let made: Vec<_> = blocks(OURS).into_iter().flat_map(made_by).collect();
        for made_index in &made {
            if let Made::Index { index, .. } = made_index {
                assert!(!made.contains(&Made::NoIndex(index)), "each migration would build {index}");
            }
        }
    }
}
