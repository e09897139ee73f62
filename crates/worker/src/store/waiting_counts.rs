//! Counts that wait for posts which another program makes.

use sqlx::PgConnection;

use super::connection::Store;
use super::derived;
use super::error::{ApplyError, Fault};
use super::head::Head;
use super::post_counts::SETTLE;
use super::tally::Tally;

/// Keys of the counts that wait, from the one given on.
const NEXT: &str = "SELECT post_uri FROM penstock.waiting_counts WHERE post_uri > $1 ORDER BY post_uri LIMIT $2";

/// Those of them whose post is there by now.
const FOUND: &str = "\
SELECT a.post_uri FROM unnest($1::text[]) AS u (uri) JOIN post_aggregations AS a ON a.post_uri = u.uri";

/// Holds their keys, in order: what is there then stays until the end.
const HOLD: &str = "\
SELECT post_uri FROM penstock.waiting_counts WHERE post_uri = ANY($1) ORDER BY post_uri FOR UPDATE";

// === impl Store ===

impl Store {
    /// Gives counts that wait to posts that another program made meanwhile, and returns after which URI to go on; none
    /// after the last. Looks at `limit` at most.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn settle_counts(&self, worker: &str, after: &str, limit: u32) -> Result<Option<String>, ApplyError> {
        let settled = async {
            let mut conn = self.connection().await?;
            let settled = self.in_time(settle(&self.head, &mut conn, worker, after, limit)).await;
            conn.answered(settled)
        };
        settled.await.map_err(|fault: Fault| fault.into())
    }
}

async fn settle(
    head: &Head,
    conn: &mut PgConnection,
    worker: &str,
    after: &str,
    limit: u32,
) -> Result<Option<String>, Fault> {
    let mut tx = head.begin(conn).await?;
    let uris: Vec<String> = sqlx::query_scalar(NEXT).bind(after).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let found: Vec<String> = sqlx::query_scalar(FOUND).bind(&uris).fetch_all(&mut *tx).await?;
    if !found.is_empty() {
        let found: Vec<String> = sqlx::query_scalar(HOLD).bind(&found).fetch_all(&mut *tx).await?;
        let fresh: i64 = sqlx::query_scalar(SETTLE).bind(&found).fetch_one(&mut *tx).await?;
        // What follows from such a post is not there yet, either.
        derived::defer(&mut tx, &found).await?;
        Tally { post_aggregations: fresh, ..Tally::default() }.write(&mut tx, worker).await?;
    }
    tx.commit().await?;
    Ok(uris.last().filter(|_| uris.len() >= limit as usize).cloned())
}
