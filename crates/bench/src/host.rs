//! What the figures were measured on.

use std::fs;
use std::process::Command;

/// Says what is measured on what, and how busy it was beside that.
pub(crate) fn describe(runs: u64, before: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    format!(
        "{cores} cores ({model}), shared by relay, Redis, PostgreSQL and us; {}, no persistence; PostgreSQL with fsync; \
         medians of {runs} runs; load average {before} before and {} after.",
        redis_version(),
        load()
    )
}

/// The load average of the last minute.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn redis_version() -> String {
    let output = Command::new("redis-server").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
    format!("Redis {version}")
}
