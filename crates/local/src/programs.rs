//! Where redis-server and PostgreSQL are installed.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Returns the folder of etcd, kube-apiserver, kube-controller-manager and kubectl, or `None` where there is none: the one that
/// `KUBEBUILDER_ASSETS` names, else what `scripts/envtest.sh` of the checkout finds, from wherever in it.
pub(crate) fn kubernetes_folder() -> Option<PathBuf> {
    let named = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).filter(|folder| has_kubernetes(folder));
    let found = || folder_by(&script("scripts/envtest.sh")?, "--find");
    named.or_else(found).filter(|folder| has_kubernetes(folder))
}

/// Returns the folder of the programs of one of the servers that `scripts/servers.sh` of the checkout unpacks, or `None` where
/// it cannot, after its line about that.
pub(crate) fn unpacked_folder(name: &str) -> Option<PathBuf> {
    folder_by(&script("scripts/servers.sh")?, name)
}

/// Returns a script of the checkout, from wherever in it.
fn script(path: &str) -> Option<PathBuf> {
    let here = env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join(path)).find(|script| script.is_file())
}

/// Returns the folder that a script prints; what it has to say besides goes to stderr.
fn folder_by(script: &Path, argument: &str) -> Option<PathBuf> {
    let found = Command::new(script).arg(argument).stderr(Stdio::inherit()).output().ok()?;
    let folder = String::from_utf8(found.stdout).ok()?;
    found.status.success().then(|| PathBuf::from(folder.trim_end()))
}

fn has_kubernetes(folder: &Path) -> bool {
    ["etcd", "kube-apiserver", "kubectl"].iter().all(|program| folder.join(program).is_file())
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
