//! `thread_contexts`: one row for each reply whose thread has its first post, with the like of the one who began it.

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::touched::Touched;
use crate::store::tally::Tally;

/// Writes the contexts that changed; returns their replies, and whether nothing is left to do.
pub(super) async fn write(
    conn: &mut PgConnection,
    touched: &Touched<'_>,
    page: u32,
    tally: &mut Tally,
) -> sqlx::Result<(Vec<String>, bool)> {
    let Touched { posts, changed, moved, liked, .. } = touched;
    if posts.is_empty() && changed.is_empty() && moved.is_empty() && liked.is_empty() {
        return Ok((Vec::new(), true));
    }
    let (late, changed): (i64, Vec<String>) = sqlx::query_as(include_str!("thread_contexts.sql"))
        .bind(posts.iter().chain(changed).bind_iter())
        .bind(liked.iter().map(|(viewer, _)| viewer).bind_iter())
        .bind(liked.iter().map(|(_, post)| post).bind_iter())
        .bind(moved)
        .bind(i64::from(page))
        .fetch_one(conn)
        .await?;
    tally.wrote("thread_contexts", changed.len() as u64);
    Ok((changed, late < i64::from(page)))
}
