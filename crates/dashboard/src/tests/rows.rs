//! The age of rows, from what stands in a real Redis.

use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value as RedisValue};
use jiff::Timestamp;
use penstock_core::live::PULSE_TTL;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TestRedis;
use serde_json::{Value, json};

use super::client::get;
use super::{Dashboard, until};

const STREAM: &str = "firehose:events";
const BULK: &str = "firehose:events:bulk";
const GROUP: &str = "firehose-processors";

/// Sends a command as it would be typed.
async fn command(client: &Client, line: &str) -> RedisValue {
    let mut words = line.split_whitespace().map(str::to_owned);
    let name = words.next().unwrap();
    let command = CustomCommand::new(name, None, false);
    client.custom(command, words.collect::<Vec<_>>()).await.unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The ID of an entry written so many seconds ago.
fn ago(seconds: i64) -> String {
    format!("{}-0", Timestamp::now().as_millisecond() - seconds * 1000)
}

async fn metrics(dashboard: &Dashboard) -> Value {
    get(dashboard.address, "/api/metrics").await.json()
}

/// Waits until the age is so many seconds, and what waits so many entries.
async fn until_rows(dashboard: &Dashboard, what: &str, age: impl Fn(Option<f64>) -> bool, waiting: u64) {
    until(what, async || {
        let metrics = metrics(dashboard).await;
        age(metrics["rowsAgeSeconds"].as_f64()) && metrics["flow"]["waiting"] == json!(waiting)
    })
    .await;
}

#[tokio::test]
async fn rows_are_as_old_as_what_waits_in_either_stream() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    until_rows(&dashboard, "nothing was ever written: unknown", |age| age.is_none(), 0).await;
    let gauge = "penstock_dashboard_rows_age_seconds";
    assert!(dashboard.metrics.encode().contains(&format!("\n{gauge} NaN")), "never known is not young");

    let event_time = Timestamp::now() - Duration::from_secs(3);
    command(&client, &format!("HSET firehose:ingest:state eventTime {event_time}")).await;
    let about = |seconds: f64| move |age: Option<f64>| age.is_some_and(|age| (seconds..seconds + 20.0).contains(&age));
    for (stream, seconds) in [(BULK, 400), (STREAM, 200), (STREAM, 1)] {
        command(&client, &format!("XADD {stream} {} type commit data {{}} seq 1", ago(seconds))).await;
    }
    until_rows(&dashboard, "nobody reads: all of it waits", about(400.0), 3).await;
    for stream in [STREAM, BULK] {
        command(&client, &format!("XGROUP CREATE {stream} {GROUP} 0")).await;
    }
    until_rows(&dashboard, "nobody has read", about(400.0), 3).await;
    let read = format!("XREADGROUP GROUP {GROUP} w COUNT 1 STREAMS {BULK} >");
    let read = command(&client, &read).await.into_array();
    until_rows(&dashboard, "read is not written", about(400.0), 3).await;
    let id = read[0].clone().into_array()[1].clone().into_array()[0].clone().into_array()[0].as_string().unwrap();
    command(&client, &format!("XACK {BULK} {GROUP} {id}")).await;
    until_rows(&dashboard, "the next one of the other stream", about(200.0), 2).await;

    let read = command(&client, &format!("XREADGROUP GROUP {GROUP} w COUNT 2 STREAMS {STREAM} >")).await.into_array();
    let entries = read[0].clone().into_array()[1].clone().into_array();
    let ids: Vec<_> = entries.iter().map(|entry| entry.clone().into_array()[0].as_string().unwrap()).collect();
    // The later one first: what is older still waits.
    command(&client, &format!("XACK {STREAM} {GROUP} {}", ids[1])).await;
    until_rows(&dashboard, "a hole before what is written", about(200.0), 1).await;
    command(&client, &format!("XACK {STREAM} {GROUP} {}", ids[0])).await;
    until_rows(&dashboard, "nothing waits: as old as the newest event", about(3.0), 0).await;
    let text = dashboard.metrics.encode();
    let line = text.lines().find(|line| line.starts_with(&format!("{gauge} "))).unwrap();
    assert!(about(3.0)(line.split(' ').nth(1).unwrap().parse().ok()), "{line}");
}

#[tokio::test]
async fn the_death_of_the_last_worker_is_seen_within_five_seconds() {
    // As it is by default, not as the other tests have it.
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("dashboard.metricsInterval", "2s")]).await;
    command(&client, &format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM")).await;
    command(&client, &format!("XADD {STREAM} * type commit data {{}} seq 1")).await;
    command(&client, &format!("XREADGROUP GROUP {GROUP} w COUNT 1 STREAMS {STREAM} >")).await;
    // For a minute more it may be that it only works on something long.
    command(&client, "SET firehose:consumer:w:alive x PX 60000").await;
    let beat = format!("SET firehose:consumer:w:pulse 1 PX {}", PULSE_TTL.as_millis());
    let alive = async || metrics(&dashboard).await["flow"]["workersAlive"].as_u64();
    until("it is seen", async || {
        command(&client, &beat).await;
        alive().await == Some(1)
    })
    .await;
    let died = Instant::now();
    command(&client, &beat).await;
    until("its death is seen", async || alive().await == Some(0)).await;
    assert!(died.elapsed() < Duration::from_secs(5), "after {:?}", died.elapsed());
    assert!(died.elapsed() > PULSE_TTL / 2, "a pause is no death");
    let listed = get(dashboard.address, "/api/workers").await.json();
    assert_eq!(listed[0]["alive"], false, "{listed}");
}

#[tokio::test]
async fn a_worker_that_waits_in_vain_is_alive() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[("worker.claimTime", "1s")]).await;
    command(&client, &format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM")).await;
    command(&client, &format!("XGROUP CREATECONSUMER {STREAM} {GROUP} w")).await;
    command(&client, "SET firehose:consumer:w:pulse 1").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let shown = metrics(&dashboard).await["flow"].take();
    assert_eq!(
        (&shown["workersAlive"], &shown["waiting"]),
        (&json!(1), &json!(0)),
        "idle for longer than the claim time"
    );
    assert_eq!(shown["quietSeconds"], Value::Null, "what never had an event is not quiet since 1970");
}

#[tokio::test]
async fn a_backlog_that_shrinks_tells_when_it_is_gone() {
    let redis = TestRedis::start().await.unwrap();
    let layers = Layers::default().flag("redis.url", redis.url());
    let client = penstock_core::redis::connect(&Settings::load(&layers).unwrap()).await.unwrap();
    command(&client, &format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM")).await;
    for _ in 0..1_000 {
        command(&client, &format!("XADD {STREAM} * type commit data {{}}")).await;
    }
    let dashboard = Dashboard::start(&redis.url(), &[("redis.maxStreamLen", "1000")]).await;
    dashboard.until_seen().await;
    assert_eq!(metrics(&dashboard).await["flow"]["streamCap"], 800, "80 % of it, where ingest pauses");
    let drains = async || {
        command(&client, &format!("XREADGROUP GROUP {GROUP} w COUNT 1 NOACK STREAMS {STREAM} >")).await;
        metrics(&dashboard).await["flow"]["drainSeconds"].as_f64().is_some_and(|left| left > 0.0)
    };
    until("it drains", drains).await;
    assert_eq!(metrics(&dashboard).await["flow"]["database"], "writing");
}
