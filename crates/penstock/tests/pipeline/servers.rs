//! The pipeline on the servers that users have, of each kind and version that can be had here (`scripts/servers.sh`).

use std::num::NonZeroU32;

use penstock_local::testing::{TestPostgres, TestRedis, unpacked};
use penstock_local::{PostgresOptions, RedisOptions};
use penstock_replay::{Rate, Settings};
use serde_json::json;

use crate::http;
use crate::rig::{Rig, eventually, relay_with};

/// A Redis or its kin, and a PostgreSQL, by their names in `scripts/servers.sh`.
const PAIRS: &[(&str, &str)] =
    &[("redis-8", "postgresql-17"), ("valkey-8", "postgresql-18"), ("valkey-9", "postgresql-17")];

const EVENTS: u64 = 1_200;

/// Events a second, so that there is a middle in which things happen.
const RATE: NonZeroU32 = NonZeroU32::new(400).unwrap();

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_exact_on_every_server_through_kills_of_every_part() {
    for (redis, postgres) in PAIRS {
        // Where one cannot be had, the installed one takes its place beside the other.
        let (redis_programs, postgres_programs) = (unpacked(redis), unpacked(postgres));
        if redis_programs.is_none() && postgres_programs.is_none() {
            continue;
        }
        println!("{redis} and {postgres}");
        let redis = RedisOptions { programs: redis_programs, ..RedisOptions::default() };
        let postgres = PostgresOptions { durable: false, programs: postgres_programs, ..PostgresOptions::default() };
        let redis = TestRedis::start_with(redis).await.unwrap();
        Box::pin(carries_everything(redis, TestPostgres::start_with(postgres).await.unwrap())).await;
    }
}

async fn carries_everything(redis: TestRedis, postgres: TestPostgres) {
    let database = postgres.fresh_database().await.unwrap();
    let mut rig = Rig::between(&[("REDIS_URL", &redis.url())], &database).await;
    rig.set("PENSTOCK_WORKER_CLAIM_TIME", "1s");
    rig.set("PENSTOCK_INGEST_LEASE_TIME", "500ms");
    rig.set("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true");
    rig.migrate().await;
    rig.keep_stream().await;
    let settings = Settings { total: Some(EVENTS), rate: Rate::PerSecond(RATE), ..Settings::default() };
    let (relay, recording) = relay_with(settings).await;
    let dashboard = rig.start(&["dashboard"]);
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    eventually("the worker is on its way", async || {
        rig.group().await.is_some_and(|group| group.delivered != "0-0" && group.pending > 0)
    })
    .await;
    // Killed with entries in its hands; they are taken over after the claim time.
    worker.kill().await;
    ingest.kill().await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-2"));

    let address = dashboard.dashboard().await;
    let message = r#"{"user_id": 1, "channel_id": 2, "content": "of this server"}"#;
    let (status, accepted) = http::post(address, "/messages", message).await.unwrap();
    assert_eq!(status, 201, "{accepted}");

    rig.ingested(recording.last).await;
    rig.settled().await;
    worker.stop().await;
    rig.assert_stream_is(&recording.entries).await;
    let events = rig.hash(&rig.keys.cluster_metrics()).await;
    assert!(events["totalEvents"] >= recording.entries.len() as i64, "{events:?}");
    assert_eq!(rig.count("messages").await, 1);
    rig.assert_rows_are(&recording.entries).await;
    eventually("the dashboard shows the cursor", async || {
        http::json(address, "/api/metrics").await["firehoseStatus"]["currentCursor"]
            == json!(recording.last.to_string())
    })
    .await;
    ingest.stop().await;
    dashboard.stop().await;
}
