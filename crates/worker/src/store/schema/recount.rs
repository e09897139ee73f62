//! Recomputes counts from the rows, for a database that came with wrong ones.

use std::time::Instant;

use sqlx::{Connection, Executor, PgConnection};
use tracing::info;

use super::database::Database;
use super::news::News;
use super::stage::Stage;
use super::{SchemaError, session};

/// How many rows had wrong counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Rows of `post_aggregations`, those that were missing or too many included.
    pub posts: u64,
    /// Counts that wait for posts that are not there.
    pub waiting: u64,
    /// Rows of `feed_generators` and `labeler_services`.
    pub liked: u64,
    /// Rows of `posts` that were wrong about their gates.
    pub gates: u64,
}

/// How many statements take long.
const STATEMENTS: u64 = 6;

/// The tables that [`LOCK`] locks and that are read as a whole.
pub(super) const LOCKED: &[&str] = &["likes", "reposts", "bookmarks", "posts", "quotes", "post_aggregations"];

/// Readers go on; writers wait, so that none adds to a count while it is made.
const LOCK: &str = "\
SET LOCAL statement_timeout = 0;
LOCK TABLE likes, reposts, bookmarks, posts, quotes, thread_gates, post_gates, post_aggregations, feed_generators,
  labeler_services, penstock.waiting_counts IN SHARE ROW EXCLUSIVE MODE;
CREATE TEMPORARY TABLE penstock_recount ON COMMIT DROP AS
SELECT uri, sum(likes)::int AS likes, sum(reposts)::int AS reposts, sum(replies)::int AS replies,
    sum(quotes)::int AS quotes, sum(bookmarks)::int AS bookmarks
  FROM (
    SELECT post_uri AS uri, count(*) AS likes, 0 AS reposts, 0 AS replies, 0 AS quotes, 0 AS bookmarks
      FROM likes GROUP BY post_uri
    UNION ALL SELECT post_uri, 0, count(*), 0, 0, 0 FROM reposts GROUP BY post_uri
    UNION ALL SELECT parent_uri, 0, 0, count(*), 0, 0 FROM posts WHERE parent_uri IS NOT NULL GROUP BY parent_uri
    UNION ALL SELECT quoted_uri, 0, 0, 0, count(*), 0 FROM quotes GROUP BY quoted_uri
    UNION ALL SELECT post_uri, 0, 0, 0, 0, count(*) FROM bookmarks GROUP BY post_uri
  ) AS counted GROUP BY uri;
CREATE UNIQUE INDEX ON penstock_recount (uri);
ANALYZE penstock_recount";

/// Every post has a row, whether or not anything counts for it.
const ADD: &str = "\
WITH written AS (
INSERT INTO post_aggregations AS a (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
SELECT p.uri, coalesce(r.likes, 0), coalesce(r.reposts, 0), coalesce(r.replies, 0), coalesce(r.quotes, 0),
    coalesce(r.bookmarks, 0)
  FROM posts AS p LEFT JOIN penstock_recount AS r ON r.uri = p.uri
ON CONFLICT (post_uri) DO UPDATE SET like_count = excluded.like_count, repost_count = excluded.repost_count,
    reply_count = excluded.reply_count, quote_count = excluded.quote_count, bookmark_count = excluded.bookmark_count,
    updated_at = now()
  WHERE (a.like_count, a.repost_count, a.reply_count, a.quote_count, a.bookmark_count) IS DISTINCT FROM
    (excluded.like_count, excluded.repost_count, excluded.reply_count, excluded.quote_count, excluded.bookmark_count)
RETURNING xmax = 0 AS fresh
)
SELECT count(*), count(*) FILTER (WHERE fresh) FROM written";

const DROP: &str = "\
DELETE FROM post_aggregations AS a WHERE NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = a.post_uri)";

const WAIT: [&str; 2] = [
    "DELETE FROM penstock.waiting_counts AS w
      WHERE EXISTS (SELECT FROM posts AS p WHERE p.uri = w.post_uri)
         OR NOT EXISTS (SELECT FROM penstock_recount AS r WHERE r.uri = w.post_uri)",
    "INSERT INTO penstock.waiting_counts AS w
       (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
     SELECT r.uri, r.likes, r.reposts, r.replies, r.quotes, r.bookmarks FROM penstock_recount AS r
      WHERE NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = r.uri)
     ON CONFLICT (post_uri) DO UPDATE SET like_count = excluded.like_count, repost_count = excluded.repost_count,
         reply_count = excluded.reply_count, quote_count = excluded.quote_count,
         bookmark_count = excluded.bookmark_count
       WHERE (w.like_count, w.repost_count, w.reply_count, w.quote_count, w.bookmark_count) IS DISTINCT FROM
         (excluded.like_count, excluded.repost_count, excluded.reply_count, excluded.quote_count,
           excluded.bookmark_count)",
];

