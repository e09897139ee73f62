//! The event stream: order, fan-out, slow clients, and Redis going away.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{HashesInterface, KeysInterface, PubsubInterface};
use serde_json::{Value, json};

use super::client::{Stream, administrate, get};
use super::{Dashboard, until};
use crate::serve::Limits;

/// Publishes until somebody listens, as the dashboard subscribes in its own time.
async fn publish_first(dashboard: &Dashboard, client: &Client, event: &Value) {
    let channel = dashboard.keys().broadcast();
    let publish = async || client.publish::<i64, _, _>(channel.clone(), event.to_string()).await;
    until("the dashboard is subscribed", async || publish().await.is_ok_and(|heard| heard > 0)).await;
}

#[tokio::test]
async fn the_stream_greets_then_brings_metrics_and_events() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    let mut stream = Stream::open(dashboard.address).await;
    assert_eq!(stream.answer.status, 200);
    assert_eq!(stream.answer.header("content-type"), "text/event-stream");
    assert_eq!(stream.answer.header("cache-control"), "no-cache, no-transform");
    assert_eq!(stream.answer.header("x-accel-buffering"), "no");
    let greeting = r#"data: {"type":"connected","message":"Event stream connected"}"#;
    assert_eq!(stream.frame().await.unwrap(), greeting);
    let metrics = stream.frame().await.unwrap();
    assert!(metrics.starts_with(r#"data: {"type":"metrics","data":{"eventsProcessed":0,"dbRecords":0,"#), "{metrics}");

    let event = json!({"type": "#commit", "lexicon": "app.bsky.feed.like", "did": "did:plc:a", "action": "create"});
    publish_first(&dashboard, &client, &event).await;
    assert_eq!(stream.next("event").await.unwrap(), event);
    let () = client.hset(dashboard.keys().cluster_metrics(), ("totalEvents", 5)).await.unwrap();
    while stream.next("metrics").await.unwrap()["eventsProcessed"] != 5 {}
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_while_another_gets_everything() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let limits = Limits { stall: Duration::from_millis(200), ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[], limits).await;
    let client = dashboard.redis().await;
    let mut fast = Stream::open(dashboard.address).await;
    let mut slow = Stream::open_with(dashboard.address, 4096, &[]).await;
    publish_first(&dashboard, &client, &json!("first")).await;
    assert_eq!(fast.next("event").await.unwrap(), "first");

    // What the kernel takes for a client that does not read is far less than this.
    const EVENTS: usize = 4000;
    let filling = "x".repeat(1000);
    let publishing = tokio::spawn({
        let channel = dashboard.keys().broadcast();
        async move {
            for from in (0..EVENTS).step_by(500) {
                let batch = client.pipeline();
                for at in from..from + 500 {
                    let event = json!({"at": at, "filling": filling}).to_string();
                    let () = batch.publish(channel.clone(), event).await.unwrap();
                }
                let _: Vec<i64> = batch.all().await.unwrap();
            }
        }
    });
    for at in 0..EVENTS {
        assert_eq!(fast.next("event").await.expect("the fast client is kept")["at"], at);
    }
    publishing.await.unwrap();
    let cut = "penstock_dashboard_slow_clients_cut_total 1\n";
    until("the slow client is cut", async || dashboard.metrics.encode().contains(cut)).await;
    assert!(dashboard.metrics.encode().contains("penstock_dashboard_sse_clients 1"));
    while slow.frame().await.is_some() {}
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    publish_first(&dashboard, &client, &json!("first")).await;
    let mut stream = Stream::open(dashboard.address).await;
    let mut witness = Stream::open(dashboard.address).await;
    let publish = async |event: &str| {
        let _: i64 = client.publish(dashboard.keys().broadcast(), json!(event).to_string()).await.unwrap();
    };
    publish("a").await;
    publish("b").await;
    // The first one may have been on its way when they came.
    let (id, event) = loop {
        let next = stream.next_with_id("event").await.unwrap();
        if next.1 != "first" {
            break next;
        }
    };
    assert_eq!(event, "a");
    drop(stream);
    publish("c").await;
    while witness.next("event").await.unwrap() != "c" {}

    let mut back = Stream::resume(dashboard.address, &id).await;
    assert_eq!([back.next("event").await.unwrap(), back.next("event").await.unwrap()], [json!("b"), json!("c")]);
    // Of another process: the newest there are.
    let mut stranger = Stream::resume(dashboard.address, "0-7").await;
    let events = ["first", "a", "b", "c", "d"].map(Value::from);
    publish("d").await;
    for event in events {
        assert_eq!(stranger.next("event").await.unwrap(), event);
    }
    assert_eq!(back.next("event").await.unwrap(), "d");
}

#[tokio::test]
async fn a_new_process_knows_the_events_before_it() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let dashboard = Dashboard::start(&redis.url(), &[]).await;
    let client = dashboard.redis().await;
    // Newest first, as ingest keeps them.
    let recent = json!([{"n": 2}, {"n": 1}]).to_string();
    let () = client.set(dashboard.keys().recent_events(), recent, None, None, false).await.unwrap();
    let next = Dashboard::start(&redis.url(), &[]).await;
    next.until_seen().await;
    let mut back = Stream::resume(next.address, "0-7").await;
    assert_eq!(
        [back.next("event").await.unwrap(), back.next("event").await.unwrap()],
        [json!({"n": 1}), json!({"n": 2})]
    );
}

