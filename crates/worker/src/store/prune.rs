//! Finds the records that a filter leaves out, and removes them: with every count, and so that no replay brings them back.
//!
//! To its repo each of them is gone as of the rev that the repo is at, as by a snapshot that lacks it. A later snapshot of that rev, or of
//! a later one, may bring it back: that is how a filter is widened.

use std::collections::BTreeMap;
use std::time::SystemTime;

use penstock_core::filter::Rules;
use penstock_wire::rev_text;
use sqlx::AssertSqlSafe;

use super::connection::Store;
use super::error::{ApplyError, StoreError};
use super::kept;
use super::snapshot::SnapshotRange;
use super::table::Table;

/// Records of one collection of one repo that the filter leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The repo.
    pub did: String,
    /// The collection.
    pub collection: String,
    /// The greatest record key of those that were found.
    pub last: String,
    /// How many were found.
    pub records: u64,
}

/// How far a search for such records is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutsideSearch {
    source: usize,
    after: String,
}

/// Where records stand: a table, or one of ours.
#[derive(Clone, Copy, Debug)]
enum Place {
    Table(Table),
    Profiles,
    Shadows,
    Kept,
}

const REV: &str = "SELECT rev FROM penstock.repos WHERE did = $1";

// === impl OutsideSearch ===

impl OutsideSearch {
    fn place(&self) -> Option<Place> {
        let ours = [Place::Profiles, Place::Shadows, Place::Kept];
        Table::ALL.into_iter().map(Place::Table).chain(ours).nth(self.source)
    }

    fn next_place(&mut self) {
        *self = Self { source: self.source + 1, after: String::new() };
    }
}

// === impl Place ===

impl Place {
    /// Lists keys and URIs in the order of the primary key.
    fn statement(self) -> String {
        match self {
            Self::Table(table) => {
                let (name, key) = (table.spec().name, table.spec().key);
                let uri = table.uri_sql(&format!("t.{key}"));
                format!("SELECT t.{key}, {uri} FROM {name} AS t WHERE t.{key} > $1 ORDER BY t.{key} LIMIT $2")
            }
            Self::Profiles => "SELECT u.did, 'at://' || u.did || '/app.bsky.actor.profile/self' FROM users AS u \
                               WHERE u.did > $1 AND u.profile_record IS NOT NULL ORDER BY u.did LIMIT $2"
                .to_owned(),
            Self::Shadows => {
                "SELECT s.uri, s.uri FROM penstock.shadowed AS s WHERE s.uri > $1 ORDER BY s.uri LIMIT $2".to_owned()
            }
            Self::Kept => {
                format!("SELECT r.key, r.uri FROM {} AS r WHERE r.key > $1 ORDER BY r.key LIMIT $2", kept::TABLE)
            }
        }
    }

    /// Says whether all of its records are of one collection.
    fn is_of_one_collection(self) -> bool {
        match self {
            Self::Table(table) => table != Table::GenericRecords,
            Self::Profiles => true,
            Self::Shadows | Self::Kept => false,
        }
    }
}

// === impl Store ===

impl Store {
    /// Looks through the next records, `page` at most, and returns those that the rules leave out; nothing once all were looked through.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached.
    pub async fn find_outside(
        &self,
        rules: &Rules,
        search: &mut OutsideSearch,
        page: u32,
    ) -> Result<Option<Vec<Outside>>, StoreError> {
        let Some(place) = search.place() else { return Ok(None) };
        let sql = AssertSqlSafe(place.statement());
        let query = sqlx::query_as(sql).bind(&search.after).bind(i64::from(page));
        let rows: Vec<(String, String)> =
            self.in_transaction(async |tx| query.fetch_all(tx).await).await.map_err(StoreError::Outside)?;
        match rows.last() {
            Some((key, _)) if rows.len() >= page as usize => search.after.clone_from(key),
            _ => search.next_place(),
        }
        let mut found: BTreeMap<(&str, &str), (&str, u64)> = BTreeMap::new();
        let mut is_kept_whole = place.is_of_one_collection() && rules.repos().is_none() && rules.excluded().is_empty();
        for (did, collection, rkey) in rows.iter().filter_map(|(_, uri)| parts(uri)) {
            if rules.collection(collection).is_none() && rules.repo(did).is_none() {
                continue;
            }
            is_kept_whole = false;
            let (last, records) = found.entry((did, collection)).or_insert((rkey, 0));
            *last = (*last).max(rkey);
            *records += 1;
        }
        // A table whose one collection is carried, of whichever repo, need not be read to its end.
        if is_kept_whole && !rows.is_empty() && !search.after.is_empty() {
            search.next_place();
        }
        let outside = found.into_iter().map(|((did, collection), (last, records))| Outside {
            did: did.to_owned(),
            collection: collection.to_owned(),
            last: last.to_owned(),
            records,
        });
        Ok(Some(outside.collect()))
    }

    /// Removes what was found, and what else stands before it in that collection of that repo; returns how many records that were.
    ///
    /// `worker` names whose totals the counts are added to.
    ///
    /// # Errors
    /// As [`Store::write_snapshot`](Self::write_snapshot).
    pub async fn remove_outside(&self, worker: &str, outside: &Outside) -> Result<u64, ApplyError> {
        let Outside { did, collection, last, .. } = outside;
        let away = |source: StoreError| match source {
            StoreError::Snapshot(error) | StoreError::Outside(error) => {
                ApplyError::Retry { reason: "connection", source: Some(error) }
            }
            _ => ApplyError::Retry { reason: "connection", source: None },
        };
        let started = self.start_snapshot().await.map_err(away)?;
        let query = sqlx::query_scalar(REV).bind(did);
        let rev: Option<Option<String>> = self
            .in_transaction(async |tx| query.fetch_optional(tx).await)
            .await
            .map_err(|error| away(StoreError::Outside(error)))?;
        // Of rows that somebody else wrote no rev is known: those are gone as of now.
        let rev = rev.flatten().unwrap_or_else(now);
        let (after, through) = (format!("{collection}/"), format!("{collection}/{last}"));
        let range =
            SnapshotRange { did, rev: &rev, started, after: Some(&after), through: Some(&through), records: &[] };
        Ok(self.write_snapshot(worker, &range).await?.removed)
    }
}

/// Splits a URI into its repo, its collection and its key.
fn parts(uri: &str) -> Option<(&str, &str, &str)> {
    let (did, path) = uri.strip_prefix("at://")?.split_once('/')?;
    let (collection, rkey) = path.split_once('/')?;
    Some((did, collection, rkey))
}

/// Returns a rev of now.
fn now() -> String {
    let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_micros());
    rev_text(u64::try_from(micros.unwrap_or_default()).unwrap_or_default() << 10)
}
