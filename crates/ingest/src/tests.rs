//! Ingest against a real Redis and a relay that serves the bundled recording.

mod back;
mod bulk;
mod chain;
mod counted;
mod filtered;
mod history;
mod lost;
mod numbers;
mod odd;
mod owed;
mod pooled;
mod readiness;
mod requeue;
mod signatures;
mod takeover;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::Client;
use fred::interfaces::{
    ClientLike, ConfigInterface, EventInterface, HashesInterface, KeysInterface, ListInterface, LuaInterface,
    PubsubInterface, StreamsInterface,
};
use futures_util::SinkExt;
use penstock_core::live::{Broadcast, Source, Status};
use penstock_core::settings::{Layers, Settings};
use penstock_local::RedisOptions;
use penstock_local::testing::TestRedis;
use penstock_replay::{FutureCursor, Rate, Relay};
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use penstock_wire::{Event, Frame, Limits};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::{Ingest, IngestError, Progress};

type Entry = (String, String, Bytes, u64);

/// A running ingest.
struct Running {
    task: JoinHandle<Result<(), IngestError>>,
    cancel: CancellationToken,
    progress: Progress,
    metrics: Metrics,
    health: Health,
}

struct Rig {
    redis: TestRedis,
    client: Client,
    settings: Vec<(&'static str, String)>,
}

impl Rig {
    async fn new(relay: SocketAddr) -> Self {
        let redis = TestRedis::start().await.unwrap();
        Self::with(redis, &format!("ws://{relay}")).await
    }

    async fn with(redis: TestRedis, relays: &str) -> Self {
        let settings = [
            ("relay.urls", relays),
            ("redis.url", &redis.url()),
            ("relay.start", "oldest"),
            ("relay.backoffMin", "10ms"),
            ("relay.backoffMax", "50ms"),
            ("relay.dataTimeout", "5s"),
            ("ingest.leaseTime", "300ms"),
            ("ingest.trimInterval", "20ms"),
            ("ingest.statusInterval", "100ms"),
            ("ingest.foreignQuiet", "400ms"),
            ("telemetry.summaryInterval", "0s"),
        ];
        let settings: Vec<_> = settings.iter().map(|(path, value)| (*path, (*value).to_owned())).collect();
        let client = penstock_core::redis::connect(&load(&settings)).await.unwrap();
        Self { redis, client, settings }
    }

    /// Serves a recording to it; returns the frames too.
    async fn serving(replay: penstock_replay::Settings) -> (Self, Vec<Bytes>) {
        let frames = frames(&replay);
        (Self::new(serve(replay).await).await, frames)
    }

    fn set(&mut self, path: &'static str, value: &str) {
        self.settings.push((path, value.to_owned()));
    }

    fn start(&self) -> Running {
        let (metrics, health) = (Metrics::new(), Health::new());
        let ingest = Ingest::new(Arc::new(load(&self.settings)), &metrics, &health);
        let cancel = CancellationToken::new();
        let progress = ingest.progress();
        Running { task: tokio::spawn(ingest.run(cancel.clone())), cancel, progress, metrics, health }
    }

    async fn entries(&self) -> Vec<Entry> {
        let found: Vec<(String, Vec<(String, Bytes)>)> =
            self.client.xrange("firehose:events", "-", "+", None).await.unwrap();
        found
            .into_iter()
            .map(|(id, fields)| {
                let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names[..3], ["type", "data", "seq"], "positional readers depend on the order");
                assert!(names[3..].iter().all(|name| ["root", "sync"].contains(name)), "{names:?}");
                let text = |at: usize| String::from_utf8(fields[at].1.to_vec()).unwrap();
                (id, text(0), fields[1].1.clone(), text(2).parse().unwrap())
            })
            .collect()
    }