#[tokio::test]
async fn without_redis_nothing_is_made_up_and_it_comes_back_by_itself() {
    let (dashboard, mut redis, client) = Dashboard::with_redis(&[]).await;
    let mut stream = Stream::open(dashboard.address).await;
    let away = "/api/metrics /api/ingest /api/events/recent /api/metrics/activity-history /api/workers \
                /api/redis/dead-letters /api/redis/dead-letters/1-0";
    let away = away.split(' ');
    for _ in 0..2 {
        redis.stop().await.unwrap();
        until("the metrics are withdrawn", async || get(dashboard.address, "/api/metrics").await.status == 503).await;
        for path in away.clone() {
            let answer = get(dashboard.address, path).await;
            assert_eq!((answer.problem(), answer.header("retry-after")), (503, "2"), "{path}");
        }
        for path in ["/api/redis/dead-letters/replay", "/api/metrics/refresh", "/api/firehose/reconnect"] {
            assert_eq!(administrate(dashboard.address, "POST", path).await.problem(), 503, "{path}");
        }
        let health = get(dashboard.address, "/health").await;
        let told = health.json();
        assert_eq!((health.status, &told["redis"], &told["queue_length"]), (503, &json!("disconnected"), &json!(0)));
        let ready = get(dashboard.address, "/ready").await;
        assert_eq!(
            (ready.status, &ready.json()["details"]["reasons"]["firehose"]),
            (503, &json!("redis does not answer"))
        );
        assert!(dashboard.health.is_ready());

        redis.restart().await.unwrap();
        dashboard.until_seen().await;
        publish_first(&dashboard, &client, &json!({"back": true})).await;
        assert_eq!(stream.next("event").await.expect("the stream outlives redis"), json!({"back": true}));
    }
}

#[tokio::test]
async fn a_dashboard_that_starts_before_redis_waits_for_it() {
    let mut redis = penstock_local::testing::TestRedis::start().await.unwrap();
    redis.stop().await.unwrap();
    let dashboard = Dashboard::start(&redis.url(), &[]).await;
    assert_eq!(get(dashboard.address, "/api/metrics").await.problem(), 503);
    let mut stream = Stream::open(dashboard.address).await;
    redis.restart().await.unwrap();
    assert_eq!(stream.next("metrics").await.unwrap()["eventsProcessed"], 0);
}

#[tokio::test]
async fn more_live_clients_than_allowed_are_refused() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let limits = Limits { live_clients: 1, ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[], limits).await;
    let stream = Stream::open(dashboard.address).await;
    assert_eq!(get(dashboard.address, "/api/events/stream").await.problem(), 503);
    drop(stream);
    until("the place is free", async || Stream::open(dashboard.address).await.answer.status == 200).await;
}

#[tokio::test]
async fn filters_of_many_clients_are_kept_by_the_server() {
    let (dashboard, _redis, client) = Dashboard::with_redis(&[]).await;
    publish_first(&dashboard, &client, &json!("first")).await;
    let event = |n: u64| {
        let collection = if n.is_multiple_of(500) { "app.bsky.graph.block" } else { "app.bsky.feed.like" };
        json!({"type": "#commit", "lexicon": collection, "did": format!("did:plc:{}", n % 7), "action": "create", "n": n})
    };
    let wants: [(&str, &dyn Fn(u64) -> bool); 5] = [
        ("", &|_| true),
        ("collection=app.bsky.graph", &|n| n.is_multiple_of(500)),
        ("collection=*BLOCK&did=did%3Aplc%3A*", &|n| n.is_multiple_of(500)),
        ("did=did:plc:1&did=did:plc:2&action=create", &|n| [1, 2].contains(&(n % 7))),
        ("text=like&text=plc:3", &|n| n % 7 == 3 && !n.is_multiple_of(500)),
    ];
    let mut streams = Vec::new();
    for (query, _) in &wants {
        streams.push(Stream::filtered(dashboard.address, query, &[]).await);
    }
    const EVENTS: u64 = 3000;
    for from in (1..=EVENTS).step_by(500) {
        let batch = client.pipeline();
        for n in from..from + 500 {
            let () = batch.publish(dashboard.keys().broadcast(), event(n).to_string()).await.unwrap();
        }
        let _: Vec<i64> = batch.all().await.unwrap();
    }
    let mut last = String::new();
    for ((query, wants), stream) in wants.iter().zip(&mut streams) {
        for n in (1..=EVENTS).filter(|n| wants(*n)) {
            // The first one of all may have been on its way when they came.
            let mut next = stream.next_with_id("event").await.unwrap();
            if next.1 == "first" {
                next = stream.next_with_id("event").await.unwrap();
            }
            assert_eq!(next.1["n"], n, "{query}");
            last = next.0;
        }
    }
    // From there on with another filter, and from nowhere with the newest that match.
    let mut back = Stream::filtered(dashboard.address, "collection=app.bsky.graph", &[("last-event-id", &last)]).await;
    let mut new = Stream::filtered(dashboard.address, "collection=app.bsky.graph&recent=2", &[]).await;
    let _: i64 = client.publish(dashboard.keys().broadcast(), event(4000).to_string()).await.unwrap();
    for (stream, expected) in [(&mut back, vec![3000, 4000]), (&mut new, vec![2500, 3000, 4000])] {
        for n in expected {
            assert_eq!(stream.next("event").await.unwrap()["n"], n);
        }
    }
}

#[tokio::test]
async fn a_filter_that_cannot_be_is_refused_with_the_reason() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let long = format!("did={}", "x".repeat(300));
    for (query, field) in [("type=commits", "type"), ("action=x", "action"), (&long, "did"), ("recent=7x", "recent")] {
        let refused = get(dashboard.address, &format!("/api/events/stream?{query}")).await;
        assert_eq!(refused.problem(), 400, "{query}");
        assert!(refused.json()["detail"].as_str().unwrap().starts_with(field), "{}", refused.body);
    }
    // What others may hang on, and what says nothing, is passed over.
    assert_eq!(Stream::filtered(dashboard.address, "_=17&did=", &[]).await.answer.status, 200);
}
