//! A server's log file.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::LocalError;

/// How much of a log an error shows.
const LINES_SHOWN: usize = 15;

/// A log longer than this, in bytes, is set aside at the next start, in the place of the one set aside before.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Where a server writes its log, and how long it was when this server started.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
    start: u64,
}

impl Log {
    /// Opens the log to append to it.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, File), LocalError> {
        if fs::metadata(&path).is_ok_and(|log| log.len() > LONGEST) {
            let aside = path.with_extension("log.old");
            fs::rename(&path, &aside).map_err(LocalError::prepare(&aside))?;
        }
        let prepare = || File::options().create(true).append(true).open(&path);
        let file = prepare().map_err(LocalError::prepare(&path))?;
        let start = file.metadata().map_err(LocalError::prepare(&path))?.len();
        Ok((Self { path, start }, file))
    }

    /// Returns what this server wrote.
    fn read(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let from = self.start.max(file.metadata()?.len().saturating_sub(LONGEST));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the last lines that this server wrote, or why they cannot be read.
    pub(crate) fn tail(&self) -> String {
        self.read().map_or_else(|error| format!("({}: {error})", self.path.display()), |text| last_lines(&text))
    }
}

/// Returns the last lines of a program's output.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

/// Reads a small file, or nothing if it is not there.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, LocalError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LocalError::prepare(path)(error)),
    }
}
