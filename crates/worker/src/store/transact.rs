//! One batch as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use penstock_core::entry::Entry;
use penstock_core::settings::Projection;
use penstock_core::stream::StreamId;
use sqlx::PgConnection;

use super::accounts::{self, Guards};
use super::claim_rules::Claims;
use super::connection::Store;
use super::decide::{Plan, decide};
use super::derived::{self, Active, Stale};
use super::error::{ApplyError, Fault};
use super::existing::{self, Existing};
use super::parsed::{self, Parsed, Rejected, What};
use super::table::Table;
use super::tally::Tally;
use super::version::Version;
use super::{account_claims, cids, handle_checks, post_counts, repairs, users, write};

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows inserted, updated or removed, by table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Ops without a place in their table, to be dead-lettered. The rest of their entries is written.
    pub rejected: Vec<Rejected>,
    /// Changes that were not written because their account opted out.
    pub refused: u64,
    /// Notifications that were not made because their URI is longer than its column.
    pub refused_notifications: u64,
    /// Keys of the AppView's cache that are stale by it.
    pub stale: BTreeSet<String>,
    /// What it did to the claims on accounts.
    pub(crate) claims: Claims,
}

/// How often a batch starts over at once when others write the same rows; after that the caller decides.
pub(super) const ATTEMPTS: u32 = 4;

// === impl Store ===

impl Store {
    /// Writes a batch of entries in one transaction: whatever their order, and however often they come.
    ///
    /// `worker` names whose totals the counts are added to.
    ///
    /// # Errors
    /// [`ApplyError::Data`] when the batch holds something that PostgreSQL will never take; [`ApplyError::Retry`] for
    /// everything else. Nothing is written then.
    pub async fn apply(&self, worker: &str, entries: &[Entry]) -> Result<Applied, ApplyError> {
        let mut batch = Parsed::read(entries);
        batch.defers = self.rules.defers();
        batch.records_cids = self.record_cids;
        if batch.actors.is_empty() {
            return Ok(Applied { rejected: batch.rejected, ..Applied::default() });
        }
        let newest = entries.iter().map(|entry| entry.id.max(entry.order)).max().unwrap_or(StreamId::MIN);
        let mut attempt = 1;
        let mut is_renewed = false;
        let (tally, stale) = loop {
            match self.attempt(worker, &batch, newest).await {
                Err(fault) if fault.is_race() && attempt < ATTEMPTS => attempt += 1,
                // Such a connection is closed by now, and so are those like it: another one may do, and need not wait.
                Err(fault) if fault.is_of_connection() && !is_renewed => is_renewed = true,
                other => break other?,
            }
        };
        let is_refused = |did: &str| tally.opted_out.contains(did);
        let repos = batch.ops.iter().map(|op| op.repo).chain(batch.profiles.iter().map(|op| op.repo));
        let refused = repos.filter(|repo| is_refused(repo)).count() as u64;
        // What is not to be kept is not kept as a dead letter either.
        let of = |rejected: &Rejected| entries.get(rejected.entry).map(|entry| entry.event.did());
        let rejected = batch.rejected.into_iter().filter(|rejected| !of(rejected).is_some_and(is_refused)).collect();
        Ok(Applied {
            rows: tally.rows,
            rejected,
            refused,
            refused_notifications: tally.refused_notifications,
            stale: stale.into_keys(),
            claims: tally.claims,
        })
    }

    async fn attempt(&self, worker: &str, batch: &Parsed<'_>, newest: StreamId) -> Result<(Tally, Stale), Fault> {
        let mut conn = self.connection().await?;
        let written = async {
            self.reserved.cover_first(&self.head, &mut conn, newest).await?;
            self.transact(&mut conn, worker, batch).await
        };
        let written = self.in_time(written).await;
        conn.answered(written)
    }

    async fn transact(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        batch: &Parsed<'_>,
    ) -> Result<(Tally, Stale), Fault> {
        let mut stale = Stale::default();
        let mut tx = self.head.begin(conn).await?;
        let tally = self.write(&mut tx, worker, batch, &mut stale).await?;
        tx.commit().await?;
        Ok((tally, stale))
    }

