//! The counts of posts, generators and labelers, from what was really written.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;
use sqlx::query::QueryScalar;

use super::decide::{Deltas, Plan};
use super::table::{Count, Table};
use super::tally::Tally;

/// Adds to the rows that there are, and returns whose those are; all are locked in order, also those that stay as they are.
/// Where something still waits for a row that another program made, both are added up first: a count never falls below 0.
const ADD: &str = "\
WITH held AS (
  SELECT u.* FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[])
      AS u (uri, likes, reposts, replies, quotes, bookmarks)
    JOIN post_aggregations AS a ON a.post_uri = u.uri
   WHERE NOT EXISTS (SELECT FROM penstock.waiting_counts AS w WHERE w.post_uri = u.uri COLLATE \"C\" OFFSET 0)
   ORDER BY u.uri COLLATE \"C\" FOR NO KEY UPDATE OF a
), written AS (
  UPDATE post_aggregations AS a SET updated_at = now(),
      like_count = greatest(a.like_count + h.likes, 0), repost_count = greatest(a.repost_count + h.reposts, 0),
      reply_count = greatest(a.reply_count + h.replies, 0), quote_count = greatest(a.quote_count + h.quotes, 0),
      bookmark_count = greatest(a.bookmark_count + h.bookmarks, 0)
    FROM held AS h WHERE a.post_uri = h.uri AND (h.likes, h.reposts, h.replies, h.quotes, h.bookmarks) <> (0, 0, 0, 0, 0)
)
SELECT uri FROM held";

/// Sets the counts of deleted posts aside: their likes may still exist.
const PART: &str = "\
WITH gone AS (DELETE FROM post_aggregations WHERE post_uri = ANY($1) RETURNING *), kept AS (
  INSERT INTO penstock.waiting_counts AS w (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
  SELECT post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count FROM gone
   WHERE greatest(like_count, repost_count, reply_count, quote_count, bookmark_count) > 0 ORDER BY post_uri COLLATE \"C\"
  ON CONFLICT (post_uri) DO UPDATE SET
    like_count = w.like_count + excluded.like_count, repost_count = w.repost_count + excluded.repost_count,
    reply_count = w.reply_count + excluded.reply_count, quote_count = w.quote_count + excluded.quote_count,
    bookmark_count = w.bookmark_count + excluded.bookmark_count
)
SELECT count(*) FROM gone";

/// Adds to what waits, and so holds the key of each of these, also of those that get nothing.
const WAIT: &str = "\
INSERT INTO penstock.waiting_counts AS w (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
SELECT * FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[])
ON CONFLICT (post_uri) DO UPDATE SET
  like_count = w.like_count + excluded.like_count, repost_count = w.repost_count + excluded.repost_count,
  reply_count = w.reply_count + excluded.reply_count, quote_count = w.quote_count + excluded.quote_count,
  bookmark_count = w.bookmark_count + excluded.bookmark_count";

