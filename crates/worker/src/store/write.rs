//! Carries a plan out: one statement a table and kind of change.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;
use sqlx::query::Query;

use super::decide::{Counts, Edits, Plan, Writes};
use super::kept;
use super::row::{Cell, Row};
use super::sql::{Statements, TableStatements};
use super::table::{Count, Kind, Table};
use super::tally::Tally;
use super::version::{Stamp, Version};

pub(super) type Rows<'b, 'a> = BTreeMap<String, (Version, Cow<'b, Row<'a>>)>;

/// Writes the record tables, tombstones and shadows of a plan, and all that follows from posts, reposts and gates.
pub(crate) async fn write(
    conn: &mut PgConnection,
    statements: &Statements,
    plan: &mut Plan<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    write_quotes(conn, plan).await?;
    // A shadow may be replaced by another of the same record: what goes goes first.
    let gone = delete(conn, "DELETE FROM penstock.shadowed WHERE uri = ANY($1)", &plan.shadows.gone).await?;
    tally.left_shadows(gone);
    // A record that moves to another table takes its stamp along: what goes goes first here, too.
    for (table, writes) in &plan.tables {
        clear_table(conn, statements.of(*table), *table, writes, tally).await?;
    }
    for (table, writes) in &plan.tables {
        fill_table(conn, statements.of(*table), *table, writes, tally).await?;
    }
    write_shadows(conn, plan).await?;
    write_tombstones(conn, plan).await?;
    write_kept(conn, plan, tally).await?;
    for table in [Table::Posts, Table::Reposts] {
        if let Some(writes) = plan.tables.get(&table) {
            write_feed_items(conn, table, writes, tally).await?;
        }
    }
    mark_gates(conn, plan).await
}

async fn delete(conn: &mut PgConnection, sql: &'static str, keys: &BTreeSet<String>) -> sqlx::Result<u64> {
    if keys.is_empty() {
        return Ok(0);
    }
    Ok(sqlx::query(sql).bind(keys.iter().bind_iter()).execute(conn).await?.rows_affected())
}

async fn clear_table(
    conn: &mut PgConnection,
    statements: &TableStatements,
    table: Table,
    writes: &Writes<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    let Writes { demoted, gone, again, .. } = writes;
    // A row that came again may have to wait all the same: its copy is to say so.
    if !again.is_empty() {
        bind_again(sqlx::query(statements.again()), again).execute(&mut *conn).await?;
    }
    if let (Some(demote), false) = (statements.demote(), demoted.is_empty()) {
        sqlx::query(demote).bind(demoted.iter().bind_iter()).execute(&mut *conn).await?;
    }
    if !gone.is_empty() {
        let done = sqlx::query(statements.delete()).bind(gone.iter().bind_iter()).execute(&mut *conn).await?;
        tally.removed(table, done.rows_affected());
    }
    Ok(())
}

async fn fill_table(
    conn: &mut PgConnection,
    statements: &TableStatements,
    table: Table,
    writes: &Writes<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    let Writes { updates, inserts, .. } = writes;
    if !updates.is_empty() {
        let done = bind_rows(sqlx::query(statements.update()), table, updates).execute(&mut *conn).await?;
        tally.updated(table, done.rows_affected());
    }
    if !inserts.is_empty() {
        let done = bind_rows(sqlx::query(statements.insert()), table, inserts).execute(&mut *conn).await?;
        tally.inserted(table, done.rows_affected());
    }
    Ok(())
}