    /// Adds the events of these frames to the stream, as another program would.
    async fn add(&self, frames: &[Bytes]) {
        for event in events(frames) {
            let fields = vec![
                ("type", Bytes::from(event.kind.as_str())),
                ("data", event.data.clone()),
                ("seq", event.seq.to_string().into()),
            ];
            let _: String = self.client.xadd("firehose:events", false, None, "*", fields).await.unwrap();
        }
    }

    async fn cursor(&self) -> Option<u64> {
        self.client.get::<Option<u64>, _>("firehose:python_cursor").await.unwrap()
    }

    /// What the minutes say came in, in all.
    async fn told_incoming(&self) -> u64 {
        let minute = u64::try_from(jiff::Timestamp::now().as_second() / 60).unwrap();
        let mut sum = 0;
        for minute in minute - 3..=minute {
            let told: Option<u64> = self.client.hget(format!("firehose:activity:{minute}"), "incoming").await.unwrap();
            sum += told.unwrap_or_default();
        }
        sum
    }

    async fn state(&self, field: &str) -> Option<String> {
        self.client.hget("firehose:ingest:state", field).await.unwrap()
    }

    /// Marks that the cursor is this host's.
    async fn set_source(&self, host: impl std::fmt::Display) {
        let source = format!(r#"{{"host":"{host}","firstId":"1-0","cursorKey":"firehose:python_cursor"}}"#);
        let _: () = self.client.set("firehose:ingest:source", source, None, None, false).await.unwrap();
    }

    /// Reads this relay from now on, as if it had been the cursor's host all along.
    async fn moved_to(mut self, relay: SocketAddr) -> Self {
        self.set_source(relay).await;
        self.set("relay.urls", &format!("ws://{relay}"));
        self
    }

    /// Lets ingest use a database, and makes these tables there.
    async fn set_database(&mut self, url: &str, tables: &'static str) -> PgConnection {
        let mut postgres = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(tables).execute(&mut postgres).await.unwrap();
        self.set("postgres.url", url);
        postgres
    }

    /// Has another tenant take what this Redis may hold.
    async fn fill_up(&self) {
        let _: u64 = self.client.setrange("tenant", 40_000_000, "x").await.unwrap();
        let _: () = self.client.config_set("maxmemory", "30mb").await.unwrap();
        let refused = self.client.set::<(), _, _>("tenant:more", "x", None, None, false).await.unwrap_err();
        assert!(refused.details().contains("OOM"), "{refused}");
    }

    async fn reaches(&self, seq: u64) {
        eventually("the cursor", async || self.cursor().await == Some(seq)).await;
    }

    /// Proves that the stream is exactly the events of these frames, and the cursor their last number.
    async fn holds_exactly(&self, frames: &[Bytes]) {
        let expected = events(frames);
        let entries = self.entries().await;
        for ((_, kind, data, seq), event) in entries.iter().zip(&expected) {
            assert_eq!((kind.as_str(), *seq), (event.kind.as_str(), event.seq));
            assert!(*data == event.data, "data of {seq}");
        }
        assert_eq!(entries.len(), expected.len());
    }
}

impl Running {
    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it as a crash would: nothing is flushed, nothing released.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn count(&self, metric: &str) -> u64 {
        let text = self.metrics.encode();
        text.lines()
            .find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok())
            .map_or(0, |count| count as u64)
    }
}

fn load(settings: &[(&'static str, String)]) -> Settings {
    let layers = settings.iter().fold(Layers::default(), |layers, (path, value)| layers.flag(path, value));
    Settings::load(&layers).unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn replay(total: u64) -> penstock_replay::Settings {
    penstock_replay::Settings {
        address: "127.0.0.1:0".parse().unwrap(),
        total: Some(total),
        rate: Rate::Unlimited,
        ..penstock_replay::Settings::default()
    }
}

async fn serve(settings: penstock_replay::Settings) -> SocketAddr {
    let relay: Relay = penstock_replay::bind(settings).await.unwrap();
    let address = relay.local_addr();
    tokio::spawn(relay.run(CancellationToken::new()));
    address
}

fn frames(settings: &penstock_replay::Settings) -> Vec<Bytes> {
    penstock_replay::frames(settings).unwrap().collect()
}

fn events(frames: &[Bytes]) -> Vec<Event> {
    let event = |frame: &Bytes| match penstock_wire::decode(frame, &Limits::default()) {
        Ok(Frame::Event(event)) => Some(event),
        _ => None,
    };
    frames.iter().filter_map(event).collect()
}

/// Serves each connection the next of these scripts: the frames, then silence, or a close.
async fn scripted(scripts: Vec<(Vec<Bytes>, bool)>) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), scripted_on(listener, scripts))
}

