//! Moves what Penstock 0.1 kept in the AppView's schema into its own, and takes its columns out of the AppView's tables.
//!
//! The tables move at once, in one short transaction, which also leaves a mark. What stands in columns moves in pieces, a
//! transaction each, so that nobody waits for it; the mark goes last. Whatever interrupts it, the next migration goes on: up
//! to which block each table was moved stands in `penstock.meta`, and a row that was moved is not moved again.
//!
//! No worker of 0.1 writes once its tables moved: each of its batches begins with `penstock_repos`. The AppView may go on; it
//! changes no stamp, but an update of its moves the row that holds one.

use sqlx::PgConnection;
use tracing::info;

use super::database::Database;
use super::indexes;
use super::locks::{Step, Wait, patiently};
use super::pieces::Pieces;
use super::session;
use crate::store::table::{Spec, Table};

/// Whether something is still to be moved.
pub(super) const IS_MARKED: &str = "\
SELECT to_regclass('penstock.meta') IS NOT NULL
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('penstock.meta') AND attname = 'key')";

/// The tables move with their indexes. Those that a later version makes anew are not there yet.
const TABLES: &str = "\
CREATE SCHEMA IF NOT EXISTS penstock;
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['repos', 'tombstones', 'shadowed', 'counts', 'checkpoint', 'dead_letters', 'meta'] LOOP
    IF to_regclass('penstock_' || name) IS NOT NULL THEN
      EXECUTE format('ALTER TABLE %I SET SCHEMA penstock', 'penstock_' || name);
      EXECUTE format('ALTER TABLE penstock.%I RENAME TO %I', 'penstock_' || name, name);
    END IF;
  END LOOP;
  FOREACH name IN ARRAY ARRAY['repos_unswept', 'tombstones_entry_id', 'shadowed_pair', 'shadowed_repo',
      'dead_letters_created_at'] LOOP
    IF to_regclass('penstock.idx_penstock_' || name) IS NOT NULL THEN
      EXECUTE format('ALTER INDEX penstock.%I RENAME TO %I', 'idx_penstock_' || name, name);
    END IF;
  END LOOP;
END
$$;
DROP TABLE IF EXISTS penstock_migrations;
INSERT INTO penstock.meta (key, value) VALUES ('moving', '1') ON CONFLICT (key) DO NOTHING";

/// Adds tables that an older version made anew to those that had moved.
const MERGE: &str = include_str!("merge.sql");

/// Where an older version's tables are, and whether its tables had moved before.
pub(super) const FOUND: &str =
    "SELECT to_regclass('penstock_meta') IS NOT NULL, to_regclass('penstock.meta') IS NOT NULL";

async fn found(conn: &mut PgConnection) -> sqlx::Result<(bool, bool)> {
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_as(FOUND).fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    Ok(found)
}

/// Moves the tables of an older version, if there are any that never moved.
pub(super) async fn tables(conn: &mut PgConnection) -> Step<()> {
    if let (true, false) = found(conn).await? {
        patiently(conn, Wait::Table, "penstock_repos", TABLES).await?;
        info!("the tables of an older version were moved into the schema penstock");
    }
    Ok(())
}

/// Merges the tables of an older version that was started once more, into what the migrations made.
pub(super) async fn merge(conn: &mut PgConnection) -> Step<()> {
    if let (true, true) = found(conn).await? {
        patiently(conn, Wait::Table, "penstock_repos", MERGE).await?;
        info!("an older version was started meanwhile: its tables were merged into the schema penstock");
    }
    Ok(())
}

