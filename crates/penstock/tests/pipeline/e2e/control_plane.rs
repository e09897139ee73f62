//! The control plane of a cluster that `scripts/e2e.sh` brought up, whose processes may be killed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

/// A folder with the numbers of its processes.
pub(super) struct ControlPlane(PathBuf);

/// What was killed, and how it is started again.
pub(super) struct Killed {
    words: Vec<String>,
    folder: PathBuf,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// The one that CONTROL_PLANE names; none where the cluster is somebody's.
    pub(super) fn ours() -> Option<Self> {
        std::env::var_os("CONTROL_PLANE").map(|folder| Self(folder.into()))
    }

    /// Kills the API server.
    pub(super) fn kill_api_server(&self) -> Killed {
        let pid = self.pid("apiserver");
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let words = line.split_terminator('\0').map(str::to_owned).collect();
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        Killed { words, folder }
    }

    /// Starts it again, in the network where the others are.
    pub(super) fn start_api_server(&self, killed: &Killed) {
        let log = File::options().append(true).open(self.0.join("log/apiserver.log")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid("etcd"))).args(&killed.words).current_dir(&killed.folder);
        // A group of its own: an interrupt of the test is none of its business.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // It outlives the test, and ends with the cluster.
        let started = command.spawn().unwrap();
        fs::write(self.0.join("pid/apiserver"), started.id().unwrap().to_string()).unwrap();
    }

    fn pid(&self, of: &str) -> i32 {
        fs::read_to_string(self.0.join("pid").join(of)).unwrap().trim().parse().unwrap()
    }
}
