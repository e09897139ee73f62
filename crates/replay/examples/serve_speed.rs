//! Measures how fast frames are made, and how fast one client on the same machine can take them off the socket.
//!
//! `cargo run --release -p penstock-replay --example serve_speed -- 500000`; pin it with `taskset -c 0` to see one core.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use penstock_replay::{Settings, bind, frames};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let total: u64 = std::env::args().nth(1).map_or(Ok(500_000), |total| total.parse())?;
    let settings = Settings { total: Some(total), prepared: 64 << 20, ..Settings::default() };

    let started = Instant::now();
    let bytes: usize = frames(&settings)?.map(|frame| frame.len()).sum();
    report("made", total, bytes, started);

    let relay = bind(settings).await?;
    let (address, cancel) = (relay.local_addr(), CancellationToken::new());
    let serving = tokio::spawn(relay.run(cancel.clone()));
    let started = Instant::now();
    let read = tokio::task::spawn_blocking(move || read(address, total)).await??;
    report("served (made, written and read)", total, read, started);
    cancel.cancel();
    Ok(serving.await??)
}

/// Reads so many messages, looking at their headers only.
fn read(address: std::net::SocketAddr, total: u64) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        b"GET /xrpc/com.atproto.sync.subscribeRepos?cursor=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let (mut buffer, mut filled, mut bytes, mut seen) = (vec![0; 1 << 20], 0, 0, 0);
    let mut at = None;
    while seen < total {
        let got = stream.read(&mut buffer[filled..])?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += got;
        let mut next = match at {
            Some(next) => next,
            None => match buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
                Some(head) => head + 4,
                None => continue,
            },
        };
        while let Some((header, length)) = message(&buffer[next.min(filled)..filled]) {
            if next + header + length > filled {
                break;
            }
            next += header + length;
            bytes += length;
            seen += 1;
        }
        buffer.copy_within(next..filled, 0);
        filled -= next;
        at = Some(0);
    }
    Ok(bytes)
}

fn message(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [_, 126, a, b, ..] => Some((4, usize::from(u16::from_be_bytes([a, b])))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => Some((10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)),
        [_, 126 | 127, ..] => None,
        [_, short, ..] => Some((2, usize::from(short))),
        _ => None,
    }
}

fn report(what: &str, frames: u64, bytes: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let (rate, mega) = (frames as f64 / seconds / 1e3, bytes as f64 / seconds / 1e6);
    println!("{what}: {frames} frames in {seconds:.2} s, {rate:.0} k/s, {mega:.0} MB/s");
}
