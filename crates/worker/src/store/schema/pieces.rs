//! Long statements cut into pieces that are remembered.

use std::time::Instant;

use sqlx::PgConnection;
use tracing::info;

use super::database::Database;
use super::locks::{Step, Wait, patiently};
use super::news::{News, SELDOM};
use super::session;
use super::stage::Stage;

/// Blocks of a table that one transaction goes through: 4 MiB.
const BLOCKS: i64 = 512;

/// Without these a piece would be joined by reading the whole other table, which is as many times as there are pieces.
const BY_INDEX: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";

/// Blocks there are, and which file they are in: a table that was rewritten begins anew.
const SIZE: &str = "\
SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint,
  coalesce(pg_relation_filenode(to_regclass($1))::text, '')";

/// A statement over a table; `{range}` in it is replaced by the range of `t.ctid`.
pub(super) struct Pieces<'a> {
    /// What is done, as `penstock.meta` says it behind `moving`.
    pub(super) step: &'a str,
    /// The table that is read through.
    pub(super) table: &'a str,
    /// What is done with it.
    pub(super) statement: &'a str,
}

impl Pieces<'_> {
    /// Runs it, some blocks a transaction, which also keeps up to where it came: interrupted, it goes on there.
    ///
    /// # Errors
    /// When PostgreSQL refuses a statement, or a piece gets no lock for two minutes.
    pub(super) async fn run(&self, conn: &mut PgConnection, database: Database<'_>) -> Step<()> {
        let Self { step, table, statement } = self;
        let mut tx = session::begin_reading(conn).await?;
        let (blocks, file): (i64, String) = sqlx::query_as(SIZE).bind(table).fetch_one(&mut *tx).await?;
        let kept: Option<String> = sqlx::query_scalar("SELECT value FROM penstock.meta WHERE key = 'moving ' || $1")
            .bind(step)
            .fetch_optional(&mut *tx)
            .await?;
        tx.rollback().await?;
        let mut from = kept.and_then(|kept| kept.strip_prefix(&format!("{file}/"))?.parse().ok()).unwrap_or(0);
        let mut told = Instant::now();
        while from < blocks {
            let to = from + BLOCKS;
            let range = format!("t.ctid >= '({from},0)'::tid AND t.ctid < '({to},0)'::tid");
            let piece = statement.replace("{range}", &range);
            let keep = format!(
                "INSERT INTO penstock.meta (key, value) VALUES ('moving {step}', '{file}/{to}') \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            );
            patiently(conn, Wait::Rows, table, &format!("{BY_INDEX}; {piece}; {keep}")).await?;
            from = to;
            let (done, all) = (from.min(blocks).unsigned_abs(), blocks.unsigned_abs());
            let for_log = told.elapsed() > SELDOM;
            if for_log {
                told = Instant::now();
            }
            database.tell(News::Comes { stage: Stage::MoveColumns, what: table, done, all, for_log });
        }
        Ok(())
    }

    /// Runs it over the whole table, of which each time it sees one moment, until there is nothing left to do: rows that
    /// somebody wrote anew during the pieces may lie where those had been already.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn finish(&self, conn: &mut PgConnection) -> Step<()> {
        let whole = self.statement.replace("{range}", "true");
        loop {
            let rows = patiently(conn, Wait::Rows, self.table, &whole).await?;
            if rows == 0 {
                return Ok(());
            }
            info!(step = self.step, rows, "moved what was written meanwhile");
        }
    }
}
