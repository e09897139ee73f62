//! What exists in the database where a batch wants to change it, read under the locks of the repos.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_core::stream::StreamId;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;
use sqlx::types::Json;

use super::kept;
use super::parsed::{Change, What};
use super::row::Pair;
use super::sql::Statements;
use super::table::Table;
use super::version::{Stamp, Version};

/// Where a record's version was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is a row.
    Row(Table),
    /// It waits in `penstock.shadowed`.
    Shadow,
    /// It is gone, and a tombstone says since when.
    Tombstone,
    /// It is in `penstock.records`, alone or beside its row.
    Kept,
}

/// One thing that exists under a URI.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) place: Place,
    pub(crate) version: Version,
    /// The pair that it holds or waits for.
    pub(crate) pair: Option<Pair>,
    /// The URI that a row counts for.
    pub(crate) counted: Option<String>,
}

/// A record that waits for its pair.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) uri: String,
    pub(crate) version: Version,
    pub(crate) row: Box<RawValue>,
}

/// What exists where a batch writes.
#[derive(Debug, Default)]
pub(crate) struct Existing {
    /// By record URI.
    pub(crate) standing: HashMap<String, Vec<Standing>>,
    /// The row that holds a pair: URI and version.
    pub(crate) holders: HashMap<Pair, (String, Version)>,
    /// Of the records that wait for a pair: those that the batch names, and the best of the others that is not gone.
    pub(crate) waiting: HashMap<Pair, Vec<Waiting>>,
}

/// Whether rows are locked while they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locks {
    /// They are about to be written.
    Rows,
    /// They are only looked at.
    None,
}

/// Key, rev, entry, the pair's columns; without a pair, the second is the URI that the row counts for.
type KeyedRow = (String, Option<String>, Option<String>, Option<String>, Option<String>);

/// URI, rev, entry, table, the pair's columns, and the row as JSON.
type WaitingRow = (String, Option<String>, Option<String>, String, String, String, Json<Box<RawValue>>);

const GUARDS: &str = "\
SELECT uri, commit_rev, entry_id, NULL AS kind, NULL AS key_a, NULL AS key_b
  FROM penstock.tombstones WHERE uri = ANY($1)
UNION ALL
SELECT uri, commit_rev, entry_id, kind, key_a, key_b FROM penstock.shadowed WHERE uri = ANY($1)
UNION ALL
SELECT key, commit_rev, entry_id, 'penstock.records', NULL, NULL FROM penstock.records WHERE key = ANY($1)";

const NAMED: &str = "\
SELECT s.uri, s.commit_rev, s.entry_id, s.kind, s.key_a, s.key_b, s.row
  FROM penstock.shadowed AS s WHERE s.uri = ANY($1)";

// By the function, so that no plan goes through the index of all verifications that wait.
const SUBJECTS: &str = "\
SELECT subject_did FROM verifications WHERE uri = ANY($1)
UNION ALL
SELECT key_b FROM penstock.shadowed WHERE uri = ANY($1) AND starts_with(kind, 'verifications')";

/// Reads which subjects' verifications a batch may touch, without a lock: they are locked along with the repos.
pub(crate) async fn subjects(conn: &mut PgConnection, uris: &[&str]) -> sqlx::Result<BTreeSet<String>> {
    if uris.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(sqlx::query_scalar(SUBJECTS).bind(uris).fetch_all(conn).await?.into_iter().collect())
}

// === impl Existing ===

impl Existing {
    /// Reads what exists where the changes go; rows are locked against writers outside Penstock. `gone` are repos that were
    /// deleted, and up to which entry.
    pub(crate) async fn read(
        conn: &mut PgConnection,
        statements: &Statements,
        changes: &BTreeMap<&str, Change<'_, '_>>,
        gone: &[(&str, StreamId)],
    ) -> sqlx::Result<Self> {
        Self::read_as(conn, statements, changes, gone, Locks::Rows).await
    }

    /// The same, with or without locks.
    pub(crate) async fn read_as(
        conn: &mut PgConnection,
        statements: &Statements,
        changes: &BTreeMap<&str, Change<'_, '_>>,
        gone: &[(&str, StreamId)],
        locks: Locks,
    ) -> sqlx::Result<Self> {
        let mut seen = Self::default();
        if changes.is_empty() {
            return Ok(seen);
        }
        seen.read_guards(conn, changes).await?;
        let mut keys: BTreeMap<Table, Vec<String>> = BTreeMap::new();
        let mut pairs: BTreeMap<Table, BTreeSet<Pair>> = BTreeMap::new();
        for (uri, change) in changes {
            for home in change.op.homes {
                keys.entry(*home).or_default().push(home.key_of(uri).into_owned());
            }
            if let What::Put(row) = &change.op.what
                && let Some(pair) = row.pair()
            {
                pairs.entry(row.table).or_default().insert(pair);
            }
        }
        for (table, keys) in &keys {
            let statements = statements.of(*table);
            let by_key = if locks == Locks::Rows { statements.by_key() } else { statements.by_key_unlocked() };
            let rows = sqlx::query_as(by_key).bind(keys).fetch_all(&mut *conn).await?;
            seen.take_rows(*table, rows);
        }
        for (table, pairs) in &pairs {
            seen.read_holders(conn, statements, *table, pairs, locks).await?;
        }
        let wanted: BTreeSet<Pair> = pairs.into_values().flatten().chain(seen.holders.keys().cloned()).collect();
        seen.read_waiting(conn, statements, wanted, gone).await?;
        Ok(seen)
    }

