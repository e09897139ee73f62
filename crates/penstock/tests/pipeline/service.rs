//! A process of the binary.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::http;
use crate::rig::eventually;

/// How long a service may take to end after SIGTERM.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A process of the binary, killed when dropped.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

// === impl Service ===

impl Service {
    /// Starts a process that appends what it says to a log.
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> Self {
        let open = || File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdout(open()).stderr(open()).spawn().unwrap();
        Self { child, log }
    }

    /// The address of its admin server, once it is there.
    pub(crate) async fn admin(&self) -> SocketAddr {
        self.logged("admin server listening").await
    }

    /// The address of the dashboard, once it is there.
    pub(crate) async fn dashboard(&self) -> SocketAddr {
        self.logged("dashboard listening").await
    }

    async fn logged(&self, message: &str) -> SocketAddr {
        self.line(message).await["address"].as_str().unwrap().parse().unwrap()
    }

    /// The first line with this message, once it is there.
    pub(crate) async fn line(&self, message: &str) -> Value {
        let message = format!("\"msg\":\"{message}\"");
        let mut found = None;
        eventually(&message, async || {
            let log = self.log();
            found = log.lines().find(|line| line.contains(&message)).map(str::to_owned);
            found.is_some()
        })
        .await;
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    /// Waits until it has said this, in whatever line.
    pub(crate) async fn says(&self, words: &str) {
        eventually(words, async || self.log().contains(words)).await;
    }

    /// What a metric stands at; 0 before it is there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, metrics) = http::get(self.admin().await, "/metrics").await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// What a metric stands at in total, over the series that have this label.
    pub(crate) async fn sum(&self, name: &str, label: &str) -> f64 {
        let (_, metrics) = http::get(self.admin().await, "/metrics").await.unwrap();
        let series = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// Everything that it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Where it says it.
    pub(crate) fn path(&self) -> PathBuf {
        self.log.clone()
    }

    /// Sends SIGTERM to a service that still runs.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal to a service that still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.pid().unwrap().cast_signed()), signal).unwrap();
    }

    /// The process ID, until it is known to have ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it, as a lost machine would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asserts that it ends in time, and well.
    pub(crate) async fn ended(mut self) {
        let status = self.ends(SHUTDOWN).await;
        assert!(status.is_some_and(|status| status.success()), "ended with {status:?}, having said\n{}", self.said());
    }

    /// Waits until it ends; says how it did, if it is not well, or that it did not.
    pub(crate) async fn ended_badly(mut self) -> Option<String> {
        match self.ends(3 * SHUTDOWN).await {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("ended with {status}")),
            None => Some("did not end".to_owned()),
        }
    }

    async fn ends(&mut self, patience: Duration) -> Option<ExitStatus> {
        timeout(patience, self.child.wait()).await.ok().map(Result::unwrap)
    }

    /// Ends it, and asserts that it does so in time and well.
    pub(crate) async fn stop(self) {
        self.terminate();
        self.ended().await;
    }

    /// The end of its log.
    fn said(&self) -> String {
        // Its folder may be gone by now.
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said\n{}", self.log.display(), self.said());
        }
    }
}
