//! Throughput, CPU and memory of ingest, reading a replay as fast as it comes.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::interfaces::StreamsInterface;
use futures_util::StreamExt;
use penstock_core::settings::SUBSCRIBE_REPOS;
use penstock_core::stream::StreamId;
use penstock_wire::Limits;
use tokio::task::spawn_blocking;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{Bench, Store, kilo, percent};
use crate::entries::Entries;
use crate::error::Error;
use crate::figures::Runs;
use crate::process::{Usage, usage};
use crate::relay::{self, Relay};
use crate::table::Line;

/// Events of a run.
pub(crate) const EVENTS: u64 = 300_000;

/// Frames that the decoder alone is given, more than any cache holds.
const DECODED: usize = 50_000;

/// What ingest reads its socket with.
const READ_BUFFER: usize = 256 * 1024;

const THROUGHPUT: f64 = 60_000.0;
const CPU_MICROS: f64 = 12.0;
const MEMORY_MIB: f64 = 64.0;

/// Of the throughput of another build, where one is named.
const FASTER: f64 = 1.5;

/// Of the throughput without verification, in percent; and the memory with it, of which the states of repos take 64 MiB.
const VERIFIED_PERCENT: f64 = 75.0;
const VERIFIED_MEMORY_MIB: f64 = 128.0;

/// Of the CPU of an event that is kept, in percent.
const FILTERED_PERCENT: f64 = 40.0;

/// What the runs gave.
#[derive(Debug, Default)]
struct Figures {
    rate: Runs,
    cpu: Runs,
    memory: Runs,
    redis_cpu: Runs,
    relay_cpu: Runs,
    /// The same with commits verified.
    verified_rate: Runs,
    verified_cpu: Runs,
    verified_memory: Runs,
    /// The CPU of an event of which the filter leaves nothing.
    filtered_cpu: Runs,
    redis_alone: Runs,
    reading_alone: Runs,
    decode_alone: Runs,
    /// The mean size of an entry's data, in kB.
    entry_size: f64,
}

/// Measures rows 1, 2 and 4.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let events = bench.events.unwrap_or(EVENTS);
    let keys = super::default_keys();
    eprintln!("ingest: preparing {events} events");
    let entries = spawn_blocking({
        let (replay, keys) = (bench.replay(events), keys.clone());
        move || Entries::of_replay(&replay, &keys)
    });
    let frames: Vec<Bytes> = penstock_replay::frames(&bench.replay(events))?.take(DECODED).collect();
    let entries = std::sync::Arc::new(entries.await??);
    let relay = Relay::start(bench.folder.path(), &bench.recording, events).await?;
    let frames = std::sync::Arc::new(frames);
    let mut figures = Figures { entry_size: entries.bytes as f64 / entries.count as f64 / 1e3, ..Figures::default() };
    let mut before = bench.before()?.map(|bench| (bench, Figures::default()));
    for run in 1..=bench.runs {
        // In turns, the one or the other first: what changes on the machine meanwhile meets both.
        if let Some((bench, figures)) = before.as_mut().filter(|_| run % 2 == 0) {
            services(bench, &relay, &entries, figures).await?;
        }
        services(bench, &relay, &entries, &mut figures).await?;
        if let Some((bench, figures)) = before.as_mut().filter(|_| run % 2 == 1) {
            services(bench, &relay, &entries, figures).await?;
        }
        figures.reading_alone.push(reading_alone(&relay, events).await?);
        let store = bench.store().await?;
        let (written, keys, port) = (std::sync::Arc::clone(&entries), keys.clone(), store.server.port());
        let took = spawn_blocking(move || written.write(port, &keys)).await??;
        figures.redis_alone.push(entries.count as f64 / took.as_secs_f64());
        let frames = std::sync::Arc::clone(&frames);
        figures.decode_alone.push(spawn_blocking(move || decode_alone(&frames)).await??);
        eprintln!(
            "ingest: run {run}: {} ({:.1} µs of CPU), redis alone {}, reading alone {}, decode alone {}",
            kilo(figures.rate.median()),
            figures.cpu.median(),
            kilo(figures.redis_alone.median()),
            kilo(figures.reading_alone.median()),
            kilo(figures.decode_alone.median()),
        );
    }
    relay.stop().await?;
    let mut lines = figures.lines();
    lines.extend(before.map(|(_, before)| figures.against(&before)).into_iter().flatten());
    Ok(lines)
}

/// Measures a program once: ingest, with verification, and with a filter.
async fn services(bench: &Bench, relay: &Relay, entries: &Entries, figures: &mut Figures) -> Result<(), Error> {
    ingest(bench, relay, entries, figures).await?;
    verifying(bench, relay, entries, figures).await?;
    filtering(bench, relay, entries, figures).await
}

