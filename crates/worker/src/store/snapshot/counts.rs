//! The counts of posts, generators and labelers beside the rows that there are.

use std::collections::BTreeSet;

use super::content::Content;
use super::write::{STORED, stored};
use crate::store::connection::Store;
use crate::store::error::{ApplyError, Fault};
use crate::store::table::Table;

/// How many posts are counted in one statement: some have very many likes.
const POSTS: usize = 100;

/// Posts, generators and labelers whose counts are not those of the rows: URI, and which counts. One statement, which sees what others
/// commit together as a whole. Of posts that are not there what waits for them is held against the rows.
const WRONG: &str = "\
SELECT c.uri, array_remove(ARRAY[CASE WHEN c.stored[1] <> c.real[1] THEN 'like_count' END,
    CASE WHEN c.stored[2] <> c.real[2] THEN 'repost_count' END, CASE WHEN c.stored[3] <> c.real[3] THEN 'reply_count' END,
    CASE WHEN c.stored[4] <> c.real[4] THEN 'quote_count' END, CASE WHEN c.stored[5] <> c.real[5] THEN 'bookmark_count' END,
    CASE WHEN c.lacks THEN 'no row in post_aggregations' END], NULL)
  FROM (
    SELECT u.uri, a.post_uri IS NULL AND EXISTS (SELECT FROM posts AS p WHERE p.uri = u.uri OFFSET 0) AS lacks,
      ARRAY[coalesce(a.like_count, 0) + coalesce(w.like_count, 0), coalesce(a.repost_count, 0) + coalesce(w.repost_count, 0),
        coalesce(a.reply_count, 0) + coalesce(w.reply_count, 0), coalesce(a.quote_count, 0) + coalesce(w.quote_count, 0),
        coalesce(a.bookmark_count, 0) + coalesce(w.bookmark_count, 0)]::int8[] AS stored,
      ARRAY[(SELECT count(*) FROM likes AS r WHERE r.post_uri = u.uri), (SELECT count(*) FROM reposts AS r WHERE r.post_uri = u.uri),
        (SELECT count(*) FROM posts AS r WHERE r.parent_uri = u.uri), (SELECT count(*) FROM quotes AS r WHERE r.quoted_uri = u.uri),
        (SELECT count(*) FROM bookmarks AS r WHERE r.post_uri = u.uri)]::int8[] AS real
      FROM unnest($1::text[]) AS u (uri)
      LEFT JOIN post_aggregations AS a ON a.post_uri = u.uri
      LEFT JOIN penstock.waiting_counts AS w ON w.post_uri = u.uri COLLATE \"C\"
     WHERE a.post_uri IS NOT NULL OR w.post_uri IS NOT NULL OR EXISTS (SELECT FROM posts AS p WHERE p.uri = u.uri OFFSET 0)
  ) AS c
 WHERE c.stored <> c.real OR c.lacks
UNION ALL
SELECT g.uri, ARRAY['like_count'] FROM feed_generators AS g
 WHERE g.uri = ANY($2) AND g.like_count <> (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri)
UNION ALL
SELECT g.uri, ARRAY['like_count'] FROM labeler_services AS g
 WHERE g.uri = ANY($2) AND g.like_count <> (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri)";

/// What waits for posts of a repo between two URIs, in order.
const WAITING: &str =
    "SELECT post_uri FROM penstock.waiting_counts WHERE post_uri > $1 AND post_uri <= $2 ORDER BY post_uri LIMIT $3";

const POST: &str = "app.bsky.feed.post/";

// === impl Store ===

impl Store {
    /// Names the records after one path and through another of which a count is wrong, each with which. Those that cannot be counted in
    /// the time that a statement has are left out.
    ///
    /// Nothing is locked: it is right as of some moment, as what is counted is committed along with its count.
    pub(super) async fn miscounted(
        &self,
        content: &Content<'_>,
        after: Option<&str>,
        through: &str,
    ) -> sqlx::Result<Vec<(String, Vec<String>)>> {
        let counted = content.counted(after, through);
        let gone = self.counted_of_others(content, after, through, &counted).await?;
        let counted = [counted, gone].concat();
        let mut chunks: Vec<&[String]> = counted.chunks(POSTS).collect();
        let mut wrong = Vec::new();
        while let Some(chunk) = chunks.pop() {
            let query = sqlx::query_as(WRONG).bind(chunk).bind(chunk);
            let found: sqlx::Result<Vec<(String, Vec<String>)>> =
                self.in_transaction(async |tx| query.fetch_all(tx).await).await;
            match found.map_err(|error| ApplyError::from(Fault::from(error))) {
                Ok(found) => wrong.extend(found),
                Err(error) if error.is_out_of_time() => {
                    if chunk.len() > 1 {
                        let (first, second) = chunk.split_at(chunk.len() / 2);
                        chunks.extend([first, second]);
                    }
                }
                Err(ApplyError::Retry { source: Some(error), .. }) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(wrong)
    }

    /// Lists the posts of a range that something is counted of and that are not in it: some are stored yet, and what is counted of
    /// them waits when they go; of others it waits already.
    async fn counted_of_others(
        &self,
        content: &Content<'_>,
        after: Option<&str>,
        through: &str,
        counted: &[String],
    ) -> sqlx::Result<Vec<String>> {
        if after.is_some_and(|after| after >= "app.bsky.feed.post0") || through < POST {
            return Ok(Vec::new());
        }
        let did = content.did;
        // No further than posts go.
        let from = after.filter(|after| *after > POST).unwrap_or(POST);
        let to = through.min("app.bsky.feed.post0");
        let found = self.in_transaction(async |tx| {
            let stored = stored(tx, self, did, Some(from), to, Some(Table::Posts.alone()), STORED).await?;
            let waiting: Vec<String> = sqlx::query_scalar(WAITING)
                .bind(format!("at://{did}/{from}"))
                .bind(format!("at://{did}/{to}"))
                .bind(i64::try_from(STORED).unwrap_or(i64::MAX))
                .fetch_all(tx)
                .await?;
            Ok(stored.into_iter().chain(waiting).collect::<BTreeSet<String>>())
        });
        let counted: BTreeSet<&String> = counted.iter().collect();
        Ok(found.await?.into_iter().filter(|uri| !counted.contains(uri)).collect())
    }
}
