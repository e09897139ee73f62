//! Time from a frame to its entry being readable, at a steady rate.
//!
//! The relay and the reader of the stream are in this process, so that both times are of one clock. The events come as
//! they do from many hosts: at random (exponential gaps), sometimes several at once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::StreamsInterface;
use fred::types::streams::XReadResponse;
use penstock_core::data::EventKind;
use penstock_core::redis;
use penstock_core::stream::field;
use penstock_wire::{Frame, Limits};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_tungstenite::tungstenite::{Message, accept};

use super::{Bench, STUCK, Store};
use crate::entries::word;
use crate::error::Error;
use crate::figures::{Histogram, Runs, percentile};
use crate::relay;
use crate::table::Line;

/// Events a second.
const RATE: f64 = 2_000.0;

/// Events of a run: 12 s.
const EVENTS: u64 = 24_000;

const P50_MILLIS: f64 = 3.0;
const P99_MILLIS: f64 = 15.0;

/// The histogram of ingest: an observation a batch, from the receipt of its oldest frame to Redis' answer.
const HISTOGRAM: &str = "penstock_ingest_frame_to_published_seconds";

/// How long the reader waits for entries at once, in milliseconds.
const BLOCK: u64 = 1_000;

/// One event, as the relay sends it and as it stands in the stream.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) frame: Bytes,
    seq: u64,
    /// Whose it is.
    pub(super) did: String,
    kind: EventKind,
    data: Vec<u8>,
}

/// When each event was sent, in order.
pub(super) type Sending = JoinHandle<Result<Vec<Instant>, Error>>;

/// Measures row 3.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let events = bench.events.unwrap_or(EVENTS);
    let (mut p50, mut p99, mut direct_p50, mut direct_p99, mut batch_p50, mut batch_p99) =
        <(Runs, Runs, Runs, Runs, Runs, Runs)>::default();
    let samples = samples(&bench.replay(events))?;
    for run in 1..=bench.runs {
        let store = bench.store().await?;
        let (address, sending) = through_relay(samples.clone(), RATE)?;
        let admin = relay::free_address()?;
        let reading = read(bench, &store, samples.last().map_or(0, |sample| sample.seq)).await?;
        let mut ingest = bench.ingest(&store, &format!("ws://{address}"), admin)?;
        let arrivals = tokio::select! {
            arrivals = reading => arrivals??,
            error = ended(&mut ingest) => return Err(error),
        };
        let millis = latencies(&samples, &joined(sending)?, &arrivals)?;
        p50.push(percentile(&millis, 0.5));
        p99.push(percentile(&millis, 0.99));
        let scraped = tokio::task::spawn_blocking(move || scrape(admin)).await??;
        let histogram = Histogram::scraped(&scraped, HISTOGRAM).ok_or(Error::Metric(HISTOGRAM))?;
        batch_p50.push(histogram.quantile(0.5) * 1e3);
        batch_p99.push(histogram.quantile(0.99) * 1e3);
        ingest.stop().await?;

        let store = bench.store().await?;
        let reading = read(bench, &store, samples.last().map_or(0, |sample| sample.seq)).await?;
        let sending = straight(samples.clone(), &store)?;
        let millis = latencies(&samples, &joined(sending)?, &reading.await??)?;
        direct_p50.push(percentile(&millis, 0.5));
        direct_p99.push(percentile(&millis, 0.99));
        eprintln!("latency: run {run}: p50 {:.2} ms, p99 {:.2} ms", p50.median(), p99.median());
    }
    let (half, tail) = (p50.median(), p99.median());
    Ok(vec![Line {
        what: "frame sent by the relay → entry read from the stream, 2,000/s",
        budget: "p50 ≤ 3 ms, p99 ≤ 15 ms",
        measured: format!("p50 {half:.2} ms, p99 {tail:.2} ms"),
        met: Some(half <= P50_MILLIS && tail <= P99_MILLIS),
        beside: format!(
            "straight into Redis, without relay and ingest: p50 {:.2} ms, p99 {:.2} ms; ingest's own histogram (oldest frame \
             of a batch → Redis' answer, interpolated): p50 {:.2} ms, p99 {:.2} ms",
            direct_p50.median(),
            direct_p99.median(),
            batch_p50.median(),
            batch_p99.median()
        ),
    }])
}

/// The events of the replay that make an entry.
pub(super) fn samples(replay: &penstock_replay::Settings) -> Result<Vec<Sample>, Error> {
    let limits = Limits::default();
    let mut samples = Vec::new();
    for frame in penstock_replay::frames(replay)? {
        if let Frame::Event(event) = penstock_wire::decode(&frame, &limits)? {
            samples.push(Sample {
                frame,
                seq: event.seq,
                did: event.did.into(),
                kind: event.kind,
                data: event.data.to_vec(),
            });
        }
    }
    Ok(samples)
}

