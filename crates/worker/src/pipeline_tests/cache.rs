//! The AppView's cache in the same Redis: what an event makes stale leaves it.

use std::collections::BTreeSet;

use fred::interfaces::KeysInterface;
use jiff::Timestamp;
use penstock_core::data::EventKind;
use penstock_core::keys::cache;
use penstock_core::redis;
use penstock_core::settings::{Layers, Settings};
use penstock_local::RedisOptions;
use penstock_local::testing::TestRedis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::{Bench, eventually, like};
use crate::consumer::{Acknowledgement, Consumer};

impl Bench {
    async fn cache(&self, keys: impl IntoIterator<Item = &String>) {
        for key in keys {
            let () = self.client.set(key.as_str(), "{}", None, None, false).await.unwrap();
        }
    }

    async fn cached(&self) -> u64 {
        self.command("EVAL return(#redis.call('KEYS','atproto:cache:*')) 0").await.as_u64().unwrap()
    }
}

fn post(number: usize) -> String {
    format!("at://did:plc:z/app.bsky.feed.post/p{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_makes_stale_is_gone_when_it_is_acknowledged() {
    let bench = Bench::new().await;
    let stale = [cache::post_aggregations(&post(1)), cache::post_viewer_states("did:plc:r1", &post(1))];
    let fresh = [cache::post_aggregations(&post(2)), cache::post_viewer_states("did:plc:r2", &post(1))];
    bench.cache(stale.iter().chain(&fresh)).await;
    let worker = bench.start("w-0", &[]);
    bench.add("commit", &like(1, 1), "1").await;
    eventually!(bench.total().await == 1);
    let left: u64 = bench.client.exists(stale.to_vec()).await.unwrap();
    assert_eq!((left, bench.cached().await), (0, 2));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_left_alone_where_it_is_switched_off() {
    let bench = Bench::new().await;
    bench.cache(&[cache::post_aggregations(&post(1))]).await;
    let worker = bench.start("w-0", &[("worker.projections", "notifications")]);
    bench.add("commit", &like(1, 1), "1").await;
    eventually!(bench.total().await == 1);
    assert_eq!(bench.cached().await, 1);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_stale_keys_than_one_script_takes_go_as_well() {
    let bench = Bench::new().await;
    let keys: BTreeSet<String> = (0..12_345).map(|number| cache::post_aggregations(&post(number))).collect();
    let consumer = Consumer::new(bench.client.clone(), &bench.settings("w-0", &[]), "w-0");
    for at_once in [true, false] {
        bench.cache(&keys).await;
        if at_once {
            consumer.delete_stale(&keys).await.unwrap();
        } else {
            let mut acknowledgement = Acknowledgement::default();
            acknowledgement.make_stale(keys.clone());
            assert_eq!(consumer.acknowledge(&acknowledgement, Timestamp::now()).await.unwrap(), 0);
        }
        assert_eq!(bench.cached().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_touch_the_cache_acknowledges_all_the_same() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..1, 1).await;
    let ids: Vec<_> = bench.strand("w-0", 1).await.iter().map(|id| id.parse().unwrap()).collect();
    bench.command("ACL SETUSER narrow on >secret +@all ~firehose:* ~cluster:*").await;
    let url = bench.redis.url().replacen("://", "://narrow:secret@", 1);
    let client = redis::connect(&Settings::load(&Layers::default().flag("redis.url", url)).unwrap()).await.unwrap();
    let consumer = Consumer::new(client, &bench.settings("w-0", &[]), "w-0");
    let key = cache::post_aggregations(&post(1));
    bench.cache([&key]).await;
    let mut acknowledgement = Acknowledgement::default();
    acknowledgement.add(EventKind::Commit, ids[0]);
    acknowledgement.make_stale([key].into());
    assert_eq!(consumer.acknowledge(&acknowledgement, Timestamp::now()).await.unwrap(), 1);
    assert_eq!((bench.pending().await, bench.cached().await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_keys_of_other_slots_go_as_well() {
    let extra = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"].map(str::to_owned).to_vec();
    let redis = TestRedis::start_with(RedisOptions { extra, ..RedisOptions::default() }).await.unwrap();
    // A node without slots serves nobody.
    let told = async |command: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", redis.port())).await.unwrap();
        socket.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(told("CLUSTER ADDSLOTSRANGE 0 16383").await, "+OK\r\n");
    eventually!(told("CLUSTER INFO").await.contains("cluster_state:ok"));
    let url = format!("redis-cluster://127.0.0.1:{}", redis.port());
    let reached = [("redis.url", &*url), ("redis.keyPrefix", "{p}:")];
    let bench = Bench::over("postgres://nowhere/db".to_owned(), redis, &reached).await;
    let settings = bench.settings("w-0", &reached);
    let client = redis::connect(&settings).await.unwrap();
    let keys: BTreeSet<String> = (0..50).map(|number| cache::post_aggregations(&post(number))).collect();
    bench.cache(&keys).await;
    let mut acknowledgement = Acknowledgement::default();
    acknowledgement.make_stale(keys.clone());
    Consumer::new(client, &settings, "w-0").acknowledge(&acknowledgement, Timestamp::now()).await.unwrap();
    let mut left = 0_u64;
    for key in &keys {
        left += bench.client.exists::<u64, _>(key.as_str()).await.unwrap();
    }
    assert_eq!(left, 0);
}
