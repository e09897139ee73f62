//! Rows of `users`: a stub for every account that is seen or pointed at, with its handle and profile if they are known.
//!
//! The rows belong to the AppView, which prunes them. What is known of an account is also in Penstock's own tables, so that
//! its next event restores the row.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::accounts::Guards;
use super::cids;
use super::parsed::{PROFILE, Parsed, ProfileOp, fold_profiles};
use super::project::Profile;
use super::table::takes_did;
use super::tally::Tally;
use super::version::{Stamp, Verdict, Version};

/// What changed in the rows of accounts that a batch is about.
#[derive(Debug, Default)]
pub(crate) struct Changed<'b> {
    handles: BTreeSet<&'b str>,
    profiles: BTreeSet<&'b str>,
}

/// Makes the rows of `$1` from what is known; `$2` says whether profiles are made searchable.
macro_rules! insert_known {
    ($then:literal) => {
        concat!(
            "\
WITH written AS (
INSERT INTO users AS t (did, handle, display_name, description, avatar_url, banner_url, profile_record, pinned_post,
    created_at, search_vector)
SELECT u.did, coalesce(r.handle, 'handle.invalid'), p.display_name, p.description, p.avatar_url, p.banner_url,
    p.record, p.pinned_post, coalesce(p.created_at, now()),
    CASE WHEN $2 AND p.did IS NOT NULL
      THEN to_tsvector('english', left(concat_ws(' ', p.display_name, p.description), 100000)) END
  FROM unnest($1::text[]) AS u (did)
  LEFT JOIN penstock.repos AS r ON r.did = u.did
  LEFT JOIN penstock.profiles AS p ON p.did = u.did
ON CONFLICT (did) DO ",
            $then,
            " RETURNING did, xmax = 0 AS fresh)
SELECT did, fresh FROM written"
        )
    };
}

const MAKE: &str = insert_known!("NOTHING");

const HANDLES: &str = insert_known!("UPDATE SET handle = excluded.handle");

// Without a time of its own an account was made when its row was.
const PROFILES: &str = insert_known!(
    "UPDATE SET display_name = excluded.display_name, description = excluded.description,
    avatar_url = excluded.avatar_url, banner_url = excluded.banner_url, profile_record = excluded.profile_record,
    pinned_post = excluded.pinned_post,
    created_at = CASE WHEN excluded.created_at = excluded.indexed_at THEN t.indexed_at ELSE excluded.created_at END,
    search_vector = CASE WHEN $2 THEN excluded.search_vector ELSE t.search_vector END"
);

/// Looks again at rows made for accounts whose repos are not locked: one of their own batches may have ended since the
/// row was made up, and will not come back to it.
const LOOK_AGAIN: &str = "\
UPDATE users AS t SET handle = coalesce(r.handle, 'handle.invalid'), display_name = p.display_name,
    description = p.description, avatar_url = p.avatar_url, banner_url = p.banner_url, profile_record = p.record,
    pinned_post = p.pinned_post, created_at = coalesce(p.created_at, t.indexed_at),
    search_vector = CASE WHEN NOT $2 THEN t.search_vector WHEN p.did IS NOT NULL
      THEN to_tsvector('english', left(concat_ws(' ', p.display_name, p.description), 100000)) END
  FROM unnest($1::text[]) AS u (did)
  LEFT JOIN penstock.repos AS r ON r.did = u.did
  LEFT JOIN penstock.profiles AS p ON p.did = u.did
 WHERE t.did = u.did AND (t.handle <> coalesce(r.handle, 'handle.invalid') OR t.profile_record IS DISTINCT FROM p.record)";

