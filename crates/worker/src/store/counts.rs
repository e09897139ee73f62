//! Counts of what was really written: of posts, of generators and labelers, and of tables.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::postgres::PgBindIterExt;
use sqlx::query::QueryScalar;
use sqlx::{Connection, PgConnection};

use super::decide::{Deltas, Plan};
use super::error::Fault;
use super::table::{Count, Table};
use super::{ApplyError, Store, derived};

/// What a transaction wrote.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rows written by table: inserted, updated or removed.
    pub(crate) rows: BTreeMap<&'static str, u64>,
    /// Rows more or fewer, by table.
    grown: BTreeMap<Table, i64>,
    pub(crate) users: i64,
    pub(crate) feed_items: i64,
    pub(crate) post_aggregations: i64,
    /// The accounts of the batch that opted out.
    pub(crate) opted_out: BTreeSet<String>,
    /// Notifications that have no place because their URI is too long.
    pub(crate) refused_notifications: u64,
}

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

/// Takes the counts of posts that are no more: their likes may still stand.
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

const TALLY: &str = "\
INSERT INTO penstock.counts AS c (worker, field, total)
SELECT $1, u.field, u.more FROM unnest($2::text[], $3::bigint[]) AS u (field, more)
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total";

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
            plan.counts.hold(uri);
        }
    }
    if let Some(writes) = plan.tables.get(&Table::Posts) {
        // Whoever else made the one that stands may have been ended before its row.
        for uri in writes.inserts.keys().chain(writes.updates.keys()).chain(&writes.gone) {
            plan.counts.hold(uri);
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
            let settled = self.in_time(settle(&mut conn, worker, after, limit)).await;
            conn.answered(settled)
        };
        settled.await.map_err(|fault: Fault| fault.into())
    }
}

async fn settle(conn: &mut PgConnection, worker: &str, after: &str, limit: u32) -> Result<Option<String>, Fault> {
    let mut tx = conn.begin().await?;
    let uris: Vec<String> = sqlx::query_scalar(NEXT).bind(after).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let found: Vec<String> = sqlx::query_scalar(FOUND).bind(&uris).fetch_all(&mut *tx).await?;
    if !found.is_empty() {
        let found: Vec<String> = sqlx::query_scalar(HOLD).bind(&found).fetch_all(&mut *tx).await?;
        let fresh: i64 = sqlx::query_scalar(SETTLE).bind(&found).fetch_one(&mut *tx).await?;
        // What follows from such a post is not there yet, either.
        derived::leave(&mut tx, &found).await?;
        Tally { post_aggregations: fresh, ..Tally::default() }.write(&mut tx, worker).await?;
    }
    tx.commit().await?;
    Ok(uris.last().filter(|_| uris.len() >= limit as usize).cloned())
}

// === impl Tally ===

impl Tally {
    pub(crate) fn inserted(&mut self, table: Table, rows: u64) {
        self.updated(table, rows);
        *self.grown.entry(table).or_default() += rows.cast_signed();
    }

    pub(crate) fn updated(&mut self, table: Table, rows: u64) {
        *self.rows.entry(table.spec().name).or_default() += rows;
    }

    pub(crate) fn removed(&mut self, table: Table, rows: u64) {
        self.updated(table, rows);
        *self.grown.entry(table).or_default() -= rows.cast_signed();
    }

    pub(crate) fn left_shadows(&mut self, rows: u64) {
        self.wrote("penstock.shadowed", rows);
    }

    /// Counts rows of a table that holds no records.
    pub(crate) fn wrote(&mut self, table: &'static str, rows: u64) {
        if rows > 0 {
            *self.rows.entry(table).or_default() += rows;
        }
    }

    /// Returns what is added to the fields of `db:record_counts`.
    fn fields(&self) -> BTreeMap<&'static str, i64> {
        let tables = self.grown.iter().filter_map(|(table, more)| Some((table.spec().field?, *more)));
        let others =
            [("users", self.users), ("feed_items", self.feed_items), ("post_aggregations", self.post_aggregations)];
        tables.chain(others).filter(|(_, more)| *more != 0).collect()
    }

    /// Adds to the worker's totals.
    pub(crate) async fn write(&self, conn: &mut PgConnection, worker: &str) -> sqlx::Result<()> {
        let fields = self.fields();
        if !fields.is_empty() {
            sqlx::query(TALLY)
                .bind(worker)
                .bind(fields.keys().bind_iter())
                .bind(fields.values().bind_iter())
                .execute(conn)
                .await?;
        }
        Ok(())
    }
}
