//! Records as rows: pure, one function per table.
//!
//! In: a record, and what its commit says of it.
//! Out: its row, the record itself if no row says all of it, or why it has no place.
//! Called by `parsed`.
//!
//! A record without a field that its row needs is a misfit, and refused with a reason. A value that does not fit its column
//! is not: if it identifies the row, the record is stored in `penstock.records` alone; if the row can do without it, the
//! column is null or the text is cut, and the record is stored there as well.

mod actor;
mod feed;
mod fields;
mod graph;
mod misfit;
mod source;

use std::borrow::Cow;

use serde_json::Value;

use super::kept::{self, Kept};
use super::row::{Cell, Row};
use super::table::{Kind, MAX_DID, Table, takes_did};
pub(crate) use actor::Profile;
pub(crate) use fields::key;
use fields::{Fields, json_text};
pub(crate) use misfit::Misfit;
pub(crate) use source::Source;
use source::key_cell;

/// The longest DID that there is, in bytes.
pub(crate) const MAX_REPO: usize = 2048;
/// The longest rev that a column takes, in bytes.
pub(crate) const MAX_REV: usize = 64;

/// What a record becomes: at least one of the two.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Projected<'a> {
    /// Its row, where its table has a place for it.
    pub(crate) row: Option<Row<'a>>,
    /// The record itself, where no row says it, or not all of it.
    pub(crate) kept: Option<Kept<'a>>,
}

/// Makes the row of a record, and keeps the record where that is not enough.
pub(crate) fn record<'a>(source: Source<'a, '_>) -> Result<Projected<'a>, Misfit> {
    let fields = Fields::of(source.record)?;
    let row = match row(&source, &fields) {
        Ok(row) => Some(row).filter(|_| kept::is_plain(source.uri) && takes_did(source.repo)),
        Err(misfit) if misfit.is_want_of_room() => None,
        Err(misfit) => return Err(misfit),
    };
    let kept = (row.is_none() || !fields.are_whole()).then(|| Kept {
        uri: kept::without_nul(source.uri).into_owned(),
        did: source.repo,
        collection: kept::without_nul(source.collection),
        cid: source.cid.map(kept::without_nul),
        record: json_text(source.record),
        created_at: source.created(&fields),
    });
    Ok(Projected { row, kept })
}

fn row<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Row<'a>, Misfit> {
    let table = match Table::homes(source.collection) {
        // An item of somebody else's list is no item of it.
        [Table::ListItems, other] if !graph::is_own_list(source, fields) => *other,
        [home, ..] => *home,
        [] => Table::GenericRecords,
    };
    let (mut cells, derived) = match table {
        Table::Posts => feed::post(source, fields)?,
        Table::Reposts => feed::repost(source, fields)?,
        Table::Likes => (feed::subject(source, fields)?, None),
        Table::Bookmarks => (feed::bookmark(source, fields)?, None),
        Table::ThreadGates => (feed::thread_gate(source, fields), None),
        Table::PostGates => (feed::post_gate(source, fields), None),
        Table::FeedGenerators => (feed::generator(source, fields)?, None),
        Table::Follows | Table::Blocks => (graph::relation(source, fields)?, None),
        Table::Lists => (graph::list(source, fields)?, None),
        Table::ListItems => (graph::list_item(source, fields)?, None),
        Table::ListBlocks => (graph::list_block(source, fields)?, None),
        Table::StarterPacks => (graph::starter_pack(source, fields)?, None),
        Table::Verifications => (graph::verification(source, fields)?, None),
        Table::LabelerServices => (actor::labeler(source, fields)?, None),
        Table::Labels => (actor::label(source, fields)?, None),
        Table::GenericRecords => (generic(source, fields)?, None),
    };
    if table.spec().commit {
        cells.push(Cell::Time(source.commit_time));
    }
    debug_assert!(fits(table, &cells), "cells of {table:?} do not fit its columns");
    let cid = if table.has_cid() || derived.is_some() { None } else { source.cid_text().ok().map(Cow::Borrowed) };
    Ok(Row { table, cells, derived: derived.map(Box::new), cid })
}

/// Makes the profile of a record at `app.bsky.actor.profile/self`.
pub(crate) fn profile<'a>(source: Source<'a, '_>) -> Result<Profile<'a>, Misfit> {
    Ok(actor::profile(&source, &Fields::of(source.record)?))
}

/// Returns whether a record says when it was made.
pub(crate) fn says_time(collection: &str, record: &Value) -> bool {
    let Ok(fields) = Fields::of(record) else { return false };
    let labelled = if collection == "com.atproto.label.label" { fields.time("cts") } else { None };
    labelled.or_else(|| fields.time("createdAt")).is_some()
}

/// Returns the account that a follow, a block or a list item points at.
pub(crate) fn account_of<'a>(collection: &str, record: &'a Value) -> Option<&'a str> {
    if !matches!(collection, "app.bsky.graph.follow" | "app.bsky.graph.block" | "app.bsky.graph.listitem") {
        return None;
    }
    let did = record.get("subject")?.as_str().filter(|subject| subject.starts_with("did:"))?;
    key(did, "subject", MAX_DID).ok()
}

fn generic<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.cid()?,
        source.repo(),
        key_cell(key(source.collection, "collection", MAX_DID)?),
        Cell::Json(Some(json_text(source.record))),
        source.created_at(fields),
    ])
}

fn fits(table: Table, cells: &[Cell<'_>]) -> bool {
    let columns = table.spec().columns;
    cells.len() == columns.len()
        && cells.iter().zip(columns).all(|(cell, (_, kind))| {
            matches!(
                (cell, kind),
                (Cell::Text(_), Kind::Text)
                    | (Cell::Json(_), Kind::Json)
                    | (Cell::Time(_), Kind::Time)
                    | (Cell::Bool(_), Kind::Bool)
            )
        })
}

#[cfg(test)]
mod tests;
