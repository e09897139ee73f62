//! How the relay treats its clients: cursors, clock, pings, slow ones, the end.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use penstock_replay::{BadCursor, FutureCursor, Rate, Settings, frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::checker::decode;
use crate::client::{PATIENCE, assert_error, assert_refused, next, start, take};

fn total(total: u64) -> Settings {
    Settings { total: Some(total), ..Settings::default() }
}

fn rate(rate: u32) -> Rate {
    Rate::PerSecond(NonZeroU32::new(rate).unwrap())
}

fn model(settings: &Settings) -> Vec<Bytes> {
    frames(settings).unwrap().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_get_the_very_same_frames() {
    let settings = total(3000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(relay.subscribe("?cursor=0").await);
    }
    let readers: Vec<_> =
        clients.into_iter().map(|mut client| tokio::spawn(async move { take(&mut client, 3000).await })).collect();
    for reader in readers {
        assert!(reader.await.unwrap() == model);
    }
    assert_eq!(relay.handle.head(), 3000);
    assert_eq!(relay.handle.served(), 5 * 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_from_any_seq_yields_exactly_what_follows() {
    // Nothing is kept in stock: every resumption makes its loop again.
    let settings = Settings { prepared: 0, start_seq: Some(60_000), ..total(20_000) };
    let (model, relay) = (model(&settings), start(settings).await);
    for position in [1, 2, 582, 583, 584, 1165, 1166, 5_535, 5_536, 5_537, 12_345, 19_999] {
        let mut client = relay.subscribe(&format!("?cursor={}", 59_999 + position)).await;
        let count = (20_000 - position).min(700);
        assert!(take(&mut client, count).await == model[position..position + count], "resumed at {position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_cursor_gets_live_events_only() {
    let relay = start(Settings { rate: rate(500), backlog: 1000, ..total(100_000) }).await;
    let before = relay.handle.head();
    let mut client = relay.subscribe("").await;
    let seqs: Vec<u64> = take(&mut client, 50).await.iter().map(|frame| decode(frame).seq()).collect();
    assert!(before >= 1000 && seqs[0] > before, "{before} {seqs:?}");
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
    let late = relay.subscribe("?cursor=0").await;
    drop(client);
    let mut late = late;
    assert_eq!(decode(&take(&mut late, 1).await[0]).seq(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_cursor_gets_an_info_and_then_the_whole_window() {
    let settings = Settings { window: Some(100), ..total(1000) };
    let (model, relay) = (model(&settings), start(settings).await);
    let mut client = relay.subscribe("?cursor=5").await;
    let served = take(&mut client, 101).await;
    let mut rest = &served[0][..];
    let header: ciborium::Value = ciborium::from_reader(&mut rest).unwrap();
    let body: ciborium::Value = ciborium::from_reader(rest).unwrap();
    assert_eq!(header, ciborium::Value::Map(vec![("t".into(), "#info".into()), ("op".into(), 1.into())]));
    assert_eq!(body.as_map().unwrap()[0], ("name".into(), "OutdatedCursor".into()));
    assert!(served[1..] == model[900..]);

    for query in ["?cursor=0", "?cursor=900"] {
        let mut client = relay.subscribe(query).await;
        assert!(take(&mut client, 100).await == model[900..], "{query} loses nothing and hears nothing of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn future_cursor_is_an_error_or_silently_live() {
    let relay = start(total(100)).await;
    assert_refused(&mut relay.subscribe("?cursor=101").await, "FutureCursor").await;

    let silent = Settings { rate: rate(200), backlog: 10, future_cursor: FutureCursor::SilentLive, ..total(100_000) };
    let relay = start(silent).await;
    let mut client = relay.subscribe("?cursor=9999999").await;
    let seq = decode(&take(&mut client, 1).await[0]).seq();
    assert!((11..10_000).contains(&seq), "{seq}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_cursor_is_http_400_or_an_error_frame() {
    let relay = start(total(100)).await;
    for cursor in ["abc", "-1", "1.5"] {
        let refused = relay.try_subscribe(&format!("?cursor={cursor}")).await;
        let Err(tungstenite::Error::Http(response)) = refused else { panic!("cursor {cursor} was not refused") };
        assert_eq!(response.status(), 400);
    }
    let relay = start(Settings { bad_cursor: BadCursor::ErrorFrame, ..total(100) }).await;
    assert_refused(&mut relay.subscribe("?cursor=-1").await, "InvalidRequest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_releases_events_evenly_and_never_early() {
    let relay = start(Settings { rate: rate(2000), ..total(3000) }).await;
    let started = Instant::now();
    let mut client = relay.subscribe("?cursor=0").await;
    let mut arrivals = Vec::new();
    for _ in 0..3000 {
        take(&mut client, 1).await;
        arrivals.push(started.elapsed());
    }
    // The clock was started a little before: that much early an event may seem.
    let slack = Duration::from_millis(250);
    for (nth, arrival) in (1..).zip(&arrivals) {
        assert!(*arrival + slack >= Duration::from_micros(500 * nth), "event {nth} came early, at {arrival:?}");
    }
    assert!(arrivals[2999] < Duration::from_secs(6), "{:?}", arrivals[2999]);
    let groups = arrivals.chunk_by(|a, b| *b - *a < Duration::from_micros(200)).count();
    assert!(groups > 150, "only {groups} bursts in 1.5 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_too_slow_for_the_clock_is_told_and_closed() {
    let settings = Settings { rate: rate(100_000), client_buffer: 500, prepared: 8 << 20, ..Settings::default() };
    let relay = start(settings).await;
    let mut client = relay.subscribe("").await;
    let first = decode(&take(&mut client, 1).await[0]).seq();
    // Not reading: the socket's buffers fill, then the relay's patience ends.
    let deadline = Instant::now() + PATIENCE;
    while relay.handle.served() == 0 || relay.handle.head() < first + 100_000 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut expected = first + 1;
    loop {
        let frame = take(&mut client, 1).await.remove(0);
        if frame.starts_with(&[0xa1]) {
            assert_error(&frame, "ConsumerTooSlow");
            break;
        }
        assert_eq!(decode(&frame).seq(), expected, "whole frames, in order, up to the end");
        expected += 1;
    }
    assert!(matches!(next(&mut client).await, Some(Message::Close(Some(_)))));
    assert!(relay.handle.head() > expected + 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_a_backlog_slowly_is_nobodys_fault() {
    let settings = Settings { rate: rate(1000), backlog: 50_000, client_buffer: 10, ..total(60_000) };
    let relay = start(settings).await;
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 1).await;
    let head = relay.handle.head();
    let deadline = Instant::now() + PATIENCE;
    while relay.handle.head() < head + 300 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(decode(&take(&mut client, 20_000).await[19_999]).seq(), 20_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_between_two_frames_of_a_backlog() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut client = relay.subscribe("?cursor=0").await;
    client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    let (mut frames, mut pongs) = (Vec::new(), 0);
    while frames.len() < 20_000 || pongs == 0 {
        match next(&mut client).await {
            Some(Message::Binary(frame)) => frames.push(frame),
            Some(Message::Pong(payload)) => {
                assert_eq!(payload, "there?");
                pongs += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(frames == model, "a ping cost or doubled a frame");
    assert_eq!(relay.handle.served(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_relay_keeps_the_connection_and_pings() {
    let relay = start(Settings { ping_interval: Duration::from_millis(30), ..total(10) }).await;
    let mut client = relay.subscribe("?cursor=10").await;
    for _ in 0..5 {
        assert!(matches!(next(&mut client).await, Some(Message::Ping(_))));
    }
    assert_eq!(relay.handle.clients(), 1);
    client.close(None).await.unwrap();
    while timeout(PATIENCE, client.next()).await.unwrap().is_some() {}
    let deadline = Instant::now() + PATIENCE;
    while relay.handle.clients() > 0 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_relay_closes_its_clients_after_a_whole_frame_and_ends() {
    let relay = start(Settings::default()).await;
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 100).await;
    relay.cancel.cancel();
    let mut expected = 101;
    loop {
        match next(&mut client).await {
            Some(Message::Binary(frame)) => {
                assert_eq!(decode(&frame).seq(), expected);
                expected += 1;
            }
            Some(Message::Close(Some(close))) => {
                assert_eq!(u16::from(close.code), 1001);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    while timeout(PATIENCE, client.next()).await.unwrap().is_some() {}
    timeout(PATIENCE, relay.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_relay_has_its_head_where_its_fastest_reader_is() {
    let relay = start(Settings { backlog: 100, prepared: 4 << 20, ..Settings::default() }).await;
    assert_eq!(relay.handle.head(), 100);
    let mut client = relay.subscribe("").await;
    assert_eq!(decode(&take(&mut client, 5_000).await[4_999]).seq(), 5_100);
    assert!(relay.handle.head() >= 5_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_routes_are_answered_as_http() {
    let relay = start(total(1)).await;
    for (request, status) in [
        ("GET /xrpc/_health HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("GET /xrpc/com.atproto.sync.subscribeRepos HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 Upgrade Required"),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let mut stream = TcpStream::connect(relay.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(status), "{request:?}: {answer}");
    }
}
