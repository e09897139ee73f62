//! A process in a bounded memory: a control group of version 1 or 2 where one can be made, else its greatest size is looked at.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::service::Service;

/// Where a process may have so much memory and no more.
pub(crate) struct Cage {
    group: Option<PathBuf>,
    limit: u64,
}

// === impl Cage ===

impl Cage {
    /// Makes one; its name is for people.
    pub(crate) fn new(name: &str, limit: u64) -> Self {
        let name = format!("penstock-test-{name}-{:x}", rand::random::<u32>());
        let bounds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let group = bounds.into_iter().find_map(|(root, bound)| {
            let group = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(&group).is_err() {
                return None;
            }
            let is_bounded = fs::write(group.join(bound), limit.to_string()).is_ok();
            for swap in ["memory.memsw.limit_in_bytes", "memory.swap.max"] {
                let most = if swap.ends_with("max") { 0 } else { limit };
                let _ = fs::write(group.join(swap), most.to_string());
            }
            if !is_bounded {
                let _ = fs::remove_dir(&group);
            }
            is_bounded.then_some(group)
        });
        Self { group, limit }
    }

    /// Where a process writes its ID to enter; none where there is no control group.
    pub(crate) fn entrance(&self) -> Option<PathBuf> {
        Some(self.group.as_ref()?.join("cgroup.procs"))
    }

    /// What is known of the memory that was used.
    pub(crate) fn report(&self) -> Vec<String> {
        let read = |file: &str| {
            let text = fs::read_to_string(self.group.as_ref()?.join(file)).ok()?;
            Some(format!("{file} {}", text.trim().replace('\n', ", ")))
        };
        ["memory.max_usage_in_bytes", "memory.peak", "memory.failcnt", "memory.events", "memory.oom_control"]
            .into_iter()
            .filter_map(read)
            .collect()
    }

    /// Asserts that the process, which still runs, stayed within.
    pub(crate) fn assert_kept(&self, service: &Service) {
        let status = fs::read_to_string(format!("/proc/{}/status", service.pid().unwrap())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        let (peak, files) = (of("VmHWM:"), of("RssFile:"));
        println!("at most {} MiB, {} MiB of files; {:?}", peak >> 20, files >> 20, self.report());
        // In a control group it would not be there any more.
        if self.group.is_none() {
            assert!(peak - files <= self.limit, "{peak} bytes at most, of {}", self.limit);
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // The process in it may be about to go.
            let is_gone = |_: i32| {
                std::thread::sleep(Duration::from_millis(20));
                fs::remove_dir(group).is_ok()
            };
            let _ = (0..100).any(is_gone);
        }
    }
}