/// Writes what changed, and creates missing rows.
pub(crate) async fn write(
    conn: &mut PgConnection,
    batch: &Parsed<'_>,
    guards: &Guards,
    changed: &Changed<'_>,
    search_vector: bool,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    let is_wanted = |did: &str| {
        let mut by = batch.subjects.range((did, "")..).take_while(|(subject, _)| *subject == did);
        batch.actors.contains_key(did) || by.any(|(_, by)| !guards.is_forbidden(by))
    };
    // All that are made are made first and in their order: two repos that point at each other would wait for each other's row.
    let missing: Vec<&str> = guards.missing.iter().map(String::as_str).filter(|did| is_wanted(did)).collect();
    let made = if missing.is_empty() {
        Vec::new()
    } else {
        insert(conn, MAKE, missing.iter().copied(), search_vector).await?
    };
    tally.users += fresh(&made);
    let made: BTreeSet<&str> = made.iter().map(|(did, _)| did.as_str()).collect();
    for (sql, dids) in [(HANDLES, &changed.handles), (PROFILES, &changed.profiles)] {
        // Those that were made just now say what is known already.
        let dids: Vec<&str> = dids.iter().copied().filter(|did| takes_did(did) && !made.contains(did)).collect();
        if !dids.is_empty() {
            let written = insert(conn, sql, dids.into_iter(), search_vector).await?;
            tally.users += fresh(&written);
        }
    }
    if !changed.profiles.is_empty() {
        *tally.rows.entry("users").or_default() += changed.profiles.len() as u64;
    }
    let unlocked: Vec<&str> = made.into_iter().filter(|did| !batch.actors.contains_key(did)).collect();
    if !unlocked.is_empty() {
        sqlx::query(LOOK_AGAIN).bind(unlocked).bind(search_vector).execute(conn).await?;
    }
    Ok(())
}

async fn insert<'d>(
    conn: &mut PgConnection,
    sql: &'static str,
    dids: impl Iterator<Item = &'d str>,
    search_vector: bool,
) -> sqlx::Result<Vec<(String, bool)>> {
    sqlx::query_as(sql).bind(dids.collect::<Vec<_>>()).bind(search_vector).fetch_all(conn).await
}

fn fresh(written: &[(String, bool)]) -> i64 {
    written.iter().filter(|(_, fresh)| *fresh).count() as i64
}

const IDENTITIES: &str = "\
UPDATE penstock.repos AS r SET identity_entry = u.entry, handle = u.handle
  FROM unnest($1::text[], $2::text[], $3::text[]) AS u (did, entry, handle) WHERE r.did = u.did";

/// Takes the handles of identity events that are later than the last one taken.
pub(crate) async fn take_identities<'b>(
    conn: &mut PgConnection,
    batch: &'b Parsed<'_>,
    guards: &Guards,
    changed: &mut Changed<'b>,
) -> sqlx::Result<()> {
    let later: Vec<_> = batch
        .identities
        .iter()
        .filter(|(did, (order, _))| guards.of(did).is_none_or(|guard| Some(*order) > guard.identity))
        .collect();
    if later.is_empty() {
        return Ok(());
    }
    sqlx::query(IDENTITIES)
        .bind(later.iter().map(|(did, _)| *did).bind_iter())
        .bind(later.iter().map(|(_, (order, _))| Stamp::live(*order, None).to_string()).bind_iter())
        .bind(later.iter().map(|(_, (_, handle))| *handle).bind_iter())
        .execute(conn)
        .await?;
    changed.handles = later.into_iter().map(|(did, _)| *did).collect();
    Ok(())
}

const MOVED: &str = "\
UPDATE penstock.repos AS r SET profile_rev = u.rev, profile_entry = u.entry
  FROM unnest($1::text[], $2::text[], $3::text[]) AS u (did, rev, entry) WHERE r.did = u.did";

const COPY: &str = "\
WITH u AS (
  SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::timestamp[]) AS u (did, name, description, avatar, banner, record, pinned, created_at)
), gone AS (
  DELETE FROM penstock.profiles AS p USING u WHERE p.did = u.did AND u.record IS NULL
)
INSERT INTO penstock.profiles AS p (did, display_name, description, avatar_url, banner_url, record, pinned_post, created_at)
SELECT u.did, u.name, u.description, u.avatar, u.banner, u.record::jsonb, u.pinned::jsonb, u.created_at FROM u
 WHERE u.record IS NOT NULL
ON CONFLICT (did) DO UPDATE SET display_name = excluded.display_name, description = excluded.description,
  avatar_url = excluded.avatar_url, banner_url = excluded.banner_url, record = excluded.record,
  pinned_post = excluded.pinned_post, created_at = excluded.created_at";

