//! One repo that sends without measure beside many that do not: nothing of either is missing, and the rows of the others come
//! as soon as without it.
//!
//! In the tests few events show the first; `make loud` shows the second, at 20,000 events a second beside 400.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use ciborium::Value as Cbor;
use fred::interfaces::StreamsInterface;
use fred::types::Value as RedisValue;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::from_env;
use crate::rig::{Relay, Rig, eventually};

/// How often the relay sends what is due.
const TICK: Duration = Duration::from_millis(5);

/// How many repos the others are.
const OTHERS: u64 = 2_000;

/// Notes when the row of one of the others was committed, but for the disk.
const ARRIVALS: &str = "
CREATE TABLE public.arrivals (uri text PRIMARY KEY, at timestamptz NOT NULL);
CREATE FUNCTION public.arrive() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.arrivals VALUES (NEW.uri, clock_timestamp()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER arrive AFTER INSERT ON public.likes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (NEW.user_did NOT LIKE 'did:plc:loud%') EXECUTE FUNCTION public.arrive();";

/// How much is sent.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Events a second of the others, all the time.
    others: u64,
    /// Events a second of the loud repo, in the second part.
    loud: u64,
    /// How long each of the three parts takes: without it, with it, and without it again.
    part: Duration,
}

/// What is due at one tick: WebSocket messages as they go over the wire, and the records of others among them.
struct Due {
    wire: Vec<u8>,
    uris: Vec<String>,
}

/// When each record of the others was sent.
type Sent = Vec<(SystemTime, Vec<String>)>;

/// A map as DAG-CBOR wants it: shorter keys first.
fn map(mut entries: Vec<(&str, Cbor)>) -> Cbor {
    entries.sort_by_key(|(key, _)| (key.len(), key.as_bytes().to_vec()));
    Cbor::Map(entries.into_iter().map(|(key, value)| (Cbor::from(key), value)).collect())
}

