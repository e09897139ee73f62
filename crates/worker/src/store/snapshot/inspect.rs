//! How each record of a piece stands beside what it ought to be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_core::json;
use penstock_core::stream::StreamId;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::content::Wanted;
use crate::store::decide::verdict;
use crate::store::existing::{Existing, Place, Standing};
use crate::store::parsed::{Op, What};
use crate::store::row::{Cell, Row};
use crate::store::snapshot_sql::SnapshotStatements;
use crate::store::table::Table;
use crate::store::version::{Verdict, Version};
use crate::store::write::{Rows, bind_rows};

/// How a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it ought to.
    Same,
    /// Something newer does.
    Newer,
    /// Not at all.
    Missing,
    /// It ought not to.
    Extra,
    /// Otherwise: where and in what.
    Different(String),
}

/// In what the rows of records differ from what they ought to be, by URI.
pub(super) type Differing = HashMap<String, String>;

/// Like one of `feed_items` beside a post or a repost: kind, then URI, post, author, CID and time of each.
const FEED_ITEMS: &str = "\
SELECT u.uri FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamp[]) AS u (uri, post, author, cid, at)
 WHERE NOT EXISTS (SELECT FROM feed_items AS f WHERE f.uri = u.uri AND f.type = $1 AND f.post_uri = u.post
   AND f.originator_did = u.author AND f.cid = u.cid AND f.created_at = coalesce(u.at, f.created_at)
   AND f.sort_at <= f.created_at OFFSET 0)";

/// The quotes of a post: at most one.
const QUOTES: &str = "\
SELECT u.post FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamp[]) AS u (post, cid, quoted, quoted_cid, at)
 WHERE (SELECT count(*) FROM quotes AS q WHERE q.post_uri = u.post) <> CASE WHEN u.quoted IS NULL THEN 0 ELSE 1 END
    OR u.quoted IS NOT NULL AND NOT EXISTS (SELECT FROM quotes AS q WHERE q.uri = u.post || '#quote' AND q.post_uri = u.post
      AND q.quoted_uri = u.quoted AND q.cid = u.cid AND q.quoted_cid IS NOT DISTINCT FROM u.quoted_cid
      AND q.created_at = coalesce(u.at, q.created_at) OFFSET 0)";

const KEPT: &str = "\
SELECT r.key, array_remove(ARRAY[CASE WHEN r.uri <> u.uri THEN 'uri' END, CASE WHEN r.did <> u.did THEN 'did' END,
    CASE WHEN r.collection <> u.collection THEN 'collection' END,
    CASE WHEN r.cid IS DISTINCT FROM u.cid THEN 'cid' END,
    CASE WHEN r.record IS DISTINCT FROM u.record::jsonb THEN 'record' END,
    CASE WHEN r.created_at <> u.at THEN 'created_at' END], NULL)
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamp[])
    AS u (key, uri, did, collection, cid, record, at)
  JOIN penstock.records AS r ON r.key = u.key";

