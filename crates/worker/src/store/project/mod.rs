//! Records as rows: pure, one function a table.
//!
//! What is missing or too long in a field that rows are found by is a misfit: the record is refused and named. What is
//! only shown, such as a display name, is cut to its column instead.

mod actor;
mod feed;
mod fields;
mod graph;

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::micros::Micros;
use super::row::{Cell, Row};
use super::table::{Kind, Table};
pub(crate) use actor::Profile;
pub(crate) use fields::key;
use fields::{Fields, json_text};

/// The longest URI that a column takes, in bytes.
pub(crate) const MAX_URI: usize = 512;
/// The longest DID, handle or CID that a column takes, in bytes.
pub(crate) const MAX_DID: usize = 255;
/// The longest rev that a column takes, in bytes.
pub(crate) const MAX_REV: usize = 64;

/// How much later than its event a record may say it was made.
const FUTURE: Duration = Duration::from_secs(300);

/// Why a record has no place in its table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// A field that the row needs.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that the row is found by.
    #[error("{field} is longer than {max} bytes")]
    TooLong { field: &'static str, max: usize },
    /// PostgreSQL holds no NUL, and without it the value would be another one.
    #[error("{0} holds a nul character")]
    Nul(&'static str),
    /// The record is a list, a text or a number.
    #[error("record is not an object")]
    NotAnObject,
}

/// A record, and the commit around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a, 'b> {
    pub(crate) repo: &'a str,
    pub(crate) uri: &'b str,
    pub(crate) collection: &'a str,
    pub(crate) cid: Option<&'a str>,
    pub(crate) record: &'a Value,
    /// When it happened: stands in for a time that the record lacks or spells wrong.
    pub(crate) at: Micros,
    pub(crate) commit_time: Option<Micros>,
}

/// Makes the row of a record.
pub(crate) fn row<'a>(source: Source<'a, '_>) -> Result<Row<'a>, Misfit> {
    let fields = Fields::of(source.record)?;
    let table = match Table::homes(source.collection) {
        // An item of somebody else's list is no item of it.
        [Table::ListItems, other] if !graph::is_own_list(&source, &fields) => *other,
        [home, ..] => *home,
        [] => Table::GenericRecords,
    };
    let (mut cells, derived) = match table {
        Table::Posts => feed::post(&source, &fields)?,
        Table::Reposts => feed::repost(&source, &fields)?,
        Table::Likes => (feed::subject(&source, &fields)?, None),
        Table::Bookmarks => (feed::bookmark(&source, &fields)?, None),
        Table::ThreadGates => (feed::thread_gate(&source, &fields), None),
        Table::PostGates => (feed::post_gate(&source, &fields), None),
        Table::FeedGenerators => (feed::generator(&source, &fields)?, None),
        Table::Follows | Table::Blocks => (graph::relation(&source, &fields)?, None),
        Table::Lists => (graph::list(&source, &fields)?, None),
        Table::ListItems => (graph::list_item(&source, &fields)?, None),
        Table::ListBlocks => (graph::list_block(&source, &fields)?, None),
        Table::StarterPacks => (graph::starter_pack(&source, &fields)?, None),
        Table::Verifications => (graph::verification(&source, &fields)?, None),
        Table::LabelerServices => (actor::labeler(&source, &fields)?, None),
        Table::Labels => (actor::label(&source, &fields)?, None),
        Table::GenericRecords => (generic(&source, &fields)?, None),
    };
    if table.spec().commit {
        cells.push(Cell::Time(source.commit_time));
    }
    debug_assert!(fits(table, &cells), "cells of {table:?} do not fit its columns");
    let cid = if let Table::Likes | Table::Follows = table { source.cid_text().ok().map(Cow::Borrowed) } else { None };
    Ok(Row { table, cells, derived: derived.map(Box::new), cid })
}

/// Makes the profile of a record at `app.bsky.actor.profile/self`.
pub(crate) fn profile<'a>(source: Source<'a, '_>) -> Result<Profile<'a>, Misfit> {
    Ok(actor::profile(&source, &Fields::of(source.record)?))
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

// === impl Source ===

impl<'a> Source<'a, '_> {
    fn repo(&self) -> Cell<'a> {
        Cell::Text(Some(Cow::Borrowed(self.repo)))
    }

    fn cid_text(&self) -> Result<&'a str, Misfit> {
        key(self.cid.ok_or(Misfit::Missing("cid"))?, "cid", MAX_DID)
    }

    fn cid(&self) -> Result<Cell<'a>, Misfit> {
        self.cid_text().map(key_cell)
    }

    fn created(&self, fields: &Fields<'a>) -> Micros {
        fields.time("createdAt").unwrap_or(self.at)
    }

    /// Returns when it was made, or happened where it claims to come from the future: else it would lead every feed
    /// until then.
    fn sorted(&self, fields: &Fields<'a>) -> Micros {
        let created = self.created(fields);
        if created > self.at.later_by(FUTURE) { self.at } else { created }
    }

    fn created_at(&self, fields: &Fields<'a>) -> Cell<'a> {
        Cell::Time(Some(self.created(fields)))
    }
}

fn key_cell(text: &str) -> Cell<'_> {
    Cell::Text(Some(Cow::Borrowed(text)))
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
