//! Senders that try to be larger than they look, against processes that may not be: ingest in 128 MiB, a worker in 256 MiB.

mod cage;
mod huge;

use std::env;

use fred::interfaces::{LuaInterface, StreamsInterface};
use penstock_local::RedisOptions;
use penstock_local::testing::TestRedis;

use crate::rig::{Rig, eventually};
pub(crate) use cage::Cage;
use huge::{HostileRelay, Sent};

const MIB: u64 = 1024 * 1024;

/// How many times each kind of event is sent; `PENSTOCK_MEMORY_ROUNDS` for more.
fn rounds() -> u64 {
    env::var("PENSTOCK_MEMORY_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

/// A Redis that holds little, so that reading pauses and goes on.
async fn rig(max_memory: u64) -> Rig {
    let redis = TestRedis::start_with(RedisOptions { max_memory: Some(max_memory), ..RedisOptions::default() });
    let redis = redis.await.unwrap();
    let mut rig = Rig::over(&[("REDIS_URL", &redis.url())]).await.holding(redis);
    rig.set("PENSTOCK_INGEST_TRIM_INTERVAL", "50ms");
    rig
}

/// Reads what is new of the group as a worker does, and returns only the numbers.
const TAKE: &str = "
local answer = redis.call('XREADGROUP', 'GROUP', ARGV[1], 'reader', 'COUNT', 4, 'STREAMS', KEYS[1], '>')
local numbers = {}
for _, entry in ipairs(answer and answer[1][2] or {}) do
  numbers[#numbers + 1] = tonumber(entry[2][6])
  redis.call('XACK', KEYS[1], ARGV[1], entry[1])
end
return numbers";

#[tokio::test(flavor = "multi_thread")]
async fn ingest_stays_within_128_mib_whatever_a_host_sends() {
    let rig = rig(512 * MIB).await;
    let sent = Sent::rounds(rounds());
    let relay = HostileRelay::serve(sent.frames.clone()).await;
    let group = rig.keys.group().to_owned();
    let () = rig.client.xgroup_create(rig.keys.stream(), &group, "0", true).await.unwrap();
    let cage = Cage::new("ingest", 128 * MIB);
    let mut ingest = rig.start_in(&cage, &["ingest", "--set", &format!("relay.urls={}", relay.url)]);
    let mut taken: Vec<u64> = Vec::new();
    while taken.len() < sent.written.len() {
        let before = taken.len();
        eventually("more is written", async || {
            assert!(ingest.has_ended().is_none(), "ingest ended: {:?}", cage.report());
            let more: Vec<u64> = rig.client.eval(TAKE, vec![rig.keys.stream()], vec![group.clone()]).await.unwrap();
            taken.extend(more);
            taken.len() > before
        })
        .await;
    }
    assert_eq!(taken, sent.written, "each event once and in order");
    rig.ingested(sent.last).await;
    let refused = ingest.metric("penstock_ingest_frames_refused_total{reason=\"frame_too_large\"}").await;
    assert_eq!(refused as usize, sent.refused, "what is refused is set aside");
    cage.assert_kept(&ingest);
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stays_within_256_mib_whatever_stands_in_the_stream() {
    let rig = rig(1_500 * MIB).await;
    rig.migrate().await;
    let group = rig.keys.group().to_owned();
    let () = rig.client.xgroup_create(rig.keys.stream(), &group, "0", true).await.unwrap();
    let rounds = rounds();
    let _: u64 = rig.client.eval(huge::FILL, vec![rig.keys.stream()], vec![rounds.to_string()]).await.unwrap();
    let cage = Cage::new("worker", 256 * MIB);
    let mut worker = rig.start_in(&cage, &["worker", "--set", "worker.consumerId=w-1"]);
    let is_settled = async || {
        let group = rig.group().await.unwrap();
        group.pending == 0 && group.delivered == rig.last_id().await
    };
    for round in 0..=rounds {
        // Each round has its time.
        let rows = i64::try_from(round).unwrap() * huge::ROWS_A_ROUND;
        eventually("a round is written", async || {
            assert!(worker.has_ended().is_none(), "the worker ended: {:?}", cage.report());
            rig.count("generic_records").await >= rows
        })
        .await;
    }
    eventually("everything is settled", is_settled).await;
    let rows = i64::try_from(rounds).unwrap() * huge::ROWS_A_ROUND;
    assert_eq!(rig.count("generic_records").await, rows);
    let letters = rig.dead_letters().await;
    assert_eq!(letters.len() as u64, rounds, "a million maps, which no memory is for");
    assert!(letters.iter().all(|letter| letter["error"].contains("bytes of memory")), "{letters:?}");
    cage.assert_kept(&worker);
    worker.stop().await;
}