/// Gives what waits to the posts that are there, and drops what counts nothing. A row may have been made meanwhile: by us, who
/// held the key until then, or by the AppView, who makes one with each of its posts. Whoever runs it holds the keys: so
/// what is there stays.
///
/// `OFFSET 0` keeps the planner from reading a whole table into a hash, which is right only while it is empty.
pub(super) const SETTLE: &str = "\
WITH moved AS (
  DELETE FROM penstock.waiting_counts AS w
   USING (SELECT u.uri, EXISTS (SELECT FROM posts AS p WHERE p.uri = u.uri OFFSET 0)
             OR EXISTS (SELECT FROM post_aggregations AS a WHERE a.post_uri = u.uri OFFSET 0) AS stands
            FROM unnest($1::text[]) AS u (uri)) AS u
   WHERE w.post_uri = u.uri AND (u.stands
     OR greatest(w.like_count, w.repost_count, w.reply_count, w.quote_count, w.bookmark_count) <= 0)
  RETURNING w.*, u.stands
), added AS (
  -- What waits may take from a row that came while the key was waited for.
  UPDATE post_aggregations AS a SET updated_at = now(),
      like_count = greatest(a.like_count + m.like_count, 0), repost_count = greatest(a.repost_count + m.repost_count, 0),
      reply_count = greatest(a.reply_count + m.reply_count, 0), quote_count = greatest(a.quote_count + m.quote_count, 0),
      bookmark_count = greatest(a.bookmark_count + m.bookmark_count, 0)
    FROM moved AS m WHERE a.post_uri = m.post_uri COLLATE \"default\" AND m.stands
  RETURNING a.post_uri
), written AS (
  INSERT INTO post_aggregations AS a (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
  SELECT post_uri, greatest(like_count, 0), greatest(repost_count, 0), greatest(reply_count, 0), greatest(quote_count, 0),
      greatest(bookmark_count, 0)
    FROM moved AS m WHERE stands AND m.post_uri COLLATE \"default\" NOT IN (SELECT d.post_uri FROM added AS d)
   ORDER BY post_uri
  ON CONFLICT (post_uri) DO UPDATE SET updated_at = now(),
    like_count = greatest(a.like_count + excluded.like_count, 0),
    repost_count = greatest(a.repost_count + excluded.repost_count, 0),
    reply_count = greatest(a.reply_count + excluded.reply_count, 0),
    quote_count = greatest(a.quote_count + excluded.quote_count, 0),
    bookmark_count = greatest(a.bookmark_count + excluded.bookmark_count, 0)
  RETURNING xmax = 0 AS fresh
)
SELECT count(*) FILTER (WHERE fresh) FROM written";

/// A table whose rows carry the number of their likes: how its URIs look, and the statements for rows that are new
/// and for rows that stood.
struct Liked {
    table: Table,
    path: &'static str,
    count: &'static str,
    add: &'static str,
}

const LIKED: [Liked; 2] = [
    Liked {
        table: Table::FeedGenerators,
        path: "/app.bsky.feed.generator/",
        count: "UPDATE feed_generators AS g SET like_count =
                  (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri) WHERE g.uri = ANY($1)",
        add: "UPDATE feed_generators AS g SET like_count = greatest(g.like_count + u.more, 0)
                FROM unnest($1::text[], $2::int[]) AS u (uri, more) WHERE g.uri = u.uri",
    },
    Liked {
        table: Table::LabelerServices,
        path: "/app.bsky.labeler.service/",
        count: "UPDATE labeler_services AS g SET like_count =
                  (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri) WHERE g.uri = ANY($1)",
        add: "UPDATE labeler_services AS g SET like_count = greatest(g.like_count + u.more, 0)
                FROM unnest($1::text[], $2::int[]) AS u (uri, more) WHERE g.uri = u.uri",
    },
];

/// Adds to the counts of posts, and to the likes of generators and labelers.
///
/// A post has a row in `post_aggregations` exactly as long as it stands: the AppView updates that row where it is there,
/// and makes it with each post of its own. What is counted for a post that is not there waits in `penstock.waiting_counts`.
///
/// Comes last in a transaction: posts are shared by all repos. Whoever counts for a URI, or makes it a post, holds either its
/// row or, where there is none, its key among those that wait; rows and keys are taken in order. So what is read after
/// this, and below, sees all that others did who counted for the same URI. For a generator that just came it is the same: either
/// its count sees the other's likes or the other sees the generator.
pub(crate) async fn write_counts(
    conn: &mut PgConnection,
    plan: &mut Plan<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    for Liked { table, .. } in &LIKED {
        for uri in plan.tables.get(table).into_iter().flat_map(|writes| writes.inserts.keys()) {
            plan.counts.lock(uri);
        }
    }
    if let Some(writes) = plan.tables.get(&Table::Posts) {
        // Whoever else made the one that stands may have been ended before its row.
        for uri in writes.inserts.keys().chain(writes.updates.keys()).chain(&writes.gone) {
            plan.counts.lock(uri);
        }
    }
    let posts = plan.counts.by_post();
    if posts.is_empty() {
        return Ok(());
    }
    // Who makes or takes away a post holds its key before its row, as whoever settles does.
    let writes = plan.tables.get(&Table::Posts);
    let is_first =
        |uri: &String| writes.is_some_and(|writes| writes.inserts.contains_key(uri) || writes.gone.contains(uri));
    let (first, others): (Vec<_>, Vec<_>) = posts.iter().partition(|(uri, _)| is_first(uri));
    wait(conn, &first).await?;
    let held: HashSet<String> = if others.is_empty() {
        HashSet::new()
    } else {
        bind(sqlx::query_scalar(ADD), &others.iter().copied()).fetch_all(&mut *conn).await?.into_iter().collect()
    };
    if let Some(gone) = writes.map(|writes| &writes.gone).filter(|gone| !gone.is_empty()) {
        let parted: i64 = sqlx::query_scalar(PART).bind(gone.iter().bind_iter()).fetch_one(&mut *conn).await?;
        tally.post_aggregations -= parted;
    }
    let rest: Vec<_> = others.into_iter().filter(|(uri, _)| !held.contains(*uri)).collect();
    wait(conn, &rest).await?;
    if !(first.is_empty() && rest.is_empty()) {
        let uris = first.iter().chain(&rest).map(|(uri, _)| *uri).bind_iter();
        let fresh: i64 = sqlx::query_scalar(SETTLE).bind(uris).fetch_one(&mut *conn).await?;
        tally.post_aggregations += fresh;
    }
    for liked in &LIKED {
        write_liked(conn, liked, plan).await?;
    }
    Ok(())
}

const SET: [&str; 5] = [
    "UPDATE post_aggregations AS a SET updated_at = now(),
        like_count = (SELECT count(*) FROM likes AS r WHERE r.post_uri = a.post_uri),
        repost_count = (SELECT count(*) FROM reposts AS r WHERE r.post_uri = a.post_uri),
        reply_count = (SELECT count(*) FROM posts AS r WHERE r.parent_uri = a.post_uri),
        quote_count = (SELECT count(*) FROM quotes AS r WHERE r.quoted_uri = a.post_uri),
        bookmark_count = (SELECT count(*) FROM bookmarks AS r WHERE r.post_uri = a.post_uri)
      WHERE a.post_uri = ANY($1)",
    "UPDATE feed_generators AS g SET like_count = (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri) WHERE g.uri = ANY($1)",
    "UPDATE labeler_services AS g SET like_count = (SELECT count(*) FROM likes AS l WHERE l.post_uri = g.uri) WHERE g.uri = ANY($1)",
    // What is counted for records that are no posts, or none yet.
    "DELETE FROM penstock.waiting_counts AS w WHERE w.post_uri = ANY($1)
        AND NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = w.post_uri COLLATE \"default\" OFFSET 0)",
    "INSERT INTO penstock.waiting_counts (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
     SELECT c.* FROM (
       SELECT u.uri, (SELECT count(*) FROM likes AS r WHERE r.post_uri = u.uri) AS likes,
         (SELECT count(*) FROM reposts AS r WHERE r.post_uri = u.uri) AS reposts,
         (SELECT count(*) FROM posts AS r WHERE r.parent_uri = u.uri) AS replies,
         (SELECT count(*) FROM quotes AS r WHERE r.quoted_uri = u.uri) AS quotes,
         (SELECT count(*) FROM bookmarks AS r WHERE r.post_uri = u.uri) AS bookmarks
         FROM unnest($1::text[]) AS u (uri)
        WHERE NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = u.uri OFFSET 0)
     ) AS c WHERE greatest(c.likes, c.reposts, c.replies, c.quotes, c.bookmarks) > 0 ORDER BY c.uri COLLATE \"C\"
     ON CONFLICT (post_uri) DO UPDATE SET like_count = excluded.like_count, repost_count = excluded.repost_count,
       reply_count = excluded.reply_count, quote_count = excluded.quote_count, bookmark_count = excluded.bookmark_count",
];