/// The rows that came and went are counted as a worker's are: any worker publishes them.
const TALLY: &str = "\
INSERT INTO penstock.counts AS c (worker, field, total) VALUES ('recount', 'post_aggregations', $1)
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total";

/// Asks workers to set the counts of all rows again.
const ASK: &str = "\
INSERT INTO penstock.meta (key, value) VALUES ('counts', gen_random_uuid())
ON CONFLICT (key) DO UPDATE SET value = excluded.value";

const LIKED: [&str; 2] = [
    "UPDATE feed_generators AS g SET like_count = c.likes
       FROM (SELECT g.uri, coalesce(r.likes, 0) AS likes FROM feed_generators AS g LEFT JOIN penstock_recount AS r
         USING (uri)) AS c
      WHERE g.uri = c.uri AND g.like_count <> c.likes",
    "UPDATE labeler_services AS g SET like_count = c.likes
       FROM (SELECT g.uri, coalesce(r.likes, 0) AS likes FROM labeler_services AS g LEFT JOIN penstock_recount AS r
         USING (uri)) AS c
      WHERE g.uri = c.uri AND g.like_count <> c.likes",
];

const GATES: &str = "\
UPDATE posts AS p SET has_thread_gate = c.thread, has_post_gate = c.post
  FROM (
    SELECT p.uri, t.post_uri IS NOT NULL AS thread, g.post_uri IS NOT NULL AS post FROM posts AS p
      LEFT JOIN thread_gates AS t ON t.post_uri = p.uri LEFT JOIN post_gates AS g ON g.post_uri = p.uri
  ) AS c
 WHERE p.uri = c.uri AND (p.has_thread_gate, p.has_post_gate) IS DISTINCT FROM (c.thread, c.post)";

/// Recomputes `post_aggregations`, the counts of generators and labelers, and the gates of posts, in one transaction.
///
/// Workers then set `db:record_counts` from the rows that there are.
///
/// The rows of `post_aggregations` that come or go are added to the counts that workers publish, in that transaction.
/// Workers may run meanwhile: they wait until it ends, which on a big database takes minutes.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses a statement; nothing is changed then.
pub async fn recount(url: &str) -> Result<Mended, SchemaError> {
    Database::new(url).recount().await
}

impl Database<'_> {
    /// Does what [`recount`] does.
    ///
    /// # Errors
    /// As [`recount`].
    pub async fn recount(&self) -> Result<Mended, SchemaError> {
        let began = Instant::now();
        let mut conn = self.connect(&self.options()?).await?;
        self.tell(News::Begins(Stage::Recount));
        let mended = mend(&mut conn, self).await.map_err(SchemaError::Recount)?;
        self.tell(News::Ends { stage: Stage::Recount, took: began.elapsed() });
        info!(
            posts = mended.posts,
            waiting = mended.waiting,
            liked = mended.liked,
            gates = mended.gates,
            "counts repaired"
        );
        // The transaction is committed: a failed farewell changes nothing.
        let _ = conn.close().await;
        Ok(mended)
    }
}

async fn mend(conn: &mut PgConnection, database: &Database<'_>) -> sqlx::Result<Mended> {
    let comes =
        |done, what| database.tell(News::Comes { stage: Stage::Recount, what, done, all: STATEMENTS, for_log: true });

    let mut tx = session::begin_waiting(conn).await?;
    let mut mended = Mended::default();
    comes(0, "counting likes, reposts, replies, quotes and bookmarks");
    tx.execute(sqlx::raw_sql(LOCK)).await?;
    comes(1, "comparing post_aggregations");
    let (written, fresh): (i64, i64) = sqlx::query_as(ADD).fetch_one(&mut *tx).await?;
    comes(2, "looking for counts without a post");
    let dropped = tx.execute(DROP).await?.rows_affected();
    mended.posts = written.cast_unsigned() + dropped;
    let more = fresh - dropped.cast_signed();
    if more != 0 {
        sqlx::query(TALLY).bind(more).execute(&mut *tx).await?;
    }
    comes(3, "counts that wait for their posts");
    for sql in WAIT {
        mended.waiting += tx.execute(sql).await?.rows_affected();
    }
    comes(4, "counts of generators and labelers");
    for sql in LIKED {
        mended.liked += tx.execute(sql).await?.rows_affected();
    }
    comes(5, "gates of posts");
    mended.gates = tx.execute(GATES).await?.rows_affected();
    tx.execute(ASK).await?;
    tx.commit().await?;
    comes(STATEMENTS, "counts recomputed");
    Ok(mended)
}
