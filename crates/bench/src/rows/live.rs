//! Many live clients on one dashboard: what each costs, what each gets, and that those who never read harm nobody.
//!
//! The clients are in this process, so that both times are of one clock: each event carries when it was published.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fred::clients::Client;
use fred::interfaces::PubsubInterface;
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Bench, STUCK};
use crate::error::Error;
use crate::figures::percentile;
use crate::process::Service;
use crate::relay;
use crate::table::Line;

/// Clients of a run: half of them take server-sent events, half the WebSocket.
const CLIENTS: u64 = 5_000;

/// Of a hundred clients, how many never read.
const NEVER_READ: u64 = 1;

/// How long they stay.
const STAY: Duration = Duration::from_secs(60);

/// Events a second, as the relay sends them today.
const RATE: u64 = 420;

/// Memory a client may cost, in bytes.
const BUDGET: f64 = 40e3;

/// How many clients connect at once.
const AT_ONCE: usize = 64;

/// How the lines begin that are looked at.
const EVENT: &[u8] = br#"data: {"type":"event""#;
const MISSED: &[u8] = br#"data: {"type":"missed""#;

/// What the clients of a kind got.
#[derive(Debug, Default)]
struct Got {
    clients: AtomicU64,
    frames: AtomicU64,
    events: AtomicU64,
    /// Events that the server said were left out.
    missed: AtomicU64,
    /// Clients that were cut, or got an event out of turn.
    broken: AtomicU64,
    /// How many events came so many milliseconds after they were published; the last one: or later.
    delays: Delays,
}

#[derive(Debug)]
struct Delays([AtomicU64; 5_000]);

/// Measures the dashboard's row.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Line>, Error> {
    let clients = bench.events.unwrap_or(CLIENTS);
    let store = bench.store().await?;
    let address = relay::free_address()?;
    let mut command = bench.service("dashboard", &store, relay::free_address()?);
    command.env("DASHBOARD_ADDRESS", address.to_string()).env("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true");
    let mut dashboard = Service::start("dashboard", bench.folder.path(), command)?;
    until_ready(address, &mut dashboard).await?;
    // As it is with a few clients and all caches warm.
    let idle = dashboard.memory()?;

    let (start, end) = (Instant::now(), CancellationToken::new());
    let (sse, websocket) = (Arc::new(Got::default()), Arc::new(Got::default()));
    let silent = (clients * NEVER_READ / 100).max(1);
    let mut tasks = JoinSet::new();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    for client in 0..clients {
        let (gate, end) = (Arc::clone(&gate), end.clone());
        if client < silent {
            tasks.spawn(never_read(address, gate, end));
        } else if client % 2 == 0 {
            tasks.spawn(read_events(address, gate, end, Arc::clone(&sse), start));
        } else {
            tasks.spawn(read_statistics(address, gate, end, Arc::clone(&websocket)));
        }
    }
    until_connected(&sse, &websocket, clients - silent, &mut dashboard).await?;
    let before = dashboard.usage()?.cpu;
    let publishing = tokio::spawn(publish(store.client.clone(), store.keys.broadcast(), start));
    let mut peak = 0;
    let begun = Instant::now();
    while begun.elapsed() < STAY {
        sleep(Duration::from_secs(1)).await;
        dashboard.check()?;
        peak = peak.max(dashboard.memory()?);
    }
    let published = publishing.await??;
    let cpu = dashboard.usage()?.cpu.saturating_sub(before);
    // What was published last is on its way.
    sleep(Duration::from_secs(2)).await;
    end.cancel();
    while tasks.join_next().await.is_some() {}
    dashboard.stop().await?;
    Ok(vec![line(clients, silent, published, peak.saturating_sub(idle) as f64, cpu, &sse, &websocket)])
}

