//! What only a process of its own can show: the tests start themselves again as one.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{LogFormat, LogSettings, init_logs, shutdown};

/// What the process is to do; unset in an ordinary run of the tests.
const ROLE: &str = "PENSTOCK_TELEMETRY_TEST_ROLE";

fn start(role: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "whole_process::process", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env_remove("RUST_BACKTRACE").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -s {name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

fn wait_for(lines: &mut impl Iterator<Item = std::io::Result<String>>, said: &str) {
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line == said), "never said {said}");
}

fn log_lines(child: &mut Child) -> Vec<Value> {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// No claim of its own: what the other tests start as a process.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    init_logs(&LogSettings { format: LogFormat::Json, filter: "info".to_owned() }).unwrap();
    if role == "panic" {
        let ended =
            std::thread::Builder::new().name("decoder".to_owned()).spawn(|| panic!("no \"such\" thing")).unwrap();
        assert!(ended.join().is_err());
        return;
    }
    if role == "level" {
        tracing::debug!("before");
        // What is below the level costs libraries nothing.
        assert_eq!(log::max_level(), log::LevelFilter::Info);
        crate::set_log_level("debug").unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Debug);
        log::debug!("after too");
        tracing::debug!("after");
        assert_eq!(crate::log_level(), "debug");
        assert!(crate::set_log_level("loud").is_err());
        tracing::debug!("still");
        return;
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let asked = shutdown::on_signals().unwrap();
        println!("\nready");
        asked.cancelled().await;
        println!("asked");
        std::future::pending::<()>().await;
    });
}

#[test]
fn the_first_signal_asks_and_the_second_one_ends_the_process() {
    let mut child = start("shutdown");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    wait_for(&mut lines, "ready");
    signal(&child, "TERM");
    wait_for(&mut lines, "asked");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let told: Vec<Value> = log_lines(&mut child).iter().map(|line| line["signal"].clone()).collect();
    assert_eq!(told, ["SIGTERM", "SIGINT"]);
}

#[test]
fn the_log_level_changes_while_the_process_runs() {
    let mut child = start("level");
    let told: Vec<Value> = log_lines(&mut child).iter().map(|line| line["msg"].clone()).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(told, ["after too", "after", "still"]);
}

#[test]
fn a_panic_is_one_log_line() {
    let mut child = start("panic");
    let lines = log_lines(&mut child);
    assert!(child.wait().unwrap().success());
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&line["level"], &line["panic"]), (&"error".into(), &"no \"such\" thing".into()));
    assert_eq!(line["thread"], "decoder");
    assert!(line["location"].as_str().unwrap().contains("whole_process.rs:"), "{line}");
}
