//! What is known not to be there, so that nothing looks for it.
//!
//! Most repos of a backfill are stored for the first time: no row has a key or a place of theirs but those that their earlier ranges
//! put. Where somebody else writes such a row all the same, inserting ours fails, and then all is looked for.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::stream::StreamId;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use crate::store::existing::{Existing, Locks, Place, Standing};
use crate::store::parsed::{Change, What};
use crate::store::row::Pair;
use crate::store::sql::Statements;
use crate::store::table::Table;
use crate::store::version::Version;

/// What is known of a repo before its rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// Nothing of it is stored but what earlier ranges of the same snapshot put.
    OnlyRanges,
    /// Nothing of it is stored.
    Empty,
}

/// Whether a repo has had no event since its snapshot began that says a later rev. Other events say none and are seldom.
const QUIET: &str = "SELECT coalesce(rev <= $2, rev IS NULL) FROM penstock.repos WHERE did = $1";

const WAITS: &str = "SELECT EXISTS (SELECT FROM penstock.shadowed WHERE repo = $1)";

/// Deletions are remembered of repos of which nothing else is: looked for one by one where there are any of the repo (`$2` to `$3`), or
/// one of the records is known by its digest.
const TOMBSTONES: &str = "\
SELECT t.uri, t.commit_rev, t.entry_id FROM penstock.tombstones AS t
 WHERE t.uri = ANY($1) AND ($4 OR EXISTS (SELECT FROM penstock.tombstones AS s WHERE s.uri >= $2 AND s.uri < $3))";

/// Says whether a repo, whose lock is held, has had no event that is later than the snapshot.
pub(super) async fn is_quiet(conn: &mut PgConnection, did: &str, version: &Version) -> sqlx::Result<bool> {
    let quiet: Option<bool> =
        sqlx::query_scalar(QUIET).bind(did).bind(version.rev.as_deref()).fetch_optional(conn).await?;
    Ok(quiet.unwrap_or_default())
}

/// Reads what exists where the changes of a repo go.
pub(super) async fn read(
    conn: &mut PgConnection,
    statements: &Statements,
    did: &str,
    known: Known,
    changes: &BTreeMap<&str, Change<'_, '_>>,
    gone: &[(&str, StreamId)],
) -> sqlx::Result<Existing> {
    if known == Known::Nothing {
        return Existing::read(conn, statements, changes, gone).await;
    }
    // What is not told by a row of its own that fails is looked for as ever: it is little.
    let (sought, own): (BTreeMap<&str, &Change<'_, '_>>, BTreeMap<_, _>) =
        changes.iter().map(|(uri, change)| (*uri, change)).partition(|(_, change)| is_sought(change));
    let sought: BTreeMap<&str, Change<'_, '_>> = sought.into_iter().map(|(uri, change)| (uri, copy(change))).collect();
    let mut seen = Existing::read(conn, statements, &sought, gone).await?;
    read_tombstones(conn, did, &own, &mut seen).await?;
    if known == Known::OnlyRanges {
        read_places(conn, statements, did, &own, gone, &mut seen).await?;
    }
    Ok(seen)
}

async fn read_tombstones(
    conn: &mut PgConnection,
    did: &str,
    own: &BTreeMap<&str, &Change<'_, '_>>,
    seen: &mut Existing,
) -> sqlx::Result<()> {
    let prefix = format!("at://{did}/");
    let is_digest = own.keys().any(|uri| !uri.starts_with(&prefix));
    let tombstones: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(TOMBSTONES)
        .bind(own.keys().copied().bind_iter())
        .bind(&prefix)
        .bind(format!("at://{did}0"))
        .bind(is_digest)
        .fetch_all(conn)
        .await?;
    for (uri, rev, entry) in tombstones {
        let version = Version::from_columns(rev, entry.as_deref());
        let tombstone = Standing { place: Place::Tombstone, version, pair: None, counted: None };
        seen.standing.entry(uri).or_default().push(tombstone);
    }
    Ok(())
}

/// Reads who has the places that records want: an earlier range may have put another record there.
async fn read_places(
    conn: &mut PgConnection,
    statements: &Statements,
    did: &str,
    own: &BTreeMap<&str, &Change<'_, '_>>,
    gone: &[(&str, StreamId)],
    seen: &mut Existing,
) -> sqlx::Result<()> {
    let mut pairs: BTreeMap<Table, BTreeSet<Pair>> = BTreeMap::new();
    for change in own.values() {
        if let What::Put(row) = &change.op.what
            && let Some(pair) = row.pair()
        {
            pairs.entry(row.table).or_default().insert(pair);
        }
    }
    for (table, pairs) in &pairs {
        seen.read_holders(conn, statements, *table, pairs, Locks::Rows).await?;
    }
    let waits: bool = sqlx::query_scalar(WAITS).bind(did).fetch_one(&mut *conn).await?;
    if waits {
        seen.read_waiting(conn, statements, pairs.into_values().flatten().collect(), gone).await?;
    }
    Ok(())
}

fn copy<'b, 'a>(change: &Change<'b, 'a>) -> Change<'b, 'a> {
    Change { op: change.op, version: change.version.clone(), settles: change.settles }
}

/// Says whether a record is looked for even so: its place may be one that another repo's row has, or it is one of those of which a row
/// of ours would replace another.
fn is_sought(change: &Change<'_, '_>) -> bool {
    match &change.op.what {
        What::Put(row) => change.op.kept.is_some() || has_shared_places(row.table),
        What::Keep | What::Delete | What::Sweep => true,
    }
}

/// Where the owner is part of a place no other repo's row has it.
fn has_shared_places(table: Table) -> bool {
    let spec = table.spec();
    spec.pair.is_some_and(|(first, _)| {
        let first = first.and_then(|column| spec.columns.get(column)).map(|(name, _)| *name);
        spec.owner.is_none() || first != spec.owner
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_repos_share_are_told_from_those_of_an_owner() {
        let shared = Table::ALL.into_iter().filter(|table| has_shared_places(*table));
        assert_eq!(shared.map(|table| table.spec().name).collect::<Vec<_>>(), ["list_items", "verifications"]);
    }
}