/// Finds in what the rows that stand differ from the records.
pub(super) async fn differing(
    conn: &mut PgConnection,
    statements: &SnapshotStatements,
    wanted: &Wanted<'_>,
    seen: &Existing,
) -> sqlx::Result<Differing> {
    let mut tables: BTreeMap<Table, Rows<'_, '_>> = BTreeMap::new();
    let mut kept: Vec<&Op<'_>> = Vec::new();
    for (uri, op) in &wanted.ops {
        let places = seen.standing.get(uri).map_or(&[][..], Vec::as_slice);
        let stands = |place: Place| places.iter().any(|standing| standing.place == place);
        if let What::Put(row) = &op.what
            && stands(Place::Row(row.table))
        {
            let row = if wanted.undated.contains(uri) { Cow::Owned(undated(row)) } else { Cow::Borrowed(row) };
            let key = row.table.key_of(uri).into_owned();
            tables.entry(row.table).or_default().insert(key, (Version::default(), row));
        }
        if op.kept.is_some() && stands(Place::Kept) {
            kept.push(op);
        }
    }
    let mut found = Differing::new();
    let mut add = |uri: &str, what: String| {
        let text = found.entry(uri.to_owned()).or_default();
        text.push_str(if text.is_empty() { "" } else { "; " });
        text.push_str(&what);
    };
    for (table, rows) in &tables {
        let query = bind_rows(sqlx::query(statements.differing(*table)), *table, rows);
        let differ: Vec<(String, Vec<String>)> = query
            .try_map(|row: sqlx::postgres::PgRow| Ok((sqlx::Row::try_get(&row, 0)?, sqlx::Row::try_get(&row, 1)?)))
            .fetch_all(&mut *conn)
            .await?;
        for (key, columns) in differ.iter().filter(|(_, columns)| !columns.is_empty()) {
            add(&table.uri_of(key), format!("{}: {}", table.spec().name, columns.join(", ")));
        }
        for (uri, place) in derived_differing(conn, *table, rows).await? {
            add(&uri, place.to_owned());
        }
    }
    if !kept.is_empty() {
        let rows = || kept.iter().filter_map(|op| op.kept.as_ref());
        let dated =
            kept.iter().filter_map(|op| Some((!wanted.undated.contains(&op.uri), op.kept.as_ref()?.created_at)));
        let differ: Vec<(String, Vec<String>)> = sqlx::query_as(KEPT)
            .bind(kept.iter().map(|op| &*op.uri).bind_iter())
            .bind(rows().map(|row| &*row.uri).bind_iter())
            .bind(rows().map(|row| row.did).bind_iter())
            .bind(rows().map(|row| &*row.collection).bind_iter())
            .bind(rows().map(|row| row.cid.as_deref()).bind_iter())
            .bind(rows().map(|row| &*row.record).bind_iter())
            .bind(dated.map(|(is_dated, at)| is_dated.then_some(at)).bind_iter())
            .fetch_all(&mut *conn)
            .await?;
        for (key, columns) in differ.iter().filter(|(_, columns)| !columns.is_empty()) {
            add(key, format!("penstock.records: {}", columns.join(", ")));
        }
    }
    Ok(found)
}

/// Finds the posts and reposts whose items in the feeds, or whose quotes, are not what follows from them.
async fn derived_differing(
    conn: &mut PgConnection,
    table: Table,
    rows: &Rows<'_, '_>,
) -> sqlx::Result<Vec<(String, &'static str)>> {
    let Some(kind) = table.feed_type() else { return Ok(Vec::new()) };
    let shown: Vec<_> = rows
        .iter()
        .filter_map(|(uri, (_, row))| {
            let derived = row.derived.as_ref()?;
            // Without a time of its own the row's columns have none either.
            let is_dated = row.cells.iter().any(|cell| matches!(cell, Cell::Time(Some(_))));
            Some((uri, derived, is_dated.then_some(derived.created_at)))
        })
        .collect();
    let mut found = Vec::new();
    let items: Vec<String> = sqlx::query_scalar(FEED_ITEMS)
        .bind(kind)
        .bind(shown.iter().map(|(uri, ..)| *uri).bind_iter())
        .bind(shown.iter().map(|(_, derived, _)| &*derived.post).bind_iter())
        .bind(shown.iter().map(|(_, derived, _)| &*derived.author).bind_iter())
        .bind(shown.iter().map(|(_, derived, _)| &*derived.cid).bind_iter())
        .bind(shown.iter().map(|(.., at)| *at).bind_iter())
        .fetch_all(&mut *conn)
        .await?;
    found.extend(items.into_iter().map(|uri| (uri, "feed_items")));
    if table == Table::Posts {
        let quotes = || shown.iter().map(|(_, derived, _)| derived.quote.as_ref());
        let quotes: Vec<String> = sqlx::query_scalar(QUOTES)
            .bind(shown.iter().map(|(uri, ..)| *uri).bind_iter())
            .bind(shown.iter().map(|(_, derived, _)| &*derived.cid).bind_iter())
            .bind(quotes().map(|quote| Some(&*quote?.0)).bind_iter())
            .bind(quotes().map(|quote| quote?.1.as_deref()).bind_iter())
            .bind(shown.iter().map(|(.., at)| *at).bind_iter())
            .fetch_all(&mut *conn)
            .await?;
        found.extend(quotes.into_iter().map(|uri| (uri, "quotes")));
    }
    Ok(found)
}