/// Runs ingest once over the whole replay.
async fn ingest(bench: &Bench, relay: &Relay, entries: &Entries, figures: &mut Figures) -> Result<(), Error> {
    let store = bench.store().await?;
    let (redis_before, relay_before) = (redis_usage(&store)?, relay.serving()?);
    let mut ingest = bench.ingest(&store, &relay.url(), relay::free_address()?)?;
    store.until_cursor(entries.last_seq, &mut ingest).await?;
    let used = ingest.usage()?;
    let redis_cpu = redis_usage(&store)?.cpu.saturating_sub(redis_before.cpu);
    let relay_cpu = relay.serving()?.saturating_sub(relay_before);
    ingest.stop().await?;
    let rate = rate(&store, entries).await?;
    let micros = |cpu: Duration| cpu.as_secs_f64() * 1e6 / entries.count as f64;
    figures.rate.push(rate);
    figures.cpu.push(micros(used.cpu));
    figures.memory.push(used.peak_memory as f64 / f64::from(1 << 20));
    figures.redis_cpu.push(micros(redis_cpu));
    figures.relay_cpu.push(micros(relay_cpu));
    Ok(())
}

/// The same with every commit verified, but for its signature.
async fn verifying(bench: &Bench, relay: &Relay, entries: &Entries, figures: &mut Figures) -> Result<(), Error> {
    let store = bench.store().await?;
    let mut ingest = bench.verifying_ingest(&store, &relay.url(), relay::free_address()?, "enforce")?;
    store.until_cursor(entries.last_seq, &mut ingest).await?;
    let used = ingest.usage()?;
    ingest.stop().await?;
    figures.verified_rate.push(rate(&store, entries).await?);
    figures.verified_cpu.push(used.cpu.as_secs_f64() * 1e6 / entries.count as f64);
    figures.verified_memory.push(used.peak_memory as f64 / f64::from(1 << 20));
    Ok(())
}

/// The same with a filter that leaves every op out.
async fn filtering(bench: &Bench, relay: &Relay, entries: &Entries, figures: &mut Figures) -> Result<(), Error> {
    let store = bench.store().await?;
    let mut ingest = bench.filtering_ingest(&store, &relay.url(), relay::free_address()?)?;
    store.until_cursor(entries.last_seq, &mut ingest).await?;
    let used = ingest.usage()?;
    ingest.stop().await?;
    figures.filtered_cpu.push(used.cpu.as_secs_f64() * 1e6 / entries.count as f64);
    Ok(())
}

/// Checks that the stream holds them all, and returns how many came into it a second.
pub(super) async fn rate(store: &Store, entries: &Entries) -> Result<f64, Error> {
    let stream = store.keys.stream();
    let length: u64 = store.client.xlen(stream).await?;
    if length != entries.count {
        return Err(Error::Wrong { what: "the stream's length", found: length, expected: entries.count });
    }
    let first: Vec<(String, HashMap<String, Bytes>)> = store.client.xrange(stream, "-", "+", Some(1)).await?;
    let last: Vec<(String, HashMap<String, Bytes>)> = store.client.xrevrange(stream, "+", "-", Some(1)).await?;
    let millis = |entry: &[(String, HashMap<String, Bytes>)]| {
        entry.first().and_then(|(id, _)| id.parse::<StreamId>().ok()).map_or(0, |id| id.ms)
    };
    let took = Duration::from_millis(millis(&last).saturating_sub(millis(&first)).max(1));
    Ok((entries.count as f64 - 1.0) / took.as_secs_f64())
}

fn redis_usage(store: &Store) -> Result<Usage, Error> {
    usage(store.server.pid().unwrap_or_default())
}

/// Reads the whole replay as ingest does, and does nothing with it; returns frames a second.
async fn reading_alone(relay: &Relay, events: u64) -> Result<f64, Error> {
    let url = format!("{}{SUBSCRIBE_REPOS}?cursor=0", relay.url());
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    let connected = connect_async_with_config(url, Some(config), true).await;
    let (mut socket, _) = connected.map_err(Error::socket("connect to the relay"))?;
    let reading = tokio::spawn(async move {
        let (mut first, mut seen) = (None, 0);
        while seen < events {
            match socket.next().await {
                Some(Ok(Message::Binary(_))) => seen += 1,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Error::socket("read the relay")(error)),
                None => break,
            }
            first.get_or_insert_with(Instant::now);
        }
        let took = first.map_or(Duration::ZERO, |first| first.elapsed());
        let _ = socket.close(None).await;
        if seen == events { Ok(took) } else { Err(Error::Wrong { what: "frames read", found: seen, expected: events }) }
    });
    let took = reading.await??;
    Ok((events as f64 - 1.0) / took.as_secs_f64())
}

/// Decodes on one thread; returns frames a second.
fn decode_alone(frames: &[Bytes]) -> Result<f64, Error> {
    let limits = Limits::default();
    let started = Instant::now();
    for frame in frames {
        black_box(penstock_wire::decode(black_box(frame), &limits)?);
    }
    Ok(frames.len() as f64 / started.elapsed().as_secs_f64())
}

// === impl Figures ===

