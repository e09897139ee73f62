//! A stream that fills up: what may go, what must stay, and reading that waits.

use std::time::Duration;

use fred::interfaces::{HashesInterface, StreamsInterface};
use penstock_core::live::state;
use penstock_local::RedisOptions;
use penstock_local::testing::TestRedis;
use tokio::time::sleep;

use crate::rig::{Rig, eventually, relay};
use crate::service::Service;

/// The group of somebody else's reader.
const OTHERS: &str = "osprey-consumers";

/// What ingest says at the high watermark, and below the low one.
const PAUSES: &str = "redis reached the high watermark, pausing";
const GOES_ON: &str = "redis is below the low watermark, resuming";

/// Groups that hold, and groups that no longer do.
const HOLDING: &str = "penstock_ingest_holding_groups";
const LEFT_OUT: &str = "penstock_ingest_left_out_groups";

/// A reader of a group, and the numbers of what it was given.
struct Reader<'a> {
    rig: &'a Rig,
    group: &'a str,
    seqs: Vec<u64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_another_group_holds_the_stream_and_misses_nothing() {
    let mut rig = Rig::new().await;
    rig.set("REDIS_MAX_STREAM_LEN", "4000");
    held_by_a_slow_reader(rig, 8_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_pauses_reading_and_nothing_is_missing_at_the_end() {
    let redis = TestRedis::start_with(RedisOptions { max_memory: Some(8 << 20), ..RedisOptions::default() });
    let redis = redis.await.unwrap();
    let rig = Rig::over(&[("REDIS_URL", &redis.url())]).await;
    rig.migrate().await;
    held_by_a_slow_reader(rig, 10_000).await;
}

/// Ours reads as fast as it can, the other's reader begins only when all is full, and then takes its time.
async fn held_by_a_slow_reader(mut rig: Rig, events: u64) {
    let (relay, recording) = relay(events).await;
    let expected: Vec<u64> = recording.entries.iter().map(|entry| entry.seq).collect();
    often_looking(&mut rig);
    let (mut ours, mut others) = (Reader::join(&rig, rig.keys.group()).await, Reader::join(&rig, OTHERS).await);
    let ingest = rig.ingest(&relay);
    eventually("reading pauses", async || {
        ours.take(1_000).await;
        is_paused(&rig).await
    })
    .await;
    assert_eq!(rig.first_seq().await, Some(expected[0]), "the first entry, which the slow reader has not read");
    eventually("both have read everything", async || {
        ours.take(1_000).await;
        others.take(100).await;
        others.seqs.len() >= expected.len() && ours.seqs.len() >= expected.len()
    })
    .await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    rig.ingested(recording.last).await;
    assert!(others.seqs == expected && ours.seqs == expected, "each group was given each event once, in order");
    assert!(ingest.log().contains(PAUSES) && ingest.log().contains(GOES_ON), "it went on by itself");
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_and_an_absent_group_hold_for_the_hold_time_and_no_longer() {
    let (relay, recording) = relay(3_000).await;
    let mut rig = Rig::new().await;
    often_looking(&mut rig);
    rig.set("REDIS_MAX_STREAM_LEN", "1500");
    rig.set("PENSTOCK_INGEST_FOREIGN_GROUP_HOLD", "5s");
    let mut others = Reader::join(&rig, OTHERS).await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    let mut given = Vec::new();
    eventually("it is given something", async || {
        given = others.read(100).await;
        !given.is_empty()
    })
    .await;
    // It lives as long as it says what it still works on.
    let lives = async {
        loop {
            others.hold(&given).await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = lives => {}
        () = eventually("reading pauses", async || is_paused(&rig).await) => {}
    }
    let first = rig.first_seq().await;
    assert_eq!(first, others.seqs.first().copied(), "the first entry is still being worked on");
    let _nobody = Reader::join(&rig, "nobody").await;
    eventually("both are left out", async || {
        let now = rig.first_seq().await;
        let out = [OTHERS, "nobody"].iter().all(|group| is_left_out(&ingest, group));
        assert!(out || now == first, "the first entry went before the groups were left out");
        out
    })
    .await;
    rig.ingested(recording.last).await;
    rig.settled().await;
    eventually("both are counted", async || ingest.metric(LEFT_OUT).await == 2.0).await;
    assert!(ingest.log().contains(GOES_ON));
    worker.stop().await;
    ingest.stop().await;
    rig.assert_result_is(&recording.entries, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stuck_entry_keeps_everything_behind_it() {
    const STUCK: usize = 1_000;
    let (relay, recording) = relay(8_000).await;
    let mut rig = Rig::new().await;
    often_looking(&mut rig);
    rig.set("REDIS_MAX_STREAM_LEN", "4000");
    // It is still being worked on, however long that takes.
    rig.set("PENSTOCK_WORKER_CLAIM_TIME", "1h");
    let mut ours = Reader::join(&rig, rig.keys.group()).await;
    let ingest = rig.ingest(&relay);
    let mut stuck = None;
    eventually("reading pauses", async || {
        let from = ours.seqs.len();
        let mut read = ours.read(500).await;
        if let Some(at) = STUCK.checked_sub(from).filter(|at| *at < read.len()) {
            stuck = Some(read.remove(at));
        }
        ours.acknowledge(&read).await;
        is_paused(&rig).await
    })
    .await;
    eventually("all others are acknowledged", async || ours.take(500).await == 0).await;
    looks_again(&rig, &ingest).await;
    assert!(is_paused(&rig).await, "it reads on though nothing went");
    let stream: Vec<_> = rig.stream().await.into_iter().map(|(_, entry)| entry).collect();
    assert!(stream.len() >= 3_200, "{} entries are below the high watermark", stream.len());
    assert!(
        stream == recording.entries[STUCK..][..stream.len()],
        "all from the stuck entry on is there, nothing before"
    );

    ours.acknowledge(&[stuck.unwrap()]).await;
    eventually("everything is read", async || {
        ours.take(500).await;
        ours.seqs.len() >= recording.entries.len()
    })
    .await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    assert!(ingest.log().contains(GOES_ON));
    rig.ingested(recording.last).await;
    ingest.stop().await;
    let expected: Vec<u64> = recording.entries.iter().map(|entry| entry.seq).collect();
    assert!(ours.seqs == expected, "our group was given each event once, in order");
}

/// The workers before ours: they read what is new, under another name after each start, and claim nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_replaced_workers_leave_behind_does_not_fill_the_stream_for_good() {
    let (relay, recording) = relay(8_000).await;
    let mut rig = Rig::new().await;
    often_looking(&mut rig);
    rig.set("REDIS_MAX_STREAM_LEN", "4000");
    rig.set("PENSTOCK_WORKER_CLAIM_TIME", "1s");
    let mut ours = Reader::join(&rig, rig.keys.group()).await;
    let ingest = rig.ingest(&relay);
    let mut left = 0;
    eventually("the first are given to one that ends", async || {
        left = ours.read(500).await.len();
        left > 0
    })
    .await;
    let given: Vec<u64> = ours.seqs.clone();
    eventually("everything is read, those twice", async || {
        ours.take(500).await;
        ours.seqs.len() >= recording.entries.len() + left
    })
    .await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    rig.ingested(recording.last).await;
    ingest.says("requeued entries that their consumer never acknowledged").await;
    ingest.stop().await;
    let mut expected: Vec<u64> = recording.entries.iter().map(|entry| entry.seq).chain(given).collect();
    expected.sort_unstable();
    ours.seqs.sort_unstable();
    assert!(ours.seqs == expected, "each event was given once, and those that were left once more");
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Makes the group, for which everything is unread.
    async fn join(rig: &'a Rig, group: &'a str) -> Self {
        let () = rig.client.xgroup_create(rig.keys.stream(), group, "0", true).await.unwrap();
        Self { rig, group, seqs: Vec::new() }
    }

    /// Reads on, and returns the IDs of what came.
    async fn read(&mut self, count: u64) -> Vec<String> {
        type Entry = (String, Vec<(String, String)>);
        let stream = self.rig.keys.stream();
        let read: Option<Vec<(String, Vec<Entry>)>> =
            self.rig.client.xreadgroup(self.group, "reader", Some(count), None, false, stream, ">").await.unwrap();
        let entries = read.into_iter().flatten().flat_map(|(_, entries)| entries);
        let (ids, seqs): (Vec<_>, Vec<u64>) =
            entries.map(|(id, fields)| (id, fields[2].1.parse::<u64>().unwrap())).unzip();
        self.seqs.extend(seqs);
        ids
    }

    /// Reads on and acknowledges what came; says how much it was.
    async fn take(&mut self, count: u64) -> usize {
        let read = self.read(count).await;
        self.acknowledge(&read).await;
        read.len()
    }

    async fn acknowledge(&self, ids: &[String]) {
        if !ids.is_empty() {
            let () = self.rig.client.xack(self.rig.keys.stream(), self.group, ids.to_vec()).await.unwrap();
        }
    }

    /// Says that it still works on these.
    async fn hold(&self, ids: &[String]) {
        let (client, stream) = (&self.rig.client, self.rig.keys.stream());
        let held = client.xclaim(stream, self.group, "reader", 0, ids.to_vec(), None, None, None, false, true);
        let () = held.await.unwrap();
    }
}

/// Has ingest look at the stream often, and write so that it does not shoot far past a watermark in between.
fn often_looking(rig: &mut Rig) {
    rig.set("PENSTOCK_INGEST_TRIM_INTERVAL", "50ms");
    rig.set("PENSTOCK_INGEST_BATCH_EVENTS", "50");
}

async fn is_paused(rig: &Rig) -> bool {
    let paused: Option<String> = rig.client.hget(rig.keys.ingest_state(), state::PAUSED).await.unwrap();
    paused.as_deref() == Some("1")
}

fn is_left_out(ingest: &Service, group: &str) -> bool {
    let group = format!(r#""group":"{group}""#);
    ingest.log().lines().any(|line| line.contains("consumer group was inactive") && line.contains(&group))
}

/// Waits until ingest has looked at the groups once more: it counts one that comes, and then one that went.
async fn looks_again(rig: &Rig, ingest: &Service) {
    let holding = ingest.metric(HOLDING).await;
    let () = rig.client.xgroup_create(rig.keys.stream(), "newcomer", "$", false).await.unwrap();
    eventually("a newcomer counts", async || ingest.metric(HOLDING).await > holding).await;
    let () = rig.client.xgroup_destroy(rig.keys.stream(), "newcomer").await.unwrap();
    eventually("it went", async || ingest.metric(HOLDING).await == holding).await;
}
