//! The second stream: read after the first, settled, claimed and counted as that one.

use std::time::Duration;

use fred::interfaces::StreamsInterface;
use fred::types::Value;
use penstock_core::stream::StreamId;

use super::bench::{Bench, GROUP, STREAM, commit, custom_op, eventually, like, like_op};
use crate::consumer::{Consumer, Joined};

const BULK: &str = "firehose:events:bulk";

const SOON: &[(&str, &str)] = &[("worker.claimTime", "200ms")];

impl Bench {
    /// Adds an entry under an ID, as ingest does where it writes both streams.
    async fn put(&self, stream: &str, ms: u64, kind: &str, data: &str, seq: u64) {
        let fields = vec![("type", kind), ("data", data), ("seq", &*seq.to_string())]
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()))
            .collect::<Vec<_>>();
        let _: String = self.client.xadd(stream, false, None::<()>, format!("{ms}-0"), fields).await.unwrap();
    }

    /// Adds the likes `from..to` of one repo to the second stream.
    async fn put_likes(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.put(BULK, 1_000_000 + number as u64, "commit", &like(number, 1), 500 + number as u64).await;
        }
    }

    async fn pending_in_bulk(&self) -> u64 {
        self.command(&format!("XPENDING {BULK} {GROUP}")).await.into_array()[0].as_u64().unwrap()
    }

    /// A field of the group, in one of the streams.
    async fn group(&self, stream: &str, field: &str) -> Option<u64> {
        let groups: Vec<std::collections::HashMap<String, Value>> = self.client.xinfo_groups(stream).await.unwrap();
        groups[0][field].as_u64()
    }

    async fn joined(&self, name: &str) -> (Consumer, Joined) {
        let store = crate::store::Store::connect(&crate::store::StoreSettings::new(&self.database)).await.unwrap();
        let claim = penstock_core::live::Claim {
            pipeline: "default".to_owned(),
            incarnation: store.incarnation().await.unwrap(),
        };
        let consumer = Consumer::new(self.client.clone(), &self.settings(name, &[]), name);
        let joined = consumer.join(&claim).await.unwrap();
        (consumer, joined)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_applied_and_the_second_not_before_the_first_is_read() {
    let bench = Bench::new().await;
    bench.add_likes(1000..4000, 30).await;
    bench.put_likes(0..600).await;
    let worker = bench.start("w-0", &[("worker.batchSize", "300")]);
    eventually!(bench.command(&format!("EXISTS {BULK}")).await.as_u64() == Some(1) && bench.total().await > 0);
    eventually!({
        let read = bench.group(BULK, "entries-read").await.unwrap_or_default();
        let lag = bench.group(STREAM, "lag").await;
        assert!(read == 0 || lag == Some(0), "{read} of the second were read with {lag:?} left in the first");
        read > 0
    });
    eventually!(bench.total().await == 3600);
    assert_eq!((bench.rows("likes").await, bench.pending().await, bench.pending_in_bulk().await), (3600, 0, 0));
    eventually!(worker.metric("penstock_worker_bulk_lag ") == 0.0 && worker.progress.snapshot().lag == Some(0));
    worker.stop().await.unwrap();
    assert_eq!(bench.counter("db:record_counts", "likes").await, 3600);
    let consumers: Vec<Value> = bench.client.xinfo_consumers(BULK, GROUP).await.unwrap();
    assert_eq!((consumers.len(), bench.consumers().await), (0, Vec::new()), "it left both groups");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_held_of_the_second_stream_is_claimed_and_poison_is_put_aside() {
    let bench = Bench::new().await;
    bench.joined("dead-1").await;
    bench.execute(super::REFUSE_POISON).await;
    bench.put_likes(0..40).await;
    bench.put(BULK, 2_000_000, "commit", r#"{"repo":"did:plc:a","ops":["#, 900).await;
    bench.put(BULK, 2_000_001, "commit", &commit("b", "3kb", &[custom_op(1, true), like_op(90)]), 901).await;
    bench.command(&format!("XREADGROUP GROUP {GROUP} dead-1 COUNT 100 STREAMS {BULK} >")).await;
    // Delivered so often that it is tried alone.
    bench.command(&format!("XCLAIM {BULK} {GROUP} dead-1 0 1000000-0 RETRYCOUNT 40 JUSTID")).await;
    let worker = bench.start("w-0", SOON);
    eventually!(bench.rows("likes").await == 41 && bench.dead_letters().await.len() == 2);
    eventually!(bench.pending_in_bulk().await == 0);
    let letters = bench.dead_letters().await;
    let ids: std::collections::BTreeSet<_> = letters.iter().map(|letter| letter["origId"].as_str()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["2000000-0", "2000001-0"]);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_of_the_second_stream_is_handed_back_and_kept_from_others_until_then() {
    let bench = Bench::new().await;
    bench.joined("w-9").await;
    bench.put_likes(0..50).await;
    let mut lock = bench.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE likes IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let holder = bench.start("w-0", SOON);
    eventually!(bench.pending_in_bulk().await == 50);
    let other = bench.start("w-1", SOON);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(other.metric("penstock_worker_entries_claimed_total"), 0.0);
    // What comes on the first stream is read meanwhile.
    bench.add("identity", r#"{"did":"did:plc:x","handle":"x.test"}"#, "5").await;
    eventually!(bench.total().await == 1);
    holder.stop().await.unwrap();
    eventually!(other.metric("penstock_worker_entries_claimed_total") == 50.0);
    lock.rollback().await.unwrap();
    eventually!(bench.total().await == 51 && bench.pending_in_bulk().await == 0);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_event_that_overtakes_commits_of_the_second_stream_decides_by_its_place() {
    let bench = Bench::new().await;
    // Deleted after what stands in the second stream, and read before it; then the account is there again.
    bench.put(BULK, 1_000, "commit", &commit("n", "3ka", &[like_op(1)]), 1).await;
    bench.put(BULK, 1_001, "commit", &commit("n", "3kb", &[like_op(2)]), 2).await;
    bench.put(STREAM, 1_002, "account", r#"{"did":"did:plc:n","active":false,"status":"deleted"}"#, 3).await;
    bench.put(BULK, 1_003, "commit", &commit("n", "3kc", &[like_op(3)]), 4).await;
    bench.put(STREAM, 1_004, "commit", &commit("n", "3kd", &[like_op(4)]), 5).await;
    // The other way round: the deletion comes by the second stream, behind what is later.
    bench.put(STREAM, 1_005, "commit", &commit("m", "3ka", &[like_op(5)]), 6).await;
    bench.put(BULK, 1_006, "account", r#"{"did":"did:plc:m","active":false,"status":"deleted"}"#, 7).await;
    bench.put(BULK, 1_007, "account", r#"{"did":"did:plc:m","active":true}"#, 8).await;
    bench.put(STREAM, 1_008, "commit", &commit("m", "3kb", &[like_op(6)]), 9).await;
    // A later state of a record is read first, and so is its deletion.
    let update = |number| like_op(number).replace("create", "update").replace("/p", "/q");
    bench.put(BULK, 1_009, "commit", &commit("o", "3ka", &[like_op(7), like_op(8)]), 10).await;
    bench.put(BULK, 1_010, "commit", &commit("o", "3kb", &[update(7)]), 11).await;
    let delete = r#"{"action":"delete","path":"app.bsky.feed.like/k8"}"#.to_owned();
    bench.put(STREAM, 1_011, "commit", &commit("o", "3kc", &[delete, like_op(7)]), 12).await;
    let worker = bench.start("w-0", &[]);
    eventually!(bench.total().await == 12);
    let likes = || bench.texts("SELECT uri || ' ' || right(post_uri, 2) FROM likes ORDER BY 1");
    let uri = |repo: &str, number: u32| format!("at://did:plc:{repo}/app.bsky.feed.like/k{number} p{number}");
    eventually!(likes().await == [uri("m", 6), uri("n", 3), uri("n", 4), uri("o", 7)], "{:?}", likes().await);
    let accounts =
        bench.texts("SELECT did || ' ' || active FROM penstock.repos WHERE account_entry IS NOT NULL ORDER BY 1");
    assert_eq!(accounts.await, ["did:plc:m true", "did:plc:n false"]);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_settled_beyond_the_first_entry_of_either_stream() {
    let bench = Bench::new().await;
    let (consumer, joined) = bench.joined("w-0").await;
    assert_eq!(joined, Joined::Made);
    let settled = async || consumer.settled_below().await.unwrap();
    let id = |ms| Some(StreamId { ms, seq: 0 });
    bench.put(STREAM, 1_000, "account", "{}", 1).await;
    bench.put(BULK, 1_001, "account", "{}", 2).await;
    bench.put(STREAM, 1_002, "account", "{}", 3).await;
    assert_eq!(settled().await, Some(StreamId { ms: 0, seq: 1 }), "nothing was read");
    for id in bench.strand("w-0", 2).await {
        bench.command(&format!("XACK {STREAM} {GROUP} {id}")).await;
    }
    assert!(settled().await < id(1_001));
    bench.command(&format!("XREADGROUP GROUP {GROUP} w-0 STREAMS {BULK} >")).await;
    assert_eq!(settled().await, id(1_001));
    bench.command(&format!("XACK {BULK} {GROUP} 1001-0")).await;
    assert_eq!(settled().await, Some(StreamId { ms: 1_002, seq: 1 }));
    bench.command(&format!("XTRIM {BULK} MAXLEN 0")).await;
    assert_eq!(settled().await, Some(StreamId { ms: 1_002, seq: 1 }));
    bench.command(&format!("XGROUP DESTROY {BULK} {GROUP}")).await;
    assert_eq!(settled().await, None, "who knows what it had not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_that_is_gone_sends_ingest_back_to_the_checkpoint() {
    let bench = Bench::new().await;
    let (_, joined) = bench.joined("w-0").await;
    assert_eq!(joined, Joined::Made);
    assert_eq!(bench.joined("w-0").await.1, Joined::There);
    // Never written, it had nothing.
    bench.command(&format!("DEL {BULK}")).await;
    assert_eq!(bench.joined("w-0").await.1, Joined::There);
    for gone in [format!("DEL {BULK}"), format!("XGROUP DESTROY {BULK} {GROUP}")] {
        bench.command("SET firehose:incarnation here").await;
        bench.command("HSET firehose:ingest:state bulk 1000-0").await;
        bench.command(&gone).await;
        assert_eq!(bench.joined("w-0").await.1, Joined::Lost, "{gone}");
        assert_eq!(bench.command("EXISTS firehose:incarnation").await.as_u64(), Some(0), "{gone}");
        assert_eq!(bench.joined("w-0").await.1, Joined::There, "it is told once");
    }
}
