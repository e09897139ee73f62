//! Addresses, hostile connections, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Stream, get};
use super::{Dashboard, until};
use crate::serve::Limits;

#[tokio::test]
async fn the_end_is_told_to_live_clients_and_waits_for_nobody_else() {
    let (dashboard, _redis, _client) = Dashboard::with_redis(&[]).await;
    let mut stream = Stream::open(dashboard.address).await;
    let mut idle = TcpStream::connect(dashboard.address).await.unwrap();
    stream.next("metrics").await.unwrap();
    let asked = Instant::now();
    dashboard.cancel.cancel();
    let mut last = String::new();
    while let Some(frame) = stream.frame().await {
        last = frame;
    }
    assert!(last.starts_with("retry: "), "when to come back is told: {last}");
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap_or(0), 0);
    dashboard.task.await.unwrap().unwrap();
    assert!(asked.elapsed() < Limits::default().drain, "{:?}", asked.elapsed());
    assert!(TcpStream::connect(dashboard.address).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_let_go() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let dashboard = Dashboard::start_with(&redis.url(), &[], limits).await;
    let mut idle = TcpStream::connect(dashboard.address).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut answer)).await.expect("an end in time");
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn further_addresses_are_served_and_a_taken_one_is_named() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dashboard = Dashboard::start(&redis.url(), &[("dashboard.extraAddresses", &free.to_string())]).await;
    assert_eq!(get(free, "/").await.status, 200);
    assert_eq!(get(dashboard.address, "/").await.status, 200);
    let error = crate::bind(Arc::clone(&dashboard.settings)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("could not bind {free}, ")), "{error}");
}

/// Connects and asks; returns what was answered, as far as the system let it through.
async fn asked_over(address: std::net::SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = Vec::new();
    if stream.write_all(b"GET /health HTTP/1.1\r\nhost: dash.test\r\n\r\n").await.is_ok() {
        while !bytes.ends_with(b"}") {
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut bytes));
            if read.await.expect("an answer or an end in time").unwrap_or(0) == 0 {
                break;
            }
        }
    }
    (stream, String::from_utf8(bytes).unwrap())
}

#[tokio::test]
async fn connections_beyond_the_bounds_are_refused_and_counted_and_who_goes_leaves_room() {
    let redis = penstock_local::testing::TestRedis::start().await.unwrap();
    for (flags, reason) in [
        ([("dashboard.maxConnections", "16"), ("dashboard.maxConnectionsPerPeer", "100")], "full"),
        ([("dashboard.maxConnections", "100"), ("dashboard.maxConnectionsPerPeer", "16")], "peer"),
    ] {
        let dashboard = Dashboard::start(&redis.url(), &flags).await;
        let mut kept = Vec::new();
        for _ in 0..15 {
            let (stream, answer) = asked_over(dashboard.address).await;
            assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
            kept.push(stream);
        }
        // A WebSocket or an event stream has its place for as long as it lives.
        let mut live = Stream::open(dashboard.address).await;
        let refused = || {
            let series = format!("penstock_dashboard_connections_refused_total{{reason=\"{reason}\"}} ");
            let text = dashboard.metrics.encode();
            text.split(&series).nth(1).unwrap().lines().next().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!(refused(), 0);
        for nth in 1..=5 {
            let (_, answer) = asked_over(dashboard.address).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
            until("it is counted", async || refused() == nth).await;
        }
        live.frame().await.expect("who is in stays in");
        kept.pop();
        until("there is room again", async || asked_over(dashboard.address).await.1.contains("\"status\":\"healthy\""))
            .await;
    }
}
