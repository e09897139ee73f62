//! Rebuilds the tables derived from records from the rows, for a database whose workers did not write it.

use std::time::Instant;

use penstock_core::settings::{Projection, Projections};
use sqlx::{Connection, Executor, PgConnection};
use tracing::info;

use super::database::Database;
use super::news::News;
use super::stage::Stage;
use super::{SchemaError, session};
use crate::store::derived::Projector;

/// How many rows were made, changed or removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows of `notifications`.
    pub notifications: u64,
    /// Rows of `thread_contexts`.
    pub thread_contexts: u64,
    /// Rows of `post_viewer_states`.
    pub post_viewer_states: u64,
}

/// How many tables are rebuilt.
const TABLES: u64 = 3;

/// The tables that [`LOCK`] locks.
pub(super) const LOCKED: &[&str] = &["likes", "reposts", "bookmarks", "follows", "posts", "quotes"];

/// Readers go on; writers wait, so that none derives anything meanwhile.
const LOCK: &str = "\
SET LOCAL statement_timeout = 0;
LOCK TABLE likes, reposts, bookmarks, follows, posts, quotes IN SHARE ROW EXCLUSIVE MODE";

/// A like, a repost or a follow that lost its cause, or a post's notification without the post. What the workers before us
/// made for a handle in a text stays as long as the post.
const WITHDRAW: &str = "\
DELETE FROM notifications AS n
 WHERE n.reason IN ('like', 'repost', 'follow', 'reply', 'quote', 'mention') AND NOT EXISTS (
   SELECT FROM likes AS l JOIN posts AS p ON p.uri = l.post_uri
    WHERE n.reason = 'like' AND l.uri = split_part(n.uri, '#', 1) AND p.author_did <> l.user_did)
 AND NOT EXISTS (
   SELECT FROM reposts AS r JOIN posts AS p ON p.uri = r.post_uri
    WHERE n.reason = 'repost' AND r.uri = split_part(n.uri, '#', 1) AND p.author_did <> r.user_did)
 AND NOT EXISTS (SELECT FROM follows AS f WHERE n.reason = 'follow' AND f.uri = split_part(n.uri, '#', 1))
 AND NOT EXISTS (SELECT FROM posts AS c WHERE n.reason = 'mention' AND c.uri = split_part(n.uri, '#', 1))
 AND NOT EXISTS (
   SELECT FROM posts AS c JOIN posts AS p ON p.uri = c.parent_uri
    WHERE n.reason = 'reply' AND c.uri = split_part(n.uri, '#', 1) AND p.author_did <> c.author_did)
 AND NOT EXISTS (
   SELECT FROM quotes AS q JOIN posts AS c ON c.uri = q.post_uri JOIN posts AS p ON p.uri = q.quoted_uri
    WHERE n.reason = 'quote' AND c.uri = split_part(n.uri, '#', 1) AND p.author_did <> c.author_did)";

