//! The measured processes, and what the kernel says of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::error::Error;

/// The unit of the times in `/proc/PID/stat`: USER_HZ is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// How long a service may take to end; it promises 10 s.
const STOP: Duration = Duration::from_secs(15);

/// How much of a log an error shows, in lines.
const LINES_SHOWN: usize = 15;

/// A running service; killed when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time, user and system, of all its threads.
    pub(crate) cpu: Duration,
    /// The most memory it ever held, in bytes.
    pub(crate) peak_memory: u64,
}

// === impl Service ===

impl Service {
    /// Starts it with its log in `folder`; stdin and stdout are as the command has them.
    pub(crate) fn start(name: &'static str, folder: &Path, mut command: Command) -> Result<Self, Error> {
        let start = |source| Error::Start { name, source };
        let log = folder.join(format!("{name}.log"));
        command.stderr(File::create(&log).map_err(start)?).kill_on_drop(true);
        let child = command.spawn().map_err(start)?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { name, child, pid, log })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::Ended { name: self.name, status, log: self.log_tail() }),
            Err(source) => Err(Error::Start { name: self.name, source }),
        }
    }

    /// Says that it did nothing for so long.
    pub(crate) fn stuck(&self, after: Duration) -> Error {
        Error::Stuck { name: self.name, seconds: after.as_secs(), log: self.log_tail() }
    }

    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        usage(self.pid)
    }

    /// Returns the memory it holds now, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Error> {
        let path = PathBuf::from(format!("/proc/{}/status", self.pid));
        let status = fs::read_to_string(&path).map_err(|source| Error::Proc { path: path.clone(), source })?;
        bytes(&status, "VmRSS:").ok_or(Error::ProcField { path, what: "VmRSS" })
    }

    /// Ends it with SIGTERM, and fails when it does not end well.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        self.check()?;
        let stop = |source| Error::Stop { name: self.name, source };
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or_default());
        kill(pid, Signal::SIGTERM).map_err(|errno| stop(errno.into()))?;
        self.end().await
    }

    /// Waits for its end, and fails when it does not end well.
    pub(crate) async fn end(mut self) -> Result<(), Error> {
        let stop = |source| Error::Stop { name: self.name, source };
        let status = match timeout(STOP, self.child.wait()).await {
            Ok(status) => status.map_err(stop)?,
            Err(late) => return Err(stop(late.into())),
        };
        if status.success() {
            return Ok(());
        }
        Err(Error::Ended { name: self.name, status, log: self.log_tail() })
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default().join("\n")
    }
}

/// Gives a command that keeps quiet: no stdin, no stdout.
pub(crate) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Asks the kernel what a process has used.
pub(crate) fn usage(pid: u32) -> Result<Usage, Error> {
    let read = |file: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/{file}"));
        fs::read_to_string(&path).map(|text| (text, path.clone())).map_err(|source| Error::Proc { path, source })
    };
    let (stat, path) = read("stat")?;
    let ticks = cpu_ticks(&stat).ok_or(Error::ProcField { path, what: "CPU time" })?;
    let (status, path) = read("status")?;
    let peak_memory = bytes(&status, "VmHWM:").ok_or(Error::ProcField { path, what: "VmHWM" })?;
    Ok(Usage { cpu: TICK.saturating_mul(ticks), peak_memory })
}

/// Fields 14 and 15 of proc_pid_stat(5). The second, the name, may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (after_name.next()?.parse().ok()?, after_name.next()?.parse().ok()?);
    user.checked_add(system)
}

/// Reads one of the sizes in proc_pid_status(5).
fn bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 1 2 3 4 150 25 9 9 20 0 4 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(175));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn the_peak_is_in_bytes() {
        assert_eq!(bytes("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n", "VmHWM:"), Some(2 << 20));
        assert_eq!(bytes("Name:\tx\n", "VmHWM:"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.peak_memory > 100_000);
    }
}