/// Does so on an address that was there before.
fn scripted_on(listener: TcpListener, scripts: Vec<(Vec<Bytes>, bool)>) -> Arc<std::sync::Mutex<Vec<String>>> {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut scripts = scripts.into_iter();
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            #[expect(clippy::result_large_err, reason = "the library's own signature")]
            let note = move |request: &tokio_tungstenite::tungstenite::handshake::server::Request, response| {
                seen.lock().unwrap().push(request.uri().query().unwrap_or_default().to_owned());
                Ok(response)
            };
            let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await.unwrap();
            let (frames, close) = scripts.next().unwrap_or((Vec::new(), false));
            for frame in frames {
                // Who does not want a frame hangs up in the middle of it.
                if socket.feed(Message::Binary(frame)).await.is_err() {
                    break;
                }
            }
            let _ = socket.flush().await;
            if close {
                let _ = socket.close(None).await;
            }
            open.push(socket);
        }
    });
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_the_stream_once_and_in_order() {
    let (rig, frames) = Rig::serving(replay(2_000)).await;
    let running = rig.start();
    rig.reaches(2_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
    let entries = rig.entries().await;
    let source: String = rig.client.get("firehose:ingest:source").await.unwrap();
    let source: Source = serde_json::from_str(&source).unwrap();
    assert_eq!(source.first_id, entries[0].0);
    assert!(source.host.starts_with("127.0.0.1:"));
    assert!(rig.state("eventTime").await.unwrap().starts_with("20"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_moment_neither_loses_nor_doubles() {
    let (rig, frames) = Rig::serving(replay(6_000)).await;
    let mut crashes = 0;
    loop {
        let running = rig.start();
        let goal = running.progress.published() + 300;
        eventually("some events", async || running.progress.published() >= goal || rig.cursor().await == Some(6_000))
            .await;
        if rig.cursor().await == Some(6_000) {
            running.stop().await;
            break;
        }
        running.crash().await;
        crashes += 1;
    }
    assert!(crashes >= 3, "{crashes}");
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_that_is_asked_for_neither_loses_nor_doubles() {
    let (rig, frames) =
        Rig::serving(penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(4_000) })
            .await;
    let running = rig.start();
    for asked in 1..=3 {
        let goal = running.progress.published() + 200;
        eventually("events", async || running.progress.published() >= goal).await;
        // Whoever subscribes in the meantime did not hear it.
        eventually("the new connection", async || {
            let _: i64 = rig.client.publish("firehose:ingest:control", "reconnect").await.unwrap();
            tokio::task::yield_now().await;
            running.count("penstock_ingest_reconnects_total{reason=\"asked\"}") >= asked
        })
        .await;
    }
    rig.reaches(4_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_ingest_writes_what_it_received_and_gives_the_lease_back() {
    let replay = penstock_replay::Settings { rate: Rate::PerSecond(2_000.try_into().unwrap()), ..replay(50_000) };
    let frames = frames(&penstock_replay::Settings { total: Some(3_000), ..replay.clone() });
    let rig = Rig::new(serve(replay).await).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 400).await;
    running.stop().await;
    let lease: Option<String> = rig.client.get("firehose:ingest:lease").await.unwrap();
    assert_eq!(lease, None);
    let cursor = rig.cursor().await.unwrap();
    rig.holds_exactly(&frames[..usize::try_from(cursor).unwrap()]).await;
    let status: String = rig.client.get("firehose:status").await.unwrap();
    let status: Status = serde_json::from_str(&status).unwrap();
    assert_eq!((status.connected, status.current_cursor), (false, Some(cursor.to_string())));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_ingest_takes_over_and_the_stream_stays_whole() {
    let (rig, frames) =
        Rig::serving(penstock_replay::Settings { rate: Rate::PerSecond(2_000.try_into().unwrap()), ..replay(4_000) })
            .await;
    let first = rig.start();
    eventually("events", async || first.progress.published() > 200).await;
    let second = rig.start();
    first.crash().await;
    rig.reaches(4_000).await;
    assert!(second.progress.published() > 0);
    second.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_writer_of_the_cursor_is_refused_and_then_obeyed() {
    let replay = penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(3_000) };
    let rig = Rig::new(serve(replay).await).await;
    let running = rig.start();
    eventually("events", async || running.progress.published() > 100).await;
    let _: () = rig.client.set("firehose:python_cursor", "7", None, None, false).await.unwrap();
    eventually("the refusal", async || {
        running.count("penstock_ingest_publishes_refused_total{reason=\"cursor\"}") >= 1
    })
    .await;
    rig.reaches(3_000).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_the_consumer_before_gives_way_to_the_newest_entry() {
    let (rig, frames) = Rig::serving(replay(1_000)).await;
    // The Python consumer writes its cursor before its entries: here 50 are missing behind it.
    rig.add(&frames[..400]).await;
    let _: () = rig.client.set("firehose:python_cursor", "450", None, None, false).await.unwrap();
    let running = rig.start();
    rig.reaches(1_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_the_consumer_before_moved_on_once_more_gives_way_too() {
    let (short, whole) = (replay(200), replay(1_000));
    let frames = frames(&whole);
    let rig = Rig::new(serve(short).await).await;
    let running = rig.start();
    rig.reaches(200).await;
    running.stop().await;
    // Back to the Python consumer for a while, and forth again.
    rig.add(&frames[200..300]).await;
    let _: () = rig.client.set("firehose:python_cursor", "350", None, None, false).await.unwrap();
    // The same host, further on.
    let again = rig.moved_to(serve(whole).await).await;
    let running = again.start();
    again.reaches(1_000).await;
    running.stop().await;
    again.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_pauses_reading_and_nothing_is_missing_at_the_end() {
    let replay = replay(3_000);
    let frames = frames(&replay);
    let expected = events(&frames);
    let mut rig = Rig::new(serve(replay).await).await;
    rig.set("redis.maxStreamLen", "1000");
    rig.set("ingest.bufferBytes", "6000000");
    rig.set("ingest.batchEvents", "50");
    let _: () = rig.client.xgroup_create("firehose:events", "firehose-processors", "0", true).await.unwrap();
    let _: () = rig.client.xgroup_create("firehose:events", "osprey-consumers", "0", true).await.unwrap();
    let running = rig.start();
    eventually("the pause", async || rig.state("paused").await.as_deref() == Some("1")).await;
    let mut seqs: HashMap<&str, Vec<u64>> = HashMap::new();
    eventually("all events read by both groups", async || {
        for group in ["firehose-processors", "osprey-consumers"] {
            type Reply = Option<Vec<(String, Vec<(String, Vec<(String, Bytes)>)>)>>;
            let reply: Reply =
                rig.client.xreadgroup(group, "reader", Some(200), None, false, "firehose:events", ">").await.unwrap();
            let read = reply.into_iter().flatten().flat_map(|(_, entries)| entries);
            for (id, fields) in read {
                let seq = str::from_utf8(&fields[2].1).unwrap().parse().unwrap();
                seqs.entry(group).or_default().push(seq);
                let _: u64 = rig.client.xack("firehose:events", group, id).await.unwrap();
            }
        }
        seqs.values().all(|seqs| seqs.len() == expected.len()) && seqs.len() == 2
    })
    .await;
    let expected: Vec<_> = expected.iter().map(|event| event.seq).collect();
    assert!(seqs.values().all(|seqs| *seqs == expected), "each group saw each event once, in order");
    eventually("the trim", async || rig.client.xlen::<u64, _>("firehose:events").await.unwrap() == 0).await;
    eventually("the end of the pause", async || rig.state("paused").await.as_deref() == Some("0")).await;
    assert_eq!(running.count("penstock_ingest_trimmed_entries_total"), expected.len() as u64);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_keys_are_as_the_contract_says() {
    let replay = penstock_replay::Settings { rate: Rate::PerSecond(500.try_into().unwrap()), ..replay(50_000) };
    let rig = Rig::new(serve(replay).await).await;
    let subscriber = penstock_core::redis::connect_subscriber(&load(&rig.settings)).await.unwrap();
    let mut messages = subscriber.message_rx();
    subscriber.subscribe("firehose:events:broadcast").await.unwrap();
    let running = rig.start();
    let event = messages.recv().await.unwrap().value.as_string().unwrap();
    let event: Broadcast = serde_json::from_str(&event).unwrap();
    assert_eq!((event.kind.as_str(), event.lexicon.as_str()), ("#identity", "com.atproto.identity"));
    assert_eq!(event.action, "→ user0-s3.test");
    assert!(event.seq.is_some() && event.rkey.is_none() && event.rev.is_none(), "{event:?}");
    eventually("fifty recent events", async || {
        let recent: Option<String> = rig.client.get("firehose:recent_events").await.unwrap();
        recent.is_some_and(|recent| serde_json::from_str::<Vec<Broadcast>>(&recent).unwrap().len() == 50)
    })
    .await;
    let recent: String = rig.client.get("firehose:recent_events").await.unwrap();
    let recent: Vec<Broadcast> = serde_json::from_str(&recent).unwrap();
    let commit = recent.iter().find(|event| event.kind == "#commit").unwrap();
    assert!(commit.seq.is_some() && commit.rkey.is_some() && commit.rev.is_some(), "{commit:?}");
    let status: String = rig.client.get("firehose:status").await.unwrap();
    let status: Status = serde_json::from_str(&status).unwrap();
    assert!(status.connected && status.url.starts_with("ws://127.0.0.1:") && status.current_cursor.is_some());
    for key in ["firehose:status", "firehose:recent_events"] {
        let ttl: i64 = rig.client.ttl(key).await.unwrap();
        assert!((1..=10).contains(&ttl), "{key} {ttl}");
    }
    eventually("what came is told by the minute", async || {
        rig.told_incoming().await == running.progress.published() && rig.told_incoming().await > 0
    })
    .await;
    let starts: Vec<String> = rig.client.lrange("firehose:starts", 0, -1).await.unwrap();
    let starts = penstock_core::starts::read(&starts);
    assert_eq!(starts.iter().map(|start| start.service.as_str()).collect::<Vec<_>>(), ["ingest"]);
    // A new connection, because the dashboard asked for one.
    let _: i64 = rig.client.publish("firehose:ingest:control", "reconnect").await.unwrap();
    eventually("the new connection", async || {
        running.count("penstock_ingest_reconnects_total{reason=\"asked\"}") == 1 && running.progress.connected()
    })
    .await;
    running.stop().await;
    eventually("the end of its subscription", async || {
        let channel = "firehose:ingest:control".to_owned();
        let listeners: std::collections::BTreeMap<String, i64> =
            rig.client.pubsub_numsub(channel.clone()).await.unwrap();
        listeners[&channel] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_wrong_commit_is_a_dead_letter_and_its_neighbours_are_written() {
    let mut whole = frames(&replay(100));
    let commit = whole.iter().position(|frame| frame.len() > 700).unwrap();
    let bad = counted::spoilt(&whole[commit], |data| data["commit"].clone());
    let (address, _) = {
        let mut served = whole.clone();
        served[commit] = bad.clone().into();
        scripted(vec![(served, false)]).await
    };
    let seq = u64::try_from(commit).unwrap() + 1;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(100).await;
    running.stop().await;
    whole.remove(commit);
    rig.holds_exactly(&whole).await;
    let letters: Vec<(String, Vec<(String, String)>)> =
        rig.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap();
    let fields = &letters[0].1;
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["type", "data", "seq", "origId", "deliveries", "error", "consumer", "repo"]);
    assert_eq!(fields[0].1, "raw");
    assert_eq!(data_encoding::BASE64.decode(fields[1].1.as_bytes()).unwrap(), bad);
    assert_eq!(fields[2].1, seq.to_string());
    assert!(fields[5].1.contains("refused #commit"), "{}", fields[5].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_frame_is_set_aside_the_third_time() {
    let whole = frames(&replay(10));
    let script = |from: usize| {
        let mut frames = whole[from..6].to_vec();
        frames.push(Bytes::from_static(b"\xffnoise"));
        frames.extend_from_slice(&whole[6..]);
        (frames, false)
    };
    let (address, asked) = scripted(vec![script(0), script(5), script(5)]).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(10).await;
    running.stop().await;
    rig.holds_exactly(&whole).await;
    assert_eq!(*asked.lock().unwrap(), ["cursor=0", "cursor=5", "cursor=5"]);
    assert_eq!(rig.client.xlen::<u64, _>("firehose:dead-letters:raw").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_at_the_seam_is_told_and_a_missed_commit_is_data_loss() {
    let whole = frames(&replay(583));
    let all = events(&whole);
    // Leave out one commit whose repo commits again later, and which is not the repo's first.
    let missed = (20..200)
        .find(|&at| {
            let repo = |index: usize| all.iter().find(|event| event.seq == index as u64 + 1);
            repo(at).is_some_and(|event| {
                event.since.is_some() && all.iter().any(|later| later.seq > event.seq && later.since == event.rev)
            })
        })
        .unwrap();
    let (address, asked) =
        scripted(vec![(whole[..missed].to_vec(), true), (whole[missed + 1..].to_vec(), false)]).await;
    let rig = Rig::new(address).await;
    let running = rig.start();
    rig.reaches(583).await;
    eventually("the loss", async || rig.state("dataLoss").await.as_deref() == Some("1")).await;
    assert_eq!(rig.state("gaps").await.as_deref(), Some("1"));
    assert_eq!(asked.lock().unwrap()[1], format!("cursor={}", missed - 1));
    eventually("the count", async || running.count("penstock_ingest_data_loss_total") == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_began_again_is_told_and_read_from_its_oldest_event() {
    let old = penstock_replay::Settings { start_seq: Some(1_000_000), ..replay(300) };
    let rig = Rig::new(serve(old).await).await;
    let running = rig.start();
    rig.reaches(1_000_299).await;
    running.stop().await;
    for future in [FutureCursor::Error, FutureCursor::SilentLive] {
        let anew = penstock_replay::Settings {
            future_cursor: future,
            start_time: Some(jiff::Timestamp::now()),
            rate: Rate::PerSecond(500.try_into().unwrap()),
            ..replay(500)
        };
        let _: u64 = rig.client.del(vec!["firehose:events", "firehose:ingest:state"]).await.unwrap();
        let _: () = rig.client.set("firehose:python_cursor", "1000299", None, None, false).await.unwrap();
        let _: i64 = rig.client.hset("firehose:ingest:state", ("eventTime", "2026-01-01T00:00:00Z")).await.unwrap();
        let frames = frames(&anew);
        let address = serve(anew).await;
        // The host is the same, its events are not.
        let source = format!(r#"{{"host":"{address}","firstId":"1-0"}}"#);
        let _: () = rig.client.set("firehose:ingest:source", source, None, None, false).await.unwrap();
        let mut settings = rig.settings.clone();
        settings.push(("relay.urls", format!("ws://{address}")));
        let again = Rig { redis: TestRedis::start().await.unwrap(), client: rig.client.clone(), settings };
        let running = again.start();
        again.reaches(500).await;
        assert_eq!(running.count("penstock_ingest_sequence_resets_total"), 1);
        running.stop().await;
        // What told that the host restarted its sequence is written at once, and not again when it is read from its oldest.
        let mut seqs: Vec<u64> = again.entries().await.iter().map(|entry| entry.3).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, events(&frames).iter().map(|event| event.seq).collect::<Vec<_>>(), "{future:?}");
        assert_eq!(again.state("resets").await.as_deref(), Some("1"), "{future:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_failures_lead_to_the_next_relay() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = taken.local_addr().unwrap();
    drop(taken);
    let replay = replay(200);
    let frames = frames(&replay);
    let address = serve(replay).await;
    let redis = TestRedis::start().await.unwrap();
    let rig = Rig::with(redis, &format!("ws://{dead},ws://{address}")).await;
    let running = rig.start();
    rig.reaches(200).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_relay_is_left() {
    let whole = frames(&replay(10));
    let (address, asked) = scripted(vec![(whole[..5].to_vec(), false), (whole[4..].to_vec(), false)]).await;
    let mut rig = Rig::new(address).await;
    rig.set("relay.dataTimeout", "200ms");
    rig.set("relay.pingInterval", "50ms");
    let running = rig.start();
    rig.reaches(10).await;
    assert!(running.count("penstock_ingest_reconnects_total{reason=\"silent\"}") >= 1);
    assert_eq!(asked.lock().unwrap()[1], "cursor=4");
    running.stop().await;
    rig.holds_exactly(&whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_away_for_a_while_loses_and_doubles_nothing() {
    let replay = penstock_replay::Settings { rate: Rate::PerSecond(2_000.try_into().unwrap()), ..replay(6_000) };
    let frames = frames(&replay);
    let persistent = RedisOptions { persistence: penstock_local::Persistence::Aof, ..RedisOptions::default() };
    let redis = TestRedis::start_with(persistent).await.unwrap();
    let address = serve(replay).await;
    let mut rig = Rig::with(redis, &format!("ws://{address}")).await;
    rig.set("redis.commandTimeout", "500ms");
    let running = rig.start();
    eventually("events", async || running.progress.published() > 500).await;
    rig.redis.restart().await.unwrap();
    rig.reaches(6_000).await;
    running.stop().await;
    rig.holds_exactly(&frames).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_refused_and_a_replica_is_named() {
    let options =
        RedisOptions { extra: vec!["--maxmemory-policy".into(), "allkeys-lru".into()], ..RedisOptions::default() };
    let evicting = TestRedis::start_with(options).await.unwrap();
    let mut rig = Rig::with(evicting, "ws://127.0.0.1:1").await;
    let error = rig.start().task.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("maxmemory-policy allkeys-lru") && source.contains("noeviction"), "{source}");
    rig.set("redis.allowEviction", "true");
    let running = rig.start();
    eventually("the lease", async || running.count("penstock_ingest_lease_held") == 1).await;
    running.stop().await;

    let options = RedisOptions {
        extra: vec!["--replicaof".into(), "127.0.0.1".into(), rig.redis.port().to_string()],
        ..RedisOptions::default()
    };
    let replica = TestRedis::start_with(options).await.unwrap();
    rig.set("redis.url", &replica.url());
    let error = penstock_core::redis::connect(&load(&rig.settings)).await.unwrap_err().to_string();
    assert!(error.contains("is a read-only replica"), "{error}");
    rig.client.quit().await.unwrap();
}