/// Moves what an older version kept in columns, if it is not done yet.
pub(super) async fn columns(conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
    let mut tx = session::begin_reading(conn).await?;
    let is_moving = sqlx::query_scalar::<_, bool>(IS_MARKED).fetch_one(&mut *tx).await?
        && sqlx::query_scalar::<_, bool>(super::IS_MOVING).fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    if !is_moving {
        return Ok(());
    }
    for table in Table::ALL {
        if has_column(conn, table.spec().name, "entry_id").await? {
            stamps(conn, table, database).await?;
            info!(table = table.spec().name, "the stamps of a table were moved");
        }
    }
    messages(conn, database).await?;
    patiently(
        conn,
        Wait::Table,
        "users",
        "ALTER TABLE users DROP COLUMN IF EXISTS active, DROP COLUMN IF EXISTS status",
    )
    .await?;
    patiently(conn, Wait::Rows, "starter_packs", FEEDS).await?;
    counts(conn, database).await?;
    indexes::remake(conn, database).await?;
    patiently(
        conn,
        Wait::Rows,
        "penstock.meta",
        "DELETE FROM penstock.meta WHERE key = 'moving' OR key LIKE 'moving %'",
    )
    .await?;
    info!("what an older version kept in the tables of the appview was moved");
    Ok(())
}

pub(super) async fn has_column(conn: &mut PgConnection, table: &str, column: &str) -> Step<bool> {
    let mut tx = session::begin_reading(conn).await?;
    let found = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped)",
    )
    .bind(table)
    .bind(column)
    .fetch_one(&mut *tx)
    .await?;
    tx.rollback().await?;
    Ok(found)
}

/// The stamp of a row as it stands now: with the relay's number, where there is room for it.
const STAMP: &str = "\
CASE WHEN length(t.entry_id) > 32 THEN NULL
  ELSE t.entry_id || CASE WHEN t.commit_seq ~ '^[0-9]{1,11}$' AND length(t.entry_id) + length(t.commit_seq) < 32
    THEN ':' || t.commit_seq ELSE '' END END";

async fn stamps(conn: &mut PgConnection, table: Table, database: Database<'_>) -> Step<()> {
    let Spec { name, key, commit, .. } = table.spec();
    let (statement, dropped) = if *commit {
        // Only a stamp of ours has a dash.
        let statement = format!(
            "UPDATE {name} AS t SET commit_seq = {STAMP} WHERE {{range}} AND t.entry_id IS NOT NULL \
             AND (t.commit_seq IS NULL OR strpos(t.commit_seq, '-') = 0) AND t.commit_seq IS DISTINCT FROM {STAMP}"
        );
        (statement, "DROP COLUMN entry_id")
    } else {
        let uri = table.uri_sql(&format!("t.{key}"));
        let statement = format!(
            "INSERT INTO penstock.stamps (uri, commit_rev, entry_id) SELECT {uri}, t.commit_rev, t.entry_id FROM {name} AS t \
             WHERE {{range}} AND t.entry_id IS NOT NULL AND length(t.entry_id) <= 32 \
             AND NOT EXISTS (SELECT FROM penstock.stamps AS s WHERE s.uri = {uri} COLLATE \"C\" \
               AND s.commit_rev IS NOT DISTINCT FROM t.commit_rev COLLATE \"C\" AND s.entry_id = t.entry_id COLLATE \"C\") \
             ON CONFLICT (uri) DO UPDATE SET commit_rev = excluded.commit_rev, entry_id = excluded.entry_id"
        );
        (statement, "DROP COLUMN entry_id, DROP COLUMN IF EXISTS commit_rev")
    };
    let pieces = Pieces { step: name, table: name, statement: &statement };
    pieces.run(conn, database).await?;
    pieces.finish(conn).await?;
    // With the columns goes the place: should they come again, all of the table is to be read.
    let sql = format!("ALTER TABLE {name} {dropped}; DELETE FROM penstock.meta WHERE key = 'moving {name}'");
    patiently(conn, Wait::Table, name, &sql).await.map(drop)
}

/// Who inserts a message takes its lock on the table first, and then its number: later ones have higher numbers.
const LAST_MESSAGE: &str = "\
LOCK TABLE messages IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO penstock.meta (key, value) SELECT 'moving messages after', coalesce(max(id), 0) FROM messages
ON CONFLICT (key) DO UPDATE SET value = excluded.value";

