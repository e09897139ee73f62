//! Measures how fast frames are decoded on one core: `decode_speed [recording]`.
//!
//! A recording is a file of messages, each with its length before it as a little-endian u32; by default the bundled one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use penstock_wire::{Limits, decode};
use sha2::{Digest, Sha256};

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../replay/recording/pds.frames.bin");
const ROUND: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let recording = std::fs::read(std::env::args().nth(1).unwrap_or(BUNDLED.to_owned()))?;
    let frames = split(&recording);
    let limits = Limits::default();
    report("decode", &frames, |frame| u64::from(decode(frame, &limits).is_ok()));
    report("sha-256 of the whole frame", &frames, |frame| u64::from(Sha256::digest(frame).first() != Some(&0)));
    Ok(())
}

fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { break };
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// Runs `work` over all frames for [`ROUND`] and prints the best of five rates.
fn report(name: &str, frames: &[&[u8]], work: impl Fn(&[u8]) -> u64) {
    let mut best = 0.0_f64;
    let mut right = 0;
    for _ in 0..5 {
        let (start, mut passes) = (Instant::now(), 0.0);
        while start.elapsed() < ROUND / 5 {
            right = frames.iter().map(|frame| work(black_box(frame))).sum();
            passes += 1.0;
        }
        best = best.max(passes / start.elapsed().as_secs_f64());
    }
    let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
    let (rate, megabytes) = (best * frames.len() as f64, best * bytes as f64 / 1e6);
    println!(
        "{name}: {rate:.0} frames/s, {megabytes:.0} MB/s, {:.2} us a frame, {right} of {} right",
        1e6 / rate,
        frames.len()
    );
}
