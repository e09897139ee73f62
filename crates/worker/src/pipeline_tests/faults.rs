//! Redis and PostgreSQL that are away, empty or not ready.

use penstock_local::testing::{TestPostgres, fresh_database};
use penstock_local::{Persistence, RedisOptions};

use super::bench::{Bench, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_costs_nothing_but_time() {
    let mut postgres = TestPostgres::start().await.unwrap();
    let database = postgres.fresh_database().await.unwrap();
    crate::migrate(&database, true).await.unwrap();
    let bench = Bench::on(database, RedisOptions::default()).await;
    let worker = bench.start("w-0", &[("worker.batchSize", "100")]);
    bench.add_likes(0..500, 50).await;
    eventually!(bench.total().await == 500);
    postgres.stop().await.unwrap();
    bench.add_likes(500..3000, 50).await;
    eventually!(!worker.health.is_ready());
    eventually!(bench.pending().await == 400, "reading stops when the queue is full");
    assert!(worker.health.is_alive());
    assert_eq!(bench.total().await, 500, "nothing is acknowledged");
    assert_eq!(bench.pending().await, 400);
    postgres.restart().await.unwrap();
    eventually!(bench.total().await == 3000);
    assert_eq!(bench.rows("likes").await, 3000);
    eventually!(worker.health.is_ready());
    assert_eq!(bench.dead_letters().await.len(), 0);
    worker.stop().await.unwrap();
}

/// As after a failover whose address still leads to the server that is a replica now.
const READ_ONLY: &str = "\
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name = 'penstock-worker' AND datname = current_database()";

const WRITABLE: &str = "\
SET default_transaction_read_only = off;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database()); END $$";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_became_read_only_is_told_and_written_as_soon_as_the_address_leads_to_another() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[]);
    bench.add_likes(0..100, 50).await;
    eventually!(bench.total().await == 100);
    bench.execute(READ_ONLY).await;
    bench.add_likes(100..200, 50).await;
    eventually!(worker.metric("penstock_worker_retries_total{reason=\"read-only database\"}") >= 3.0);
    eventually!(!worker.health.is_ready());
    assert!(worker.health.is_alive(), "a restart would not mend it");
    assert_eq!(bench.total().await, 100);
    // Every connection of the worker is one to the replica: each has to be given up.
    bench.execute(WRITABLE).await;
    eventually!(bench.total().await == 200);
    eventually!(worker.health.is_ready());
    assert_eq!(bench.rows("likes").await, 200);
    assert_eq!(bench.dead_letters().await.len(), 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_is_read_on_and_one_that_comes_back_empty_from_its_beginning() {
    let database = fresh_database().await.unwrap();
    crate::migrate(&database, true).await.unwrap();
    let options = RedisOptions { persistence: Persistence::Aof, ..RedisOptions::default() };
    let mut bench = Bench::on(database, options).await;
    let worker = bench.start("w-0", &[]);
    bench.add_likes(0..300, 50).await;
    eventually!(bench.total().await == 300);
    bench.redis.restart().await.unwrap();
    bench.add_likes(300..600, 50).await;
    eventually!(bench.total().await == 600);
    assert_eq!(bench.rows("likes").await, 600);

    bench.command("FLUSHALL").await;
    bench.add_likes(600..900, 50).await;
    eventually!(bench.total().await == 300);
    eventually!(bench.counter("db:record_counts", "likes").await == 900, "the counts are whole again");
    assert_eq!(bench.rows("likes").await, 900);
    eventually!(worker.health.is_ready());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_tables_and_can_be_stopped_meanwhile() {
    let database = fresh_database().await.unwrap();
    let bench = Bench::on(database.clone(), RedisOptions::default()).await;
    bench.add_likes(0..10, 10).await;
    let early = bench.start("w-0", &[]);
    let late = bench.start("w-1", &[]);
    eventually!(bench.command("CLIENT LIST").await.as_str().unwrap().lines().count() >= 5);
    assert!(!early.health.is_ready());
    early.stop().await.unwrap();
    crate::migrate(&database, true).await.unwrap();
    eventually!(bench.total().await == 10);
    late.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_in_time_though_redis_and_postgres_are_gone() {
    let mut postgres = TestPostgres::start().await.unwrap();
    let database = postgres.fresh_database().await.unwrap();
    crate::migrate(&database, true).await.unwrap();
    let mut bench = Bench::on(database, RedisOptions::default()).await;
    let worker = bench.start("w-0", &[]);
    bench.add_likes(0..10, 10).await;
    eventually!(bench.total().await == 10);
    postgres.stop().await.unwrap();
    bench.redis.kill();
    eventually!(!worker.health.is_ready());
    worker.stop().await.unwrap();
}
