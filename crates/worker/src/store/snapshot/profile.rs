//! How a profile stands beside what it ought to be.

use sqlx::PgConnection;

use super::inspect::Found;
use crate::store::project::Profile;
use crate::store::version::{Verdict, Version};

/// Whether it is kept and shown, and in what either differs.
const STANDS: &str = "\
SELECT p.did IS NOT NULL, u.profile_record IS NOT NULL, u.did IS NOT NULL,
  array_remove(ARRAY[CASE WHEN p.display_name IS DISTINCT FROM $2 THEN 'display_name' END,
    CASE WHEN p.description IS DISTINCT FROM $3 THEN 'description' END,
    CASE WHEN p.avatar_url IS DISTINCT FROM $4 THEN 'avatar_url' END,
    CASE WHEN p.banner_url IS DISTINCT FROM $5 THEN 'banner_url' END,
    CASE WHEN p.record IS DISTINCT FROM $6::jsonb THEN 'record' END,
    CASE WHEN p.pinned_post IS DISTINCT FROM $7::jsonb THEN 'pinned_post' END,
    CASE WHEN p.created_at IS DISTINCT FROM $8 THEN 'created_at' END], NULL),
  array_remove(ARRAY[CASE WHEN u.display_name IS DISTINCT FROM $2 THEN 'display_name' END,
    CASE WHEN u.description IS DISTINCT FROM $3 THEN 'description' END,
    CASE WHEN u.avatar_url IS DISTINCT FROM $4 THEN 'avatar_url' END,
    CASE WHEN u.banner_url IS DISTINCT FROM $5 THEN 'banner_url' END,
    CASE WHEN u.profile_record IS DISTINCT FROM $6::jsonb THEN 'profile_record' END,
    CASE WHEN u.pinned_post IS DISTINCT FROM $7::jsonb THEN 'pinned_post' END,
    CASE WHEN u.created_at IS DISTINCT FROM coalesce($8, u.indexed_at) THEN 'created_at' END], NULL)
  FROM (SELECT 1) AS one LEFT JOIN penstock.profiles AS p ON p.did = $1 LEFT JOIN users AS u ON u.did = $1";

/// Says how the profile of an account stands; `stood` is its guard, unless a deletion of the account took it.
pub(super) async fn judge(
    conn: &mut PgConnection,
    did: &str,
    wanted: Option<&Profile<'_>>,
    version: &Version,
    stood: Option<&Version>,
) -> sqlx::Result<Found> {
    if let Some(stood) = stood
        && version.against(stood) != Verdict::Newer
        && !version.has_rev_of(stood)
    {
        return Ok(Found::Newer);
    }
    let (is_kept, is_shown, is_user, copy, user): (bool, bool, bool, Vec<String>, Vec<String>) = sqlx::query_as(STANDS)
        .bind(did)
        .bind(wanted.and_then(|profile| profile.display_name.as_deref()))
        .bind(wanted.and_then(|profile| profile.description.as_deref()))
        .bind(wanted.and_then(|profile| profile.avatar.as_deref()))
        .bind(wanted.and_then(|profile| profile.banner.as_deref()))
        .bind(wanted.map(|profile| profile.record.as_str()))
        .bind(wanted.and_then(|profile| profile.pinned_post.as_deref()))
        .bind(wanted.and_then(|profile| profile.created_at))
        .fetch_one(conn)
        .await?;
    Ok(match wanted {
        None if is_kept || is_shown => Found::Extra,
        None => Found::Same,
        Some(_) if !is_kept && !is_shown => Found::Missing,
        Some(_) => {
            let copy = if is_kept { copy } else { vec!["not there".to_owned()] };
            // A row that the AppView pruned comes back with the next event.
            let user = if is_user { user } else { Vec::new() };
            let places = [("penstock.profiles", copy), ("users", user)];
            let wrong = places.iter().filter(|(_, columns)| !columns.is_empty());
            let wrong: Vec<String> = wrong.map(|(place, columns)| format!("{place}: {}", columns.join(", "))).collect();
            if wrong.is_empty() { Found::Same } else { Found::Different(wrong.join("; ")) }
        }
    })
}
