//! A record with what its commit says of it.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::{Fields, key};
use super::misfit::Misfit;
use crate::store::micros::Micros;
use crate::store::row::Cell;
use crate::store::table::MAX_DID;

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

// === impl Source ===

impl<'a> Source<'a, '_> {
    pub(super) fn repo(&self) -> Cell<'a> {
        Cell::Text(Some(Cow::Borrowed(self.repo)))
    }

    pub(super) fn cid_text(&self) -> Result<&'a str, Misfit> {
        key(self.cid.ok_or(Misfit::Missing("cid"))?, "cid", MAX_DID)
    }

    pub(super) fn cid(&self) -> Result<Cell<'a>, Misfit> {
        self.cid_text().map(key_cell)
    }

    pub(super) fn created(&self, fields: &Fields<'a>) -> Micros {
        fields.time("createdAt").unwrap_or(self.at)
    }

    /// Returns the earlier of when it was made and when it happened, the protocol's `sortAt`: what claims to come from the
    /// future would lead every feed until then.
    pub(super) fn sorted(&self, fields: &Fields<'a>) -> Micros {
        self.created(fields).min(self.at)
    }

    pub(super) fn created_at(&self, fields: &Fields<'a>) -> Cell<'a> {
        Cell::Time(Some(self.created(fields)))
    }
}

pub(super) fn key_cell(text: &str) -> Cell<'_> {
    Cell::Text(Some(Cow::Borrowed(text)))
}
