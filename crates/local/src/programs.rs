//! Where redis-server and PostgreSQL are installed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::LocalError;

/// Where packages put PostgreSQL's servers, one folder a version: Debian, Red Hat, Homebrew.
const POSTGRES_FOLDERS: &[(&str, &str, &str)] =
    &[("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin"), ("/opt/homebrew/opt", "postgresql@", "bin")];

/// Returns the path of redis-server.
pub(crate) fn redis_server() -> Result<PathBuf, LocalError> {
    redis_server_in(env::var_os("PATH").as_deref())
}

fn redis_server_in(path: Option<&OsStr>) -> Result<PathBuf, LocalError> {
    path.and_then(|path| env::split_paths(path).map(|folder| folder.join("redis-server")).find(|file| file.is_file()))
        .ok_or(LocalError::FindProgram {
            program: "redis-server",
            searched: "PATH",
            install: "apt-get install redis-server",
            setting: "REDIS_URL",
        })
}

/// Returns the folder of PostgreSQL's `postgres`, `initdb` and `createdb`: of the major version `wanted` (the one that
/// made a data folder) where it is installed, else the first in PATH, else the newest.
pub(crate) fn postgres_folder(wanted: Option<&str>) -> Result<PathBuf, LocalError> {
    postgres_folder_in(env::var_os("PATH").as_deref(), installed(), wanted)
}

fn postgres_folder_in(
    path: Option<&OsStr>,
    mut installed: Vec<(u32, PathBuf)>,
    wanted: Option<&str>,
) -> Result<PathBuf, LocalError> {
    installed.sort();
    let wanted = wanted.and_then(|version| version.trim().parse::<u32>().ok());
    let matching = installed.iter().find(|(version, _)| Some(*version) == wanted).map(|(_, folder)| folder.clone());
    let in_path = || env::split_paths(path?).find(|folder| has_servers(folder));
    let newest = || installed.last().map(|(_, folder)| folder.clone());
    matching.or_else(in_path).or_else(newest).ok_or(LocalError::FindProgram {
        program: "postgres",
        searched: "PATH and /usr/lib/postgresql/*/bin",
        install: "apt-get install postgresql",
        setting: "DATABASE_URL",
    })
}

fn installed() -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for (parent, prefix, bin) in POSTGRES_FOLDERS {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        found.extend(entries.filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            let folder = entry.path().join(bin);
            has_servers(&folder).then_some((version, folder))
        }));
    }
    found
}

fn has_servers(folder: &Path) -> bool {
    ["postgres", "initdb", "createdb"].iter().all(|program| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_says_which_package_to_install() {
        let error = redis_server_in(Some(OsStr::new("/nowhere"))).unwrap_err().to_string();
        assert!(error.contains("apt-get install redis-server") && error.contains("REDIS_URL"), "{error}");
        let error = postgres_folder_in(None, Vec::new(), None).unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql") && error.contains("DATABASE_URL"), "{error}");
    }

    #[test]
    fn the_version_that_made_the_data_wins_over_the_newest() {
        let installed = || vec![(9, "/9".into()), (15, "/15".into()), (17, "/17".into())];
        let folder = |wanted| postgres_folder_in(None, installed(), wanted).unwrap();
        assert_eq!(folder(Some("15\n")), Path::new("/15"));
        assert_eq!(folder(Some("16\n")), Path::new("/17"));
        assert_eq!(folder(None), Path::new("/17"));
    }
}
