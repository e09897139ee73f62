//! Servers of its own that die: they are started again, it is told, and nothing is lost.

use std::fs;

use fred::interfaces::HashesInterface;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use penstock_core::live::state;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TempFolder;

use super::{RATE, Run, descendants, more_than};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_and_a_postgresql_that_die_are_started_again_and_nothing_is_lost() {
    let folder = TempFolder::new().unwrap();
    let mut run = Run::start(folder.path());
    let redis = run.value("redis").await;
    let dashboard = run.dashboard().await;
    let mut counted = more_than(RATE, dashboard).await;
    for (name, program) in [("redis", "redis-server"), ("postgres", "postgres")] {
        kill(main_process(&run, program), Signal::SIGKILL).unwrap();
        let ended = run.rest(name).await;
        assert!(ended.contains("exited (signal: 9 (SIGKILL))") && ended.contains("restarting"), "{ended}");
        let back = run.rest(name).await;
        assert!(back.starts_with("running again after "), "{back}");
        counted = more_than(counted + 2 * RATE, dashboard).await;
    }
    let settings = Settings::load(&Layers::default().flag("redis.url", redis)).unwrap();
    let client = penstock_core::redis::connect(&settings).await.unwrap();
    for field in [state::GAPS, state::RESETS, state::DATA_LOSS] {
        let counted: Option<String> = client.hget(settings.keys.ingest_state(), field).await.unwrap();
        assert_eq!(counted, None, "{field}");
    }
    assert_eq!(run.number("letters").await, 0);
    run.end().await;
}

/// The process of a server whose parent is the run's own.
fn main_process(run: &Run, program: &str) -> Pid {
    let own = run.child.id().unwrap().cast_signed();
    let is = |pid: i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(1)?.parse().ok());
        let name = command.split(|byte| *byte == 0).next().unwrap_or_default();
        parent == Some(own) && String::from_utf8_lossy(name).contains(program)
    };
    let pid = descendants(own).into_iter().map(|(pid, _)| pid).find(|pid| is(*pid)).unwrap();
    Pid::from_raw(pid)
}
