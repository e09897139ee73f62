//! Repos and their locks, statuses, deletions and opt-outs.

use std::collections::{BTreeSet, HashMap};

use penstock_core::stream::StreamId;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::chain::Chain;
use super::floor::Floors;
use super::parsed::Parsed;
use super::table::takes_did;
use super::version::{Stamp, Version};

/// The guard of a repo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Up to which entry a deletion removed its records.
    deleted_through: Option<StreamId>,
    /// Whether its account opted out: nothing of it is written.
    forbidden: bool,
    pub(crate) identity: Option<StreamId>,
    account: Option<StreamId>,
    /// The last entry that said the account is active.
    returned: Option<StreamId>,
    pub(crate) profile: Option<Version>,
    /// What snapshots cover of it.
    pub(crate) floors: Floors,
}

/// The guards of a batch's repos.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// A repo without any guard is absent.
    guards: HashMap<String, Guard>,
    /// The accounts without a row in `users`, in order.
    pub(crate) missing: Vec<String>,
}

type GuardRow = (
    String,
    bool,
    bool,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    bool,
);

// The update locks the row as FOR NO KEY UPDATE does, at less than the cost of an insert and a lock; the statements
// that come after it see what the holder before us committed. Who has no row in `users` is told along with it.
const LOCK: &str = "\
WITH locked AS (
  INSERT INTO penstock.repos AS r (did, rev, root, sync, sync_at)
  SELECT u.did, u.rev, u.root, u.sync, CASE WHEN u.sync IS NOT NULL THEN clock_timestamp() END
    FROM unnest($1::text[], $2::text[], $4::bytea[], $5::text[]) AS u (did, rev, root, sync)
  ON CONFLICT (did) DO UPDATE SET rev = greatest(r.rev, excluded.rev),
    root = CASE WHEN excluded.root = '' OR excluded.rev > coalesce(r.rev, '') THEN excluded.root
      WHEN excluded.rev = r.rev THEN coalesce(excluded.root, r.root) ELSE r.root END,
    sync = CASE WHEN excluded.rev <= r.snapshot_rev THEN r.sync ELSE coalesce(r.sync, excluded.sync) END,
    sync_at = CASE WHEN r.sync IS NULL AND excluded.sync IS NOT NULL AND (excluded.rev <= r.snapshot_rev) IS NOT TRUE
      THEN excluded.sync_at ELSE r.sync_at END
  RETURNING did, forbidden, deleted_through, identity_entry, account_entry, returned_entry, profile_rev, profile_entry,
    snapshot_rev, snapshot_entry, writing_rev, writing_entry, writing_through, writing_fresh
)
SELECT did, false AS missing, forbidden IS TRUE, deleted_through, identity_entry, account_entry, returned_entry, profile_rev,
    profile_entry, snapshot_rev, snapshot_entry, writing_rev, writing_entry, writing_through, writing_fresh IS TRUE
  FROM locked
 WHERE forbidden OR coalesce(deleted_through, identity_entry, account_entry, returned_entry, profile_entry, snapshot_entry, writing_entry)
    IS NOT NULL
UNION ALL
SELECT u.did, true, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    false FROM unnest($3::text[]) AS u (did)
 WHERE NOT EXISTS (SELECT FROM users AS t WHERE t.did = u.did)";

/// Prefix of the row that locks a verification's subject, whose repo may never have been seen.
const SUBJECT: &str = "subject:";

/// Locks the repos in order, creating new ones, and returns their guards; then locks the verified accounts.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    batch: &Parsed<'_>,
    verified: &BTreeSet<String>,
) -> sqlx::Result<Guards> {
    let actors = &batch.actors;
    let verified: Vec<_> = verified.iter().map(|did| format!("{SUBJECT}{did}")).collect();
    let dids = actors.keys().copied().chain(verified.iter().map(String::as_str));
    let revs = actors.values().copied().chain(verified.iter().map(|_| None));
    let chains = || actors.keys().map(|did| batch.chains.get(did)).chain(verified.iter().map(|_| None));
    let users = actors.keys().copied().filter(|did| !batch.sweeps && takes_did(did));
    let users: BTreeSet<&str> = users.chain(batch.subjects.iter().map(|(did, _)| *did)).collect();
    let rows: Vec<GuardRow> = sqlx::query_as(LOCK)
        .bind(dids.bind_iter())
        .bind(revs.bind_iter())
        .bind(users.into_iter().bind_iter())
        .bind(chains().map(|chain| chain.and_then(Chain::root)).bind_iter())
        .bind(chains().map(|chain| chain?.sync).bind_iter())
        .fetch_all(conn)
        .await?;
    Ok(Guards::of_rows(rows))
}

