//! Repos and their locks, stubs of users, handles, statuses and profiles.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_core::stream::StreamId;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::batch::{Batch, ProfileOp, fold_profiles};
use super::counts::Tally;
use super::project::Profile;
use super::version::{Stamp, Verdict, Version};

/// What a repo is guarded by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Up to where a deletion took its records.
    pub(crate) deleted_through: Option<StreamId>,
    identity: Option<StreamId>,
    account: Option<StreamId>,
    profile: Option<Version>,
}

/// The guards of a batch's repos.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    /// A repo without any guard is absent.
    guards: HashMap<String, Guard>,
    /// The repos that were never seen before, in order.
    fresh: Vec<String>,
}

type GuardRow = (String, bool, Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);

// The update locks the row as FOR NO KEY UPDATE does, at less than the cost of an insert and a lock; the statements
// that come after it see what the holder before us committed.
const LOCK: &str = "\
WITH locked AS (
  INSERT INTO penstock.repos AS r (did, rev)
  SELECT u.did, u.rev FROM unnest($1::text[], $2::text[]) AS u (did, rev)
  ON CONFLICT (did) DO UPDATE SET rev = greatest(r.rev, excluded.rev)
  RETURNING did, xmax = 0 AS fresh, deleted_through, identity_entry, account_entry, profile_rev, profile_entry
)
SELECT * FROM locked
 WHERE fresh OR coalesce(deleted_through, identity_entry, account_entry, profile_entry) IS NOT NULL";

/// What the lock of a verification's subject is named by: its repo may never have been seen.
const SUBJECT: &str = "subject:";

/// Locks the repos in order, making those that are new, and returns their guards; then the subjects.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    actors: &BTreeMap<&str, Option<&str>>,
    subjects: &BTreeSet<String>,
) -> sqlx::Result<Guards> {
    let subjects: Vec<_> = subjects.iter().map(|did| format!("{SUBJECT}{did}")).collect();
    let dids = actors.keys().copied().chain(subjects.iter().map(String::as_str));
    let revs = actors.values().copied().chain(subjects.iter().map(|_| None));
    let rows: Vec<GuardRow> =
        sqlx::query_as(LOCK).bind(dids.bind_iter()).bind(revs.bind_iter()).fetch_all(conn).await?;
    let id = |text: Option<String>| Some(Stamp::parse(&text?)?.id());
    let mut locked = Guards::default();
    for (did, fresh, deleted, identity, account, rev, entry) in rows {
        if fresh {
            if !did.starts_with(SUBJECT) {
                locked.fresh.push(did);
            }
            continue;
        }
        let profile = entry.map(|entry| Version::from_columns(rev, Some(&entry)));
        let guard = Guard { deleted_through: id(deleted), identity: id(identity), account: id(account), profile };
        locked.guards.insert(did, guard);
    }
    Ok(locked)
}

const STUBS: &str = "\
INSERT INTO users (did, handle) SELECT u.did, 'handle.invalid' FROM unnest($1::text[]) AS u (did)
ON CONFLICT (did) DO NOTHING";

/// Makes a row for each account that was never seen: who has a row among the repos has one here.
pub(crate) async fn write_stubs(conn: &mut PgConnection, guards: &Guards, tally: &mut Tally) -> sqlx::Result<()> {
    if !guards.fresh.is_empty() {
        tally.users += sqlx::query(STUBS).bind(&guards.fresh).execute(conn).await?.rows_affected().cast_signed();
    }
    Ok(())
}

const HANDLES: &str = "\
UPDATE users AS t SET handle = u.handle FROM unnest($1::text[], $2::text[]) AS u (did, handle) WHERE t.did = u.did";
const IDENTITIES: &str = "\
UPDATE penstock.repos AS r SET identity_entry = u.entry FROM unnest($1::text[], $2::text[]) AS u (did, entry)
WHERE r.did = u.did";

