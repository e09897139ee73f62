//! Makes a database cluster, whole or not at all.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;

use super::NAME;
use crate::identity::Identity;
use crate::server::run_as;
use crate::{LocalError, log, programs};

/// The newest collation that every system has: order by bytes, letters by Unicode where the C library knows them.
const LOCALE: &str = if cfg!(target_os = "linux") { "C.UTF-8" } else { "C" };

/// A cluster on disk, and what runs it.
pub(super) struct Cluster {
    pub(super) programs: PathBuf,
    pub(super) identity: Option<Identity>,
    pub(super) password: String,
}

/// Returns where in its folder a server keeps its data.
pub(super) fn data_folder(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Returns the cluster in `folder`, made there when there is none.
///
/// `programs` is where its programs are to be taken from, instead of where they are installed.
pub(super) async fn find_or_make(
    folder: &Path,
    durable: bool,
    programs: Option<PathBuf>,
) -> Result<Cluster, LocalError> {
    let data = data_folder(folder);
    let version = log::read_if_there(&data.join("PG_VERSION"))?;
    let programs = match programs {
        Some(programs) => programs,
        None => programs::postgres_folder(version.as_deref())?,
    };
    let identity = Identity::for_postgres(&data)?;
    let password_file = folder.join("password");
    if version.is_none() {
        make(folder, &password_file, &programs, identity.as_ref(), durable).await?;
    }
    let password = fs::read_to_string(&password_file).map_err(LocalError::prepare(password_file))?;
    Ok(Cluster { programs, identity, password })
}

/// Makes the cluster beside its place and moves it there at last, so that an end half-way leaves none.
async fn make(
    folder: &Path,
    password_file: &Path,
    programs: &Path,
    identity: Option<&Identity>,
    durable: bool,
) -> Result<(), LocalError> {
    let staging = folder.join("data.new");
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LocalError::prepare(staging)(error)),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&staging).map_err(LocalError::prepare(&staging))?;
    write_secret(password_file, &random_password()).map_err(LocalError::prepare(password_file))?;
    if let Some(identity) = identity {
        for path in [folder, &staging, password_file] {
            identity.own(path)?;
        }
        identity.check_reach(folder)?;
    }

    let mut initdb = Command::new(programs.join("initdb"));
    initdb.args(["--username", NAME, "--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"]);
    initdb.arg(format!("--locale={LOCALE}")).arg("--pwfile").arg(password_file).arg("--pgdata").arg(&staging);
    if !durable {
        initdb.arg("--no-sync");
    }
    run_as(&mut initdb, identity);
    run("initdb", initdb.current_dir(folder), "").await?;

    let mut single = Command::new(programs.join("postgres"));
    single.arg("--single").arg("-D").arg(&staging).args(["-c", "exit_on_error=on"]);
    single.args(["-c", if durable { "fsync=on" } else { "fsync=off" }]).arg("postgres");
    run_as(&mut single, identity);
    run("postgres", single.current_dir(folder), &format!("CREATE DATABASE {NAME} TEMPLATE template0\n")).await?;

    let data = data_folder(folder);
    fs::rename(&staging, &data).map_err(LocalError::prepare(data))?;
    // The new name is to be on disk before the first commit is.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LocalError::prepare(folder))
}

/// Runs a program of PostgreSQL's to its end.
pub(super) async fn run(name: &'static str, command: &mut Command, input: &str) -> Result<(), LocalError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = PathBuf::from(command.get_program());
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    let ran = async {
        let mut child = command.kill_on_drop(true).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading says why in its output.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = ran.await.map_err(|source| LocalError::Spawn { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(LocalError::Run {
        program: name,
        status: output.status,
        output: log::last_lines(&String::from_utf8_lossy(&said)),
    })
}

/// Writes the password of a cluster beside where its data will be, for the user that it will run as.
pub(super) fn write_password(folder: &Path, password: &str, identity: Option<&Identity>) -> Result<(), LocalError> {
    let file = folder.join("password");
    write_secret(&file, password).map_err(LocalError::prepare(&file))?;
    match identity {
        Some(identity) => identity.own(folder).and_then(|()| identity.own(&file)),
        None => Ok(()),
    }
}

fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Writes a file that only its owner reads.
fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::{Postgres, PostgresOptions};
    use super::*;
    use crate::testing::TempFolder;

    #[tokio::test]
    async fn a_cluster_that_was_left_half_made_is_made_anew() {
        let folder = TempFolder::new().unwrap();
        fs::create_dir(folder.path().join("data.new")).unwrap();
        fs::write(folder.path().join("data.new/PG_VERSION"), "15\n").unwrap();
        fs::write(folder.path().join("password"), "old").unwrap();
        let options = PostgresOptions { durable: false, ..PostgresOptions::default() };
        let postgres = Postgres::start(folder.path(), options).await.unwrap();
        assert!(!folder.path().join("data.new").exists());
        assert!(!postgres.url().contains(":old@"));
    }
}