pub(super) type PgQuery<'q> = Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_again<'q>(query: PgQuery<'q>, rows: &BTreeMap<String, Stamp>) -> PgQuery<'q> {
    query.bind(rows.keys().bind_iter()).bind(rows.values().map(Stamp::to_string).bind_iter())
}

/// Binds keys, revs, stamps and columns, an array each.
pub(super) fn bind_rows<'q>(query: PgQuery<'q>, table: Table, rows: &Rows<'_, '_>) -> PgQuery<'q> {
    let mut query = query
        .bind(rows.keys().bind_iter())
        .bind(rows.values().map(|(version, _)| version.rev.as_deref()).bind_iter())
        .bind(rows.values().map(|(version, _)| version.stamp.map(|stamp| stamp.to_string())).bind_iter());
    for (at, (_, kind)) in table.spec().columns.iter().enumerate() {
        let cells = rows.values().map(|(_, row)| row.cells.get(at));
        query = match kind {
            Kind::Text | Kind::Json => query.bind(cells.map(text).bind_iter()),
            Kind::Time => query.bind(
                cells
                    .map(|cell| match cell {
                        Some(Cell::Time(time)) => *time,
                        _ => None,
                    })
                    .bind_iter(),
            ),
            Kind::Bool => query.bind(cells.map(|cell| matches!(cell, Some(Cell::Bool(true)))).bind_iter()),
        };
    }
    query
}

fn text<'c>(cell: Option<&'c Cell<'_>>) -> Option<&'c str> {
    match cell {
        Some(Cell::Text(text)) => text.as_deref(),
        Some(Cell::Json(json)) => json.as_deref(),
        _ => None,
    }
}

const SHADOW: &str = "\
INSERT INTO penstock.shadowed (uri, repo, kind, key_a, key_b, commit_rev, entry_id, row)
SELECT u.uri, split_part(u.uri, '/', 3), u.kind, u.a, u.b, u.rev, u.entry, u.row::jsonb
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS u (uri, kind, a, b, rev, entry, row)";

const SHADOW_AGAIN: &str = "\
UPDATE penstock.shadowed AS s SET entry_id = u.e FROM unnest($1::text[], $2::text[]) AS u (k, e) WHERE s.uri = u.k";

