//! Repos and their locks, statuses, deletions and opt-outs.

use std::collections::{BTreeSet, HashMap};

use penstock_core::stream::StreamId;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::batch::Batch;
use super::version::{Stamp, Version};

/// What a repo is guarded by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Up to where a deletion took its records.
    deleted_through: Option<StreamId>,
    /// Whether its account opted out: nothing of it is written.
    forbidden: bool,
    pub(crate) identity: Option<StreamId>,
    account: Option<StreamId>,
    pub(crate) profile: Option<Version>,
}

/// The guards of a batch's repos.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// A repo without any guard is absent.
    guards: HashMap<String, Guard>,
    /// The accounts without a row in `users`, in order.
    pub(crate) missing: Vec<String>,
}

type GuardRow = (String, bool, bool, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);

// The update locks the row as FOR NO KEY UPDATE does, at less than the cost of an insert and a lock; the statements
// that come after it see what the holder before us committed. Who has no row in `users` is told along with it.
const LOCK: &str = "\
WITH locked AS (
  INSERT INTO penstock.repos AS r (did, rev)
  SELECT u.did, u.rev FROM unnest($1::text[], $2::text[]) AS u (did, rev)
  ON CONFLICT (did) DO UPDATE SET rev = greatest(r.rev, excluded.rev)
  RETURNING did, forbidden, deleted_through, identity_entry, account_entry, profile_rev, profile_entry
)
SELECT did, false AS missing, forbidden IS TRUE, deleted_through, identity_entry, account_entry, profile_rev,
    profile_entry
  FROM locked
 WHERE forbidden OR coalesce(deleted_through, identity_entry, account_entry, profile_entry) IS NOT NULL
UNION ALL
SELECT u.did, true, false, NULL, NULL, NULL, NULL, NULL FROM unnest($3::text[]) AS u (did)
 WHERE NOT EXISTS (SELECT FROM users AS t WHERE t.did = u.did)";

/// What the lock of a verification's subject is named by: its repo may never have been seen.
const SUBJECT: &str = "subject:";

/// Locks the repos in order, making those that are new, and returns their guards; then the verified.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    batch: &Batch<'_>,
    verified: &BTreeSet<String>,
) -> sqlx::Result<Guards> {
    let actors = &batch.actors;
    let verified: Vec<_> = verified.iter().map(|did| format!("{SUBJECT}{did}")).collect();
    let dids = actors.keys().copied().chain(verified.iter().map(String::as_str));
    let revs = actors.values().copied().chain(verified.iter().map(|_| None));
    let users = actors.keys().copied().filter(|_| !batch.sweeps);
    let users: BTreeSet<&str> = users.chain(batch.subjects.iter().map(|(did, _)| *did)).collect();
    let rows: Vec<GuardRow> = sqlx::query_as(LOCK)
        .bind(dids.bind_iter())
        .bind(revs.bind_iter())
        .bind(users.into_iter().bind_iter())
        .fetch_all(conn)
        .await?;
    let id = |text: Option<String>| Some(Stamp::parse(&text?)?.id());
    let mut locked = Guards::default();
    for (did, missing, forbidden, deleted, identity, account, rev, entry) in rows {
        if missing {
            locked.missing.push(did);
            continue;
        }
        let profile = entry.map(|entry| Version::from_columns(rev, Some(&entry)));
        let guard =
            Guard { deleted_through: id(deleted), forbidden, identity: id(identity), account: id(account), profile };
        locked.guards.insert(did, guard);
    }
    locked.missing.sort_unstable();
    Ok(locked)
}

const ACCOUNTS: &str = "\
UPDATE penstock.repos AS r SET active = u.active, status = u.status, account_entry = u.entry
  FROM unnest($1::text[], $2::bool[], $3::text[], $4::text[]) AS u (did, active, status, entry) WHERE r.did = u.did";
const DELETED: &str = "\
UPDATE penstock.repos AS r SET deleted_through = u.entry
  FROM unnest($1::text[], $2::text[]) AS u (did, entry) WHERE r.did = u.did";

/// Takes the statuses of account events that are later than the last one taken, and marks deletions.
pub(crate) async fn write_accounts(conn: &mut PgConnection, batch: &Batch<'_>, guards: &Guards) -> sqlx::Result<()> {
    let later: Vec<_> = batch
        .accounts
        .iter()
        .filter(|(did, change)| guards.of(did).is_none_or(|guard| Some(change.order) > guard.account))
        .map(|(did, change)| (*did, change, change.status.map(|status| status.replace('\0', ""))))
        .collect();
    if !later.is_empty() {
        let dids = || later.iter().map(|(did, ..)| *did).bind_iter();
        let active = || later.iter().map(|(_, change, _)| change.active).bind_iter();
        let status = || later.iter().map(|(_, _, status)| status.as_deref()).bind_iter();
        let entries = later.iter().map(|(_, change, _)| Stamp::live(change.order, None).to_string()).bind_iter();
        let accounts = sqlx::query(ACCOUNTS).bind(dids()).bind(active()).bind(status());
        accounts.bind(entries).execute(&mut *conn).await?;
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

// === impl Guards ===

impl Guards {
    pub(crate) fn of(&self, did: &str) -> Option<&Guard> {
        self.guards.get(did)
    }

    /// Tells whether an account opted out.
    pub(crate) fn is_forbidden(&self, did: &str) -> bool {
        self.of(did).is_some_and(|guard| guard.forbidden)
    }

    /// Returns the accounts that opted out.
    pub(crate) fn forbidden(&self) -> impl Iterator<Item = &String> {
        self.guards.iter().filter(|(_, guard)| guard.forbidden).map(|(did, _)| did)
    }

    /// Returns up to where a repo's records are gone, this batch's deletions included: all of an account's that opted
    /// out.
    pub(crate) fn deleted_through(&self, did: &str, batch: &Batch<'_>) -> Option<StreamId> {
        if self.is_forbidden(did) {
            return Some(StreamId { ms: u64::MAX, seq: u64::MAX });
        }
        let here = batch.accounts.get(did).and_then(|change| change.deleted);
        here.max(self.of(did).and_then(|guard| guard.deleted_through))
    }
}
