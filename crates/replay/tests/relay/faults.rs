//! How the relay misbehaves when told to: each fault as its clients see it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use penstock_replay::{Error, Fault, Rate, Settings, frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::checker::decode;
use crate::client::{Client, PATIENCE, Running, assert_error, next, start, take};

/// How long a fault lasts that has to be waited for.
const WHILE: Duration = Duration::from_millis(400);

fn total(total: u64) -> Settings {
    Settings { total: Some(total), ..Settings::default() }
}

fn rated(rate: u32, total: u64) -> Settings {
    Settings { rate: Rate::PerSecond(NonZeroU32::new(rate).unwrap()), ..self::total(total) }
}

fn model(settings: &Settings) -> Vec<Bytes> {
    frames(settings).unwrap().collect()
}

fn seq(frame: &[u8]) -> u64 {
    decode(frame).seq()
}

fn is_garbage(frame: &[u8]) -> bool {
    ciborium::from_reader::<ciborium::Value, _>(frame).is_err()
}

/// Everything up to the relay's close, and the close's code.
async fn to_the_close(client: &mut Client) -> (Vec<Bytes>, u16) {
    let mut frames = Vec::new();
    loop {
        match next(client).await {
            Some(Message::Binary(frame)) => frames.push(frame),
            Some(Message::Close(Some(close))) => return (frames, close.code.into()),
            Some(Message::Ping(_) | Message::Pong(_)) => {}
            other => panic!("no close but {other:?}"),
        }
    }
}

/// What comes before the answer to a ping; the answer's coming shows that what was told before is in force.
async fn to_the_pong(client: &mut Client) -> Vec<Bytes> {
    client.send(Message::Ping(Bytes::new())).await.unwrap();
    let mut frames = Vec::new();
    loop {
        match next(client).await {
            Some(Message::Binary(frame)) => frames.push(frame),
            Some(Message::Pong(_)) => return frames,
            other => panic!("no pong but {other:?}"),
        }
    }
}

