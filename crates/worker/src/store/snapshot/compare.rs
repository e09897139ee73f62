//! Holds a range against what is stored, and names what differs.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::content::Content;
use super::inspect::{self, Found};
use super::write::{STORED, path_of, stored};
use super::{Difference, DifferenceKind, SnapshotRange, profile};
use crate::store::accounts::Guards;
use crate::store::connection::Store;
use crate::store::existing::{Existing, Locks};
use crate::store::floor::END;
use crate::store::parsed::{Change, Op, PROFILE, Parsed};

// === impl Store ===

impl Store {
    pub(super) async fn compare_range(&self, range: &SnapshotRange<'_>) -> sqlx::Result<Vec<Difference>> {
        let Some(content) = Content::read(range) else { return Ok(Vec::new()) };
        let end = range.through.unwrap_or(END);
        let mut all = Vec::new();
        let mut after = range.after.map(str::to_owned);
        loop {
            let (through, found) = self.compare_piece(&content, after.as_deref(), end).await?;
            if !found.is_empty() {
                // What is written meanwhile is seen by some statements and not by others: only what is found twice stands.
                let (_, again) = self.compare_piece(&content, after.as_deref(), &through).await?;
                let again: BTreeSet<Difference> = again.into_iter().collect();
                all.extend(found.into_iter().filter(|difference| again.contains(difference)));
            }
            for (uri, counts) in self.miscounted(&content, after.as_deref(), &through).await? {
                let path = path_of(content.did, &uri).to_owned();
                all.push(Difference { path, kind: DifferenceKind::Count, detail: counts.join(", ") });
            }
            if through.as_str() >= end {
                all.sort();
                return Ok(all);
            }
            after = Some(through);
        }
    }

    async fn compare_piece(
        &self,
        content: &Content<'_>,
        after: Option<&str>,
        end: &str,
    ) -> sqlx::Result<(String, Vec<Difference>)> {
        self.in_transaction(async |conn| self.differences(conn, content, after, end).await).await
    }

    async fn differences(
        &self,
        conn: &mut PgConnection,
        content: &Content<'_>,
        after: Option<&str>,
        end: &str,
    ) -> sqlx::Result<(String, Vec<Difference>)> {
        let (did, version) = (content.did, &content.version);
        let stored = stored(conn, self, did, after, end, None, STORED).await?;
        let last = if stored.len() < STORED { end } else { stored.last().map_or(end, |uri| path_of(did, uri)) };
        let last = last.to_owned();
        let batch = Parsed { actors: BTreeMap::from([(did, None)]), ..Parsed::default() };
        let guards = Guards::look(conn, did).await?;
        let through = guards.deleted_through(did, &batch);
        let floors = guards.of(did).map(|guard| guard.floors.clone()).unwrap_or_default();
        let is_overtaken = floors.whole.as_ref().is_some_and(|whole| Some(&whole.rev) > version.rev.as_ref());
        if version.is_gone(through) || is_overtaken {
            return Ok((end.to_owned(), Vec::new()));
        }
        let wanted = content.wanted(after, &last);
        let extras: Vec<(String, Op<'_>)> =
            stored.into_iter().map(|uri| (path_of(did, &uri).to_owned(), content.unwanted(uri))).collect();
        let mut paths: BTreeMap<&str, &str> = extras.iter().map(|(path, op)| (&*op.uri, &**path)).collect();
        paths.extend(wanted.paths());
        let extra = extras.iter().map(|(_, op)| op).filter(|op| !wanted.ops.contains_key(&op.uri));
        let ops: BTreeMap<&str, &Op<'_>> = wanted.ops.values().chain(extra).map(|op| (&*op.uri, op)).collect();
        let change = |op| Change { op, version: version.clone(), settles: true };
        let changes: BTreeMap<&str, Change<'_, '_>> = ops.iter().map(|(uri, op)| (*uri, change(*op))).collect();
        let seen = Existing::read_as(conn, &self.statements, &changes, &guards.gone(&batch), Locks::None).await?;
        let differing = inspect::differing(conn, &self.snapshots, &wanted, &seen).await?;
        let mut differences = Vec::new();
        let mut add = |path: &str, found: Found| {
            let (kind, detail) = match found {
                Found::Same | Found::Newer => return,
                Found::Missing => (DifferenceKind::Missing, String::new()),
                Found::Extra => (DifferenceKind::Extra, String::new()),
                Found::Different(detail) => (DifferenceKind::Different, detail),
            };
            differences.push(Difference { path: path.to_owned(), kind, detail });
        };
        for (uri, op) in &ops {
            let found = inspect::judge(op, !wanted.undated.contains(*uri), &seen, &differing, through);
            add(paths.get(uri).copied().unwrap_or(uri), found);
        }
        let profile = format!("{}/{}", PROFILE.0, PROFILE.1);
        if after.is_none_or(|after| *profile > *after) && profile <= last {
            let stood = guards.of(did).and_then(|guard| guard.profile.as_ref());
            let stood = stood.filter(|stood| !stood.is_gone(through));
            add(&profile, profile::judge(conn, did, wanted.profile.as_ref(), version, stood).await?);
        }
        Ok((last, differences))
    }
}