/// What is made so late is no news: it counts as read, and as old as its cause. The CIDs of likes and follows are not known.
const NOTIFY: &str = "\
INSERT INTO notifications (uri, recipient_did, author_did, reason, reason_subject, cid, is_read, created_at, indexed_at)
SELECT DISTINCT ON (d.uri) d.uri, d.recipient, d.author, d.reason, d.subject, d.cid, true, d.created_at, d.created_at FROM (
  SELECT l.uri || '#notification' AS uri, p.author_did AS recipient, l.user_did AS author, 'like' AS reason,
      p.uri AS subject, w.cid, l.created_at
    FROM likes AS l JOIN posts AS p ON p.uri = l.post_uri
    LEFT JOIN penstock.waiting_cids AS w ON w.uri = l.uri COLLATE \"C\"
  UNION ALL
  SELECT r.uri || '#notification', p.author_did, r.user_did, 'repost', p.uri, i.cid, r.created_at
    FROM reposts AS r JOIN posts AS p ON p.uri = r.post_uri LEFT JOIN feed_items AS i ON i.uri = r.uri
  UNION ALL
  SELECT f.uri || '#notification', f.following_did, f.follower_did, 'follow', NULL, NULL, f.created_at
    FROM follows AS f WHERE starts_with(f.following_did, 'did:')
  UNION ALL
  SELECT c.uri || '#notification/reply', p.author_did, c.author_did, 'reply', c.uri, c.cid, c.created_at
    FROM posts AS c JOIN posts AS p ON p.uri = c.parent_uri
  UNION ALL
  SELECT c.uri || '#notification/quote', p.author_did, c.author_did, 'quote', c.uri, c.cid, c.created_at
    FROM quotes AS q JOIN posts AS c ON c.uri = q.post_uri JOIN posts AS p ON p.uri = q.quoted_uri
  UNION ALL
  SELECT c.uri || '#notification/mention/' || (m.did #>> '{}'), m.did #>> '{}', c.author_did, 'mention', c.uri, c.cid,
      c.created_at
    FROM posts AS c CROSS JOIN LATERAL jsonb_path_query(c.facets, '$[*].features[*]
      ? (@.\"$type\" == \"app.bsky.richtext.facet#mention\" || @.py_type == \"app.bsky.richtext.facet#mention\").did') AS m (did)
   WHERE jsonb_typeof(m.did) = 'string' AND length(m.did #>> '{}') BETWEEN 1 AND 255
) AS d
 WHERE d.recipient <> d.author AND length(d.uri) <= 512
ON CONFLICT (uri) DO NOTHING";

/// Those that were told have no CID that waits.
const TOLD: &str = "\
DELETE FROM penstock.waiting_cids AS w USING likes AS l, posts AS p
 WHERE l.uri = w.uri COLLATE \"default\" AND p.uri = l.post_uri";

const PART: &str = "\
DELETE FROM thread_contexts AS t WHERE NOT EXISTS (
  SELECT FROM posts AS c JOIN posts AS r ON r.uri = c.root_uri WHERE c.uri = t.post_uri AND c.parent_uri IS NOT NULL)";

const JOIN: &str = "\
INSERT INTO thread_contexts AS t (post_uri, root_author_like_uri)
SELECT c.uri, l.uri FROM posts AS c JOIN posts AS r ON r.uri = c.root_uri
  LEFT JOIN likes AS l ON l.post_uri = c.uri AND l.user_did = r.author_did
 WHERE c.parent_uri IS NOT NULL
ON CONFLICT (post_uri) DO UPDATE SET root_author_like_uri = excluded.root_author_like_uri, updated_at = now()
  WHERE t.root_author_like_uri IS DISTINCT FROM excluded.root_author_like_uri";

const CLEAR: &str = "\
UPDATE post_viewer_states AS s SET like_uri = NULL, repost_uri = NULL, bookmarked = false, updated_at = now()
 WHERE (s.like_uri IS NOT NULL OR s.repost_uri IS NOT NULL OR s.bookmarked)
   AND NOT EXISTS (SELECT FROM likes AS l WHERE l.user_did = s.viewer_did AND l.post_uri = s.post_uri)
   AND NOT EXISTS (SELECT FROM reposts AS r WHERE r.user_did = s.viewer_did AND r.post_uri = s.post_uri)
   AND NOT EXISTS (SELECT FROM bookmarks AS b WHERE b.user_did = s.viewer_did AND b.post_uri = s.post_uri)";

const EMPTY: &str = "\
DELETE FROM post_viewer_states WHERE like_uri IS NULL AND repost_uri IS NULL
   AND NOT (bookmarked OR thread_muted OR reply_disabled OR embedding_disabled OR pinned)";

const FILL: &str = "\
INSERT INTO post_viewer_states AS s (post_uri, viewer_did, like_uri, repost_uri, bookmarked)
SELECT d.post, d.viewer, max(d.liked), max(d.reposted), bool_or(d.bookmarked) FROM (
  SELECT post_uri AS post, user_did AS viewer, uri AS liked, NULL AS reposted, false AS bookmarked FROM likes
  UNION ALL SELECT post_uri, user_did, NULL, uri, false FROM reposts
  UNION ALL SELECT post_uri, user_did, NULL, NULL, true FROM bookmarks
) AS d GROUP BY d.post, d.viewer
ON CONFLICT (post_uri, viewer_did) DO UPDATE SET like_uri = excluded.like_uri, repost_uri = excluded.repost_uri,
    bookmarked = excluded.bookmarked, updated_at = now()
  WHERE (s.like_uri, s.repost_uri, s.bookmarked) IS DISTINCT FROM (excluded.like_uri, excluded.repost_uri, excluded.bookmarked)";

/// Brings the projections that are on to what the rows say, in one transaction: notifications, contexts of threads and
/// states of posts. Notifications that are made so count as read.
///
/// Workers may run meanwhile: they wait until it ends, which on a big database takes as long as reading every like.
///
/// # Errors
/// When PostgreSQL cannot be reached or refuses a statement; nothing is changed then.
pub async fn rebuild(url: &str, projections: &Projections) -> Result<Rebuilt, SchemaError> {
    Database::new(url).rebuild(projections).await
}

impl Database<'_> {
    /// Does what [`rebuild`] does.
    ///
    /// # Errors
    /// As [`rebuild`].
    pub async fn rebuild(&self, projections: &Projections) -> Result<Rebuilt, SchemaError> {
        let began = Instant::now();
        let mut conn = self.connect(&self.options()?).await?;
        self.tell(News::Begins(Stage::Rebuild));
        let rebuilt = derive(&mut conn, projections, self).await.map_err(SchemaError::Rebuild)?;
        self.tell(News::Ends { stage: Stage::Rebuild, took: began.elapsed() });
        let Rebuilt { notifications, thread_contexts, post_viewer_states } = rebuilt;
        info!(notifications, thread_contexts, post_viewer_states, "projections rebuilt");
        // The transaction is committed: a failed farewell changes nothing.
        let _ = conn.close().await;
        Ok(rebuilt)
    }
}

async fn derive(conn: &mut PgConnection, projections: &Projections, database: &Database<'_>) -> sqlx::Result<Rebuilt> {
    let comes =
        |done, what| database.tell(News::Comes { stage: Stage::Rebuild, what, done, all: TABLES, for_log: true });
    let mut tx = session::begin_waiting(conn).await?;
    let active = Projector::new(projections.clone()).refresh(&mut tx).await?;
    tx.execute(sqlx::raw_sql(LOCK)).await?;
    let mut rebuilt = Rebuilt::default();
    if active.has(Projection::Notifications) {
        comes(0, "notifications");
        for sql in [WITHDRAW, NOTIFY] {
            rebuilt.notifications += tx.execute(sql).await?.rows_affected();
        }
        tx.execute(TOLD).await?;
    }
    if active.has(Projection::ThreadContexts) {
        comes(1, "thread_contexts");
        for sql in [PART, JOIN] {
            rebuilt.thread_contexts += tx.execute(sql).await?.rows_affected();
        }
    }
    if active.has(Projection::PostViewerStates) {
        comes(2, "post_viewer_states");
        for sql in [CLEAR, EMPTY, FILL] {
            rebuilt.post_viewer_states += tx.execute(sql).await?.rows_affected();
        }
    }
    // What was left to do is done with it.
    tx.execute("DELETE FROM penstock.unfinished_posts").await?;
    tx.commit().await?;
    Ok(rebuilt)
}