const ACCOUNTS: &str = "\
UPDATE penstock.repos AS r SET active = u.active, status = u.status, account_entry = u.entry
  FROM unnest($1::text[], $2::bool[], $3::text[], $4::text[]) AS u (did, active, status, entry) WHERE r.did = u.did";
const DELETED: &str = "\
UPDATE penstock.repos AS r SET deleted_through = u.entry
  FROM unnest($1::text[], $2::text[]) AS u (did, entry) WHERE r.did = u.did";

const RETURNED: &str = "\
UPDATE penstock.repos AS r SET returned_entry = u.entry
  FROM unnest($1::text[], $2::text[]) AS u (did, entry) WHERE r.did = u.did";

/// Takes the statuses of account events that are later than the last one taken, and marks deletions that take effect at once. Where
/// hosts are asked (`asks`), what takes an account away is left to its claim.
pub(crate) async fn write_accounts(
    conn: &mut PgConnection,
    batch: &Parsed<'_>,
    guards: &Guards,
    asks: bool,
) -> sqlx::Result<()> {
    let later: Vec<_> = batch
        .accounts
        .iter()
        .filter_map(|(did, change)| {
            // What takes away waits for the host's word, what gives back does not.
            let order = if asks { change.returned? } else { change.order };
            let status = change.status.filter(|_| order == change.order).map(|status| status.replace('\0', ""));
            Some((*did, order, asks || change.active, status))
        })
        .filter(|(did, order, ..)| guards.of(did).is_none_or(|guard| Some(*order) > guard.account))
        .collect();
    if !later.is_empty() {
        sqlx::query(ACCOUNTS)
            .bind(later.iter().map(|(did, ..)| *did).bind_iter())
            .bind(later.iter().map(|(_, _, active, _)| *active).bind_iter())
            .bind(later.iter().map(|(.., status)| status.as_deref()).bind_iter())
            .bind(later.iter().map(|(_, order, ..)| Stamp::live(*order, None).to_string()).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    let returned = guards.newly_returned(batch);
    if !returned.is_empty() {
        sqlx::query(RETURNED)
            .bind(returned.iter().map(|(did, _)| *did).bind_iter())
            .bind(returned.iter().map(|(_, order)| Stamp::live(*order, None).to_string()).bind_iter())
            .execute(&mut *conn)
            .await?;
    }
    if batch.defers {
        return Ok(());
    }
    let deleted: Vec<_> = batch
        .accounts
        .iter()
        .filter_map(|(did, change)| Some((*did, change.deleted?)))
        .filter(|(did, order)| Some(*order) > guards.of(did).and_then(|guard| guard.deleted_through))
        .collect();
    if !deleted.is_empty() {
        sqlx::query(DELETED)
            .bind(deleted.iter().map(|(did, _)| *did).bind_iter())
            .bind(deleted.iter().map(|(_, order)| Stamp::live(*order, None).to_string()).bind_iter())
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Reads the guard of a repo without a lock.
const LOOK: &str = "\
SELECT did, false, forbidden IS TRUE, deleted_through, identity_entry, account_entry, returned_entry, profile_rev, profile_entry,
    snapshot_rev, snapshot_entry, writing_rev, writing_entry, writing_through, writing_fresh IS TRUE
  FROM penstock.repos WHERE did = $1";

// === impl Guards ===

impl Guards {
    /// Reads the guard of one repo, to look only.
    pub(crate) async fn look(conn: &mut PgConnection, did: &str) -> sqlx::Result<Self> {
        Ok(Self::of_rows(sqlx::query_as(LOOK).bind(did).fetch_all(conn).await?))
    }

    fn of_rows(rows: Vec<GuardRow>) -> Self {
        let id = |text: Option<String>| Some(Stamp::parse(&text?)?.id());
        let mut locked = Guards::default();
        for row in rows {
            let (did, missing, forbidden, deleted, identity, account, returned, rev, entry, ..) = row;
            let (.., whole_rev, whole_entry, part_rev, part_entry, part_through, is_fresh) = row;
            if missing {
                locked.missing.push(did);
                continue;
            }
            let profile = entry.map(|entry| Version::from_columns(rev, Some(&entry)));
            let guard = Guard {
                deleted_through: id(deleted),
                forbidden,
                identity: id(identity),
                account: id(account),
                returned: id(returned),
                profile,
                floors: Floors::from_columns((whole_rev, whole_entry), (part_rev, part_entry, part_through), is_fresh),
            };
            locked.guards.insert(did, guard);
        }
        locked.missing.sort_unstable();
        locked
    }

    pub(crate) fn of(&self, did: &str) -> Option<&Guard> {
        self.guards.get(did)
    }

    /// Returns the last entry taken that says anything of an account's status.
    pub(crate) fn account(&self, did: &str) -> Option<StreamId> {
        self.of(did).and_then(|guard| guard.account)
    }

    /// Returns the last entry that said that an account is active.
    pub(crate) fn returned(&self, did: &str) -> Option<StreamId> {
        self.of(did).and_then(|guard| guard.returned)
    }

    /// Returns the accounts of the batch that are active by an entry later than the last that said so.
    pub(crate) fn newly_returned<'b>(&self, batch: &Parsed<'b>) -> Vec<(&'b str, StreamId)> {
        let returned = batch.accounts.iter().filter_map(|(did, change)| Some((*did, change.returned?)));
        returned.filter(|(did, order)| Some(*order) > self.returned(did)).collect()
    }

    /// Returns up to which entry a deletion was carried out before this batch.
    pub(crate) fn carried_out(&self, did: &str) -> Option<StreamId> {
        self.of(did).and_then(|guard| guard.deleted_through)
    }

    /// Returns whether a change of a record is in a snapshot that was written of its repo.
    pub(crate) fn cover(&self, did: &str, path: Option<&str>, version: &Version, batch: &Parsed<'_>) -> bool {
        self.of(did).is_some_and(|guard| guard.floors.cover(path, version, self.deleted_through(did, batch)))
    }

    /// Returns whether a snapshot of a repo was finished whose rev is no earlier.
    pub(crate) fn is_whole_at(&self, did: &str, rev: Option<&str>) -> bool {
        let whole = self.of(did).and_then(|guard| guard.floors.whole.as_ref());
        whole.zip(rev).is_some_and(|(whole, rev)| rev.as_bytes() <= whole.rev.as_bytes())
    }

    /// Returns whether an account opted out.
    pub(crate) fn is_forbidden(&self, did: &str) -> bool {
        self.of(did).is_some_and(|guard| guard.forbidden)
    }

    /// Returns the accounts that opted out.
    pub(crate) fn forbidden(&self) -> impl Iterator<Item = &String> {
        self.guards.iter().filter(|(_, guard)| guard.forbidden).map(|(did, _)| did)
    }

    /// Returns the repos of the batch whose records are gone, and up to which entry.
    pub(crate) fn gone<'b>(&self, batch: &Parsed<'b>) -> Vec<(&'b str, StreamId)> {
        batch.actors.keys().filter_map(|did| Some((*did, self.deleted_through(did, batch)?))).collect()
    }

    /// Returns up to which entry a repo's records are gone, including this batch's deletions: all of them for an account that
    /// opted out.
    pub(crate) fn deleted_through(&self, did: &str, batch: &Parsed<'_>) -> Option<StreamId> {
        if self.is_forbidden(did) {
            return Some(StreamId { ms: u64::MAX, seq: u64::MAX });
        }
        let here = batch.accounts.get(did).filter(|_| !batch.defers).and_then(|change| change.deleted);
        here.max(self.of(did).and_then(|guard| guard.deleted_through))
    }
}
