//! How large the tables are and how fast they grow: asked of PostgreSQL now and then, never by a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, ListInterface};
use jiff::Timestamp;
use penstock_core::causes::said;
use penstock_postgres::schema::SEARCH_PATH_LOCAL;
use penstock_postgres::{Address, Pool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::App;
use crate::reading;
use crate::snapshot::View;

/// How often PostgreSQL is asked: the answer costs it a look at the size of each file of each table.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a sample is kept for the growth, in seconds.
const SAMPLE_EVERY: u64 = 3_600;

/// The samples that are kept: two days and a little.
const SAMPLES: i64 = 50;

/// The most tables that are shown, by size.
const MOST: i64 = 100;

const DAY: f64 = 86_400.0;

/// Rows are an estimate of PostgreSQL, from the last ANALYZE or VACUUM: counting them would read the tables.
const SIZES: &str = "\
SELECT CASE WHEN n.nspname = current_schema() THEN c.relname ELSE n.nspname || '.' || c.relname END::text, \
CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END, pg_total_relation_size(c.oid) \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'm') AND (n.nspname = ANY(current_schemas(false)) OR n.nspname = 'penstock') \
ORDER BY 3 DESC, 1 LIMIT ";

/// The tables of the database.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tables {
    /// When PostgreSQL was asked, in milliseconds since the epoch. Null: it has not answered yet.
    pub(crate) timestamp: Option<u64>,
    /// Over how long growth was measured, in seconds. Null: not known yet, it takes an hour.
    pub(crate) growth_seconds: Option<u64>,
    /// The largest first, at most 100.
    pub(crate) tables: Vec<Table>,
}

/// One table.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    name: String,
    /// Rows as PostgreSQL estimated them at its last ANALYZE or VACUUM. Null: never yet.
    rows_estimate: Option<u64>,
    /// Bytes with indexes and TOAST.
    bytes: u64,
    /// Bytes that it grows by per day; negative where it shrinks. Null: not known yet.
    bytes_per_day: Option<i64>,
}

/// How large each table was at one time; kept in Redis, so that a restart does not forget it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    /// In seconds since the epoch.
    at: u64,
    bytes: Vec<(String, u64)>,
}

/// What PostgreSQL says of one table: name, rows, bytes.
type Size = (String, Option<i64>, i64);

/// Asks PostgreSQL every minute until the service ends.
pub(crate) async fn watch_tables(app: Arc<App>, address: Address) {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).idle_timeout(INTERVAL / 2);
    let Ok(pool) = Pool::lazy(address, pool, |_| true) else { return app.ending.cancelled().await };
    // What was kept before stands in Redis, which is asked for it once an hour.
    let mut views = app.view.subscribe();
    let seen = timeout(PATIENCE, views.wait_for(|view| matches!(view, View::Clear { .. })));
    if app.ending.run_until_cancelled(seen).await.is_none() {
        return;
    }
    drop(views);
    let mut samples = Vec::new();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while app.ending.run_until_cancelled(ticks.tick()).await.is_some() {
        let look = look(&app, &pool, &mut samples);
        if app.ending.run_until_cancelled(look).await.is_none() {
            return;
        }
    }
}

/// Asks once, and shows the answer; without one, what was known stays, with its time.
async fn look(app: &App, pool: &Pool, samples: &mut Vec<Sample>) {
    let sizes = match timeout(PATIENCE, read(pool)).await {
        Ok(Ok(sizes)) => sizes,
        Ok(Err(error)) => return app.events.tables_not_read(&said(&error)),
        Err(_) => return app.events.tables_not_read("timed out"),
    };
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let sample = Sample::of(&sizes, now / 1000);
    if let Some((client, _)) = app.client_and_snapshot()
        && let Err(error) = keep(app, &client, samples, &sample).await
    {
        app.events.table_sizes_not_kept(&error);
    }
    if let Ok(body) = serde_json::to_vec(&tables(sizes, samples, now)) {
        app.tables.send_replace(Some(Bytes::from(body)));
    }
}

async fn read(pool: &Pool) -> Result<Vec<Size>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    // A table that somebody locks is no reason to wait with it.
    sqlx::query("SET LOCAL statement_timeout = '8s'").persistent(false).execute(&mut *transaction).await?;
    sqlx::query(SEARCH_PATH_LOCAL).persistent(false).execute(&mut *transaction).await?;
    let sizes = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SIZES}{MOST}")));
    let sizes = sizes.persistent(false).fetch_all(&mut *transaction).await?;
    transaction.rollback().await?;
    Ok(sizes)
}

