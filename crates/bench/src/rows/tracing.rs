//! What traces and metrics cost ingest: the same replay with and without them, in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Bench, kilo};
use crate::entries::Entries;
use crate::error::Error;
use crate::figures::Runs;
use crate::process::Service;
use crate::relay::{self, Relay};
use crate::rows::ingest::{self, EVENTS};
use crate::table::Line;

/// The least share of the throughput without traces and metrics.
const SHARE: f64 = 0.97;

/// What ingest is told for traces of one event in a thousand, and metrics, to go out.
const ON: [(&str, &str); 4] = [
    ("PENSTOCK_TELEMETRY_OTLP_PROTOCOL", "http/protobuf"),
    ("PENSTOCK_TELEMETRY_SAMPLE_RATIO", "1/1000"),
    ("PENSTOCK_TELEMETRY_OTLP_METRICS", "true"),
    ("PENSTOCK_TELEMETRY_OTLP_METRICS_INTERVAL", "1s"),
];

/// A collector that takes everything.
struct Collector {
    endpoint: String,
    bytes: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

/// Measures the cost, twice as many runs as of others: it is small.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let events = bench.events.unwrap_or(EVENTS);
    eprintln!("tracing: preparing {events} events");
    let (replay, keys) = (bench.replay(events), super::default_keys());
    let entries = tokio::task::spawn_blocking(move || Entries::of_replay(&replay, &keys)).await??;
    let relay = Relay::start(bench.folder.path(), &bench.recording, events).await?;
    let collector = Collector::start().await?;
    let (mut off, mut on) = ([Runs::default(), Runs::default()], [Runs::default(), Runs::default()]);
    for run in 1..=bench.runs * 2 {
        for (is_on, [rates, cpus]) in [(false, &mut off), (true, &mut on)] {
            let store = bench.store().await?;
            let mut command = bench.ingest_command(&store, &relay.url(), relay::free_address()?);
            if is_on {
                command.envs(ON).env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
            }
            let mut ingest = Service::start("ingest", bench.folder.path(), command)?;
            store.until_cursor(entries.last_seq, &mut ingest).await?;
            let used = ingest.usage()?;
            ingest.stop().await?;
            rates.push(ingest::rate(&store, &entries).await?);
            cpus.push(used.cpu.as_secs_f64() * 1e6 / entries.count as f64);
        }
        eprintln!("tracing: run {run}: off {}, on {}", kilo(off[0].median()), kilo(on[0].median()));
    }
    relay.stop().await?;
    let bytes = collector.stop();
    if bytes == 0 {
        return Err(Error::Wrong { what: "bytes at the collector", found: 0, expected: 1 });
    }
    let ([off_rate, off_cpu], [on_rate, on_cpu]) = (off, on);
    let share = on_rate.median() / off_rate.median();
    Ok(vec![Line {
        what: "ingest with traces of 1/1000 and metrics sent, against neither",
        budget: "≥ 97 %",
        measured: format!("{:.1} %", share * 100.0),
        met: Some(share >= SHARE),
        beside: format!(
            "on {}, off {} ({} to {}), CPU an event {:.2} µs against {:.2} µs; the collector took {} kB",
            kilo(on_rate.median()),
            kilo(off_rate.median()),
            kilo(off_rate.least()),
            kilo(off_rate.greatest()),
            on_cpu.median(),
            off_cpu.median(),
            bytes / 1000,
        ),
    }])
}

// === impl Collector ===

impl Collector {
    async fn start() -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Error::io("listen for traces"))?;
        let address = listener.local_addr().map_err(Error::io("listen for traces"))?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let router = Router::new().fallback(async move |body: Bytes| {
            counted.fetch_add(body.len() as u64, Ordering::Relaxed);
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { endpoint: format!("http://{address}"), bytes, server })
    }

    fn stop(self) -> u64 {
        self.server.abort();
        self.bytes.load(Ordering::Relaxed)
    }
}