fn line(clients: u64, silent: u64, published: u64, memory: f64, cpu: Duration, sse: &Got, websocket: &Got) -> Line {
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    let each = memory / clients as f64;
    let expected = published * count(&sse.clients);
    let delivered = count(&sse.events);
    let accounted = delivered + count(&sse.missed);
    let broken = count(&sse.broken) + count(&websocket.broken);
    let sorted = sse.delays.sorted();
    Line {
        what: "live clients on one dashboard, for a minute",
        budget: "≤ 40 kB a client, no client delayed by another",
        measured: format!(
            "{clients} clients ({} SSE, {} WebSocket, {silent} never reading): {:.1} kB each; {:.3} % of {expected} events \
             delivered, p50 {:.0} ms, p99 {:.0} ms, greatest {:.0} ms",
            count(&sse.clients),
            count(&websocket.clients),
            each / 1e3,
            100.0 * delivered as f64 / expected.max(1) as f64,
            percentile(&sorted, 0.5),
            percentile(&sorted, 0.99),
            percentile(&sorted, 1.0),
        ),
        met: Some(each <= BUDGET && broken == 0 && accounted >= expected),
        beside: format!(
            "{RATE} events/s; {} told as missed; {broken} of those who read were cut; {:.1} statistics/s for each WebSocket; the \
             dashboard's CPU {:.0} % of a core",
            count(&sse.missed),
            count(&websocket.frames) as f64 / count(&websocket.clients).max(1) as f64 / STAY.as_secs_f64(),
            100.0 * cpu.as_secs_f64() / STAY.as_secs_f64(),
        ),
    }
}

/// Publishes events at the rate, each with its number and its time; returns how many.
async fn publish(client: Client, channel: String, start: Instant) -> Result<u64, Error> {
    const BATCH: u64 = 10;
    let mut ticks = interval(Duration::from_micros(1_000_000 * BATCH / RATE));
    let mut published = 0;
    let begun = Instant::now();
    while begun.elapsed() < STAY {
        ticks.tick().await;
        for _ in 0..BATCH {
            published += 1;
            let at = start.elapsed().as_millis();
            let event = format!(
                r##"{{"type":"#commit","lexicon":"app.bsky.feed.like","did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","action":"create","timestamp":"14:38:08","n":{published},"at":{at}}}"##
            );
            let _: u64 = client.publish(channel.clone(), event).await?;
        }
    }
    Ok(published)
}

