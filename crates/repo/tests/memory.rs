//! How much memory a large repo takes while it is read, in a process that does nothing else.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::Command;
use std::time::{Duration, Instant};

use penstock_core::settings::Settings;
use penstock_identity::Identities;
use penstock_repo::Repos;
use penstock_repo::testing::{MadeRepo, World, did};
use penstock_telemetry::metrics::Metrics;

/// Tells the process that reads where the directory is.
const DIRECTORY: &str = "READ_REPO_OF_DIRECTORY";

/// What memory may hold of repos; what does not fit lies in a file.
const SPILL: &str = "READ_REPO_WITH_SPILL";

const MIB: u64 = 1024 * 1024;

/// A figure of this process in bytes.
fn figure(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// The process that reads: it prints how many records there were, its memory before, and the most that it ever had.
#[tokio::test]
#[ignore = "run by the other tests of this file"]
async fn reader() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let layers = penstock_core::settings::Layers::default()
        .flag("identity.enabled", "true")
        .flag("identity.plcUrl", directory)
        .flag("identity.timeout", "2m")
        .flag("identity.allowedNetworks", "127.0.0.1")
        .flag("heal.spill", std::env::var(SPILL).unwrap());
    let settings = Settings::load(&layers).unwrap();
    let metrics = Metrics::new();
    let identities = Identities::new(&settings, None, &metrics).unwrap();
    let repos = Repos::new(&settings, identities, &metrics).unwrap();
    let before = figure("VmRSS");
    let since = Instant::now();
    let mut repo = repos.fetch(&did(1)).await.unwrap();
    let fetched = since.elapsed();
    let mut records = 0;
    loop {
        let next = repo.next(1_000, 2_000_000).await.unwrap();
        if next.is_empty() {
            break;
        }
        records += next.len() as u64;
    }
    let most = figure("VmHWM");
    println!("\nread {records} {before} {most} {} {} {}", repo.bytes, fetched.as_millis(), since.elapsed().as_millis());
}

/// Reads a repo with so many records in a process of its own. Returns the memory that it had before, and the most that it ever had.
async fn read(records: u64, spill: u64) -> (u64, u64) {
    let world = World::start().await.unwrap();
    world.put(MadeRepo::of_posts(&did(1), "3kaaaaaaaaaaa", records));
    let mut reader = Command::new(std::env::current_exe().unwrap());
    reader.args(["--exact", "reader", "--ignored", "--nocapture", "--test-threads", "1"]);
    reader.env(DIRECTORY, world.server.url()).env(SPILL, spill.to_string());
    let output = tokio::task::spawn_blocking(move || reader.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.strip_prefix("read ")).unwrap();
    let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let [read, before, most, bytes, fetched, all]: [u64; 6] = figures.try_into().unwrap();
    assert_eq!(read, records);
    println!(
        "{records} records in {} MiB: fetched in {:.1?}, all read after {:.1?}; memory {} MiB before, {} MiB at most",
        bytes / MIB,
        Duration::from_millis(fetched),
        Duration::from_millis(all),
        before / MIB,
        most / MIB
    );
    assert!(bytes > records * 100);
    (before, most)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repo_takes_less_memory_than_it_has_bytes() {
    let (before, most) = read(150_000, 2 * MIB).await;
    // 40 MiB of blocks; of each of them 16 bytes are held, and what was read of the network and the disk.
    assert!(most - before < 24 * MIB, "{} MiB", (most - before) / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: make repo-memory"]
async fn a_million_records_take_128_mib() {
    let (_, most) = read(1_000_000, 64 * MIB).await;
    assert!(most < 128 * MIB, "{} MiB", most / MIB);
}