async fn write_shadows(conn: &mut PgConnection, plan: &Plan<'_, '_>) -> sqlx::Result<()> {
    if !plan.shadows.again.is_empty() {
        bind_again(sqlx::query(SHADOW_AGAIN), &plan.shadows.again).execute(&mut *conn).await?;
    }
    if plan.shadows.set.is_empty() {
        return Ok(());
    }
    let shadows = plan.shadows.set.values();
    sqlx::query(SHADOW)
        .bind(plan.shadows.set.keys().bind_iter())
        .bind(shadows.clone().map(|(pair, _, _)| pair.table.spec().name).bind_iter())
        .bind(shadows.clone().map(|(pair, _, _)| &*pair.a).bind_iter())
        .bind(shadows.clone().map(|(pair, _, _)| &*pair.b).bind_iter())
        .bind(shadows.clone().map(|(_, version, _)| version.rev.as_deref()).bind_iter())
        .bind(shadows.clone().map(|(_, version, _)| version.stamp.map(|stamp| stamp.to_string())).bind_iter())
        .bind(shadows.map(|(_, _, row)| row.to_json()).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}

const BURY: &str = "\
INSERT INTO penstock.tombstones (uri, commit_rev, entry_id)
SELECT u.k, u.r, u.e FROM unnest($1::text[], $2::text[], $3::text[]) AS u (k, r, e)
ON CONFLICT (uri) DO UPDATE SET commit_rev = excluded.commit_rev, entry_id = excluded.entry_id";

async fn write_tombstones(conn: &mut PgConnection, plan: &Plan<'_, '_>) -> sqlx::Result<()> {
    delete(conn, "DELETE FROM penstock.tombstones WHERE uri = ANY($1)", &plan.tombstones.gone).await?;
    if plan.tombstones.set.is_empty() {
        return Ok(());
    }
    sqlx::query(BURY)
        .bind(plan.tombstones.set.keys().bind_iter())
        .bind(plan.tombstones.set.values().map(|version| version.rev.as_deref()).bind_iter())
        .bind(plan.tombstones.set.values().map(|version| version.stamp.map(|stamp| stamp.to_string())).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}

const KEEP: &str = "\
INSERT INTO penstock.records (key, uri, did, collection, cid, record, created_at, commit_rev, entry_id)
SELECT u.key, u.uri, u.did, u.collection, u.cid, u.record::jsonb, u.at, u.rev, u.entry
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamp[], $8::text[], $9::text[])
    AS u (key, uri, did, collection, cid, record, at, rev, entry)
ON CONFLICT (key) DO UPDATE SET cid = excluded.cid, record = excluded.record, created_at = excluded.created_at,
  commit_rev = excluded.commit_rev, entry_id = excluded.entry_id";

const KEPT_AGAIN: &str = "\
UPDATE penstock.records AS r SET entry_id = u.e FROM unnest($1::text[], $2::text[]) AS u (k, e) WHERE r.key = u.k";

/// Writes what of a plan stands in `penstock.records`, comes again there or goes.
async fn write_kept(conn: &mut PgConnection, plan: &Plan<'_, '_>, tally: &mut Tally) -> sqlx::Result<()> {
    let Edits { gone, set: records, again } = &plan.kept;
    if !again.is_empty() {
        bind_again(sqlx::query(KEPT_AGAIN), again).execute(&mut *conn).await?;
    }
    let gone = delete(conn, "DELETE FROM penstock.records WHERE key = ANY($1)", gone).await?;
    tally.wrote(kept::TABLE, gone);
    if records.is_empty() {
        return Ok(());
    }
    let rows = records.values();
    let written = sqlx::query(KEEP)
        .bind(records.keys().bind_iter())
        .bind(rows.clone().map(|(_, row)| &*row.uri).bind_iter())
        .bind(rows.clone().map(|(_, row)| row.did).bind_iter())
        .bind(rows.clone().map(|(_, row)| &*row.collection).bind_iter())
        .bind(rows.clone().map(|(_, row)| row.cid.as_deref()).bind_iter())
        .bind(rows.clone().map(|(_, row)| &*row.record).bind_iter())
        .bind(rows.clone().map(|(_, row)| row.created_at).bind_iter())
        .bind(rows.clone().map(|(version, _)| version.rev.as_deref()).bind_iter())
        .bind(rows.map(|(version, _)| version.stamp.map(|stamp| stamp.to_string())).bind_iter())
        .execute(conn)
        .await?;
    tally.wrote(kept::TABLE, written.rows_affected());
    Ok(())
}

const SHOW: &str = "\
WITH written AS (
  INSERT INTO feed_items (uri, type, post_uri, originator_did, cid, sort_at, created_at)
  SELECT u.uri, $1, u.post, u.author, u.cid, u.sort_at, u.at
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamp[], $7::timestamp[])
      AS u (uri, post, author, cid, sort_at, at)
  ON CONFLICT (uri) DO UPDATE SET type = excluded.type, post_uri = excluded.post_uri,
    originator_did = excluded.originator_did, cid = excluded.cid, sort_at = excluded.sort_at,
    created_at = excluded.created_at
  RETURNING xmax = 0 AS fresh
)
SELECT count(*) FILTER (WHERE fresh) FROM written";

