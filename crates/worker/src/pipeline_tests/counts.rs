//! The public counts: what they begin with, and that nothing is lost or doubled whatever becomes of Redis.

use std::time::Duration;

use fred::interfaces::{HashesInterface, KeysInterface, LuaInterface};
use fred::types::Value;

use super::bench::{Bench, commit, eventually, like, like_op};
use crate::store::{Store, StoreSettings};

const COUNTS: &str = "db:record_counts";
const PUBLISHED: &str = "firehose:counts:published";
const SOON: (&str, &str) = ("worker.claimTime", "200ms");

/// Rows that were there before us.
const ROWS: &str = "
INSERT INTO users (did, handle) SELECT 'did:plc:u' || n, 'h.example' FROM generate_series(1, 7) AS n;
INSERT INTO likes (uri, user_did, post_uri, created_at)
  SELECT 'at://did:plc:u' || n || '/app.bsky.feed.like/x', 'did:plc:u' || n, 'at://did:plc:z/app.bsky.feed.post/x', now()
    FROM generate_series(1, 5) AS n";

impl Bench {
    /// Returns whether each count is that of the rows.
    async fn counts_are_right(&self) -> bool {
        for table in penstock_core::live::RECORD_COUNTS {
            if self.counter(COUNTS, table).await != self.rows(table).await {
                return false;
            }
        }
        true
    }

    async fn unlike(&self, number: usize, repo: usize) {
        let delete = format!(r#"{{"action":"delete","path":"app.bsky.feed.like/k{number}"}}"#);
        self.add("commit", &commit(&format!("r{repo}"), &format!("3l{number:011}"), &[delete]), "9").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_begin_with_the_rows_there_are() {
    let bench = Bench::new().await;
    bench.execute(ROWS).await;
    let worker = bench.start("w-0", &[]);
    eventually!(bench.counts_are_right().await);
    assert_eq!(bench.counter(COUNTS, "likes").await, 5);
    bench.add_likes(0..20, 3).await;
    eventually!(bench.counter(COUNTS, "likes").await == 25);
    assert!(bench.counts_are_right().await);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_the_appview_set_are_left_alone() {
    let bench = Bench::new().await;
    bench.execute(ROWS).await;
    let () = bench.client.hset(COUNTS, [("users", 1000), ("likes", 2000)]).await.unwrap();
    let worker = bench.start("w-0", &[SOON]);
    bench.add_likes(0..20, 3).await;
    eventually!(bench.counter(COUNTS, "likes").await == 2020);
    assert_eq!(bench.counter(COUNTS, "users").await, 1003);
    worker.crash().await;
    let worker = bench.start("w-1", &[SOON]);
    bench.add_likes(20..30, 3).await;
    eventually!(bench.counter(COUNTS, "likes").await == 2030);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_the_appview_set_after_redis_was_lost_are_not_doubled() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[SOON]);
    bench.add_likes(0..20, 3).await;
    eventually!(bench.counter(COUNTS, "likes").await == 20);
    let lose = format!("redis.call('DEL','{COUNTS}','{PUBLISHED}');redis.call('HSET','{COUNTS}','likes',20,'users',3)");
    let _: Value = bench.client.eval(lose, vec![COUNTS, PUBLISHED], Vec::<String>::new()).await.unwrap();
    bench.add_likes(20..30, 3).await;
    eventually!(bench.rows("likes").await == 30);
    eventually!(bench.counts_are_right().await);
    worker.stop().await.unwrap();
    assert!(bench.counts_are_right().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recount_sets_the_counts_anew_while_workers_go_on() {
    let bench = Bench::new().await;
    bench.execute(ROWS).await;
    let () = bench.client.hset(COUNTS, [("users", 1000), ("likes", 2000), ("posts", 5)]).await.unwrap();
    let workers = ["w-0", "w-1"].map(|name| bench.start(name, &[SOON]));
    bench.add_likes(0..300, 10).await;
    eventually!(bench.rows("likes").await > 100);
    crate::store::schema::recount(&bench.database).await.unwrap();
    eventually!(bench.counts_are_right().await && bench.rows("likes").await == 305);
    // Once.
    let () = bench.client.hincrby(COUNTS, "posts", 3).await.unwrap();
    bench.add_likes(300..310, 10).await;
    eventually!(bench.counter(COUNTS, "likes").await == 315);
    assert_eq!(bench.counter(COUNTS, "posts").await, 3);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_count_is_shown_below_nothing_and_what_it_lacks_is_not_forgotten() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[]);
    bench.add_likes(0..5, 5).await;
    eventually!(bench.counter(COUNTS, "likes").await == 5);
    // Somebody counts too little.
    let () = bench.client.hset(COUNTS, ("likes", 1)).await.unwrap();
    for number in 0..3 {
        bench.unlike(number, number).await;
    }
    eventually!(bench.rows("likes").await == 2 && bench.counter(COUNTS, "likes").await == 0);
    bench.add("commit", &like(10, 1), "9").await;
    bench.add("commit", &like(11, 1), "9").await;
    bench.add("commit", &like(12, 1), "9").await;
    eventually!(bench.rows("likes").await == 5 && bench.counter(COUNTS, "likes").await == 1);
    worker.stop().await.unwrap();
}

/// Redis loses the counts, the AppView sets them or does not, workers crash and come back, somebody asks for a recount, and
/// the totals of workers are folded, all while likes come and go.
#[tokio::test(flavor = "multi_thread")]
async fn counts_are_right_in_the_end_whatever_is_lost_meanwhile() {
    let bench = Bench::new().await;
    bench.execute(ROWS).await;
    let mut workers: Vec<_> = (0..3).map(|n| Some(bench.start(&format!("w-{n}"), &[SOON]))).collect();
    let store = Store::connect(&StoreSettings::new(&bench.database)).await.unwrap();
    for round in 0..24 {
        bench.add_likes(round * 20..round * 20 + 20, 7).await;
        for number in (round * 20..round * 20 + 20).step_by(3) {
            bench.unlike(number, number % 7).await;
        }
        tokio::time::sleep(Duration::from_millis((round as u64 * 7) % 23)).await;
        // Those that live, too: one that was idle for long may come back at any moment.
        store.fold_counts(Duration::ZERO, 3).await.unwrap();
        match round % 6 {
            0 => {
                let () = bench.client.del(COUNTS).await.unwrap();
            }
            1 => {
                let () = bench.client.del(vec![COUNTS, PUBLISHED]).await.unwrap();
            }
            2 => {
                let name = format!("w-{}", 3 + round);
                workers[round % 3].take().unwrap().crash().await;
                workers[round % 3] = Some(bench.start(&name, &[SOON]));
            }
            3 => {
                let () = bench.client.del(PUBLISHED).await.unwrap();
            }
            4 => drop(crate::store::schema::recount(&bench.database).await.unwrap()),
            _ => {
                let () = bench.client.del(COUNTS).await.unwrap();
                workers[round % 3].take().unwrap().crash().await;
                workers[round % 3] = Some(bench.start(&format!("w-{}", 3 + round), &[SOON]));
            }
        }
    }
    eventually!(bench.pending().await == 0 && bench.total().await == 24 * 27);
    eventually!(bench.counts_are_right().await);
    // And they stay so: nothing is published late.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(bench.counts_are_right().await);
    assert!(bench.rows("likes").await > 100, "{}", like_op(0));
    for worker in workers.into_iter().flatten() {
        worker.stop().await.unwrap();
    }
}