impl Figures {
    fn lines(&self) -> Vec<Line> {
        let Self {
            rate, cpu, memory, redis_cpu, relay_cpu, redis_alone, reading_alone, decode_alone, entry_size, ..
        } = self;
        let (verified, verified_memory) = (&self.verified_rate, &self.verified_memory);
        let filtered = &self.filtered_cpu;
        let filtered_part = 100.0 * filtered.median() / cpu.median().max(f64::MIN_POSITIVE);
        let kept = 100.0 * verified.median() / rate.median().max(1.0);
        let against = |what: &str, limit: &Runs| {
            format!("{what} {} ({})", kilo(limit.median()), percent(rate.median(), limit.median()))
        };
        vec![
            Line {
                what: "ingest, end to end from a socket replay",
                budget: "≥ 60 k/s",
                measured: format!("{} ({} to {})", kilo(rate.median()), kilo(rate.least()), kilo(rate.greatest())),
                met: Some(rate.median() >= THROUGHPUT),
                beside: [
                    against(&format!("Redis alone, entries of {entry_size:.1} kB"), redis_alone),
                    against("reading alone", reading_alone),
                    against("decoding alone on one core", decode_alone),
                ]
                .join(", "),
            },
            Line {
                what: "ingest CPU an event",
                budget: "≤ 12 µs",
                measured: format!("{:.1} µs", cpu.median()),
                met: Some(cpu.median() <= CPU_MICROS),
                beside: format!(
                    "decoding alone {:.1} µs, Redis {:.1} µs, relay {:.1} µs",
                    1e6 / decode_alone.median(),
                    redis_cpu.median(),
                    relay_cpu.median()
                ),
            },
            Line {
                what: "ingest CPU an event that the filter leaves out",
                budget: "≤ 40 % of one that is kept",
                measured: format!("{:.1} µs ({filtered_part:.0} %)", filtered.median()),
                met: Some(filtered_part <= FILTERED_PERCENT),
                beside: format!("kept {:.1} µs", cpu.median()),
            },
            Line {
                what: "ingest memory, peak",
                budget: "≤ 64 MiB",
                measured: format!("{:.1} MiB", memory.median()),
                met: Some(memory.greatest() <= MEMORY_MIB),
                beside: format!("greatest of all runs {:.1} MiB", memory.greatest()),
            },
            Line {
                what: "ingest, commits verified without signatures",
                budget: "≥ 75 % of without",
                measured: format!("{} ({kept:.0} %)", kilo(verified.median())),
                met: Some(kept >= VERIFIED_PERCENT),
                beside: format!(
                    "{} to {}, {:.1} µs of CPU an event",
                    kilo(verified.least()),
                    kilo(verified.greatest()),
                    self.verified_cpu.median()
                ),
            },
            Line {
                what: "ingest memory, peak, commits verified",
                budget: "≤ 128 MiB",
                measured: format!("{:.1} MiB", verified_memory.median()),
                met: Some(verified_memory.greatest() <= VERIFIED_MEMORY_MIB),
                beside: format!("greatest of all runs {:.1} MiB", verified_memory.greatest()),
            },
        ]
    }
    /// Compares with what another build gave in the same runs.
    fn against(&self, before: &Self) -> [Line; 3] {
        let ratio = |now: &Runs, then: &Runs| now.median() / then.median().max(f64::MIN_POSITIVE);
        let faster = ratio(&self.rate, &before.rate);
        let verified = ratio(&self.verified_rate, &before.verified_rate);
        let cpu = |now: &Runs, then: &Runs| format!("{:.1} µs, then {:.1}", now.median(), then.median());
        [
            Line {
                what: "ingest, end to end, against the other build",
                budget: "≥ 1.5 ×",
                measured: format!("{faster:.2} ×"),
                met: Some(faster >= FASTER),
                beside: format!(
                    "{}, then {} ({} to {})",
                    kilo(self.rate.median()),
                    kilo(before.rate.median()),
                    kilo(before.rate.least()),
                    kilo(before.rate.greatest())
                ),
            },
            Line {
                what: "ingest CPU an event, against the other build",
                budget: "",
                measured: format!("{:.2} ×", ratio(&self.cpu, &before.cpu)),
                met: None,
                beside: format!(
                    "{}; verified {}; left out {}; Redis {}; memory {:.1} MiB, then {:.1}",
                    cpu(&self.cpu, &before.cpu),
                    cpu(&self.verified_cpu, &before.verified_cpu),
                    cpu(&self.filtered_cpu, &before.filtered_cpu),
                    cpu(&self.redis_cpu, &before.redis_cpu),
                    self.memory.median(),
                    before.memory.median()
                ),
            },
            Line {
                what: "ingest, commits verified without signatures, against the other build",
                budget: "",
                measured: format!("{verified:.2} ×"),
                met: None,
                beside: format!("{}, then {}", kilo(self.verified_rate.median()), kilo(before.verified_rate.median())),
            },
        ]
    }
}