    /// Reads which rows of a table hold pairs.
    pub(super) async fn read_holders(
        &mut self,
        conn: &mut PgConnection,
        statements: &Statements,
        table: Table,
        pairs: &BTreeSet<Pair>,
        locks: Locks,
    ) -> sqlx::Result<()> {
        let of = statements.of(table);
        let by_pair = if locks == Locks::Rows { of.by_pair() } else { of.by_pair_unlocked() };
        let Some(by_pair) = by_pair else { return Ok(()) };
        let rows: Vec<KeyedRow> = sqlx::query_as(by_pair)
            .bind(pairs.iter().map(|pair| &*pair.a).bind_iter())
            .bind(pairs.iter().map(|pair| &*pair.b).bind_iter())
            .fetch_all(&mut *conn)
            .await?;
        for (uri, rev, entry_id, a, b) in rows {
            if let Some(pair) = pair_of(table, a, b) {
                self.holders.insert(pair, (uri, Version::from_columns(rev, entry_id.as_deref())));
            }
        }
        Ok(())
    }

    async fn read_guards(
        &mut self,
        conn: &mut PgConnection,
        changes: &BTreeMap<&str, Change<'_, '_>>,
    ) -> sqlx::Result<()> {
        type GuardRow = (String, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
        let rows: Vec<GuardRow> =
            sqlx::query_as(GUARDS).bind(changes.keys().copied().bind_iter()).fetch_all(conn).await?;
        for (uri, rev, entry_id, kind, a, b) in rows {
            let version = Version::from_columns(rev, entry_id.as_deref());
            let place = match kind.as_deref() {
                None => Place::Tombstone,
                Some(kept::TABLE) => Place::Kept,
                Some(_) => Place::Shadow,
            };
            let pair = kind.as_deref().and_then(Table::named).and_then(|table| pair_of(table, a, b));
            self.standing.entry(uri).or_default().push(Standing { place, version, pair, counted: None });
        }
        Ok(())
    }

    fn take_rows(&mut self, table: Table, rows: Vec<KeyedRow>) {
        let paired = table.spec().pair.is_some();
        for (key, rev, entry_id, a, b) in rows {
            let uri = table.uri_of(&key).into_owned();
            let version = Version::from_columns(rev, entry_id.as_deref());
            let counted = if table.spec().counted.is_some() { b.clone() } else { None };
            let pair = if paired { pair_of(table, a, b) } else { None };
            if let Some(pair) = &pair {
                self.holders.insert(pair.clone(), (uri.clone(), version.clone()));
            }
            let standing = Standing { place: Place::Row(table), version, pair, counted };
            self.standing.entry(uri).or_default().push(standing);
        }
    }

    /// Reads the next in line for each pair: never all that wait, since one repo can create any number of them.
    pub(super) async fn read_waiting(
        &mut self,
        conn: &mut PgConnection,
        statements: &Statements,
        pairs: BTreeSet<Pair>,
        gone: &[(&str, StreamId)],
    ) -> sqlx::Result<()> {
        let is_shadow = |standing: &Standing| standing.place == Place::Shadow;
        let named = self.standing.iter().filter(|(_, standing)| standing.iter().any(is_shadow));
        let named: Vec<String> = named.map(|(uri, _)| uri.clone()).collect();
        let (verifications, others): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|pair| pair.table == Table::Verifications);
        let mut rows: Vec<WaitingRow> = Vec::new();
        let statements = [(statements.waiting(), others), (statements.waiting_verifications(), verifications)];
        for (statement, pairs) in statements.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
            let best = sqlx::query_as(statement)
                .bind(pairs.iter().map(|pair| pair.table.spec().name).bind_iter())
                .bind(pairs.iter().map(|pair| &*pair.a).bind_iter())
                .bind(pairs.iter().map(|pair| &*pair.b).bind_iter())
                .bind(&named)
                .bind(gone.iter().map(|(did, _)| *did).bind_iter())
                .bind(gone.iter().map(|(_, through)| Stamp::live(*through, None).to_string()).bind_iter());
            rows.extend(best.fetch_all(&mut *conn).await?);
        }
        if !named.is_empty() {
            rows.extend(sqlx::query_as::<_, WaitingRow>(NAMED).bind(&named).fetch_all(conn).await?);
        }
        for (uri, rev, entry_id, kind, a, b, Json(row)) in rows {
            let Some(table) = Table::named(&kind) else { continue };
            let version = Version::from_columns(rev, entry_id.as_deref());
            self.waiting.entry(Pair { table, a, b }).or_default().push(Waiting { uri, version, row });
        }
        Ok(())
    }

    /// Returns whether a verification exists here whose subject is not among the locked ones.
    pub(crate) fn has_other_subject(&self, locked: &BTreeSet<String>) -> bool {
        let pairs = self.standing.values().flatten().filter_map(|standing| standing.pair.as_ref());
        pairs.filter(|pair| pair.table == Table::Verifications).any(|pair| !locked.contains(&pair.b))
    }
}

fn pair_of(table: Table, a: Option<String>, b: Option<String>) -> Option<Pair> {
    Some(Pair { table, a: a.unwrap_or_default(), b: b? })
}
