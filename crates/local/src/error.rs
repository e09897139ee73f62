//! What can go wrong with a server of one's own.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Names the action around a local server that failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A server is not installed, or not where it is looked for.
    #[error(
        "{program} was not found in {searched}; install it (`{install}`), or set {setting} to the address of a running one"
    )]
    FindProgram {
        /// The program's file name.
        program: &'static str,
        /// The places that were searched.
        searched: &'static str,
        /// The command that installs it on Debian and Ubuntu.
        install: &'static str,
        /// The setting that makes it unnecessary.
        setting: &'static str,
    },
    /// A folder or file of the server could not be made, read or written.
    #[error("could not prepare {path}")]
    Prepare {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process's server still runs in the folder.
    #[error("{path} is in use by another server")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and the user it runs as instead cannot reach the folder.
    #[error(
        "PostgreSQL refuses to run as root, and the user {user} used instead cannot enter {closed}; \
         choose a folder that other users can enter (such as one under /tmp or /var/lib), or do not start as root"
    )]
    ReachFolder {
        /// The user's name.
        user: String,
        /// The first folder on the way that is closed to the user.
        closed: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and neither the user postgres nor nobody exists; start as another user"
    )]
    FindUser,
    /// No free port could be found.
    #[error("could not find a free port on 127.0.0.1")]
    FindPort {
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("could not start {}", program.display())]
    Spawn {
        /// The program's path or name.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program was run to its end, and that was a failure.
    #[error("{program} failed ({status}): {output}")]
    Run {
        /// The program's file name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("{program} exited before it was ready ({status}); its log ends with:\n{log}")]
    EndedEarly {
        /// The program's file name.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server did not become ready in time.
    #[error("{program} was not ready after {seconds} s; its log ends with:\n{log}")]
    NotReady {
        /// The program's file name.
        program: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
    /// The key that signs the tokens of service accounts could not be made.
    #[error("could not create a key for the API server")]
    MakeKey {
        /// What the library said.
        source: rcgen::Error,
    },
    /// The server could not be told to stop, or waited for.
    #[error("could not stop {program}")]
    Stop {
        /// The program's file name.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LocalError {
    /// Says whether the server ended because its port belongs to another process.
    pub fn is_port_taken(&self) -> bool {
        // With a capital letter from the system, without from programs in Go.
        matches!(self, Self::EndedEarly { log, .. } if log.contains("ddress already in use"))
    }

    /// Turns an I/O error about `path` into [`LocalError::Prepare`].
    pub(crate) fn prepare(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Prepare { path, source }
    }
}
