//! `penstock run`, as on a laptop.

mod demo;
mod given;
mod servers;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use fred::interfaces::HashesInterface;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use penstock_core::live::state;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TempFolder;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::http;
use crate::rig::{PATIENCE, binary, eventually};

/// Events a second, as served where nothing else is said.
const RATE: u64 = 500;

/// A run, killed when dropped.
struct Run {
    child: Child,
    said: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
}

/// A process, which no later one is taken for: its ID and when it started.
type Process = (i32, String);

#[tokio::test(flavor = "multi_thread")]
async fn run_counts_ends_with_all_its_children_and_resumes_without_a_reader() {
    let folder = TempFolder::new().unwrap();
    let mut run = Run::start(folder.path());
    let dashboard = run.dashboard().await;
    let counted = more_than(RATE, dashboard).await;
    let written = run.number("rows").await;
    run.end().await;

    let mut run = Run::start(folder.path());
    let redis = run.value("redis").await;
    let dashboard = run.dashboard().await;
    // What an earlier run wrote is there from the first number on.
    let rows = run.number("rows").await;
    assert!(rows >= written, "{rows} rows at the second start, {written} before");
    // Its reader goes, as `head` does; it has something to say each second.
    run.said = None;
    let resumed = more_than(0, dashboard).await;
    assert!(resumed >= counted, "{resumed} events counted at the second start, {counted} before");
    more_than(resumed + 2 * RATE, dashboard).await;
    let settings = Settings::load(&Layers::default().flag("redis.url", redis)).unwrap();
    let client = penstock_core::redis::connect(&settings).await.unwrap();
    let beside: HashMap<String, String> = client.hgetall(settings.keys.ingest_state()).await.unwrap();
    for field in [state::GAPS, state::RESETS, state::DATA_LOSS] {
        assert_eq!(beside.get(field), None, "{field} where reading resumed");
    }
    run.end().await;
}

// === impl Run ===

impl Run {
    fn start(data: &Path) -> Self {
        Self::with(data, &[], &[("DASHBOARD_ADDRESS", "127.0.0.1:0")])
    }

    /// Starts it with further arguments and an environment.
    fn with(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = data.join("log");
        let mut command = Command::new(binary());
        command.args(["run", "--data"]).arg(data).args(["--rate", &RATE.to_string()]).args(arguments).env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH")).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().unwrap();
        let said = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Self { child, said, log }
    }

    /// Reads on until it says this, and returns the first word behind it.
    async fn value(&mut self, name: &str) -> String {
        self.rest(name).await.split_whitespace().next().unwrap().to_owned()
    }

    /// Reads on until it says this, and returns what stands behind it.
    async fn rest(&mut self, name: &str) -> String {
        self.until(|line| Some(line.strip_prefix(name)?.trim().to_owned())).await
    }

    /// Reads on until a line tells what is looked for.
    async fn until<T>(&mut self, tells: impl Fn(&str) -> Option<T>) -> T {
        let lines = self.said.as_mut().unwrap();
        loop {
            let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended: {}", fs::read_to_string(&self.log).unwrap()));
            if let Some(told) = tells(&line) {
                return told;
            }
        }
    }

    /// Reads on until a status line has this number, and returns it.
    async fn number(&mut self, name: &str) -> u64 {
        self.until(|line| status(line, name)?.parse().ok()).await
    }

    /// Reads to its end, and returns how it ended, what it said since, and what it logged.
    async fn wait_for_its_end(mut self) -> (ExitStatus, Vec<String>, String) {
        let mut lines = Vec::new();
        let said = self.said.as_mut().unwrap();
        while let Some(line) = timeout(PATIENCE, said.next_line()).await.unwrap().unwrap() {
            lines.push(line);
        }
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (status, lines, fs::read_to_string(&self.log).unwrap())
    }

    async fn dashboard(&mut self) -> SocketAddr {
        self.value("dashboard").await.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Ends it as a terminal does, and asserts that it ends well, with all that it started.
    async fn end(mut self) {
        let pid = self.child.id().unwrap().cast_signed();
        let children = descendants(pid);
        assert!(children.len() >= 2, "a redis and a postgresql run below it: {children:?}");
        killpg(Pid::from_raw(pid), Signal::SIGINT).unwrap();
        if let Some(said) = &mut self.said {
            while timeout(PATIENCE, said.next_line()).await.unwrap().unwrap().is_some() {}
        }
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(status.success() && !log.contains("panicked"), "{status}: {log}");
        eventually("its children are gone", async || processes().keys().all(|process| !children.contains(process)))
            .await;
    }
}

/// The word behind a name in a status line.
fn status<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "events/s").skip_while(|word| *word != name);
    words.nth(1)
}

/// Waits until the dashboard counts more events than these, and returns how many.
async fn more_than(events: u64, dashboard: SocketAddr) -> u64 {
    let mut counted = 0;
    eventually("counts rise", async || {
        // It may not have found its redis yet.
        if let Some((200, body)) = http::get(dashboard, "/api/metrics").await {
            counted = serde_json::from_str::<Value>(&body).unwrap()["eventsProcessed"].as_u64().unwrap();
        }
        counted > events
    })
    .await;
    counted
}

/// All that runs below a process.
fn descendants(pid: i32) -> HashSet<Process> {
    let processes = processes();
    let mut found = HashSet::from([pid]);
    loop {
        let children = processes.iter().filter(|(_, parent)| found.contains(parent)).map(|((pid, _), _)| *pid);
        let more: HashSet<i32> = children.filter(|child| !found.contains(child)).collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&pid);
    processes.into_keys().filter(|(pid, _)| found.contains(pid)).collect()
}

/// All processes that have not ended, and the ID of each one's parent.
fn processes() -> HashMap<Process, i32> {
    let folders = fs::read_dir("/proc").unwrap().map(|folder| folder.unwrap());
    let process = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // What comes before is its name, whatever characters that has.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        (fields[0] != "Z").then(|| Some(((pid, fields[19].to_owned()), fields[1].parse().ok()?)))?
    };
    folders.filter_map(|folder| process(folder.file_name().to_str()?.parse().ok()?)).collect()
}
