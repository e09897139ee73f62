//! Writes a range: piece by piece where much is stored in it, each piece a transaction.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::absent::Known;
use super::content::{Content, Wanted};
use super::inspect::{self, Found};
use super::{SnapshotRange, SnapshotWritten, absent, profile};
use penstock_core::settings::Projection;

use crate::store::accounts;
use crate::store::connection::Store;
use crate::store::decide::decide;
use crate::store::derived::Stale;
use crate::store::error::{ApplyError, Fault};
use crate::store::existing::{self, Existing};
use crate::store::floor::END;
use crate::store::parsed::{Change, Op, PROFILE, Parsed, ProfileOp, What};
use crate::store::row::Pair;
use crate::store::table::Table;
use crate::store::tally::Tally;
use crate::store::transact::ATTEMPTS;
use crate::store::users;
use crate::store::version::Stamp;
use crate::store::write::mark_gates_of;

/// How many records of what is stored one transaction looks at.
pub(super) const STORED: usize = if cfg!(test) { 7 } else { 10_000 };

/// Of how many subjects of records that are missing, too many or different the counts are set anew at most.
const RECOUNTED: usize = 500;

/// Moves up to where the snapshot is written. One that begins takes the place of another; what continues one that another took the
/// place of, or that a deletion of the account took, says nothing. Who continues it may have begun to read later: a rev is a rev.
const WRITING: &str = "\
UPDATE penstock.repos SET writing_rev = $2, writing_entry = CASE WHEN $4::text IS NULL THEN $3 ELSE writing_entry END,
    writing_through = CASE WHEN $4::text IS NULL THEN $5 ELSE greatest(writing_through, $5) END,
    writing_fresh = CASE WHEN $4::text IS NULL THEN $6 ELSE writing_fresh END
 WHERE did = $1 AND ($4::text IS NULL OR (writing_rev = $2 AND writing_through >= $4
   AND (deleted_through IS NULL OR deleted_through < writing_entry)))";

/// A piece of a range.
struct Piece<'p> {
    after: Option<&'p str>,
    /// The last path of the range.
    end: &'p str,
    /// Whether it is looked for rows even where none can be: others write them too.
    distrusts: bool,
}

/// What a piece did, and the path through which it went.
struct Done {
    through: String,
    written: SnapshotWritten,
    stale: Stale,
}

// === impl Store ===

