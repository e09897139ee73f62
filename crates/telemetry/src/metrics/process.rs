//! What the process itself costs, under the names every Prometheus client uses, read from /proc (nothing elsewhere).

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks a second in /proc: USER_HZ, 100 on every Linux that Rust runs on (`man 5 proc`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads /proc at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    started: Option<f64>,
}

/// The fields of /proc/self/stat in use, in clock ticks.
struct Ticks {
    cpu: u64,
    start: u64,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        Self { started: start_time() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut write = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(ticks) = ticks() {
            let seconds = ConstCounter::new(ticks.cpu as f64 / TICKS_PER_SECOND);
            write("process_cpu_seconds", "User and system CPU time spent, in seconds.", &seconds)?;
        }
        if let Some(bytes) = resident_bytes() {
            write("process_resident_memory_bytes", "Resident memory size.", &ConstGauge::new(bytes))?;
        }
        if let Some(open) = open_files() {
            write("process_open_fds", "Open file descriptors.", &ConstGauge::new(open))?;
        }
        if let Some(started) = self.started {
            let help = "Start time of the process, in seconds since the Unix epoch.";
            write("process_start_time_seconds", help, &ConstGauge::new(started))?;
        }
        Ok(())
    }
}

fn ticks() -> Option<Ticks> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses, which may hold spaces and parentheses itself.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Ticks { cpu: field(14)? + field(15)?, start: field(22)? })
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks()?.start as f64 / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn open_files() -> Option<u64> {
    // One of the entries is the listing itself.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}
