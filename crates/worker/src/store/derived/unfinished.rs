//! Posts that were created or deleted and have too many dependent rows for one transaction: the rest follows a page at a time.

use std::collections::BTreeSet;

use penstock_core::settings::Projection;
use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::active::Active;
use super::posts::write_for_posts;
use super::stale::Stale;
use super::touched::Touched;
use crate::store::decide::Plan;
use crate::store::error::Fault;
use crate::store::post_counts;
use crate::store::tally::Tally;

const DEFER: &str = "\
INSERT INTO penstock.unfinished_posts (uri) SELECT u.uri FROM unnest($1::text[]) AS u (uri) ON CONFLICT (uri) DO NOTHING";

/// Reads no more of a post's dependent rows than it needs to decide.
const LARGE: &str = "\
SELECT u.uri FROM unnest($1::text[]) AS u (uri)
 WHERE (SELECT count(*) FROM (
     (SELECT 1 FROM likes AS l WHERE l.post_uri = u.uri LIMIT $2)
     UNION ALL (SELECT 1 FROM reposts AS r WHERE r.post_uri = u.uri LIMIT $2)
     UNION ALL (SELECT 1 FROM quotes AS q WHERE q.quoted_uri = u.uri LIMIT $2)
     UNION ALL (SELECT 1 FROM posts AS c WHERE c.parent_uri = u.uri LIMIT $2)
     UNION ALL (SELECT 1 FROM posts AS c WHERE c.root_uri = u.uri LIMIT $2)
   ) AS behind) >= $2";

const DONE: &str = "DELETE FROM penstock.unfinished_posts WHERE uri = $1";

/// Records posts that are to be finished later.
pub(crate) async fn defer<P>(conn: &mut PgConnection, posts: P) -> sqlx::Result<()>
where
    P: IntoIterator<Item: AsRef<str>>,
{
    let posts: Vec<_> = posts.into_iter().collect();
    sqlx::query(DEFER).bind(posts.iter().map(AsRef::as_ref).bind_iter()).execute(conn).await?;
    Ok(())
}

/// Returns which posts have at least so many dependent rows.
pub(super) async fn large(conn: &mut PgConnection, posts: &[&str], page: u32) -> sqlx::Result<BTreeSet<String>> {
    let large: Vec<String> = sqlx::query_scalar(LARGE).bind(posts).bind(i64::from(page)).fetch_all(conn).await?;
    Ok(large.into_iter().collect())
}

/// Does a page of such a post; returns how many rows that were, and whether it is finished.
pub(crate) async fn finish(
    conn: &mut PgConnection,
    active: Active,
    post: &str,
    page: u32,
    stale: &mut Stale,
) -> Result<(u64, bool), Fault> {
    let mut tally = Tally::default();
    // The post's lock comes first, as in every batch.
    let mut plan = Plan::default();
    plan.counts.lock(post);
    post_counts::write_counts(conn, &mut plan, &mut tally).await?;
    let (contexts, whole) = write_for_posts(conn, active, &Touched::post(post), page, &mut tally).await?;
    if active.has(Projection::Cache) {
        stale.add_contexts(&contexts);
    }
    if whole {
        sqlx::query(DONE).bind(post).execute(conn).await?;
    }
    Ok((tally.rows.values().sum(), whole))
}