    /// Writes a batch within a transaction.
    pub(super) async fn write(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        batch: &Parsed<'_>,
        stale: &mut Stale,
    ) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        let active = self.projector.active(conn).await?;
        let verified = verified(conn, batch).await?;
        let guards = accounts::lock(conn, batch, &verified).await?;
        tally.opted_out = guards.forbidden().cloned().collect();
        self.write_accounts(conn, batch, &guards, &mut tally).await?;
        repairs::request(conn, batch, &guards, &mut tally).await?;

        let through = |did: &str| guards.deleted_through(did, batch);
        let is_covered = |did: &str, path: Option<&str>, version: &Version| guards.cover(did, path, version, batch);
        let changes = parsed::fold(&batch.ops, through, is_covered);
        let seen = Existing::read(conn, &self.statements, &changes, &guards.gone(batch)).await?;
        if seen.has_other_subject(&verified) {
            return Err(Fault::Moved);
        }
        let mut plan = decide(changes, &seen, through);
        if active.has(Projection::Cache) {
            stale.add_said(batch);
        }
        self.write_plan(conn, worker, active, &mut plan, &[], stale, &mut tally).await?;
        Ok(tally)
    }

    /// Writes what was decided, and all that follows from it. The counts of `miscounted` are known to be wrong: they are set anew.
    #[expect(clippy::too_many_arguments, reason = "what a transaction carries along")]
    pub(super) async fn write_plan(
        &self,
        conn: &mut PgConnection,
        worker: &str,
        active: Active,
        plan: &mut Plan<'_, '_>,
        miscounted: &[String],
        stale: &mut Stale,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let before = derived::read_before(conn, active, plan).await?;
        write::write(conn, &self.statements, plan, tally).await?;
        if self.record_cids {
            cids::write(conn, plan).await?;
        }
        plan.counts.drop_unchanged();
        if active.has(Projection::Cache) {
            stale.add_changes(plan);
        }
        derived::lock_posts(active, plan, &before);
        for uri in miscounted {
            plan.counts.lock(uri);
        }
        post_counts::write_counts(conn, plan, tally).await?;
        post_counts::set(conn, miscounted).await?;
        let contexts = derived::write(conn, active, plan, &before, self.page, tally).await?;
        if active.has(Projection::Cache) {
            stale.add_contexts(&contexts);
        }
        tally.write(conn, worker).await?;
        Ok(())
    }

    async fn write_accounts(
        &self,
        conn: &mut PgConnection,
        batch: &Parsed<'_>,
        guards: &Guards,
        tally: &mut Tally,
    ) -> sqlx::Result<()> {
        let mut changed = users::Changed::default();
        if !batch.profiles.is_empty() {
            users::take_profiles(conn, batch, guards, &mut changed).await?;
        }
        if self.rules.asks {
            handle_checks::want(conn, batch, guards).await?;
        } else if !batch.identities.is_empty() {
            users::take_identities(conn, batch, guards, &mut changed).await?;
        }
        users::write(conn, batch, guards, &changed, self.search_vector, tally).await?;
        if !batch.accounts.is_empty() {
            accounts::write_accounts(conn, batch, guards, self.rules.asks).await?;
            tally.claims = account_claims::write(conn, batch, guards, &self.rules).await?;
        }
        Ok(())
    }
}

/// Finds the subjects of verifications that the batch may write, move or take away.
async fn verified(conn: &mut PgConnection, batch: &Parsed<'_>) -> sqlx::Result<BTreeSet<String>> {
    let ops = || batch.ops.iter().filter(|op| op.homes.contains(&Table::Verifications));
    let uris: Vec<&str> = ops().map(|op| &*op.uri).collect();
    let mut verified = existing::subjects(conn, &uris).await?;
    verified.extend(ops().filter_map(|op| match &op.what {
        What::Put(row) => row.pair().map(|pair| pair.b),
        What::Keep | What::Delete | What::Sweep => None,
    }));
    Ok(verified)
}