impl Store {
    pub(super) async fn write_range(
        &self,
        worker: &str,
        range: &SnapshotRange<'_>,
    ) -> Result<SnapshotWritten, ApplyError> {
        let Some(mut content) = Content::read(range) else {
            let message = "the DID or the rev has no place in a column".to_owned();
            return Err(ApplyError::Data { sqlstate: "22000".to_owned(), message });
        };
        let mut written = SnapshotWritten { rejected: content.rejected.clone(), ..SnapshotWritten::default() };
        let end = range.through.unwrap_or(END);
        let mut after = range.after.map(str::to_owned);
        let mut to = None;
        loop {
            let piece = Piece { after: after.as_deref(), end: to.as_deref().unwrap_or(end), distrusts: false };
            let Done { through, written: more, stale } = match self.write_piece(worker, &content, &piece).await {
                Ok(done) => done,
                // One of the records is at fault: halved until it is alone.
                Err(ApplyError::Data { message, sqlstate }) => {
                    let paths = content.paths(piece.after, piece.end);
                    match &paths[..] {
                        [] => return Err(ApplyError::Data { sqlstate, message }),
                        [path] => {
                            written.rejected.push((path.clone(), message));
                            let path = path.clone();
                            content.refuse(path);
                        }
                        more => to = more.get(more.len() / 2 - 1).cloned(),
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            to = None;
            written.add(more);
            written.stale.extend(stale.into_keys());
            if through.as_str() >= end {
                return Ok(written);
            }
            after = Some(through);
        }
    }

    async fn write_piece(&self, worker: &str, content: &Content<'_>, piece: &Piece<'_>) -> Result<Done, ApplyError> {
        let mut attempt = 1;
        let mut is_renewed = false;
        // Counted without a lock, and before there is any.
        let miscounted = self.miscounted(content, piece.after, piece.end).await.map_err(Fault::from)?;
        let miscounted: Vec<String> = miscounted.into_iter().map(|(uri, _)| uri).collect();
        loop {
            let piece = Piece { distrusts: attempt > 1, ..*piece };
            match self.attempt_piece(worker, content, &piece, &miscounted).await {
                Err(fault) if fault.is_race() && attempt < ATTEMPTS => attempt += 1,
                Err(fault) if fault.is_of_connection() && !is_renewed => is_renewed = true,
                other => return Ok(other?),
            }
        }
    }

    async fn attempt_piece(
        &self,
        worker: &str,
        content: &Content<'_>,
        piece: &Piece<'_>,
        miscounted: &[String],
    ) -> Result<Done, Fault> {
        let mut conn = self.connection().await?;
        let written = async {
            self.reserved.cover_first(&self.head, &mut conn, content.started()).await?;
            // What is written is written once more unless the repair is said to be done, which is said after it.
            let mut tx = self.head.begin_unhurried(&mut conn).await?;
            let done = self.transact_piece(&mut tx, worker, content, piece, miscounted).await?;
            tx.commit().await?;
            Ok(done)
        };
        let written = self.in_time(written).await;
        conn.answered(written)
    }

    async fn transact_piece(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        content: &Content<'_>,
        piece: &Piece<'_>,
        miscounted: &[String],
    ) -> Result<Done, Fault> {
        let (did, version) = (content.did, &content.version);
        let mut tally = Tally::default();
        let mut stale = Stale::default();
        let active = self.projector.active(conn).await?;
        // Read once before the locks, for the accounts that are to be locked along with the repo.
        let wanted = content.wanted(piece.after, piece.end);
        let verified = self.verified_in(conn, content, piece, &wanted).await?;
        let mut batch =
            Parsed { actors: BTreeMap::from([(did, None)]), defers: self.rules.defers(), ..Parsed::default() };
        batch.subjects = wanted.subjects.clone();
        batch.records_cids = self.record_cids;
        let guards = accounts::lock(conn, &batch, &verified).await?;
        let through = |did: &str| guards.deleted_through(did, &batch);
        let floors = guards.of(did).map(|guard| guard.floors.clone()).unwrap_or_default();
        let is_overtaken = floors.whole.as_ref().is_some_and(|whole| Some(&whole.rev) > version.rev.as_ref());
        if version.is_gone(through(did)) || is_overtaken {
            let newer = wanted.ops.len() as u64;
            let written = SnapshotWritten { newer, ..SnapshotWritten::default() };
            return Ok(Done { through: piece.end.to_owned(), written, stale });
        }

        // All that is stored of such a repo at or below the rev was put there by the ranges before.
        let continues = floors.part.as_ref().is_some_and(|(part, through)| {
            Some(&part.rev) == version.rev.as_ref() && piece.after.is_some_and(|after| after <= through.as_str())
        });
        // One that is written once more is no surprise.
        let follows =
            continues && floors.part.as_ref().is_some_and(|(_, through)| piece.after == Some(through.as_str()));
        let stored =
            if floors.is_fresh && continues { Vec::new() } else { self.stored_in(conn, content, piece, None).await? };
        let is_fresh = piece.after.is_none()
            && stored.is_empty()
            && (piece.end >= END || self::stored(conn, self, did, None, END, None, 1).await?.is_empty());
        let last = stored.last().filter(|_| stored.len() >= STORED).map(|uri| path_of(did, uri).to_owned());
        let end = last.as_deref().unwrap_or(piece.end);
        let wanted = if end == piece.end { wanted } else { content.wanted(piece.after, end) };
        let is_refused = |uri: &String| content.is_refused(path_of(did, uri));
        let extras = stored.into_iter().filter(|uri| !is_refused(uri));
        let extras: Vec<Op<'_>> = extras.map(|uri| content.unwanted(uri)).collect();
        let extras = extras.iter().filter(|op| !wanted.ops.contains_key(&op.uri));
        let ops: BTreeMap<&str, &Op<'_>> = wanted.ops.values().chain(extras).map(|op| (&*op.uri, op)).collect();
        let change = |op| Change { op, version: version.clone(), settles: true };
        let mut changes: BTreeMap<&str, Change<'_, '_>> = ops.iter().map(|(uri, op)| (*uri, change(*op))).collect();
        let known = if piece.distrusts {
            Known::Nothing
        } else if is_fresh {
            Known::Empty
        } else if floors.is_fresh && follows && absent::is_quiet(conn, did, version).await? {
            Known::OnlyRanges
        } else {
            Known::Nothing
        };
        let seen = absent::read(conn, &self.statements, did, known, &changes, &guards.gone(&batch)).await?;
        if seen.has_other_subject(&verified) {
            return Err(Fault::Moved);
        }
        let differing = inspect::differing(conn, &self.snapshots, &wanted, &seen).await?;

        let mut written = SnapshotWritten { rejected: wanted.rejected.clone(), ..SnapshotWritten::default() };
        let crowded = crowded(&ops);
        let (mut gated, mut subjects) = (Vec::new(), BTreeSet::new());
        let was_whole = floors.whole.is_some();
        for (uri, op) in &ops {
            let found = inspect::judge(op, !wanted.undated.contains(*uri), &seen, &differing, through(did));
            let is_settled = match &found {
                Found::Same => !has_rivals(op, &seen, &crowded),
                // Decided once more, which leaves it.
                Found::Newer => true,
                _ => false,
            };
            if let (Found::Different(what), true) = (&found, op.homes.contains(&Table::Posts)) {
                gated.extend(what.contains("_gate").then(|| (*uri).to_owned()));
            }
            written.count(&found);
            // What somebody else took away or altered he did not take from the counts.
            if matches!(found, Found::Different(_)) || was_whole && matches!(found, Found::Missing | Found::Extra) {
                subjects.extend(counted(op, &seen));
            }
            if is_settled {
                changes.remove(uri);
            }
        }
        let mut miscounted: BTreeSet<String> = miscounted.iter().cloned().collect();
        miscounted.extend(subjects.into_iter().take(RECOUNTED));
        let miscounted: Vec<String> = miscounted.into_iter().collect();

        let profile = format!("{}/{}", PROFILE.0, PROFILE.1);
        if piece.after.is_none_or(|after| *profile > *after) && *profile <= *end {
            let stood = guards.of(did).and_then(|guard| guard.profile.as_ref());
            let stood = stood.filter(|stood| !stood.is_gone(through(did)));
            let found = profile::judge(conn, did, wanted.profile.as_ref(), version, stood).await?;
            written.count(&found);
            if !matches!(found, Found::Same | Found::Newer) {
                let what = wanted.profile.clone();
                batch.profiles.push(ProfileOp { repo: did, version: version.clone(), what, settles: true });
            }
        }
        let mut changed = users::Changed::default();
        if !batch.profiles.is_empty() {
            users::take_profiles(conn, &batch, &guards, &mut changed).await?;
        }
        users::write(conn, &batch, &guards, &changed, self.search_vector, &mut tally).await?;

        let through = |did: &str| guards.deleted_through(did, &batch);
        let mut plan = decide(changes, &seen, through);
        if active.has(Projection::Cache) {
            stale.add_said(&batch);
        }
        self.write_plan(conn, worker, active, &mut plan, &miscounted, &mut stale, &mut tally).await?;
        if !gated.is_empty() {
            mark_gates_of(conn, &gated).await?;
        }
        sqlx::query(WRITING)
            .bind(did)
            .bind(version.rev.as_deref())
            .bind(version.stamp.map(|stamp: Stamp| stamp.to_string()))
            .bind(piece.after)
            .bind(end)
            .bind(is_fresh)
            .execute(conn)
            .await?;
        Ok(Done { through: end.to_owned(), written, stale })
    }

    /// Lists the URIs of what is stored in a piece, in order: so many at most.
    async fn stored_in(
        &self,
        conn: &mut PgConnection,
        content: &Content<'_>,
        piece: &Piece<'_>,
        homes: Option<&[Table]>,
    ) -> sqlx::Result<Vec<String>> {
        stored(conn, self, content.did, piece.after, piece.end, homes, STORED).await
    }

    /// Finds the accounts whose verifications the piece may write, move or take away.
    async fn verified_in(
        &self,
        conn: &mut PgConnection,
        content: &Content<'_>,
        piece: &Piece<'_>,
        wanted: &Wanted<'_>,
    ) -> sqlx::Result<BTreeSet<String>> {
        const COLLECTION: &str = "app.bsky.graph.verification/";
        let mut verified: BTreeSet<String> = BTreeSet::new();
        let is_in = piece.after.is_none_or(|after| after < "app.bsky.graph.verification0") && piece.end >= COLLECTION;
        if !is_in {
            return Ok(verified);
        }
        let stored = self.stored_in(conn, content, piece, Some(Table::Verifications.alone())).await?;
        let uris: Vec<&str> = stored.iter().map(String::as_str).chain(wanted.ops.keys().map(String::as_str)).collect();
        verified.extend(existing::subjects(conn, &uris).await?);
        verified.extend(wanted.ops.values().filter_map(|op| match &op.what {
            What::Put(row) if row.table == Table::Verifications => row.pair().map(|pair| pair.b),
            _ => None,
        }));
        Ok(verified)
    }
}

/// Lists the URIs of what is stored of a repo between two paths, in order.
pub(in crate::store) async fn stored(
    conn: &mut PgConnection,
    store: &Store,
    did: &str,
    after: Option<&str>,
    end: &str,
    homes: Option<&[Table]>,
    most: usize,
) -> sqlx::Result<Vec<String>> {
    let homes = homes.or_else(|| homes_between(after, end));
    let is_bytewise = store.snapshots.is_bytewise(conn).await?;
    sqlx::query_scalar(store.snapshots.stored(homes, is_bytewise))
        .bind(did)
        .bind(format!("at://{did}/"))
        .bind(format!("at://{did}/zz"))
        .bind(format!("at://{did}/{}", after.unwrap_or_default()))
        .bind(format!("at://{did}/{end}"))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await
}

/// Returns the tables of what lies between two paths, where they are of one collection.
fn homes_between(after: Option<&str>, end: &str) -> Option<&'static [Table]> {
    let collection = |path: &str| path.split_once('/').map(|(collection, _)| collection.to_owned());
    let collection = after.and_then(collection).filter(|first| collection(end).as_ref() == Some(first));
    collection.map(|collection| Table::homes(&collection))
}

pub(in crate::store) fn path_of<'u>(did: &str, uri: &'u str) -> &'u str {
    uri.strip_prefix("at://").and_then(|rest| rest.strip_prefix(did)?.strip_prefix('/')).unwrap_or(uri)
}

