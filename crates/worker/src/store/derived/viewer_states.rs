//! `post_viewer_states`: what an account did with a post, beside the flags that the AppView keeps there.

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::touched::Touched;
use crate::store::tally::Tally;

/// Writes the states that likes, reposts and bookmarks changed: all of repos that the batch holds.
pub(super) async fn write(conn: &mut PgConnection, touched: &Touched<'_>, tally: &mut Tally) -> sqlx::Result<()> {
    let viewed = &touched.viewed;
    if viewed.is_empty() {
        return Ok(());
    }
    let written: i64 = sqlx::query_scalar(include_str!("viewer_states.sql"))
        .bind(viewed.iter().map(|(viewer, _)| viewer).bind_iter())
        .bind(viewed.iter().map(|(_, post)| post).bind_iter())
        .fetch_one(conn)
        .await?;
    tally.wrote("post_viewer_states", written.cast_unsigned());
    Ok(())
}
