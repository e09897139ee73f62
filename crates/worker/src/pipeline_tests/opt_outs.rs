//! An account that opts out, and comes back.

use super::bench::{Bench, eventually, like};

// A role that is called as our schema would make its tables there.
const SETTINGS: &str = "
CREATE TABLE public.user_settings (
  user_did varchar(255) PRIMARY KEY REFERENCES users (did) ON DELETE CASCADE,
  data_collection_forbidden bool NOT NULL DEFAULT false
);
INSERT INTO users (did, handle) VALUES ('did:plc:r0', 'h.example'), ('did:plc:r1', 'h.example')";

const SOON: (&str, &str) = ("worker.optOutInterval", "50ms");

async fn likes_of(bench: &Bench, repo: &'static str) -> usize {
    let uris = bench.texts("SELECT user_did FROM likes").await;
    uris.iter().filter(|did| *did == repo).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_opts_out_while_workers_run_is_gone_until_it_comes_back() {
    let bench = Bench::new().await;
    bench.execute(SETTINGS).await;
    let workers = ["w-0", "w-1"].map(|name| bench.start(name, &[SOON]));
    bench.add_likes(0..40, 2).await;
    eventually!(bench.rows("likes").await == 40);
    bench.execute("INSERT INTO user_settings VALUES ('did:plc:r0', true)").await;
    eventually!(likes_of(&bench, "did:plc:r0").await == 0);
    bench.add_likes(40..80, 2).await;
    eventually!(bench.total().await == 80);
    assert_eq!((likes_of(&bench, "did:plc:r0").await, likes_of(&bench, "did:plc:r1").await), (0, 40));
    eventually!(bench.counter("db:record_counts", "likes").await == 40);
    let refused: f64 = workers.iter().map(|worker| worker.metric("penstock_worker_records_refused_total")).sum();
    assert_eq!(refused, 20.0);

    bench.execute("UPDATE user_settings SET data_collection_forbidden = false").await;
    eventually!(bench.rows("penstock.repos WHERE forbidden").await == 0);
    bench.add("commit", &like(100, 0), "9").await;
    eventually!(likes_of(&bench, "did:plc:r0").await == 1);
    for worker in workers {
        assert!(worker.health.is_ready());
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read_stop_nobody() {
    let bench = Bench::new().await;
    bench.execute("CREATE TABLE public.user_settings (user_did varchar(255), data_collection_forbidden int)").await;
    bench.execute("INSERT INTO user_settings VALUES ('did:plc:r0', 1)").await;
    let worker = bench.start("w-0", &[SOON]);
    bench.add_likes(0..10, 2).await;
    eventually!(bench.rows("likes").await == 10);
    assert!(worker.health.is_ready());
    worker.stop().await.unwrap();
}
