//! `app.bsky.graph`.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::{Fields, json_text};
use super::misfit::Misfit;
use super::source::{Source, key_cell};
use crate::store::row::Cell;
use crate::store::table::{MAX_DID, MAX_URI, repo_of};

const MAX_PURPOSE: usize = 64;

/// A follow or a block.
pub(super) fn relation<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![source.repo(), key_cell(fields.key("subject", MAX_DID)?), source.created_at(fields)])
}

pub(super) fn list<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.cid()?,
        source.repo(),
        Cell::Text(Some(fields.shown("name", MAX_DID).ok_or(Misfit::Missing("name"))?)),
        key_cell(fields.key("purpose", MAX_PURPOSE)?),
        Cell::Text(fields.shown("description", usize::MAX)),
        Cell::Text(fields.blob("avatar")),
        source.created_at(fields),
    ])
}

/// Returns whether a list item stands in the repo of the list's owner; one that names no list is left to be refused.
pub(super) fn is_own_list(source: &Source<'_, '_>, fields: &Fields<'_>) -> bool {
    fields.value("list").and_then(|list| list.as_str()).is_none_or(|list| repo_of(list) == source.repo)
}

pub(super) fn list_item<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.cid()?,
        key_cell(fields.key("list", MAX_URI)?),
        key_cell(fields.key("subject", MAX_DID)?),
        source.created_at(fields),
    ])
}

pub(super) fn list_block<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![source.repo(), key_cell(fields.key("subject", MAX_URI)?), source.created_at(fields)])
}

pub(super) fn starter_pack<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.cid()?,
        source.repo(),
        Cell::Text(Some(fields.shown("name", MAX_DID).ok_or(Misfit::Missing("name"))?)),
        Cell::Text(fields.shown("description", usize::MAX)),
        Cell::Text(fields.fitting("list", MAX_URI).map(Cow::Borrowed)),
        Cell::Json(Some(feeds(fields))),
        source.created_at(fields),
    ])
}

/// Returns the URIs of a pack's feeds, each of which is a text or an object with one.
fn feeds(fields: &Fields<'_>) -> String {
    let feeds = fields.value("feeds").and_then(Value::as_array);
    let uri = |feed: &'_ Value| feed.as_str().or_else(|| feed.get("uri")?.as_str()).map(Value::from);
    json_text(&feeds.into_iter().flatten().filter_map(uri).collect())
}

pub(super) fn verification<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    Ok(vec![
        source.cid()?,
        key_cell(fields.key("subject", MAX_DID)?),
        key_cell(fields.key("handle", MAX_DID)?),
        source.created_at(fields),
        source.created_at(fields),
    ])
}