/// Takes the handles of identity events that are later than the last one taken.
pub(crate) async fn write_identities(conn: &mut PgConnection, batch: &Batch<'_>, guards: &Guards) -> sqlx::Result<()> {
    let later: Vec<_> = batch
        .identities
        .iter()
        .filter(|(did, (order, _))| guards.of(did).is_none_or(|guard| Some(*order) > guard.identity))
        .collect();
    if later.is_empty() {
        return Ok(());
    }
    let dids = || later.iter().map(|(did, _)| *did).bind_iter();
    let entries = later.iter().map(|(_, (order, _))| Stamp::live(*order, None).to_string()).bind_iter();
    sqlx::query(HANDLES)
        .bind(dids())
        .bind(later.iter().map(|(_, (_, handle))| *handle).bind_iter())
        .execute(&mut *conn)
        .await?;
    sqlx::query(IDENTITIES).bind(dids()).bind(entries).execute(conn).await?;
    Ok(())
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

const PROFILES: &str = "\
UPDATE users AS t SET display_name = u.name, description = u.description, avatar_url = u.avatar,
    banner_url = u.banner, profile_record = u.record::jsonb, pinned_post = u.pinned::jsonb,
    created_at = coalesce(u.created_at, t.indexed_at),
    search_vector = CASE WHEN $1
      THEN to_tsvector('english', left(concat_ws(' ', u.name, u.description), 100000)) ELSE t.search_vector END
  FROM unnest($2::text[], $3::bool[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::timestamp[]) AS u (did, fills, name, description, avatar, banner, record, pinned, created_at)
 WHERE t.did = u.did AND NOT (u.fills AND t.profile_record IS NOT NULL)";
const PROFILE_GUARDS: &str = "\
UPDATE penstock.repos AS r SET profile_rev = u.rev, profile_entry = u.entry
  FROM unnest($1::text[], $2::text[], $3::text[]) AS u (did, rev, entry) WHERE r.did = u.did";

/// Writes profiles; a deleted one leaves its columns empty and its guard behind.
pub(crate) async fn write_profiles(
    conn: &mut PgConnection,
    batch: &Batch<'_>,
    guards: &Guards,
    search_vector: bool,
) -> sqlx::Result<u64> {
    let mut written: Vec<(&str, bool, Option<&Profile<'_>>)> = Vec::new();
    let mut moved: Vec<(&str, Version)> = Vec::new();
    for (did, (ProfileOp { what, .. }, version)) in
        fold_profiles(&batch.profiles, |did| guards.deleted_through(did, batch))
    {
        let stood = guards.of(did).and_then(|guard| guard.profile.as_ref());
        let alive = stood.filter(|stood| !stood.is_gone(guards.deleted_through(did, batch)));
        match alive.map_or(Verdict::Newer, |stood| version.against(stood)) {
            Verdict::Older => continue,
            Verdict::Again => {}
            Verdict::Newer => {
                let fills = version.stamp.is_some_and(Stamp::is_filled) && stood.is_none();
                written.push((did, fills, what.as_ref()));
            }
        }
        moved.push((did, version));
    }
    if moved.is_empty() {
        return Ok(0);
    }
    let profiles = || written.iter().map(|(_, _, profile)| *profile);
    let rows = sqlx::query(PROFILES)
        .bind(search_vector)
        .bind(written.iter().map(|(did, ..)| *did).bind_iter())
        .bind(written.iter().map(|(_, fills, _)| *fills).bind_iter())
        .bind(profiles().map(|profile| profile?.display_name.as_deref()).bind_iter())
        .bind(profiles().map(|profile| profile?.description.as_deref()).bind_iter())
        .bind(profiles().map(|profile| profile?.avatar.as_deref()).bind_iter())
        .bind(profiles().map(|profile| profile?.banner.as_deref()).bind_iter())
        .bind(profiles().map(|profile| Some(profile?.record.as_str())).bind_iter())
        .bind(profiles().map(|profile| profile?.pinned_post.as_deref()).bind_iter())
        .bind(profiles().map(|profile| profile?.created_at).bind_iter())
        .execute(&mut *conn)
        .await?
        .rows_affected();
    sqlx::query(PROFILE_GUARDS)
        .bind(moved.iter().map(|(did, _)| *did).bind_iter())
        .bind(moved.iter().map(|(_, version)| version.rev.as_deref()).bind_iter())
        .bind(moved.iter().map(|(_, version)| version.stamp.map(|stamp| stamp.to_string())).bind_iter())
        .execute(conn)
        .await?;
    Ok(rows)
}

// === impl Guards ===

impl Guards {
    fn of(&self, did: &str) -> Option<&Guard> {
        self.guards.get(did)
    }

    /// Returns up to where a repo's records are gone, this batch's deletions included.
    pub(crate) fn deleted_through(&self, did: &str, batch: &Batch<'_>) -> Option<StreamId> {
        let here = batch.accounts.get(did).and_then(|change| change.deleted);
        here.max(self.of(did).and_then(|guard| guard.deleted_through))
    }
}
