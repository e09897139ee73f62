//! One server process: started so that it cannot outlive us, stopped in order or killed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::LocalError;
use crate::identity::Identity;
use crate::log::Log;

/// How often an event without a notification is looked for.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// How long a start waits for the folder's former server to end: longer than the watchdog lets it.
const FORMER_SERVER: Duration = Duration::from_secs(25);

/// How long a server that is dropped may take to end by itself.
const ABORT: Duration = Duration::from_secs(5);

/// Waits for one line, then becomes the server. So the server begins only once the watchdog knows of it, and not at
/// all if we die before. Its standard input becomes the folder's lock, which is released when the last of the server's
/// processes has ended.
const GATE: &str = r#"read -r go && exec "$@" 0<&1 1>&2"#;

/// Reads the server's process ID, then waits: for a line (the server was stopped in order) or for the end of its
/// input (we are gone). Then it asks the server to end with signal $1, after 20 s kills it, and removes the folder $2.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
runs() {
    kill -0 "$1" || return 1
    # Dead, but not yet waited for by the process that inherited it.
    case $(cat "/proc/$1/stat") in *") Z "*) return 1 ;; esac
}
if read -r pid; then
    read -r stopped && exit 0
    kill -s "$1" "$pid"
    looks=0
    while runs "$pid" && [ "$looks" -lt 200 ]; do
        sleep 0.1 || sleep 1
        looks=$((looks + 1))
    done
    ! runs "$pid" || kill -s KILL "$pid"
fi
[ -z "$2" ] || rm -rf -- "$2"
"#;

/// Says how a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// The name for errors and log lines.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// The folder that the server has to itself.
    pub(crate) folder: PathBuf,
    /// Whom it runs as, if not as ourselves.
    pub(crate) identity: Option<Identity>,
    /// What asks it to end in order.
    pub(crate) farewell: Signal,
    /// What ends it at once, leaving nothing behind in the system, when it is dropped.
    pub(crate) abort: Signal,
    /// The folder that goes when we die, for servers of tests.
    pub(crate) remove: Option<PathBuf>,
}

/// A running server, ended at once when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    farewell: Signal,
    abort: Signal,
    /// What it wrote since it started.
    pub(crate) log: Log,
    /// Dropped after the server has ended.
    _watchdog: Watchdog,
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    watching: bool,
}

// === impl Launch ===

impl Launch {
    /// Starts the server once its folder is free; it is not ready yet.
    pub(crate) async fn start(&self) -> Result<Server, LocalError> {
        let lock = self.lock().await?;
        let (log, log_file) = Log::open(self.folder.join(format!("{}.log", self.name)))?;
        let mut watchdog = Watchdog::start(self.farewell, self.remove.as_deref())?;
        let mut command = Command::new("sh");
        command.args(["-c", GATE, "sh"]).arg(&self.program).args(&self.args);
        command.current_dir(&self.folder).stdin(Stdio::piped()).stdout(lock).stderr(log_file);
        run_as(&mut command, self.identity.as_ref());
        let mut child = command.spawn().map_err(|source| self.spawn_error(source))?;
        let gate = child.stdin.take();
        // From here on the drop of `server` ends the child, whatever fails.
        let opened = watchdog.watch(child.id()).and_then(|()| match gate {
            Some(mut gate) => gate.write_all(b"go\n"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        });
        let Self { name, farewell, abort, .. } = *self;
        let server = Server { name, child, farewell, abort, log, _watchdog: watchdog };
        opened.map_err(|source| self.spawn_error(source))?;
        Ok(server)
    }

    /// Takes the folder for one server, waiting for a former one that is ending.
    async fn lock(&self) -> Result<File, LocalError> {
        fs::create_dir_all(&self.folder).map_err(LocalError::prepare(&self.folder))?;
        let path = self.folder.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(LocalError::prepare(&path))?;
        let deadline = Instant::now() + FORMER_SERVER;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    if !told {
                        info!(folder = %self.folder.display(), "waiting for the folder's previous server to exit");
                        told = true;
                    }
                    sleep(LOOK).await;
                }
                Err(TryLockError::WouldBlock) => return Err(LocalError::FolderInUse { path: self.folder.clone() }),
                Err(TryLockError::Error(error)) => return Err(LocalError::prepare(path)(error)),
            }
        }
    }

    fn spawn_error(&self, source: io::Error) -> LocalError {
        LocalError::Spawn { program: self.program.clone(), source }
    }
}

/// Takes a program out of the terminal's reach, so that Ctrl-C finds us alone, and makes it run as `identity`.
pub(crate) fn run_as(command: &mut Command, identity: Option<&Identity>) {
    command.process_group(0);
    if let Some(Identity { uid, gid, .. }) = identity {
        command.uid(*uid).gid(*gid);
    }
}

// === impl Server ===

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the server ended, if it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        self.child.try_wait().map_err(|source| LocalError::Stop { program: self.name, source })
    }

    /// Waits until `ready` answers true for the server's process ID.
    pub(crate) async fn wait_until_ready<Answer: Future<Output = bool>>(
        &mut self,
        patience: Duration,
        ready: impl Fn(u32) -> Answer,
    ) -> Result<(), LocalError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Err(LocalError::EndedEarly { program: self.name, status, log: self.log.tail() });
            }
            if ready(self.pid()).await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seconds = patience.as_secs();
                return Err(LocalError::NotReady { program: self.name, seconds, log: self.log.tail() });
            }
            sleep(LOOK).await;
        }
    }

    /// Asks the server to end, waits, and ends it at once when it takes longer than `patience`.
    pub(crate) async fn stop(mut self, patience: Duration) -> Result<(), LocalError> {
        if self.ended()?.is_none() {
            self.signal(self.farewell).map_err(|source| LocalError::Stop { program: self.name, source })?;
        }
        let deadline = Instant::now() + patience;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                warn!(program = self.name, patience_seconds = patience.as_secs(), "did not stop in time, killing it");
                break;
            }
            sleep(LOOK).await;
        }
        // What still runs is ended by the drop.
        Ok(())
    }

    /// Kills the server, as a lost machine would.
    pub(crate) fn kill(mut self) {
        // An error means that it is gone already; the drop says nothing to a server that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // The child is not reaped before `ended` says so: the ID cannot be somebody else's.
        Ok(kill(Pid::from_raw(self.pid().cast_signed()), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.signal(self.abort).is_ok() {
            let deadline = std::time::Instant::now() + ABORT;
            while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
                thread::sleep(LOOK);
            }
        }
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Watchdog ===

impl Watchdog {
    fn start(farewell: Signal, remove: Option<&Path>) -> Result<Self, LocalError> {
        let signal = farewell.as_str().trim_start_matches("SIG");
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "sh", signal]).arg(remove.unwrap_or(Path::new("")));
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|source| LocalError::Spawn { program: "sh".into(), source })?;
        Ok(Self { child, watching: false })
    }

    fn watch(&mut self, pid: u32) -> io::Result<()> {
        self.watching = true;
        match &mut self.child.stdin {
            Some(stdin) => writeln!(stdin, "{pid}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take()
            && self.watching
        {
            let _ = stdin.write_all(b"stopped\n");
        }
        let _ = self.child.wait();
    }
}
