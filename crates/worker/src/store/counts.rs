//! Counts of what was really written: of posts, of generators and labelers, and of tables.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::postgres::PgBindIterExt;

use super::decide::{Deltas, Plan};
use super::table::{Count, Table};

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
}

const ADD: &str = "\
WITH written AS (
  INSERT INTO post_aggregations AS a (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
  SELECT * FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::int[], $6::int[])
  ON CONFLICT (post_uri) DO UPDATE SET updated_at = now(),
    like_count = greatest(a.like_count + excluded.like_count, 0),
    repost_count = greatest(a.repost_count + excluded.repost_count, 0),
    reply_count = greatest(a.reply_count + excluded.reply_count, 0),
    quote_count = greatest(a.quote_count + excluded.quote_count, 0),
    bookmark_count = greatest(a.bookmark_count + excluded.bookmark_count, 0)
  RETURNING xmax = 0 AS fresh
)
SELECT count(*) FILTER (WHERE fresh) FROM written";

/// A post without counts has no row: else what stands would depend on how batches were cut.
const DROP: &str = "\
DELETE FROM post_aggregations WHERE post_uri = ANY($1) AND greatest(like_count, repost_count, reply_count,
  quote_count, bookmark_count) <= 0";

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

/// Adds to `post_aggregations` and to the likes of generators and labelers.
///
/// Comes last in a transaction: posts are shared by all repos, and their rows are locked in order. Whoever adds to the
/// likes of a URI holds its row here first, also for a generator that just came, so that either its count sees the
/// other's likes or the other sees the generator.
pub(crate) async fn write_counts(
    conn: &mut PgConnection,
    plan: &mut Plan<'_, '_>,
    tally: &mut Tally,
) -> sqlx::Result<()> {
    plan.counts.settle();
    for Liked { table, .. } in &LIKED {
        for uri in plan.tables.get(table).into_iter().flat_map(|writes| writes.inserts.keys()) {
            plan.counts.hold(uri);
        }
    }
    let posts = plan.counts.by_post();
    if posts.is_empty() {
        return Ok(());
    }
    let more = |count: Count| posts.values().map(move |deltas| delta(deltas, count)).bind_iter();
    let fresh: i64 = sqlx::query_scalar(ADD)
        .bind(posts.keys().bind_iter())
        .bind(more(Count::Likes))
        .bind(more(Count::Reposts))
        .bind(more(Count::Replies))
        .bind(more(Count::Quotes))
        .bind(more(Count::Bookmarks))
        .fetch_one(&mut *conn)
        .await?;
    tally.post_aggregations += fresh;
    for liked in &LIKED {
        write_liked(conn, liked, plan).await?;
    }
    let lowered: Vec<_> = posts
        .iter()
        .filter(|(_, deltas)| deltas.iter().all(|by| *by <= 0) || deltas.iter().any(|by| *by < 0))
        .map(|(uri, _)| uri)
        .collect();
    if !lowered.is_empty() {
        let dropped = sqlx::query(DROP).bind(lowered).execute(conn).await?.rows_affected();
        tally.post_aggregations -= dropped.cast_signed();
    }
    Ok(())
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
        if rows > 0 {
            *self.rows.entry("penstock.shadowed").or_default() += rows;
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