/// Takes server-sent events, and notes how late each is and whether one is left out.
async fn read_events(address: SocketAddr, gate: Arc<Semaphore>, end: CancellationToken, got: Arc<Got>, start: Instant) {
    let Ok(mut stream) = open(address, &gate, "/api/events/stream", "").await else {
        got.broken.fetch_add(1, Ordering::Relaxed);
        return;
    };
    got.clients.fetch_add(1, Ordering::Relaxed);
    let mut text = BytesMut::with_capacity(4096);
    let mut next = 1;
    while let Some(read) = end.run_until_cancelled(stream.read_buf(&mut text)).await {
        if !read.is_ok_and(|read| read > 0) {
            got.broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = start.elapsed().as_millis() as u64;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text.split_to(whole);
        for line in lines.as_ref().split(|byte: &u8| *byte == b'\n') {
            if line.starts_with(EVENT) {
                let (at, rest) = last_number(line);
                let (n, _) = last_number(rest);
                if n != next {
                    got.broken.fetch_add(1, Ordering::Relaxed);
                }
                next = n + 1;
                got.events.fetch_add(1, Ordering::Relaxed);
                got.delays.add(now.saturating_sub(at));
            } else if line.starts_with(MISSED) {
                let (missed, _) = last_number(line);
                next += missed;
                got.missed.fetch_add(missed, Ordering::Relaxed);
            }
        }
    }
}

/// Takes the statistics of the message buffer.
async fn read_statistics(address: SocketAddr, gate: Arc<Semaphore>, end: CancellationToken, got: Arc<Got>) {
    let url = format!("ws://{address}/ws/stats");
    let connected = {
        let _turn = gate.acquire().await;
        tokio_tungstenite::connect_async(url).await
    };
    let Ok((mut socket, _)) = connected else {
        got.broken.fetch_add(1, Ordering::Relaxed);
        return;
    };
    got.clients.fetch_add(1, Ordering::Relaxed);
    while let Some(frame) = end.run_until_cancelled(socket.next()).await {
        match frame {
            Some(Ok(frame)) if frame.is_text() => drop(got.frames.fetch_add(1, Ordering::Relaxed)),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                got.broken.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Asks for everything and takes nothing, and comes back when it is cut.
async fn never_read(address: SocketAddr, gate: Arc<Semaphore>, end: CancellationToken) {
    while !end.is_cancelled() {
        let Ok(stream) = open(address, &gate, "/api/events/stream", "").await else { return };
        // A peer that has gone is noticed without reading.
        let gone =
            async { while stream.ready(tokio::io::Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {} };
        end.run_until_cancelled(gone).await;
    }
}

/// Asks for a stream and returns behind the head of the answer.
async fn open(address: SocketAddr, gate: &Semaphore, path: &str, headers: &str) -> std::io::Result<TcpStream> {
    let _turn = gate.acquire().await;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?;
    let mut stream = timeout(STUCK, socket.connect(address)).await??;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n{headers}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(STUCK, stream.read_u8()).await??);
    }
    if head.starts_with(b"HTTP/1.0 200") || head.starts_with(b"HTTP/1.1 200") {
        Ok(stream)
    } else {
        Err(std::io::Error::other("the dashboard refused a client"))
    }
}

/// Waits until the dashboard has looked at Redis.
async fn until_ready(address: SocketAddr, dashboard: &mut Service) -> Result<(), Error> {
    let (gate, begun) = (Semaphore::new(1), Instant::now());
    while open(address, &gate, "/api/metrics", "").await.is_err() {
        dashboard.check()?;
        if begun.elapsed() > STUCK {
            return Err(dashboard.stuck(STUCK));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until all who read are there.
async fn until_connected(sse: &Got, websocket: &Got, wanted: u64, dashboard: &mut Service) -> Result<(), Error> {
    let begun = Instant::now();
    let count = |got: &Got| got.clients.load(Ordering::Relaxed) + got.broken.load(Ordering::Relaxed);
    while count(sse) + count(websocket) < wanted {
        dashboard.check()?;
        if begun.elapsed() > 2 * STUCK {
            return Err(dashboard.stuck(2 * STUCK));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Reads the last number of a line, and returns what stands before it. A million lines a second are read here.
fn last_number(line: &[u8]) -> (u64, &[u8]) {
    let end = line.iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1);
    let (number, _) = line.split_at(end);
    let begin = number.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |before| before + 1);
    let (before, digits) = number.split_at(begin);
    (digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')), before)
}

// === impl Delays ===

impl Default for Delays {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Delays {
    fn add(&self, milliseconds: u64) {
        let slot = usize::try_from(milliseconds).unwrap_or(usize::MAX).min(self.0.len() - 1);
        if let Some(count) = self.0.get(slot) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A thousandth of them, sorted, the greatest among them.
    fn sorted(&self) -> Vec<f64> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let step = (all / 1000).max(1);
        let (mut sorted, mut seen) = (Vec::new(), 0);
        for (milliseconds, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let samples = (seen + count).div_ceil(step) - u64::div_ceil(seen, step);
            sorted.extend(std::iter::repeat_n(milliseconds as f64, samples as usize));
            seen += count;
            if seen == all && samples == 0 {
                sorted.push(milliseconds as f64);
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_sorted_and_the_greatest_is_among_them() {
        let delays = Delays::default();
        for milliseconds in 0..3000 {
            delays.add(milliseconds % 100);
        }
        delays.add(9_999);
        let sorted = delays.sorted();
        assert!(sorted.is_sorted() && (900..1100).contains(&sorted.len()), "{}", sorted.len());
        assert_eq!(percentile(&sorted, 1.0), 4999.0);
        assert!((percentile(&sorted, 0.5) - 50.0).abs() <= 1.0);
    }

    #[test]
    fn the_last_numbers_of_a_frame_are_its_own() {
        let line = br#"data: {"type":"event","data":{"x":9,"n":12,"at":345}}"#;
        let (at, rest) = last_number(line);
        assert_eq!((at, last_number(rest).0), (345, 12));
        assert_eq!(last_number(b"none"), (0, &b""[..]));
    }
}