/// Sets the counts of what stands to those of the rows.
///
/// The counts of all of these are locked: whoever counts for one of them and has committed is seen, and whoever has not adds to it
/// afterwards.
pub(crate) async fn set(conn: &mut PgConnection, uris: &[String]) -> sqlx::Result<()> {
    if !uris.is_empty() {
        for sql in SET {
            sqlx::query(sql).bind(uris).execute(&mut *conn).await?;
        }
    }
    Ok(())
}

async fn wait(conn: &mut PgConnection, posts: &[(&String, &Deltas)]) -> sqlx::Result<()> {
    if !posts.is_empty() {
        bind(sqlx::query_scalar::<_, i64>(WAIT), &posts.iter().copied()).fetch_optional(conn).await?;
    }
    Ok(())
}

type Scalar<'q, T> = QueryScalar<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>;

/// Binds URIs and what is added to each of their counts, an array each.
fn bind<'q, T>(
    query: Scalar<'q, T>,
    posts: &(impl Iterator<Item = (&'q String, &'q Deltas)> + Clone + 'q),
) -> Scalar<'q, T> {
    let uris = posts.clone().map(|(uri, _)| uri).bind_iter();
    let more = move |count: Count| posts.clone().map(move |(_, deltas)| delta(deltas, count)).bind_iter();
    query
        .bind(uris)
        .bind(more(Count::Likes))
        .bind(more(Count::Reposts))
        .bind(more(Count::Replies))
        .bind(more(Count::Quotes))
        .bind(more(Count::Bookmarks))
}

/// A batch holds far fewer than 2^31 rows.
fn delta(deltas: &Deltas, count: Count) -> i32 {
    i32::try_from(deltas[count as usize]).unwrap_or(i32::MAX)
}

async fn write_liked(conn: &mut PgConnection, liked: &Liked, plan: &Plan<'_, '_>) -> sqlx::Result<()> {
    let none = BTreeMap::new();
    let fresh = plan.tables.get(&liked.table).map_or(&none, |writes| &writes.inserts);
    let stood: Vec<_> = plan
        .counts
        .by_post()
        .iter()
        .filter(|(uri, deltas)| deltas[Count::Likes as usize] != 0 && uri.contains(liked.path))
        .filter(|(uri, _)| !fresh.contains_key(*uri))
        .collect();
    if !fresh.is_empty() {
        sqlx::query(liked.count).bind(fresh.keys().bind_iter()).execute(&mut *conn).await?;
    }
    if !stood.is_empty() {
        sqlx::query(liked.add)
            .bind(stood.iter().map(|(uri, _)| uri).bind_iter())
            .bind(stood.iter().map(|(_, deltas)| delta(deltas, Count::Likes)).bind_iter())
            .execute(conn)
            .await?;
    }
    Ok(())
}
