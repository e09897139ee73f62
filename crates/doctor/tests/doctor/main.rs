//! The doctor before a real Redis and a real PostgreSQL, with players that do to them what the originals do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

mod clinic;
mod postgres;
mod redis;

use std::time::{Duration, Instant};

use clinic::Clinic;
use penstock_doctor::Level;
use penstock_local::testing::TestPostgres;
use sqlx::Executor;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_dead_server_is_a_failure_and_the_other_is_looked_at() {
    let clinic = Clinic::new().await;
    let redis_away = clinic.with("REDIS_URL", "redis://user:hunter2@127.0.0.1:1").examine().await;
    redis_away.says(Level::Fail, "redis.server", "redis://user:***@127.0.0.1:1");
    redis_away.says(Level::Ok, "postgres.server", "postgresql");
    let postgres_away = clinic.with("DATABASE_URL", "postgres://user:hunter2@127.0.0.1:1/db").examine().await;
    postgres_away.says(Level::Fail, "postgres.server", "postgres://user:***@127.0.0.1:1/db");
    postgres_away.says(Level::Ok, "redis.server", "redis 7");
    for report in [redis_away, postgres_away] {
        assert_eq!(report.0.exit_code(), 2);
        assert!(!report.0.to_text().contains("hunter2") && !report.0.to_json().contains("hunter2"), "{report:?}");
    }
}

#[tokio::test]
async fn servers_that_take_the_connection_and_say_nothing_do_not_hold_it_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let clinic = Clinic::new()
        .await
        .with("REDIS_URL", &format!("redis://127.0.0.1:{port}"))
        .with("DATABASE_URL", &format!("postgres://u@127.0.0.1:{port}/db"));
    let begun = Instant::now();
    let report = clinic.examine().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(report.level("redis.server"), Level::Fail);
    assert_eq!(report.level("postgres.server"), Level::Fail);
}

#[tokio::test]
async fn without_an_address_of_postgresql_redis_alone_is_looked_at() {
    let report = Clinic::new().await.without("DATABASE_URL").examine().await;
    report.says(Level::Note, "postgres.server", "no address is set");
    assert_eq!(report.level("redis.server"), Level::Ok);
}

#[tokio::test]
async fn nothing_is_written() {
    let postgres = TestPostgres::start().await.unwrap();
    let clinic = Clinic::new().await.with("DATABASE_URL", &postgres.url());
    clinic.python(1..20).await;
    clinic.group("firehose-processors").await;
    clinic.sql("CREATE TABLE firehose_cursor (service text, cursor text, updated_at timestamp DEFAULT now())").await;
    let pool = sqlx::PgPool::connect(&postgres.url()).await.unwrap();
    let transactions = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let state = async || {
        let changes = clinic.info("rdb_changes_since_last_save").await;
        let xmax: String = sqlx::query_scalar(transactions).fetch_one(&pool).await.unwrap();
        (changes, xmax)
    };
    let before = state().await;
    let report = clinic.examine().await;
    assert_eq!(state().await, before, "{report:?}");
    // The measure itself can tell.
    pool.execute("CREATE TABLE t ()").await.unwrap();
    clinic.python(20..21).await;
    let after = state().await;
    assert!(after.0 != before.0 && after.1 != before.1, "{after:?}");
}
