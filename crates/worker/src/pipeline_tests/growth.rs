//! How big tables and keys are, as metrics say it.

use super::bench::{Bench, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_how_big_tables_and_keys_are() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..200, 3).await;
    let before = bench.start("w-0", &[]);
    eventually!(bench.rows("likes").await == 200);
    before.stop().await.unwrap();
    bench.execute("ANALYZE likes; ANALYZE penstock.repos").await;
    let worker = bench.start("w-1", &[]);
    eventually!(worker.metric(r#"penstock_redis_key_length{key="firehose:events"}"#) == 200.0);
    assert!(worker.metric(r#"penstock_redis_key_bytes{key="firehose:events"}"#) > 10_000.0);
    // An estimate: what a worker that ended wrote may be added after it was counted.
    eventually!(worker.metric(r#"penstock_store_rows{table="likes"}"#) >= 200.0);
    assert!(worker.metric(r#"penstock_store_bytes{table="likes"}"#) > 10_000.0);
    assert!(worker.metric(r#"penstock_store_rows{table="penstock.repos"}"#) >= 3.0);
    // More than any of its tables; a gauge that is never set is 0.
    eventually!(worker.metric("penstock_store_database_bytes") > 1_000_000.0);
    // Each table of ours, none forgotten.
    let ours = bench
        .texts("SELECT relname::text FROM pg_class WHERE relnamespace = 'penstock'::regnamespace AND relkind = 'r'");
    for table in ours.await.into_iter().filter(|table| table != "migrations") {
        let name = format!(r#"penstock_store_bytes{{table="penstock.{table}"}}"#);
        assert!(worker.metric(&name) > 0.0, "{name}");
    }
    assert!(worker.health.is_ready());
    worker.stop().await.unwrap();
}
