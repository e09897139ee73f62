//! Repos whose rows are known to be incomplete and that need to be read again, one row per repo.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::accounts::Guards;
use super::parsed::Parsed;
use super::tally::Tally;

/// Why a repo is to be read again, the most urgent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// Commits came without some of their records or ops.
    Block,
    /// A commit did not follow the one before, or proved wrong.
    Chain,
    /// The host said that it starts over.
    Sync,
}

/// A repair that waits already keeps its place and its time, unless this one is more urgent.
const WANT: &str = "\
INSERT INTO penstock.repairs AS r (did, reason, priority)
SELECT u.did, u.reason, u.priority FROM unnest($1::text[], $2::text[], $3::int2[]) AS u (did, reason, priority)
ON CONFLICT (did) DO UPDATE SET updated_at = excluded.updated_at, priority = greatest(r.priority, excluded.priority),
  reason = CASE WHEN excluded.priority > r.priority THEN excluded.reason ELSE r.reason END";

// === impl Lack ===

impl Lack {
    /// Reads the reason of a mark.
    pub(crate) fn of_mark(sync: &str) -> Self {
        if sync == "sync" { Self::Sync } else { Self::Chain }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Block => "block missing",
            Self::Chain => "chain",
            Self::Sync => "sync",
        }
    }

    fn priority(self) -> i16 {
        match self {
            Self::Block => 40,
            Self::Chain | Self::Sync => 50,
        }
    }
}

/// Records the repos of a batch whose commits came without some of their records or ops, or did not follow the ones before, except
/// those that opted out and what a snapshot made good.
///
/// Their rows in `penstock.repos` are locked, in order.
pub(crate) async fn request(
    conn: &mut PgConnection,
    batch: &Parsed<'_>,
    guards: &Guards,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    let blocks = batch.lacking.iter().map(|did| (*did, Lack::Block));
    let marks = batch.chains.iter().filter_map(|(did, chain)| Some((*did, Lack::of_mark(chain.sync?))));
    let mut lacks: BTreeMap<&str, Lack> = BTreeMap::new();
    for (did, lack) in blocks.chain(marks).filter(|(did, _)| !guards.is_forbidden(did)) {
        if !guards.is_whole_at(did, batch.actors.get(did).copied().flatten()) {
            let held = lacks.entry(did).or_insert(lack);
            *held = lack.max(*held);
        }
    }
    let wanted = want(conn, &lacks).await?;
    tally.wrote("penstock.repairs", wanted);
    Ok(())
}

/// Puts repos on the list; returns how many rows were written.
pub(crate) async fn want(conn: &mut PgConnection, lacks: &BTreeMap<&str, Lack>) -> sqlx::Result<u64> {
    if lacks.is_empty() {
        return Ok(0);
    }
    let wanted = sqlx::query(WANT)
        .bind(lacks.keys().bind_iter())
        .bind(lacks.values().map(|lack| lack.word()).bind_iter())
        .bind(lacks.values().map(|lack| lack.priority()).bind_iter());
    Ok(wanted.execute(conn).await?.rows_affected())
}
