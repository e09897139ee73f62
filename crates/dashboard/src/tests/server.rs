//! Addresses, hostile connections, and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Dashboard;
use super::client::{Stream, get};
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
    assert_eq!(error.to_string(), format!("could not bind the dashboard address {free}"));
}
