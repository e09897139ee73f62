//! The records of a range as the changes that they amount to; pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use penstock_core::json;
use penstock_core::stream::StreamId;
use penstock_wire::rev_number;
use serde_json::Value;

use super::{SnapshotRange, SnapshotRecord};
use crate::store::kept;
use crate::store::micros::Micros;
use crate::store::parsed::{Op, PROFILE, What};
use crate::store::project::{self, MAX_REPO, MAX_REV, Profile, Source};
use crate::store::table::Table;
use crate::store::version::{Stamp, Version};

/// The records of a range, read.
#[derive(Debug)]
pub(super) struct Content<'r> {
    pub(super) did: &'r str,
    pub(super) version: Version,
    /// When the commit of the rev was made, as its text says.
    at: Micros,
    records: Vec<Record<'r>>,
    /// Paths of what PostgreSQL refused.
    refused: BTreeSet<String>,
    /// What cannot be read: path and reason.
    pub(super) rejected: Vec<(String, String)>,
}

#[derive(Debug)]
struct Record<'r> {
    path: &'r str,
    collection: &'r str,
    rkey: &'r str,
    cid: &'r str,
    value: Value,
}

/// What the records of a piece of a range amount to.
#[derive(Debug, Default)]
pub(super) struct Wanted<'c> {
    /// A put of each record, by URI.
    pub(super) ops: BTreeMap<String, Op<'c>>,
    /// Those of which no time is known: what stands in its place follows from when they came.
    pub(super) undated: BTreeSet<String>,
    /// The profile, where it is in the piece.
    pub(super) profile: Option<Profile<'c>>,
    /// The path of each record, by URI, where that is only a digest.
    digests: BTreeMap<String, String>,
    /// The accounts that they point at.
    pub(super) subjects: BTreeSet<(&'c str, &'c str)>,
    /// Records that no table takes: path and reason.
    pub(super) rejected: Vec<(String, String)>,
}

/// The first moment of which the time in a record key is believed: there were no repos before.
const FIRST: &str = "2022-01-01T00:00:00Z";

// === impl Wanted ===

impl Wanted<'_> {
    /// Returns the path of each record, by URI or the digest of it.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ops.values().filter_map(|op| {
            let path = self.digests.get(&op.uri).map(String::as_str).or_else(|| op.path());
            Some((&*op.uri, path?))
        })
    }
}

// === impl Content ===

impl<'r> Content<'r> {
    /// Reads the records of a range; what is none is rejected. None where the repo's own names do not fit.
    pub(super) fn read(range: &SnapshotRange<'r>) -> Option<Self> {
        let did = project::key(range.did, "did", MAX_REPO).ok()?;
        project::key(range.rev, "rev", MAX_REV).ok()?;
        let stamp = Stamp::live(range.started, None);
        let version = Version { rev: Some(range.rev.to_owned()), stamp: Some(stamp) };
        let at = time_of(range.rev).unwrap_or_else(|| Micros::of_entry(range.started));
        let (mut records, mut rejected) = (Vec::with_capacity(range.records.len()), Vec::new());
        for SnapshotRecord { path, cid, record } in range.records {
            let parts = path.split_once('/');
            match (parts, json::from_str(record.get())) {
                (Some((collection, rkey)), Ok(value)) => {
                    records.push(Record { path, collection, rkey, cid, value });
                }
                (None, _) => rejected.push((path.to_string(), "path has no slash".to_owned())),
                (_, Err(error)) => rejected.push((path.to_string(), format!("record is no json: {error}"))),
            }
        }
        Some(Self { did, version, at, records, refused: BTreeSet::new(), rejected })
    }

    pub(super) fn started(&self) -> StreamId {
        self.version.stamp.map_or(StreamId::MIN, Stamp::id)
    }

    /// Leaves a record out, whatever stands there.
    pub(super) fn refuse(&mut self, path: String) {
        self.refused.insert(path);
    }

    pub(super) fn is_refused(&self, path: &str) -> bool {
        self.refused.contains(path)
    }

    /// Returns the paths of the records after one path and through another.
    pub(super) fn paths(&self, after: Option<&str>, through: &str) -> Vec<String> {
        self.within(after, through).map(|record| record.path.to_owned()).collect()
    }

    /// Returns the URIs of the records that something is counted of.
    pub(super) fn counted(&self, after: Option<&str>, through: &str) -> Vec<String> {
        let is_counted = |record: &&Record<'_>| {
            matches!(record.collection, "app.bsky.feed.post" | "app.bsky.feed.generator" | "app.bsky.labeler.service")
        };
        let uris =
            self.within(after, through).filter(is_counted).map(|record| format!("at://{}/{}", self.did, record.path));
        uris.filter(|uri| kept::is_plain(uri)).collect()
    }

    fn within(&self, after: Option<&str>, through: &str) -> impl Iterator<Item = &Record<'r>> {
        self.records.iter().filter(move |record| {
            after.is_none_or(|after| record.path > after) && record.path <= through && !self.is_refused(record.path)
        })
    }

    /// Returns the changes of the records after one path and through another.
    pub(super) fn wanted(&self, after: Option<&str>, through: &str) -> Wanted<'_> {
        let mut wanted = Wanted::default();
        for record in self.within(after, through) {
            if let Err(reason) = self.want(record, &mut wanted) {
                wanted.rejected.push((record.path.to_owned(), reason.to_string()));
            }
        }
        wanted
    }

    fn want<'c>(&'c self, record: &'c Record<'r>, wanted: &mut Wanted<'c>) -> Result<(), project::Misfit> {
        let Record { collection, rkey, cid, value, .. } = record;
        let uri = format!("at://{}/{}", self.did, record.path);
        let at = time_of(rkey).filter(|at| *at <= self.at && Some(*at) >= Micros::parse(FIRST)).unwrap_or(self.at);
        let source =
            Source { repo: self.did, uri: &uri, collection, cid: Some(cid), record: value, at, commit_time: None };
        if (*collection, *rkey) == PROFILE {
            wanted.profile = Some(project::profile(source)?);
            return Ok(());
        }
        let projected = project::record(source)?;
        let homes = if kept::is_plain(&uri) { Table::homes(collection) } else { &[] };
        wanted.subjects.extend(project::account_of(collection, value).map(|subject| (subject, self.did)));
        let uri = kept::key_of(uri);
        if homes.is_empty() {
            wanted.digests.insert(uri.clone(), record.path.to_owned());
        }
        if !project::says_time(collection, value) {
            wanted.undated.insert(uri.clone());
        }
        let what = projected.row.map_or(What::Keep, What::Put);
        let op =
            Op { repo: self.did, uri: uri.clone(), homes, version: self.version.clone(), what, kept: projected.kept };
        wanted.ops.insert(uri, op);
        Ok(())
    }

    /// Returns the deletion of a record that is stored and not among those of the range.
    pub(super) fn unwanted(&self, uri: String) -> Op<'_> {
        let homes = uri.split('/').nth(3).map_or(&[][..], Table::homes);
        let homes = if kept::is_plain(&uri) { homes } else { &[] };
        let version = self.version.clone();
        Op { repo: self.did, uri: kept::key_of(uri), homes, version, what: What::Delete, kept: None }
    }
}

/// Returns the time that stands in a TID.
fn time_of(tid: &str) -> Option<Micros> {
    let micros = i64::try_from(rev_number(tid)? >> 10).ok()?;
    Micros::of_host(Timestamp::from_microsecond(micros).ok()?)
}
