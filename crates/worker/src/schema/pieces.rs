//! Long statements cut into pieces that are remembered, and short ones that wait for a lock without holding others up.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tracing::{info, warn};

use super::{DEADLINE, is_locked};

/// Blocks of a table that one transaction goes through: 4 MiB.
const BLOCKS: i64 = 512;

/// Between two attempts, so that whoever waits behind us gets its turn.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a long move says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Without these a piece would be joined by reading the whole other table, which is as many times as there are pieces.
const BY_INDEX: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off";

/// Blocks there are, and which file they are in: a table that was rewritten begins anew.
const SIZE: &str = "\
SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint,
  coalesce(pg_relation_filenode(to_regclass($1))::text, '')";

/// Runs statements, which are one transaction, as often as it takes until they get their locks; returns how many rows they
/// changed.
///
/// # Errors
/// When they fail otherwise, or get no lock for two minutes.
pub(super) async fn patiently(conn: &mut PgConnection, sql: &str) -> sqlx::Result<u64> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await {
            Ok(done) => return Ok(done.rows_affected()),
            Err(error) if is_locked(&error) && Instant::now() < deadline => {
                warn!(%error, "a table is in use, trying this step again");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

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
    pub(super) async fn run(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let Self { step, table, statement } = self;
        let (blocks, file): (i64, String) = sqlx::query_as(SIZE).bind(table).fetch_one(&mut *conn).await?;
        let kept: Option<String> = sqlx::query_scalar("SELECT value FROM penstock.meta WHERE key = 'moving ' || $1")
            .bind(step)
            .fetch_optional(&mut *conn)
            .await?;
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
            patiently(conn, &format!("{BY_INDEX}; {piece}; {keep}")).await?;
            from = to;
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                info!(step, table, block = from, blocks, "moving what an older version kept");
            }
        }
        Ok(())
    }

    /// Runs it over the whole table, of which each time it sees one moment, until there is nothing left to do: rows that
    /// somebody wrote anew during the pieces may lie where those had been already.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) async fn finish(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        // It waits for rows only, and holds nobody up meanwhile.
        let whole = format!("SET LOCAL lock_timeout = '60s'; {}", self.statement.replace("{range}", "true"));
        loop {
            let rows = patiently(conn, &whole).await?;
            if rows == 0 {
                return Ok(());
            }
            info!(step = self.step, rows, "moved what was written meanwhile");
        }
    }
}