/// Keeps a sample an hour, and learns those that were kept before, by whichever dashboard.
async fn keep(app: &App, client: &Client, samples: &mut Vec<Sample>, sample: &Sample) -> Result<(), Error> {
    let is_due = |samples: &[Sample]| samples.first().is_none_or(|last| sample.at >= last.at + SAMPLE_EVERY);
    if !is_due(samples) {
        return Ok(());
    }
    let ask = client.with_options(&reading::options(app.settings.redis.command_timeout));
    let key = app.settings.keys.table_sizes();
    let kept: Vec<String> = ask.lrange(&key, 0, SAMPLES - 1).await?;
    *samples = kept.iter().filter_map(|kept| serde_json::from_str(kept).ok()).collect();
    if is_due(samples) {
        let () = ask.lpush(&key, serde_json::to_string(sample).unwrap_or_default()).await?;
        let () = ask.ltrim(&key, 0, SAMPLES - 1).await?;
        samples.insert(0, sample.clone());
    }
    Ok(())
}

/// Puts together what is shown.
fn tables(sizes: Vec<Size>, samples: &[Sample], now: u64) -> Tables {
    let seconds = now / 1000;
    let before = before(samples, seconds);
    let span = before.map(|before| seconds - before.at);
    let table = |(name, rows, bytes): Size| {
        let bytes_before = before.and_then(|before| before.bytes.iter().find(|(known, _)| *known == name));
        let grown = bytes_before.map(|(_, before)| bytes as f64 - *before as f64);
        Table {
            rows_estimate: rows.and_then(|rows| u64::try_from(rows).ok()),
            bytes: u64::try_from(bytes).unwrap_or_default(),
            bytes_per_day: grown.zip(span).map(|(grown, span)| (grown * DAY / span as f64).round() as i64),
            name,
        }
    };
    Tables { timestamp: Some(now), growth_seconds: span, tables: sizes.into_iter().map(table).collect() }
}

/// Returns the sample to compare with: the one whose age is nearest to a day, but of an hour at least.
fn before(samples: &[Sample], now: u64) -> Option<&Sample> {
    let old = samples.iter().filter(|sample| sample.at + SAMPLE_EVERY <= now);
    old.min_by_key(|sample| (now - sample.at).abs_diff(86_400))
}

// === impl Sample ===

impl Sample {
    fn of(sizes: &[Size], at: u64) -> Self {
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        Self { at, bytes: sizes.iter().map(|(name, _, size)| (name.clone(), bytes(*size))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn sample(ago: u64, bytes: u64) -> Sample {
        Sample { at: NOW - ago, bytes: vec![("posts".into(), bytes)] }
    }

    fn growth(samples: &[Sample], bytes: i64) -> (Option<u64>, Option<i64>) {
        let shown = tables(vec![("posts".into(), Some(7), bytes)], samples, NOW * 1000);
        (shown.growth_seconds, shown.tables[0].bytes_per_day)
    }

    #[test]
    fn growth_is_not_known_before_there_is_a_sample_of_an_hour_ago() {
        assert_eq!(growth(&[], 500), (None, None));
        assert_eq!(growth(&[sample(3_599, 100)], 500), (None, None));
        assert_eq!(growth(&[sample(3_600, 100)], 500), (Some(3_600), Some(400 * 24)));
    }

    #[test]
    fn growth_is_measured_over_a_day_where_that_is_known() {
        let samples = [sample(3_600, 900), sample(80_000, 300), sample(170_000, 100)];
        assert_eq!(growth(&samples, 1_300), (Some(80_000), Some(1_080)));
        assert_eq!(growth(&[sample(86_400, 1_000)], 400), (Some(86_400), Some(-600)), "it shrinks");
    }

    #[test]
    fn a_table_that_is_new_or_was_never_analysed_has_what_is_known() {
        let shown = tables(vec![("new".into(), None, 8_192)], &[sample(7_200, 100)], NOW * 1000);
        let expected = Table { name: "new".into(), rows_estimate: None, bytes: 8_192, bytes_per_day: None };
        assert_eq!(shown.tables, [expected]);
    }
}