const KEYS: &str = "\
INSERT INTO penstock.message_keys (dedupe_key, message_id, tracking_id)
SELECT t.dedupe_key, t.id, t.tracking_id FROM messages AS t
 WHERE {range} AND t.dedupe_key IS NOT NULL
   AND NOT EXISTS (SELECT FROM penstock.message_keys AS k WHERE k.dedupe_key = t.dedupe_key COLLATE \"C\")
ON CONFLICT (dedupe_key) DO NOTHING";

const LATER_MESSAGES: &str = "t.id > (SELECT value::bigint FROM penstock.meta WHERE key = 'moving messages after')";

/// Where no message ever came, the table is no use either: where the buffer is enabled it is made again, and its numbers
/// begin at 1. A table without our columns is the message system's own, and never comes here.
const MESSAGES: &str = "\
ALTER TABLE messages DROP COLUMN dedupe_key, DROP COLUMN IF EXISTS tracking_id;
DO $$ BEGIN IF NOT EXISTS (SELECT FROM messages) THEN DROP TABLE messages; END IF; END $$;
DELETE FROM penstock.meta WHERE key LIKE 'moving messages%'";

/// The keys of messages go beside their table.
async fn messages(conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
    if !has_column(conn, "messages", "dedupe_key").await? {
        return Ok(());
    }
    patiently(conn, Wait::Table, "messages", LAST_MESSAGE).await?;
    let pieces = Pieces { step: "messages", table: "messages", statement: KEYS };
    pieces.run(conn, database).await?;
    pieces.finish(conn).await?;
    // What came since is few, and nobody adds to it.
    let later = KEYS.replace("{range}", LATER_MESSAGES);
    let sql = format!("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE; {later}; {MESSAGES}");
    patiently(conn, Wait::Table, "messages", &sql).await.map(drop)
}

/// A pack's feeds were kept as its record has them.
const FEEDS: &str = "\
UPDATE starter_packs SET feeds =
    (SELECT coalesce(jsonb_agg(coalesce(feed->'uri', feed)), '[]') FROM jsonb_array_elements(feeds) AS f (feed))
 WHERE jsonb_typeof(feeds) = 'array' AND feeds @? '$[*] ? (@.type() == \"object\")'";

const COUNTS_WITHOUT_POST: &str = "\
WITH gone AS (
  DELETE FROM post_aggregations AS t WHERE {range} AND NOT EXISTS (SELECT FROM posts AS p WHERE p.uri = t.post_uri) RETURNING *
), kept AS (
  INSERT INTO penstock.waiting_counts AS w (post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count)
  SELECT post_uri, like_count, repost_count, reply_count, quote_count, bookmark_count FROM gone
   WHERE greatest(like_count, repost_count, reply_count, quote_count, bookmark_count) > 0
  ON CONFLICT (post_uri) DO UPDATE SET
    like_count = w.like_count + excluded.like_count, repost_count = w.repost_count + excluded.repost_count,
    reply_count = w.reply_count + excluded.reply_count, quote_count = w.quote_count + excluded.quote_count,
    bookmark_count = w.bookmark_count + excluded.bookmark_count
)
INSERT INTO penstock.counts AS c (worker, field, total) SELECT 'migrate', 'post_aggregations', -count(*) FROM gone
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total";

const POSTS_WITHOUT_COUNTS: &str = "\
WITH made AS (
  INSERT INTO post_aggregations (post_uri)
  SELECT t.uri FROM posts AS t
   WHERE {range} AND NOT EXISTS (SELECT FROM post_aggregations AS a WHERE a.post_uri = t.uri)
  ON CONFLICT (post_uri) DO NOTHING RETURNING post_uri
)
INSERT INTO penstock.counts AS c (worker, field, total) SELECT 'migrate', 'post_aggregations', count(*) FROM made
ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total";

/// A row of counts stands exactly where its post does.
async fn counts(conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
    let gone = Pieces { step: "counts", table: "post_aggregations", statement: COUNTS_WITHOUT_POST };
    gone.run(conn, database).await?;
    let made = Pieces { step: "posts without counts", table: "posts", statement: POSTS_WITHOUT_COUNTS };
    made.run(conn, database).await
}
