//! A Redis that another tenant filled: every part is restarted there, drains it, and goes on when there is room again.

use fred::clients::Client;
use fred::interfaces::{ConfigInterface, HashesInterface, KeysInterface, ListInterface};
use fred::types::Value;
use penstock_core::live::state;
use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, unpacked};

use crate::http;
use crate::restricted::ready;
use crate::rig::{Rig, eventually, relay};

/// How much there is room for while it is full, and what the other tenant has: so nothing that is trimmed makes room.
const ROOM: u64 = 24 << 20;
const TENANT: usize = 32;

const MESSAGES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_drained_by_parts_that_begin_there() {
    Box::pin(drains(RedisOptions::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_8_is_drained_by_parts_that_begin_there() {
    Box::pin(drains_on("redis-8")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_valkey_8_is_drained_by_parts_that_begin_there() {
    Box::pin(drains_on("valkey-8")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_valkey_9_is_drained_by_parts_that_begin_there() {
    Box::pin(drains_on("valkey-9")).await;
}

async fn drains_on(name: &str) {
    if let Some(programs) = unpacked(name) {
        Box::pin(drains(RedisOptions { programs: Some(programs), ..RedisOptions::default() })).await;
    }
}

async fn drains(options: RedisOptions) {
    let redis = TestRedis::start_with(options).await.unwrap();
    let mut rig = Rig::over(&[("REDIS_URL", &redis.url()), ("PENSTOCK_REDIS_KEY_PREFIX", "ours:")]).await;
    for (name, value) in [
        ("REDIS_MAX_STREAM_LEN", "1500"),
        ("PENSTOCK_INGEST_BATCH_EVENTS", "50"),
        ("PENSTOCK_INGEST_LEASE_TIME", "1s"),
        ("PENSTOCK_INGEST_TRIM_INTERVAL", "50ms"),
        ("PENSTOCK_WORKER_CLAIM_TIME", "2s"),
        ("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true"),
        ("PENSTOCK_MESSAGE_BUFFER_BATCH_DELAY", "20ms"),
        ("PENSTOCK_MESSAGE_BUFFER_DEAD_AFTER", "1s"),
    ] {
        rig.set(name, value);
    }
    rig.migrate().await;
    let (relay, recording) = relay(4_000).await;
    let parts = [rig.ingest(&relay), rig.worker("w-0"), rig.start(&["dashboard"])];
    for part in &parts {
        ready(part).await;
    }
    // What was taken in and is not settled when all of them die.
    let [ingest, worker, dashboard] = parts;
    worker.kill().await;
    eventually("ingest pauses", async || rig.length().await >= 1_200 || rig.cursor().await == Some(recording.last))
        .await;
    ingest.kill().await;
    dashboard.kill().await;
    let messages = (0..MESSAGES).map(|n| {
        format!(r#"{{"tracking_id":"full{n:04}","user_id":1,"channel_id":2,"content":"{n}","created_at":"2026-07-04T14:38:08Z"}}"#)
    });
    let messages: Vec<String> = messages.chain(["no message".to_owned()]).collect();
    let () = rig.client.lpush(rig.keys.pending_messages(), messages).await.unwrap();

    fill(&rig.client).await;
    assert!(is_full(&rig.client).await);
    let parts = [rig.ingest(&relay), rig.worker("w-1"), rig.start(&["dashboard"])];
    for part in &parts {
        ready(part).await;
    }
    let [ingest, worker, dashboard] = parts;
    eventually("every entry is acknowledged", async || rig.left().await == Some((0, 0))).await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    eventually("all messages are rows", async || rig.count("messages").await == MESSAGES as i64).await;
    eventually("the one that is none is a letter", async || rig.dead_letters().await.len() == 1).await;
    eventually("the pause is known", async || {
        rig.client.hget::<Option<String>, _, _>(rig.keys.ingest_state(), state::PAUSED).await.unwrap().as_deref()
            == Some("1")
    })
    .await;
    let address = dashboard.dashboard().await;
    eventually("the dashboard sees it", async || {
        let answer = http::json(address, "/api/metrics").await;
        answer["firehoseStatus"]["streamLength"] == 0 && answer["firehoseStatus"]["connected"] == false
    })
    .await;
    assert!(is_full(&rig.client).await, "there was room meanwhile");

    let () = rig.client.del((0..TENANT).map(|n| format!("tenant:{n}")).collect::<Vec<_>>()).await.unwrap();
    rig.ingested(recording.last).await;
    rig.settled().await;
    eventually("all is trimmed again", async || rig.length().await == 0).await;
    for part in [ingest, worker, dashboard] {
        let log = part.log();
        assert!(!log.contains("OOM"), "something that must not wait needed memory\n{log}");
        part.stop().await;
    }
    let () = rig.client.del(rig.keys.dead_letters()).await.unwrap();
    let _: u64 = sqlx::query("DELETE FROM penstock.dead_letters").execute(&rig.pool).await.unwrap().rows_affected();
    rig.assert_result_is(&recording.entries, 1).await;
}

/// Has another tenant take more than there is room for.
async fn fill(client: &Client) {
    let (value, ours) = ("x".repeat(1 << 20), "maxmemory");
    for n in 0..TENANT {
        let () = client.set(format!("tenant:{n}"), value.as_str(), None, None, false).await.unwrap();
    }
    let () = client.config_set(ours, ROOM.to_string()).await.unwrap();
}

async fn is_full(client: &Client) -> bool {
    let refused: Result<Value, _> = client.set("tenant:more", "x", None, None, false).await;
    refused.is_err_and(|error| error.details().starts_with("OOM"))
}
