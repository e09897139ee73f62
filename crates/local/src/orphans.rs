//! Servers whose owner died without a word: the tests start themselves again as that owner.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::testing::{TempFolder, TestPostgres, TestRedis};
use crate::{Persistence, Postgres, PostgresOptions, Redis, RedisOptions};

/// What the owner is to do; unset in an ordinary run of the tests.
const ROLE: &str = "PENSTOCK_LOCAL_TEST_ROLE";

fn owner(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "orphans::owner_of_servers", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).stdout(Stdio::piped());
    command
}

/// Starts the owner, and returns the values that it says until it is ready.
fn start(command: &mut Command) -> (Child, Vec<String>) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
    // A closed pipe would break the rest of its output.
    std::thread::spawn(move || lines.for_each(drop));
    (child, said.iter().filter_map(|line| Some(line.strip_prefix("= ")?.to_owned())).collect())
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn refuses(port: &str) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).is_err()
}

/// No claim of its own: what the other tests start as a process.
#[tokio::test]
async fn owner_of_servers() {
    match std::env::var(ROLE).as_deref() {
        Ok("test") => {
            let (redis, postgres) = (TestRedis::start().await.unwrap(), TestPostgres::shared().await.unwrap());
            let postgres_folder = PathBuf::from(postgres_data(postgres)).parent().unwrap().to_owned();
            println!("\n= {}\n= {}\n= {}\nready", redis.port(), postgres.port(), postgres_folder.display());
            // Never dropped, as by a process that exits from within.
            std::mem::forget(redis);
        }
        Ok("killed") => {
            let folder = PathBuf::from(std::env::var("FOLDER").unwrap());
            let redis = Redis::start(&folder.join("redis"), aof()).await.unwrap();
            let postgres = Postgres::start(&folder.join("postgres"), PostgresOptions::default()).await.unwrap();
            println!("\n= {}\n= {}\nready", redis.port(), postgres.port());
            std::future::pending::<()>().await;
        }
        _ => {}
    }
}

fn postgres_data(postgres: &Postgres) -> String {
    let output = Command::new("psql").args([&postgres.url(), "-XAtqc", "SHOW data_directory"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn aof() -> RedisOptions {
    RedisOptions { persistence: Persistence::Aof, ..RedisOptions::default() }
}

#[test]
fn servers_of_tests_end_with_the_test_process_and_leave_no_folder() {
    let (mut child, values) = start(&mut owner("test"));
    assert!(child.wait().unwrap().success());
    let [redis, postgres, folder] = &values[..] else { panic!("{values:?}") };
    eventually("redis is gone", || refuses(redis));
    eventually("postgres is gone", || refuses(postgres));
    eventually("the folder is gone", || !Path::new(folder).exists());
}

#[tokio::test]
async fn servers_do_not_outlive_a_killed_owner_and_start_again_in_their_folders() {
    let folder = TempFolder::new().unwrap();
    let (mut child, values) = start(owner("killed").env("FOLDER", folder.path()));
    child.kill().unwrap();
    child.wait().unwrap();
    // At once, while the former servers are still ending.
    let redis = Redis::start(&folder.path().join("redis"), aof()).await.unwrap();
    let postgres = Postgres::start(&folder.path().join("postgres"), PostgresOptions::default()).await.unwrap();
    assert_eq!(values.len(), 2);
    let own = [redis.port().to_string(), postgres.port().to_string()];
    for port in values.iter().filter(|port| !own.contains(port)) {
        eventually("the former server is gone", || refuses(port));
    }
}

#[test]
fn both_start_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return; // all the other tests are the proof
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mut command = owner("test");
    command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).current_dir("/");
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("\nready"), "{text}");
        }
        // The tests were built where that user cannot enter.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

#[tokio::test]
async fn a_folder_that_is_closed_to_the_user_of_postgres_is_named() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = TempFolder::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let error = Postgres::start(&folder.path().join("inside"), PostgresOptions::default()).await.unwrap_err();
    let closed = folder.path().display().to_string();
    assert!(error.to_string().contains(&closed), "{error}");
}
