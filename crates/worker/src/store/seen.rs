//! What stands in the database where a batch wants to change it: read under the repos' locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::batch::{Change, What};
use super::row::Pair;
use super::sql::Statements;
use super::table::Table;
use super::version::Version;

/// Where a record's version was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is a row.
    Row(Table),
    /// It waits in `penstock.shadowed`.
    Shadow,
    /// It is gone, and a tombstone says since when.
    Tombstone,
}

/// One thing that stands under a URI.
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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) uri: String,
    pub(crate) version: Version,
    pub(crate) row: Value,
}

/// What stands where a batch touches.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By record URI.
    pub(crate) standing: HashMap<String, Vec<Standing>>,
    /// The row that holds a pair: URI and version.
    pub(crate) holders: HashMap<Pair, (String, Version)>,
    /// The records that wait for a pair.
    pub(crate) waiting: HashMap<Pair, Vec<Waiting>>,
}

/// Key, rev, entry, the pair's columns; without a pair, the second is the URI that the row counts for.
type KeyedRow = (String, Option<String>, Option<String>, Option<String>, Option<String>);

const GUARDS: &str = "\
SELECT uri, commit_rev, entry_id, NULL AS kind, NULL AS key_a, NULL AS key_b
  FROM penstock.tombstones WHERE uri = ANY($1)
UNION ALL
SELECT uri, commit_rev, entry_id, kind, key_a, key_b FROM penstock.shadowed WHERE uri = ANY($1)";

const WAITING: &str = "\
SELECT s.uri, s.commit_rev, s.entry_id, s.kind, s.key_a, s.key_b, s.row
  FROM unnest($1::text[], $2::text[], $3::text[]) AS k (kind, a, b)
  JOIN penstock.shadowed AS s ON s.kind = k.kind AND s.key_a = k.a AND s.key_b = k.b";

const SUBJECTS: &str = "\
SELECT subject_did FROM verifications WHERE uri = ANY($1)
UNION ALL
SELECT key_b FROM penstock.shadowed WHERE uri = ANY($1) AND kind = 'verifications'";

/// Reads which subjects' verifications a batch may touch, without a lock: they are locked along with the repos.
pub(crate) async fn subjects(conn: &mut PgConnection, uris: &[&str]) -> sqlx::Result<BTreeSet<String>> {
    if uris.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(sqlx::query_scalar(SUBJECTS).bind(uris).fetch_all(conn).await?.into_iter().collect())
}

// === impl Seen ===

impl Seen {
    /// Reads what stands where the changes go; rows are locked against writers outside Penstock.
    pub(crate) async fn read(
        conn: &mut PgConnection,
        statements: &Statements,
        changes: &BTreeMap<&str, Change<'_, '_>>,
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
            let rows = sqlx::query_as(statements.of(*table).by_key()).bind(keys).fetch_all(&mut *conn).await?;
            seen.take_rows(*table, rows);
        }
        for (table, pairs) in &pairs {
            let Some(by_pair) = statements.of(*table).by_pair() else { continue };
            let rows: Vec<KeyedRow> = sqlx::query_as(by_pair)
                .bind(pairs.iter().map(|pair| &*pair.a).bind_iter())
                .bind(pairs.iter().map(|pair| &*pair.b).bind_iter())
                .fetch_all(&mut *conn)
                .await?;
            for (uri, rev, entry_id, a, b) in rows {
                if let Some(pair) = pair_of(*table, a, b) {
                    seen.holders.insert(pair, (uri, Version::from_columns(rev, entry_id.as_deref())));
                }
            }
        }
        let wanted: BTreeSet<Pair> = pairs.into_values().flatten().chain(seen.holders.keys().cloned()).collect();
        seen.read_waiting(conn, &wanted).await?;
        Ok(seen)
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
            let place = if kind.is_some() { Place::Shadow } else { Place::Tombstone };
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

    async fn read_waiting(&mut self, conn: &mut PgConnection, pairs: &BTreeSet<Pair>) -> sqlx::Result<()> {
        type WaitingRow = (String, Option<String>, Option<String>, String, String, String, Value);
        if pairs.is_empty() {
            return Ok(());
        }
        let rows: Vec<WaitingRow> = sqlx::query_as(WAITING)
            .bind(pairs.iter().map(|pair| pair.table.spec().name).bind_iter())
            .bind(pairs.iter().map(|pair| &*pair.a).bind_iter())
            .bind(pairs.iter().map(|pair| &*pair.b).bind_iter())
            .fetch_all(conn)
            .await?;
        for (uri, rev, entry_id, kind, a, b, row) in rows {
            let Some(table) = Table::named(&kind) else { continue };
            let version = Version::from_columns(rev, entry_id.as_deref());
            self.waiting.entry(Pair { table, a, b }).or_default().push(Waiting { uri, version, row });
        }
        Ok(())
    }

    /// Tells whether a verification stands here whose subject is not among the locked ones.
    pub(crate) fn has_other_subject(&self, locked: &BTreeSet<String>) -> bool {
        let pairs = self.standing.values().flatten().filter_map(|standing| standing.pair.as_ref());
        pairs.filter(|pair| pair.table == Table::Verifications).any(|pair| !locked.contains(&pair.b))
    }
}

fn pair_of(table: Table, a: Option<String>, b: Option<String>) -> Option<Pair> {
    Some(Pair { table, a: a.unwrap_or_default(), b: b? })
}