/// What is left of a timeline that begins at 1.
fn without(model: &[Bytes], skipped: &[RangeInclusive<u64>]) -> Vec<Bytes> {
    let kept = |seq: u64| !skipped.iter().any(|range| range.contains(&seq));
    (1..).zip(model).filter(|(seq, _)| kept(*seq)).map(|(_, frame)| frame.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn close_meets_every_connection_and_loses_nothing() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let (mut one, mut other) = (relay.subscribe("?cursor=0").await, relay.subscribe("?cursor=9000").await);
    take(&mut one, 1).await;
    take(&mut other, 1).await;
    assert_eq!(relay.handle.inject(Fault::Close).await.unwrap(), 2);
    let (one, other) = tokio::join!(to_the_close(&mut one), to_the_close(&mut other));
    for ((frames, code), from) in [(one, 1), (other, 9_001)] {
        assert_eq!(code, 1001);
        assert!(frames == model[from..from + frames.len()], "whole frames, in order");
        let at = from + frames.len();
        let mut again = relay.subscribe(&format!("?cursor={at}")).await;
        let count = (20_000 - at).min(50);
        assert!(take(&mut again, count).await == model[at..at + count]);
    }
}

/// Subscribes without a WebSocket client, so that every byte is seen.
async fn subscribe_raw(relay: &Running, cursor: u64) -> TcpStream {
    let mut stream = TcpStream::connect(relay.address).await.unwrap();
    let request = format!(
        "GET /xrpc/com.atproto.sync.subscribeRepos?cursor={cursor} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    stream
}

/// Splits what a relay sent into its messages; returns them and what is left of one cut off.
fn messages(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut messages = Vec::new();
    loop {
        let (header, length) = match *bytes {
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
            [_, short @ 0..126, ..] => (2, usize::from(short)),
            _ => return (messages, bytes),
        };
        let Some(message) = bytes.get(header..header + length) else { return (messages, bytes) };
        messages.push(message);
        bytes = &bytes[header + length..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_ends_in_the_middle_of_a_frame() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    for cursor in [0, 20_000] {
        let mut stream = subscribe_raw(&relay, cursor).await;
        while relay.handle.clients() > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(relay.handle.inject(Fault::Cut).await.unwrap(), 1);
        let mut sent = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut sent)).await.unwrap().unwrap();
        let (messages, torn) = messages(&sent);
        let from = cursor as usize;
        assert!(messages == model[from..from + messages.len()], "cursor {cursor}");
        assert!(!torn.is_empty(), "cursor {cursor}: cut between two frames");
        assert!(messages.len() < 20_000);
    }
    assert!(relay.handle.served() < 20_000, "what was cut off does not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_relay_answers_pings_and_sends_no_data_until_it_goes_on() {
    let settings = rated(2_000, 100_000);
    let relay = start(settings).await;
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 100).await;
    let told = Instant::now();
    assert_eq!(relay.handle.inject(Fault::Stall(WHILE)).await.unwrap(), 1);
    let before = to_the_pong(&mut client).await;
    let mut late = relay.subscribe("?cursor=0").await;
    to_the_pong(&mut late).await;
    assert_eq!(seq(&take(&mut client, 1).await[0]), 101 + before.len() as u64, "it goes on where it was");
    assert!(told.elapsed() >= WHILE, "data came after {:?}", told.elapsed());
    assert_eq!(seq(&take(&mut late, 1).await[0]), 1);
    assert!(told.elapsed() >= WHILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_relay_answers_nobody_until_it_thaws() {
    let relay = start(rated(2_000, 100_000)).await;
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 100).await;
    let told = Instant::now();
    assert_eq!(relay.handle.inject(Fault::Freeze(WHILE)).await.unwrap(), 1);
    let before = to_the_pong(&mut client).await;
    assert!(told.elapsed() >= WHILE, "a pong came after {:?}", told.elapsed());
    assert_eq!(seq(&take(&mut client, 1).await[0]), 101 + before.len() as u64);

    let told = Instant::now();
    relay.handle.inject(Fault::Freeze(WHILE)).await.unwrap();
    let mut late = relay.subscribe("?cursor=0").await;
    assert!(told.elapsed() >= WHILE, "an upgrade came after {:?}", told.elapsed());
    assert_eq!(seq(&take(&mut late, 1).await[0]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_relay_is_not_being_too_slow() {
    let relay = start(Settings { client_buffer: 10_000, prepared: 8 << 20, ..rated(10_000, 1_000_000) }).await;
    let mut client = relay.subscribe("").await;
    let missed = Duration::from_millis(1_500);
    for fault in [Fault::Stall(missed), Fault::Freeze(missed), Fault::Repeat(15_000)] {
        take(&mut client, 100).await;
        relay.handle.inject(fault).await.unwrap();
        take(&mut client, 16_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_comes_once_and_only_to_who_is_there() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut clients = [relay.subscribe("?cursor=0").await, relay.subscribe("?cursor=20000").await];
    take(&mut clients[0], 1).await;
    assert_eq!(relay.handle.inject(Fault::Garbage).await.unwrap(), 2);
    let garbage = take(&mut clients[1], 1).await;
    assert!(is_garbage(&garbage[0]));
    let mut rest = take(&mut clients[0], 20_000).await;
    rest.retain(|frame| !is_garbage(frame));
    assert!(rest == model[1..], "one message besides the frames");
    assert!(take(&mut relay.subscribe("?cursor=0").await, 20_000).await == model);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_waits_for_the_end_of_a_stall() {
    let relay = start(total(100)).await;
    let mut client = relay.subscribe("?cursor=100").await;
    let told = Instant::now();
    relay.handle.inject(Fault::Stall(WHILE)).await.unwrap();
    relay.handle.inject(Fault::Garbage).await.unwrap();
    assert!(is_garbage(&take(&mut client, 1).await[0]));
    assert!(told.elapsed() >= WHILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn error_frame_is_the_last_of_a_connection() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 1).await;
    relay.handle.inject(Fault::ErrorFrame).await.unwrap();
    let (mut frames, code) = to_the_close(&mut client).await;
    assert_eq!(code, 1008);
    assert_error(&frames.pop().unwrap(), "ConsumerTooSlow");
    assert!(frames == model[1..=frames.len()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_events_are_the_last_ones_byte_for_byte() {
    let settings = total(3_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 3_000).await;
    relay.handle.inject(Fault::Repeat(100)).await.unwrap();
    assert!(take(&mut client, 100).await == model[2_900..]);

    let mut late = relay.subscribe("?cursor=2990").await;
    take(&mut late, 10).await;
    assert_eq!(relay.handle.inject(Fault::Repeat(50)).await.unwrap(), 2);
    assert!(take(&mut client, 50).await == model[2_950..]);
    assert!(take(&mut late, 10).await == model[2_990..], "no more than it was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeat_in_a_backlog_goes_back_once_and_then_on() {
    let settings = total(20_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut client = relay.subscribe("?cursor=0").await;
    let mut served = take(&mut client, 200).await;
    relay.handle.inject(Fault::Repeat(150)).await.unwrap();
    client.send(Message::Ping(Bytes::new())).await.unwrap();
    served.extend(take_over_pongs(&mut client, 20_000 - 200 + 150).await);
    let seam = served.windows(2).position(|pair| seq(&pair[1]) <= seq(&pair[0])).unwrap() + 1;
    assert!(served[..seam] == model[..seam]);
    assert!(served[seam..] == model[seam - 150..]);
}

async fn take_over_pongs(client: &mut Client, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::with_capacity(count);
    while frames.len() < count {
        match next(client).await {
            Some(Message::Binary(frame)) => frames.push(frame),
            Some(Message::Pong(_) | Message::Ping(_)) => {}
            other => panic!("no frame but {other:?}"),
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_events_reach_nobody_and_are_named() {
    let settings = rated(5_000, 6_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let mut readers = Vec::new();
    for cursor in [0, 0, 0] {
        let mut client = relay.subscribe(&format!("?cursor={cursor}")).await;
        readers.push(tokio::spawn(async move { take(&mut client, 6_000 - 5 * 101).await }));
    }
    for nth in 1..=5 {
        let deadline = Instant::now() + PATIENCE;
        while relay.handle.served() < nth * 2_000 {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(5)).await;
        }
        relay.handle.inject(Fault::Skip(100)).await.unwrap();
        relay.handle.inject(Fault::Skip(1)).await.unwrap();
    }
    let skipped = relay.handle.skipped();
    assert_eq!(skipped.iter().map(|range| range.end() - range.start() + 1).sum::<u64>(), 5 * 101, "{skipped:?}");
    let left = without(&model, &skipped);
    for reader in readers {
        assert!(reader.await.unwrap() == left);
    }
    let mut late = relay.subscribe(&format!("?cursor={}", skipped[0].start())).await;
    let after = *skipped[0].start() as usize - 1;
    assert!(take(&mut late, 500).await == left[after..after + 500], "a cursor inside of what was skipped");
    relay.handle.inject(Fault::Repeat(500)).await.unwrap();
    relay.handle.inject(Fault::Skip(10)).await.unwrap();
    assert_eq!(relay.handle.skipped(), skipped, "everything was taken already");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_relay_closes_and_answers_503_until_it_takes_clients_again() {
    let relay = start(total(100)).await;
    let mut client = relay.subscribe("?cursor=100").await;
    let told = Instant::now();
    assert_eq!(relay.handle.inject(Fault::Refuse(WHILE)).await.unwrap(), 1);
    assert_eq!(to_the_close(&mut client).await.1, 1001);
    let mut again = loop {
        match relay.try_subscribe("?cursor=99").await {
            Ok(client) => break client,
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 503),
            Err(other) => panic!("{other}"),
        }
        sleep(Duration::from_millis(5)).await;
    };
    assert!(told.elapsed() >= WHILE);
    take(&mut again, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_host_serves_its_new_timeline_and_nothing_else() {
    let old = Settings { start_seq: Some(50_000), ..total(2_000) };
    let new = rated(1_000, 20_000).restarted(5, "2030-01-01T00:00:00Z".parse().unwrap());
    let (served, relay) = (model(&Settings { total: Some(1_000), ..new.clone() }), start(old.clone()).await);
    let mut client = relay.subscribe("?cursor=0").await;
    take(&mut client, 2_000).await;
    assert_eq!(relay.handle.inject(Fault::Restart(Box::new(new.clone()))).await.unwrap(), 1);
    assert_eq!(to_the_close(&mut client).await, (Vec::new(), 1001));
    assert!(relay.handle.head() < 49_000);

    let mut silent = relay.subscribe("?cursor=51999").await;
    let live = seq(&take(&mut silent, 1).await[0]);
    assert!((5..49_000).contains(&live), "{live}");
    assert!(take(&mut relay.subscribe("?cursor=0").await, 1_000).await == served);

    relay.handle.inject(Fault::Skip(10)).await.unwrap();
    assert!(!relay.handle.skipped().is_empty());
    relay.handle.inject(Fault::Restart(Box::new(old))).await.unwrap();
    assert!(relay.handle.skipped().is_empty());
    assert_eq!(relay.handle.head(), 51_999);
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_that_cannot_be_changes_nothing() {
    let settings = total(100);
    let (model, relay) = (model(&settings), start(settings.clone()).await);
    let refused = relay.handle.inject(Fault::Restart(Box::new(Settings { start_seq: Some(0), ..settings }))).await;
    assert!(matches!(refused, Err(Error::Setting { field: "start_seq", .. })), "{refused:?}");
    assert!(take(&mut relay.subscribe("?cursor=0").await, 100).await == model);
}

/// A client that resumes where it was, whatever ended its connection.
struct Patient<'a> {
    relay: &'a Running,
    /// The seq of every frame there may be.
    known: HashMap<Bytes, u64>,
    /// What came that was new.
    seen: Vec<Bytes>,
    last: u64,
}

impl Patient<'_> {
    /// Subscribes and listens until the connection ends, or this event has come.
    async fn listen(&mut self, until: u64) {
        let Ok(mut client) = self.relay.try_subscribe(&format!("?cursor={}", self.last)).await else { return };
        while self.last < until {
            let Ok(message) = timeout(PATIENCE, client.next()).await else { panic!("silence after {}", self.last) };
            match message {
                Some(Ok(Message::Binary(frame))) => match self.known.get(&frame) {
                    Some(&seq) if seq > self.last => {
                        self.last = seq;
                        self.seen.push(frame);
                    }
                    Some(_) => {}
                    None if is_garbage(&frame) => {}
                    None => assert_error(&frame, "ConsumerTooSlow"),
                },
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The last event that will come, as far as is known.
    fn end(&self) -> u64 {
        let skipped = self.relay.handle.skipped();
        (1..=self.known.len() as u64).rev().find(|seq| !skipped.iter().any(|range| range.contains(seq))).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_client_that_resumes_gets_every_event_in_order() {
    let settings = rated(3_000, 9_000);
    let (model, relay) = (model(&settings), start(settings).await);
    let handle = relay.handle.clone();
    let faults = tokio::spawn(async move {
        let brief = Duration::from_millis(30);
        let kinds = [
            Fault::Close,
            Fault::Skip(50),
            Fault::Stall(brief),
            Fault::Cut,
            Fault::Repeat(300),
            Fault::Garbage,
            Fault::Refuse(brief),
            Fault::Freeze(brief),
            Fault::Repeat(7),
            Fault::ErrorFrame,
            Fault::Skip(1),
        ];
        for nth in 0..66 {
            // Each kind meets others as the second of a pair.
            handle.inject(kinds[nth % 11].clone()).await.unwrap();
            handle.inject(kinds[nth * 7 / 11 % 11].clone()).await.unwrap();
            sleep(brief).await;
        }
    });
    let known = model.iter().cloned().zip(1..).collect();
    let mut client = Patient { relay: &relay, known, seen: Vec::new(), last: 0 };
    let deadline = Instant::now() + 6 * PATIENCE;
    while !faults.is_finished() || client.last < client.end() {
        assert!(Instant::now() < deadline, "nothing but faults after {}", client.last);
        client.listen(client.end()).await;
    }
    faults.await.unwrap();
    assert!(client.seen == without(&model, &relay.handle.skipped()));
}