/// Posts and reposts that are rows are shown in feeds; those that wait or went are not.
async fn write_feed_items(
    conn: &mut PgConnection,
    table: Table,
    writes: &Writes<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    let Some(kind) = table.feed_type() else { return Ok(()) };
    // A row that moved to another pair is among both.
    tally.feed_items -= delete(conn, "DELETE FROM feed_items WHERE uri = ANY($1)", &writes.gone).await?.cast_signed();
    let rows: BTreeMap<_, _> = writes
        .updates
        .iter()
        .chain(&writes.inserts)
        .filter_map(|(uri, (_, row))| Some((uri, row.derived.as_ref()?)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let fresh: i64 = sqlx::query_scalar(SHOW)
        .bind(kind)
        .bind(rows.keys().bind_iter())
        .bind(rows.values().map(|derived| &*derived.post).bind_iter())
        .bind(rows.values().map(|derived| &*derived.author).bind_iter())
        .bind(rows.values().map(|derived| &*derived.cid).bind_iter())
        .bind(rows.values().map(|derived| derived.sort_at).bind_iter())
        .bind(rows.values().map(|derived| derived.created_at).bind_iter())
        .fetch_one(conn)
        .await?;
    tally.feed_items += fresh;
    Ok(())
}

const QUOTES: &str = "SELECT uri, quoted_uri FROM quotes WHERE post_uri = ANY($1) FOR UPDATE";

const QUOTE: &str = "\
INSERT INTO quotes (uri, cid, post_uri, quoted_uri, quoted_cid, created_at)
SELECT u.post || '#quote', u.cid, u.post, u.quoted, u.quoted_cid, u.at
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamp[]) AS u (post, cid, quoted, quoted_cid, at)";

/// Makes the quotes of each post that changes what its row says, whatever stood before.
async fn write_quotes(conn: &mut PgConnection, plan: &mut Plan<'_, '_>) -> sqlx::Result<()> {
    let Some(writes) = plan.tables.get(&Table::Posts) else { return Ok(()) };
    let quoting: BTreeMap<_, _> = writes
        .updates
        .iter()
        .chain(&writes.inserts)
        .filter_map(|(uri, (_, row))| {
            let derived = row.derived.as_ref()?;
            Some((uri, (derived, derived.quote.as_ref()?)))
        })
        .collect();
    let touched: BTreeSet<&String> =
        writes.gone.iter().chain(writes.updates.keys()).chain(quoting.keys().copied()).collect();
    if touched.is_empty() {
        return Ok(());
    }
    let stood: Vec<(String, String)> =
        sqlx::query_as(QUOTES).bind(touched.iter().bind_iter()).fetch_all(&mut *conn).await?;
    let mut counts = Counts::default();
    if !stood.is_empty() {
        sqlx::query("DELETE FROM quotes WHERE uri = ANY($1)")
            .bind(stood.iter().map(|(uri, _)| uri).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    for (_, quoted) in &stood {
        counts.add_to(quoted, Count::Quotes, -1);
    }
    if !quoting.is_empty() {
        let rows = quoting.values();
        sqlx::query(QUOTE)
            .bind(quoting.keys().bind_iter())
            .bind(rows.clone().map(|(derived, _)| &*derived.cid).bind_iter())
            .bind(rows.clone().map(|(_, (quoted, _))| &**quoted).bind_iter())
            .bind(rows.clone().map(|(_, (_, cid))| cid.as_deref()).bind_iter())
            .bind(rows.clone().map(|(derived, _)| derived.created_at).bind_iter())
            .execute(conn)
            .await?;
        for (_, (quoted, _)) in rows {
            counts.add_to(quoted, Count::Quotes, 1);
        }
    }
    plan.counts.merge(&counts);
    Ok(())
}

const GATED: [(Table, &str); 2] = [
    (
        Table::ThreadGates,
        "UPDATE posts AS p SET has_thread_gate = NOT has_thread_gate WHERE p.uri = ANY($1)
           AND has_thread_gate <> EXISTS (SELECT FROM thread_gates AS g WHERE g.post_uri = p.uri OFFSET 0)",
    ),
    (
        Table::PostGates,
        "UPDATE posts AS p SET has_post_gate = NOT has_post_gate WHERE p.uri = ANY($1)
           AND has_post_gate <> EXISTS (SELECT FROM post_gates AS g WHERE g.post_uri = p.uri OFFSET 0)",
    ),
];

/// Tells posts of the gates that came or went; post and gate are in one repo, whose lock the batch holds.
async fn mark_gates(conn: &mut PgConnection, plan: &Plan<'_, '_>) -> sqlx::Result<()> {
    for (table, sql) in GATED {
        let Some(writes) = plan.tables.get(&table) else { continue };
        let posts: BTreeSet<&String> = writes.gone.iter().chain(writes.inserts.keys()).collect();
        if !posts.is_empty() {
            sqlx::query(sql).bind(posts.iter().bind_iter()).execute(&mut *conn).await?;
        }
    }
    Ok(())
}

/// Tells posts of their gates, whatever they were told before.
pub(crate) async fn mark_gates_of(conn: &mut PgConnection, posts: &[String]) -> sqlx::Result<()> {
    for (_, sql) in GATED {
        sqlx::query(sql).bind(posts).execute(&mut *conn).await?;
    }
    Ok(())
}