/// Returns what a record counts for, as it stands and as it ought to.
fn counted(op: &Op<'_>, seen: &Existing) -> Vec<String> {
    let standing = seen.standing.get(&op.uri).map_or(&[][..], Vec::as_slice);
    let mut counted: Vec<String> = standing.iter().filter_map(|standing| standing.counted.clone()).collect();
    if let What::Put(row) = &op.what {
        counted.extend(row.counted().map(str::to_owned));
    }
    counted
}

/// Returns the places that more than one record of a piece wants.
fn crowded(ops: &BTreeMap<&str, &Op<'_>>) -> BTreeSet<Pair> {
    let mut seen = BTreeSet::new();
    let pairs = ops.values().filter_map(|op| match &op.what {
        What::Put(row) => row.pair(),
        _ => None,
    });
    let mut crowded = BTreeSet::new();
    for pair in pairs {
        if let Some(pair) = seen.replace(pair) {
            crowded.insert(pair);
        }
    }
    crowded
}

/// Says whether another record wants the same place as one that stands as it ought to: then who has it has to be decided by the
/// snapshot's rev, which both have.
fn has_rivals(op: &Op<'_>, seen: &Existing, crowded: &BTreeSet<Pair>) -> bool {
    let What::Put(row) = &op.what else { return false };
    row.pair().is_some_and(|pair| crowded.contains(&pair) || seen.waiting.get(&pair).is_some_and(|w| !w.is_empty()))
}

// === impl SnapshotWritten ===

impl SnapshotWritten {
    fn count(&mut self, found: &Found) {
        match found {
            Found::Same => self.kept += 1,
            Found::Newer => self.newer += 1,
            Found::Missing => self.added += 1,
            Found::Extra => self.removed += 1,
            Found::Different(_) => self.changed += 1,
        }
    }

    fn add(&mut self, more: Self) {
        let Self { added, changed, removed, kept, newer, rejected, stale } = more;
        self.added += added;
        self.changed += changed;
        self.removed += removed;
        self.kept += kept;
        self.newer += newer;
        self.rejected.extend(rejected);
        self.stale.extend(stale);
    }
}
