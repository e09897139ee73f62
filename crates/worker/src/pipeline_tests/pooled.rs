//! A whole worker behind a pooler that lends a session for each transaction, with programs beside it that share the sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use tokio::task::JoinSet;

use super::bench::{Bench, eventually};
use super::messages::{SOON, message};

/// What a transaction finds set, but for what a client calls itself, and what comes with a language that is used.
const SETTINGS: &str = "\
SELECT string_agg(name || ' = ' || coalesce(setting, ''), E'\n' ORDER BY name) FROM pg_settings
 WHERE name NOT IN ('application_name', 'transaction_read_only', 'transaction_isolation') AND name NOT LIKE 'plpgsql.%'";

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap()
}

async fn settings(conn: &mut PgConnection) -> String {
    sqlx::raw_sql(SETTINGS).fetch_one(conn).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_behind_a_pooler_is_exact_and_whoever_shares_it_finds_nothing_set() {
    let Some(options) = PgBouncerOptions::newest() else { return };
    let bench = Bench::new().await;
    let pooler = TestPgBouncer::start(TestPostgres::shared().await.unwrap(), &options).await.unwrap();
    let through = pooler.through(&bench.database);
    let expected = settings(&mut connect(&bench.database).await).await;
    let looks = Arc::new(AtomicU64::new(0));
    let mut others = JoinSet::new();
    for _ in 0..2 {
        let (through, expected, looks) = (through.clone(), expected.clone(), Arc::clone(&looks));
        others.spawn(async move {
            let mut conn = connect(&through).await;
            loop {
                let found = settings(&mut conn).await;
                let wrong: Vec<&str> = found.lines().filter(|line| !expected.lines().any(|of| of == *line)).collect();
                assert!(wrong.is_empty(), "{wrong:?}");
                looks.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        });
    }

    let often = [
        ("postgres.url", &*through),
        ("worker.checkpointInterval", "50ms"),
        ("worker.claimTime", "300ms"),
        ("worker.batchSize", "100"),
        ("worker.deleteBatch", "5"),
    ];
    let often: Vec<(&str, &str)> = often.into_iter().chain(SOON).collect();
    let first = bench.start("w-0", &often);
    let second = bench.start("w-1", &often);
    bench.add_likes(0..1500, 50).await;
    bench.queue((0..150).map(message)).await;
    eventually!(bench.total().await > 200);
    // As one that is killed.
    first.crash().await;
    bench.add_likes(1500..3000, 50).await;
    bench.queue((150..300).map(message)).await;
    bench.add("account", r#"{"did":"did:plc:r7","active":false,"status":"deleted"}"#, "9").await;
    let third = bench.start("w-2", &often);
    eventually!(bench.rows("likes").await == 2940 && bench.pending().await == 0, "but for the likes of one account");
    eventually!(bench.persisted().await == 300);
    bench.assert_written(0..300).await;
    eventually!(bench.counter("db:record_counts", "likes").await == 2940);
    for worker in [second, third] {
        worker.stop().await.unwrap();
    }
    assert!(others.try_join_next().is_none(), "whoever shares it found something set");
    assert!(looks.load(Ordering::Relaxed) > 0);
    let held = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
      WHERE l.locktype = 'advisory' AND d.datname = current_database()";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&bench.pool).await.unwrap();
    assert_eq!(held, 0, "no lock is left behind");
}