/// Opens a relay for one client, which sends the frames at the pace as soon as the client is there.
pub(super) fn through_relay(samples: Vec<Sample>, rate: f64) -> Result<(SocketAddr, Sending), Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("open a relay"))?;
    let address = listener.local_addr().map_err(Error::io("open a relay"))?;
    let sending = thread::spawn(move || {
        let (stream, _) = listener.accept().map_err(Error::io("accept ingest"))?;
        stream.set_nodelay(true).map_err(Error::io("accept ingest"))?;
        let mut socket = accept(stream).map_err(|error| Error::Io {
            what: "shake hands with ingest",
            source: std::io::Error::other(error.to_string()),
        })?;
        paced(&samples, rate, |sample| {
            socket.send(Message::Binary(sample.frame.clone())).map_err(Error::socket("send a frame"))
        })
        .inspect(|_| {
            // The connection stays open until ingest ends it: a close would make it connect again.
            thread::spawn(move || while socket.read().is_ok() {});
        })
    });
    Ok((address, sending))
}

/// Writes the entries at the same pace as single commands.
fn straight(samples: Vec<Sample>, store: &Store) -> Result<Sending, Error> {
    let connect = || {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, store.server.port()))?;
        stream.set_nodelay(true)?;
        Ok((stream.try_clone()?, stream))
    };
    let (mut answers, mut stream) = connect().map_err(Error::io("connect to redis"))?;
    let key = store.keys.stream().to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while answers.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(thread::spawn(move || {
        paced(&samples, RATE, |sample| {
            let mut command = b"*9\r\n".to_vec();
            let seq = sample.seq.to_string();
            let names = [b"XADD", key.as_bytes(), b"*", field::TYPE.as_bytes(), sample.kind.as_str().as_bytes()];
            let data = [field::DATA.as_bytes(), &sample.data, field::SEQ.as_bytes(), seq.as_bytes()];
            names.into_iter().chain(data).for_each(|text| word(&mut command, text));
            stream.write_all(&command).map_err(Error::Fill)
        })
    }))
}

/// Sends each sample when its time has come, and returns when that was.
fn paced(
    samples: &[Sample],
    rate: f64,
    mut send: impl FnMut(&Sample) -> Result<(), Error>,
) -> Result<Vec<Instant>, Error> {
    let mut random = StdRng::seed_from_u64(1);
    let mut due = Instant::now();
    let mut sent = Vec::with_capacity(samples.len());
    for sample in samples {
        due += Duration::from_secs_f64(-(1.0 - random.random_range(0.0..1.0_f64)).ln() / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push(Instant::now());
        send(sample)?;
    }
    Ok(sent)
}

/// Reads the stream as it grows, up to this sequence number; says when each entry came.
async fn read(
    bench: &Bench,
    store: &Store,
    last: u64,
) -> Result<tokio::task::JoinHandle<Result<Vec<(u64, Instant)>, Error>>, Error> {
    let client = redis::connect(&bench.redis_settings(&store.server.url())?).await?;
    let key = store.keys.stream().to_owned();
    Ok(tokio::spawn(async move {
        let mut arrivals = Vec::new();
        let mut after = "0-0".to_owned();
        let mut since = Instant::now();
        while since.elapsed() < STUCK {
            let read: XReadResponse<String, String, String, Bytes> =
                client.xread_map(None, Some(BLOCK), key.as_str(), after.as_str()).await?;
            let now = Instant::now();
            for (id, fields) in read.into_values().flatten() {
                let seq = fields.get(field::SEQ).and_then(|seq| str::from_utf8(seq).ok()?.parse().ok()).unwrap_or(0);
                arrivals.push((seq, now));
                (after, since) = (id, now);
                if seq == last {
                    return Ok(arrivals);
                }
            }
        }
        Err(Error::Wrong {
            what: "the last entry read",
            found: arrivals.last().map_or(0, |(seq, _)| *seq),
            expected: last,
        })
    }))
}

/// Returns the time of each event in milliseconds, sorted.
fn latencies(samples: &[Sample], sent: &[Instant], arrivals: &[(u64, Instant)]) -> Result<Vec<f64>, Error> {
    if arrivals.len() != samples.len() {
        let (found, expected) = (arrivals.len() as u64, samples.len() as u64);
        return Err(Error::Wrong { what: "entries read", found, expected });
    }
    let sent: HashMap<u64, Instant> = samples.iter().map(|sample| sample.seq).zip(sent.iter().copied()).collect();
    let mut millis: Vec<f64> = arrivals
        .iter()
        .filter_map(|(seq, arrived)| Some(arrived.saturating_duration_since(*sent.get(seq)?).as_secs_f64() * 1e3))
        .collect();
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}

pub(super) fn joined(sending: Sending) -> Result<Vec<Instant>, Error> {
    sending.join().unwrap_or_else(|_| {
        Err(Error::Io { what: "send the events", source: std::io::Error::other("the sender died") })
    })
}

/// Returns once the service has ended, which it should not.
async fn ended(service: &mut crate::process::Service) -> Error {
    loop {
        if let Err(error) = service.check() {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn scrape(admin: SocketAddr) -> Result<String, Error> {
    let ask = || {
        let mut stream = TcpStream::connect(admin)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().map_err(Error::io("read the metrics of ingest"))
}
