//! The data folder: one run's at a time, its ports, and how much is in it.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Held by the run that has the folder; says its process ID.
const LOCK: &str = "lock";

/// The ports of the last run.
const PORTS: &str = "ports.json";

/// The admin token of the dashboard, where none is set.
const TOKEN: &str = "dashboard-token";

/// Bytes of the disk that are left free whatever --max-disk says.
const KEPT_FREE: u64 = 1_000_000_000;

/// A folder that is this run's alone.
pub(super) struct Folder {
    path: PathBuf,
    /// Released by the system when the process ends, however it does.
    _lock: File,
}

/// The ports on 127.0.0.1 that stay the same from start to start; none where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Ports {
    pub(super) redis: Option<u16>,
    pub(super) postgres: Option<u16>,
    pub(super) dashboard: Option<u16>,
    pub(super) metrics: Option<u16>,
}

// === impl Folder ===

impl Folder {
    /// Takes the folder, made where it is missing.
    ///
    /// # Errors
    /// [`Error::FolderInUse`] at once where another run has it.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| Error::DataFolder { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let file = path.join(LOCK);
        let open = || File::options().create(true).append(true).open(&file);
        let mut lock = open().map_err(failed(&file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let process = fs::read_to_string(&file).unwrap_or_default();
                return Err(Error::FolderInUse { path: path.to_owned(), process: process.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&file)(source)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed(&file))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Returns its path as it was given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder within, and returns its absolute path.
    pub(super) fn within(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)
            .and_then(|()| std::path::absolute(&path))
            .map_err(|source| Error::DataFolder { path, source })
    }

    /// Reads the ports of the last run; none where they cannot be read.
    pub(super) fn ports(&self) -> Ports {
        let read = fs::read(self.path.join(PORTS)).ok();
        read.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// Returns the admin token of the dashboard: that of the last run, or a new one that only this user can read.
    pub(super) fn token(&self) -> Result<String, Error> {
        let path = self.path.join(TOKEN);
        let is_token = |text: &String| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(token) = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned()).filter(is_token) {
            return Ok(token);
        }
        let token = format!("{:032x}", rand::random::<u128>());
        // A file that is there keeps its mode; and what stands there is no token.
        let _ = fs::remove_file(&path);
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| writeln!(file, "{token}")).map_err(|source| Error::DataFolder { path, source })?;
        Ok(token)
    }

    /// Keeps the ports for the next run.
    pub(super) fn keep(&self, ports: &Ports) -> Result<(), Error> {
        let path = self.path.join(PORTS);
        let json = serde_json::to_vec(ports).unwrap_or_default();
        fs::write(&path, json).map_err(|source| Error::DataFolder { path, source })
    }
}

/// Returns how many bytes of the disk a folder takes; files that come or go meanwhile count or not.
pub(super) fn size(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            bytes += metadata.blocks() * 512;
        }
    }
    bytes
}

/// Returns up to which size a folder may grow: what was asked for, or less where the disk would keep less than a gigabyte free.
pub(super) fn bound(asked: u64, folder: &Path) -> u64 {
    let free = nix::sys::statvfs::statvfs(folder).ok().map(|disk| disk.blocks_available() * disk.fragment_size());
    bounded(asked, size(folder), free)
}

fn bounded(asked: u64, size: u64, free: Option<u64>) -> u64 {
    free.map_or(asked, |free| asked.min(size.saturating_add(free.saturating_sub(KEPT_FREE))))
}

/// Writes a number of bytes with its unit, to three digits.
pub(super) fn shown(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000_000_000 => (1e6, "MB"),
        1_000_000_000..1_000_000_000_000 => (1e9, "GB"),
        _ => (1e12, "TB"),
    };
    let number = bytes as f64 / unit;
    if number < 9.95 && name != "MB" { format!("{number:.1} {name}") } else { format!("{number:.0} {name}") }
}

#[cfg(test)]
mod tests {
    use penstock_local::testing::TempFolder;

    use super::*;

    #[test]
    fn a_second_run_is_refused_by_the_first_ones_process_and_a_third_let_in() {
        let folder = TempFolder::new().unwrap();
        let first = Folder::take(folder.path()).unwrap();
        let Err(refused) = Folder::take(folder.path()) else { panic!("two runs in one folder") };
        let (process, path) = (std::process::id().to_string(), folder.path().display().to_string());
        assert!([&process, &path].iter().all(|word| refused.to_string().contains(*word)), "{refused}");
        drop(first);
        Folder::take(folder.path()).unwrap();
    }

    #[test]
    fn ports_are_kept_and_what_is_broken_is_none() {
        let folder = TempFolder::new().unwrap();
        let taken = Folder::take(folder.path()).unwrap();
        assert_eq!(taken.ports(), Ports::default());
        let ports = Ports { redis: Some(1), dashboard: Some(8000), ..Ports::default() };
        taken.keep(&ports).unwrap();
        assert_eq!(taken.ports(), ports);
        fs::write(folder.path().join(PORTS), "{").unwrap();
        assert_eq!(taken.ports(), Ports::default());
    }

    #[test]
    fn the_token_stays_the_same_and_only_this_user_reads_it() {
        let folder = TempFolder::new().unwrap();
        let taken = Folder::take(folder.path()).unwrap();
        let token = taken.token().unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(taken.token().unwrap(), token);
        let file = folder.path().join(TOKEN);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        let another = taken.token().unwrap();
        assert!(another.len() == 32 && another != token, "{another}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folders_size_is_that_of_all_that_is_in_it() {
        let folder = TempFolder::new().unwrap();
        let before = size(folder.path());
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), vec![1; 3_000_000]).unwrap();
        let grown = size(folder.path()) - before;
        assert!((3_000_000..3_200_000).contains(&grown), "{grown}");
        assert_eq!(size(&folder.path().join("nothing")), 0);
    }

    #[test]
    fn a_folder_may_grow_as_asked_unless_the_disk_has_not_that_much() {
        const GB: u64 = 1_000_000_000;
        assert_eq!(bounded(20 * GB, 2 * GB, Some(500 * GB)), 20 * GB);
        assert_eq!(bounded(20 * GB, 2 * GB, Some(9 * GB)), 10 * GB, "a gigabyte stays free");
        assert_eq!(bounded(20 * GB, 2 * GB, Some(GB / 2)), 2 * GB, "it ends at once");
        assert_eq!(bounded(20 * GB, 2 * GB, None), 20 * GB);
        let folder = TempFolder::new().unwrap();
        assert_eq!(bound(1, folder.path()), 1);
        assert!(bound(u64::MAX, folder.path()) < u64::MAX, "the disk is asked");
    }

    #[test]
    fn sizes_are_shown_to_the_digits_that_matter() {
        let shown = [0, 85_400_000, 999_000_000, 1_200_000_000, 20_000_000_000, 1_500_000_000_000].map(shown);
        assert_eq!(shown, ["0 MB", "85 MB", "999 MB", "1.2 GB", "20 GB", "1.5 TB"]);
    }
}