fn bytes(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn cid(block: &[u8]) -> Vec<u8> {
    [&[0x01, 0x71, 0x12, 0x20][..], &Sha256::digest(block)].concat()
}

fn link(cid: &[u8]) -> Cbor {
    Cbor::Tag(42, Box::new(Cbor::Bytes([&[0][..], cid].concat())))
}

/// A number as a TID.
fn tid(number: u64) -> String {
    let digit = |at: u32| char::from(b"234567abcdefghijklmnopqrstuvwxyz"[(number >> (5 * at)) as usize & 31]);
    format!("3k{}", (0..11).rev().map(digit).collect::<String>())
}

/// A commit that creates one like; returns the frame and the record's URI.
fn like(seq: u64, did: &str, time: Timestamp) -> (Vec<u8>, String) {
    let (rev, post) = (tid(seq), format!("at://did:plc:{:0>24}/app.bsky.feed.post/{}", "z", tid(seq)));
    let subject =
        map(vec![("uri", post.into()), ("cid", "bafyreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into())]);
    let record = bytes(&map(vec![
        ("$type", "app.bsky.feed.like".into()),
        ("subject", subject),
        ("createdAt", time.to_string().into()),
    ]));
    let commit = bytes(&map(vec![("did", did.into()), ("rev", rev.clone().into()), ("version", 3.into())]));
    let (record_cid, commit_cid) = (cid(&record), cid(&commit));
    let header = bytes(&map(vec![("roots", Cbor::Array(vec![link(&commit_cid)])), ("version", 1.into())]));
    let mut car = Vec::new();
    for (cid, block) in [(&[][..], &header), (&commit_cid, &commit), (&record_cid, &record)] {
        let mut length = cid.len() + block.len();
        while length >= 0x80 {
            car.push((length & 0x7F) as u8 | 0x80);
            length >>= 7;
        }
        car.push(length as u8);
        car.extend([cid, block].concat());
    }
    let path = format!("app.bsky.feed.like/{rev}");
    let uri = format!("at://{did}/{path}");
    let op = map(vec![("action", "create".into()), ("path", path.into()), ("cid", link(&record_cid))]);
    let body = map(vec![
        ("seq", seq.into()),
        ("repo", did.into()),
        ("rev", rev.into()),
        ("since", Cbor::Null),
        ("time", time.to_string().into()),
        ("commit", link(&commit_cid)),
        ("blocks", Cbor::Bytes(car)),
        ("ops", Cbor::Array(vec![op])),
        ("blobs", Cbor::Array(Vec::new())),
        ("rebase", false.into()),
        ("tooBig", false.into()),
    ]);
    ([bytes(&map(vec![("t", "#commit".into()), ("op", 1.into())])), bytes(&body)].concat(), uri)
}

/// Everything that is sent, tick by tick; and how much of it is of the others, and of the loud repo.
fn schedule(load: Load) -> (Vec<Due>, u64, u64) {
    let ticks = |time: Duration| u64::try_from(time.as_millis() / TICK.as_millis()).unwrap();
    let per_second = ticks(Duration::from_secs(1));
    let (part, start) = (ticks(load.part), Timestamp::now());
    let (mut seq, mut others, mut loud) = (1_000_000, 0, 0);
    let mut all = Vec::new();
    for tick in 0..3 * part {
        let time = start + TICK * u32::try_from(tick).unwrap();
        let mut due = Due { wire: Vec::new(), uris: Vec::new() };
        let mut send = |did: &str, uris: Option<&mut Vec<String>>| {
            seq += 1;
            let (frame, uri) = like(seq, did, time);
            let length = u16::try_from(frame.len()).unwrap();
            due.wire.extend([&[0x82, 126][..], &length.to_be_bytes(), &frame].concat());
            uris.into_iter().for_each(|uris| uris.push(uri.clone()));
        };
        let mut uris = Vec::new();
        while others * per_second < (tick + 1) * load.others {
            send(&format!("did:plc:{:a>24}", format!("o{}", tid(others % OTHERS))), Some(&mut uris));
            others += 1;
        }
        while (part..2 * part).contains(&tick) && loud * per_second < (tick + 1 - part) * load.loud {
            send("did:plc:loudaaaaaaaaaaaaaaaaaaaa", None);
            loud += 1;
        }
        due.uris = uris;
        all.push(due);
    }
    (all, others, loud)
}

/// A relay that sends this to whoever connects first, and says when.
async fn serve(all: Vec<Due>) -> (Relay, oneshot::Receiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (say, said) = oneshot::channel();
    let relay = Relay::of(url, async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let (start, mut sent) = (Instant::now(), Sent::new());
        for (tick, Due { wire, uris }) in (1..).zip(all) {
            sleep_until(start + TICK * tick).await;
            sent.push((SystemTime::now(), uris));
            socket.get_mut().write_all(&wire).await.unwrap();
        }
        let _ = say.send(sent);
        std::future::pending::<()>().await;
    });
    (relay, said)
}

/// Sends it all through the pipeline; returns how long each record of the others took to its row, part by part.
async fn through_the_pipeline(load: Load) -> [Vec<Duration>; 3] {
    let (all, others, loud) = tokio::task::spawn_blocking(move || schedule(load)).await.unwrap();
    let mut rig = Rig::new().await;
    // The room that a flood needs that is longer than workers are fast.
    rig.set("REDIS_MAX_STREAM_LEN", "5000000");
    sqlx::raw_sql(ARRIVALS).execute(&rig.pool).await.unwrap();
    let worker = rig.worker("w-1");
    eventually("the worker is there", async || rig.group().await.is_some()).await;
    let (relay, said) = serve(all).await;
    let ingest = rig.ingest(&relay);
    let sent = said.await.unwrap();
    let flooded = std::time::Instant::now();
    let rows = async |of: &str| rig.count(&format!("likes WHERE user_did {of} LIKE 'did:plc:loud%'")).await;
    eventually("the rows of the others are there", async || rows("NOT").await == others.cast_signed()).await;
    let mut before = -1;
    while before < loud.cast_signed() {
        // Many: as long as they become more.
        eventually("more rows of the loud one", async || rows("").await > before).await;
        before = rows("").await;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(before, loud.cast_signed());
    println!(
        "loud: all {loud} rows of the loud repo were there {:.1} s after the last event",
        flooded.elapsed().as_secs_f64()
    );

    let added = async |stream: &str| {
        let of: HashMap<String, RedisValue> = rig.client.xinfo_stream(stream, false, None).await.unwrap();
        of["entries-added"].as_u64().unwrap()
    };
    let (first, second) = (added(rig.keys.stream()).await, added(rig.keys.bulk()).await);
    assert_eq!(first + second, others + loud, "each event is in one of the streams");
    // A minute's worth, and what leaks meanwhile.
    assert!(first >= others, "none of the others was put aside");
    let within = first - others;
    assert!((1_200..1_400).contains(&within), "{within} of the loud repo's were within its rate");
    assert_eq!(ingest.metric("penstock_ingest_bulk_entries_total").await, second as f64);
    assert_eq!(rig.dead_letters().await, []);
    worker.stop().await;
    ingest.stop().await;

    let arrivals: Vec<(String, f64)> =
        sqlx::query_as("SELECT uri, extract(epoch FROM at)::float8 FROM public.arrivals")
            .fetch_all(&rig.pool)
            .await
            .unwrap();
    let arrivals: HashMap<String, f64> = arrivals.into_iter().collect();
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    let part = sent.len() / 3;
    for (tick, (at, uris)) in sent.into_iter().enumerate() {
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        took[tick / part].extend(uris.iter().map(|uri| Duration::from_secs_f64((arrivals[uri] - at).max(0.0))));
    }
    took
}

fn percentile(took: &[Duration], of_hundred: usize) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort();
    sorted[(sorted.len() - 1) * of_hundred / 100].as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loud_repo_goes_by_the_second_stream_and_nothing_is_missing() {
    let load = Load { others: 200, loud: 3_000, part: Duration::from_secs(1) };
    Box::pin(through_the_pipeline(load)).await;
}

/// `make loud`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make loud"]
async fn loud_suite() {
    let load = Load {
        others: from_env("OTHERS", 400),
        loud: from_env("LOUD", 20_000),
        part: Duration::from_secs(from_env("PART", 15)),
    };
    let took = Box::pin(through_the_pipeline(load)).await;
    println!("loud: {load:?}");
    let [without, with, after] = took.each_ref().map(|took| (percentile(took, 50), percentile(took, 99)));
    for (name, (p50, p99)) in [("without it", without), ("beside it", with), ("behind it", after)] {
        println!("loud: others' frame to row {name}: p50 {p50:.1} ms, p99 {p99:.1} ms");
    }
    println!("loud: p99 beside it / without it = {:.2}, behind it {:.2}", with.1 / without.1, after.1 / without.1);
}