/// Copies profiles that another program wrote, and returns whose exist: a backfill leaves them.
const STANDING: &str = "\
WITH copied AS (
  INSERT INTO penstock.profiles (did, display_name, description, avatar_url, banner_url, record, pinned_post, created_at)
  SELECT did, display_name, description, avatar_url, banner_url, profile_record, pinned_post,
      nullif(created_at, indexed_at)
    FROM users WHERE did = ANY($1) AND profile_record IS NOT NULL
  ON CONFLICT (did) DO NOTHING RETURNING did
)
SELECT did FROM copied UNION ALL SELECT did FROM penstock.profiles WHERE did = ANY($1)";

/// Takes profiles; a deleted one leaves its guard behind.
pub(crate) async fn take_profiles<'b>(
    conn: &mut PgConnection,
    batch: &'b Parsed<'_>,
    guards: &Guards,
    changed: &mut Changed<'b>,
) -> sqlx::Result<()> {
    let mut written: BTreeMap<&str, Option<&Profile<'_>>> = BTreeMap::new();
    let mut fills: Vec<&str> = Vec::new();
    let mut moved: Vec<(&str, Version)> = Vec::new();
    let through = |did: &str| guards.deleted_through(did, batch);
    let is_covered = |did: &str, path: Option<&str>, version: &Version| guards.cover(did, path, version, batch);
    for (did, (ProfileOp { what, settles, .. }, version)) in fold_profiles(&batch.profiles, through, is_covered) {
        let stood = guards.of(did).and_then(|guard| guard.profile.as_ref());
        let alive = stood.filter(|stood| !stood.is_gone(through(did)));
        let against = |stood: &Version| match version.against(stood) {
            Verdict::Again | Verdict::Older if *settles && version.has_rev_of(stood) => Verdict::Newer,
            verdict => verdict,
        };
        match alive.map_or(Verdict::Newer, against) {
            Verdict::Older => continue,
            Verdict::Again => {}
            Verdict::Newer => {
                if version.stamp.is_some_and(Stamp::is_filled) && stood.is_none() {
                    fills.push(did);
                }
                written.insert(did, what.as_ref());
            }
        }
        moved.push((did, version));
    }
    if moved.is_empty() {
        return Ok(());
    }
    if !fills.is_empty() {
        let standing: Vec<String> = sqlx::query_scalar(STANDING).bind(fills).fetch_all(&mut *conn).await?;
        written.retain(|did, _| !standing.iter().any(|standing| standing == did));
    }
    if !written.is_empty() {
        let profiles = || written.values().copied();
        sqlx::query(COPY)
            .bind(written.keys().copied().bind_iter())
            .bind(profiles().map(|profile| profile?.display_name.as_deref()).bind_iter())
            .bind(profiles().map(|profile| profile?.description.as_deref()).bind_iter())
            .bind(profiles().map(|profile| profile?.avatar.as_deref()).bind_iter())
            .bind(profiles().map(|profile| profile?.banner.as_deref()).bind_iter())
            .bind(profiles().map(|profile| Some(profile?.record.as_str())).bind_iter())
            .bind(profiles().map(|profile| profile?.pinned_post.as_deref()).bind_iter())
            .bind(profiles().map(|profile| profile?.created_at).bind_iter())
            .execute(&mut *conn)
            .await?;
        if batch.records_cids {
            let uri = |did: &str| format!("at://{did}/{}/{}", PROFILE.0, PROFILE.1);
            let cids = written.iter().map(|(did, profile)| (uri(did), profile.and_then(|profile| profile.cid)));
            cids::set(conn, cids.collect()).await?;
        }
        changed.profiles = written.into_keys().collect();
    }
    sqlx::query(MOVED)
        .bind(moved.iter().map(|(did, _)| *did).bind_iter())
        .bind(moved.iter().map(|(_, version)| version.rev.as_deref()).bind_iter())
        .bind(moved.iter().map(|(_, version)| version.stamp.map(|stamp| stamp.to_string())).bind_iter())
        .execute(conn)
        .await?;
    Ok(())
}