/// Takes the times away from a row whose record does not say them.
fn undated<'a>(row: &Row<'a>) -> Row<'a> {
    let mut row = row.clone();
    for cell in &mut row.cells {
        if let Cell::Time(time) = cell {
            *time = None;
        }
    }
    row
}

/// Says how a record stands: what it ought to be, what there is of it, in what a row differs.
pub(super) fn judge(
    op: &Op<'_>,
    is_dated: bool,
    seen: &Existing,
    differing: &Differing,
    deleted_through: Option<StreamId>,
) -> Found {
    let standing = seen.standing.get(&op.uri).map_or(&[][..], Vec::as_slice);
    let alive: Vec<&Standing> = standing.iter().filter(|standing| !standing.version.is_gone(deleted_through)).collect();
    if verdict(&op.version, true, standing, deleted_through) != Verdict::Newer {
        return Found::Newer;
    }
    let places: BTreeSet<&str> = alive.iter().filter_map(|standing| name_of(standing)).collect();
    let row = match &op.what {
        What::Delete | What::Sweep if places.is_empty() => return Found::Same,
        What::Delete | What::Sweep => return Found::Extra,
        _ if places.is_empty() => return Found::Missing,
        What::Keep => None,
        What::Put(row) => Some(row),
    };
    let mut wrong: Vec<String> = differing.get(&op.uri).cloned().into_iter().collect();
    let mut ought: BTreeSet<&str> = op.kept.iter().map(|_| "penstock.records").collect();
    if let Some(row) = row {
        let shadow = alive.iter().find(|standing| standing.place == Place::Shadow);
        match shadow {
            Some(Standing { pair, .. }) if !places.contains(row.table.spec().name) => {
                ought.insert("penstock.shadowed");
                wrong.extend(shadow_differs(&op.uri, row, is_dated, pair.as_ref().and_then(|p| seen.waiting.get(p))));
                if *pair != row.pair() {
                    wrong.push("penstock.shadowed: key_a, key_b".to_owned());
                } else if !row.pair().is_some_and(|pair| seen.holders.contains_key(&pair)) {
                    wrong.push("it waits and nothing holds its place".to_owned());
                }
            }
            _ => {
                ought.insert(row.table.spec().name);
            }
        }
    }
    wrong.extend(ought.difference(&places).map(|place| format!("not in {place}")));
    wrong.extend(places.difference(&ought).map(|place| format!("also in {place}")));
    if wrong.is_empty() { Found::Same } else { Found::Different(wrong.join("; ")) }
}

fn name_of(standing: &Standing) -> Option<&'static str> {
    match standing.place {
        Place::Row(table) => Some(table.spec().name),
        Place::Shadow => Some("penstock.shadowed"),
        Place::Kept => Some("penstock.records"),
        Place::Tombstone => None,
    }
}

/// Says in what a row that waits differs from what it ought to be.
fn shadow_differs(
    uri: &str,
    row: &Row<'_>,
    is_dated: bool,
    waiting: Option<&Vec<crate::store::existing::Waiting>>,
) -> Option<String> {
    let waits = waiting?.iter().find(|waiting| waiting.uri == uri)?;
    let stored = Row::from_json(row.table, &waits.row);
    let columns = row.table.spec().columns;
    let differ = |(at, (name, _)): &(usize, &(&'static str, _))| {
        let is_same = match (row.cells.get(*at), stored.cells.get(*at)) {
            (Some(Cell::Json(wanted)), Some(Cell::Json(stored))) => is_same_json(wanted.as_deref(), stored.as_deref()),
            (Some(Cell::Time(_)), Some(Cell::Time(_))) if !is_dated => true,
            (wanted, stored) => wanted == stored,
        };
        *name != "commit_time" && !is_same
    };
    let names: Vec<&str> = columns.iter().enumerate().filter(differ).map(|(_, (name, _))| *name).collect();
    (!names.is_empty()).then(|| format!("penstock.shadowed: {}", names.join(", ")))
}

fn is_same_json(one: Option<&str>, other: Option<&str>) -> bool {
    let value = |text: Option<&str>| text.map(|text| json::from_str::<Value>(text).ok());
    one == other || value(one) == value(other)
}
