//! Posts that came or went and had too much behind them for one transaction: the rest follows a page at a time.

use penstock_core::settings::Projection;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::{Active, Stale, Touched, write_for_posts};
use crate::store::counts::{self, Tally};
use crate::store::decide::Plan;
use crate::store::error::Fault;

const LEAVE: &str = "\
INSERT INTO penstock.unfinished_posts (uri) SELECT u.uri FROM unnest($1::text[]) AS u (uri) ON CONFLICT (uri) DO NOTHING";

const NEXT: &str = "SELECT uri FROM penstock.unfinished_posts ORDER BY uri LIMIT 1";

const DONE: &str = "DELETE FROM penstock.unfinished_posts WHERE uri = $1";

/// Notes posts of which something is left to do.
pub(crate) async fn leave(conn: &mut PgConnection, posts: &[impl AsRef<str>]) -> sqlx::Result<()> {
    sqlx::query(LEAVE).bind(posts.iter().map(AsRef::as_ref).bind_iter()).execute(conn).await?;
    Ok(())
}

/// Does a page of what one such post left; returns how many rows that were, and `None` where there is no such post.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    active: Active,
    page: u32,
    stale: &mut Stale,
) -> Result<Option<u64>, Fault> {
    let next: Option<String> = sqlx::query_scalar(NEXT).fetch_optional(&mut *conn).await?;
    let Some(post) = next else { return Ok(None) };
    let mut tally = Tally::default();
    // The post's lock comes first, as in every batch.
    let mut plan = Plan::default();
    plan.counts.hold(&post);
    counts::write_counts(conn, &mut plan, &mut tally).await?;
    let (contexts, whole) = write_for_posts(conn, active, &Touched::post(&post), page, &mut tally).await?;
    if active.has(Projection::Cache) {
        stale.add_contexts(&contexts);
    }
    if whole {
        sqlx::query(DONE).bind(&post).execute(conn).await?;
    }
    Ok(Some(tally.rows.values().sum()))
}
