//! `app.bsky.actor`, `app.bsky.labeler` and `com.atproto.label`.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::{Fields, json_text};
use super::misfit::Misfit;
use super::source::{Source, key_cell};
use crate::store::micros::Micros;
use crate::store::row::Cell;
use crate::store::table::{MAX_DID, MAX_URI};

const MAX_VAL: usize = 128;

/// What a profile record gives to `users`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile<'a> {
    pub(crate) display_name: Option<Cow<'a, str>>,
    pub(crate) description: Option<Cow<'a, str>>,
    pub(crate) avatar: Option<Cow<'a, str>>,
    pub(crate) banner: Option<Cow<'a, str>>,
    pub(crate) pinned_post: Option<String>,
    pub(crate) record: String,
    pub(crate) cid: Option<&'a str>,
    /// When the account was made, where the record says it.
    pub(crate) created_at: Option<Micros>,
}

pub(super) fn profile<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Profile<'a> {
    Profile {
        display_name: fields.shown("displayName", MAX_DID),
        description: fields.shown("description", usize::MAX),
        avatar: fields.blob("avatar"),
        banner: fields.blob("banner"),
        pinned_post: fields.json("pinnedPost"),
        record: json_text(source.record),
        cid: source.cid,
        created_at: fields.time("createdAt"),
    }
}

pub(super) fn labeler<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    let policies = fields.json("policies").ok_or(Misfit::Missing("policies"))?;
    Ok(vec![source.cid()?, source.repo(), Cell::Json(Some(policies)), source.created_at(fields)])
}

pub(super) fn label<'a>(source: &Source<'a, '_>, fields: &Fields<'a>) -> Result<Vec<Cell<'a>>, Misfit> {
    let created_at = fields.time("cts").or_else(|| fields.time("createdAt")).unwrap_or(source.at);
    Ok(vec![
        key_cell(fields.key_if_any("src", MAX_DID)?.unwrap_or(source.repo)),
        key_cell(fields.key("uri", MAX_URI)?),
        key_cell(fields.key("val", MAX_VAL)?),
        Cell::Bool(fields.value("neg").and_then(Value::as_bool).unwrap_or_default()),
        Cell::Time(Some(created_at)),
    ])
}
