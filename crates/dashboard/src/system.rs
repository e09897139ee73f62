//! How busy the machine is, read from /proc and cgroups (nothing elsewhere).

use std::fs;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

/// Current load of the machine, as `systemHealth` shows it. Values that the system does not report are 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SystemHealth {
    /// Busy share of all CPUs since the last sample, 0 to 100.
    pub(crate) cpu: u8,
    /// Share of memory in use, 0 to 100, of the container's limit if there is one, else of the machine.
    pub(crate) memory: u8,
    /// Share of the root file system in use, 0 to 100, as `df` counts it.
    pub(crate) disk: u8,
    /// Traffic of all interfaces except loopback since the last sample, such as `↓ 1.2 MB/s ↑ 3.4 KB/s`, for display.
    pub(crate) network: String,
}

/// Looks at the machine, and remembers the last look.
#[derive(Debug)]
pub(crate) struct System {
    cpu: Option<CpuTime>,
    network: Option<(Instant, Traffic)>,
}

/// CPU time since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

/// Bytes since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Traffic {
    received: u64,
    sent: u64,
}

// === impl System ===

impl System {
    /// Takes the first look, from which the next one counts.
    pub(crate) fn new(now: Instant) -> Self {
        Self { cpu: cpu_time(), network: traffic().map(|traffic| (now, traffic)) }
    }

    /// Looks anew.
    pub(crate) fn look(&mut self, now: Instant) -> SystemHealth {
        let cpu = cpu_time();
        let network = traffic().map(|traffic| (now, traffic));
        let health = SystemHealth {
            cpu: self.cpu.zip(cpu).map_or(0, |(before, after)| after.busy_since(before)),
            memory: memory(),
            disk: disk().unwrap_or(0),
            network: self.network.zip(network).map(|(before, after)| rates(before, after)).unwrap_or_default(),
        };
        (self.cpu, self.network) = (cpu, network);
        health
    }
}

// === impl CpuTime ===

impl CpuTime {
    fn busy_since(self, before: Self) -> u8 {
        percent(self.busy.saturating_sub(before.busy), self.total.saturating_sub(before.total))
    }
}

fn cpu_time() -> Option<CpuTime> {
    parse_cpu(&fs::read_to_string("/proc/stat").ok()?)
}

/// Reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
fn parse_cpu(stat: &str) -> Option<CpuTime> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    // Guest time is already part of user time.
    let times: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = times.get(3)? + times.get(4).unwrap_or(&0);
    let total = times.iter().sum::<u64>();
    Some(CpuTime { busy: total.saturating_sub(idle), total })
}

/// Share of memory in use, 0 to 100.
pub(crate) fn memory() -> u8 {
    let file = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let limited = file("memory.max").zip(file("memory.current")).zip(file("memory.stat"));
    limited
        .and_then(|((max, current), stat)| container_memory(&max, &current, &stat))
        .or_else(|| machine_memory(&fs::read_to_string("/proc/meminfo").ok()?))
        .unwrap_or(0)
}

/// Counts as Kubernetes does: what the kernel can drop at once (`inactive_file`) is not in use. `None` without a limit.
fn container_memory(max: &str, current: &str, stat: &str) -> Option<u8> {
    let max: u64 = max.trim().parse().ok()?;
    let current: u64 = current.trim().parse().ok()?;
    let droppable = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let droppable = droppable.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
    Some(percent(current.saturating_sub(droppable), max))
}

fn machine_memory(meminfo: &str) -> Option<u8> {
    let kilobytes = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let total = kilobytes("MemTotal")?;
    Some(percent(total.saturating_sub(kilobytes("MemAvailable")?), total))
}

fn disk() -> Option<u8> {
    let root = nix::sys::statvfs::statvfs("/").ok()?;
    let used = root.blocks().saturating_sub(root.blocks_free());
    // As df does: blocks kept for root are neither used nor to be had.
    Some(percent(used, used + root.blocks_available()))
}

fn traffic() -> Option<Traffic> {
    Some(parse_traffic(&fs::read_to_string("/proc/net/dev").ok()?))
}

/// Adds up /proc/net/dev: after the name, bytes received stand first and bytes sent ninth.
fn parse_traffic(dev: &str) -> Traffic {
    let lines = dev.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold(Traffic::default(), |sum, (_, fields)| {
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let bytes = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0u64);
        Traffic { received: sum.received + bytes(0), sent: sum.sent + bytes(8) }
    })
}

fn rates((from, before): (Instant, Traffic), (to, after): (Instant, Traffic)) -> String {
    let seconds = to.saturating_duration_since(from).as_secs_f64();
    let rate = |before: u64, after: u64| match seconds > 0.0 {
        true => after.saturating_sub(before) as f64 / seconds,
        false => 0.0,
    };
    let received = rate(before.received, after.received);
    format!("↓ {} ↑ {}", bytes_a_second(received), bytes_a_second(rate(before.sent, after.sent)))
}

fn bytes_a_second(rate: f64) -> String {
    const KILO: f64 = 1024.0;
    match rate {
        rate if rate >= KILO * KILO => format!("{:.1} MB/s", rate / KILO / KILO),
        rate if rate >= KILO => format!("{:.1} KB/s", rate / KILO),
        rate => format!("{rate:.0} B/s"),
    }
}

/// Rounds to the nearest whole percent; 0 of nothing.
fn percent(part: u64, whole: u64) -> u8 {
    if whole == 0 {
        return 0;
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    u8::try_from((part * 200 + whole) / (whole * 2)).map_or(100, |percent| percent.min(100))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn cpu_is_what_was_not_idle_between_two_looks() {
        let before = parse_cpu("cpu  100 0 50 800 50 0 0 0 40 0\ncpu0 1 1 1 1\n").unwrap();
        let after = parse_cpu("cpu  160 0 60 820 60 0 0 0 90 0\n").unwrap();
        assert_eq!(before, CpuTime { busy: 150, total: 1000 });
        assert_eq!(after.busy_since(before), 70);
        assert_eq!(before.busy_since(before), 0);
        assert_eq!(parse_cpu("intr 5"), None);
    }

    #[test]
    fn memory_is_counted_against_the_limit_where_there_is_one() {
        assert_eq!(container_memory("1000\n", "600\n", "anon 1\ninactive_file 100\n"), Some(50));
        assert_eq!(container_memory("max\n", "600\n", ""), None);
        assert_eq!(machine_memory("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n"), Some(75));
        assert_eq!(machine_memory("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn traffic_leaves_loopback_out() {
        let dev = "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  \
                   eth0: 4096 1 0 0 0 0 0 0 512 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        let after = parse_traffic(dev);
        assert_eq!(after, Traffic { received: 4097, sent: 514 });
        let now = Instant::now();
        let before = Traffic { received: 1, sent: 2 };
        assert_eq!(rates((now, before), (now + Duration::from_secs(2), after)), "↓ 2.0 KB/s ↑ 256 B/s");
        assert_eq!(rates((now, after), (now, after)), "↓ 0 B/s ↑ 0 B/s");
    }

    #[test]
    fn a_percentage_never_leaves_its_range() {
        assert_eq!([percent(1, 0), percent(1, 3), percent(2, 3), percent(9, 3)], [0, 33, 67, 100]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_all_four() {
        let now = Instant::now();
        let health = System::new(now).look(now + Duration::from_secs(1));
        assert!(health.memory > 0 && health.disk <= 100 && health.network.starts_with('↓'), "{health:?}");
    }
}
