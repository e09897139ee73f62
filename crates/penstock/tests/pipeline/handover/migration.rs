//! The migration guide, followed to the letter: there and back, twice, while events flow.

use std::path::Path;

use super::LOGS;
use super::guide::{Guide, Shell, Shows, Way, missing_program};
use super::reader::Reader;
use super::stage;
use super::verdict::judge;
use crate::rig::eventually;

/// The AppView's tables as its own schema tool makes them.
const APPVIEW: &str = include_str!("../../../../worker/migrations/0001_appview.sql");

/// Events a second: a light load.
const RATE: u32 = 100;

/// Nothing is trimmed unread at this.
const MAX_LEN: u64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn the_migration_guide_leads_there_and_back() {
    Box::pin(follow(1)).await;
}

/// `make faults` and `make handover`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes two minutes: make handover"]
async fn the_migration_guide_leads_there_and_back_twice() {
    Box::pin(follow(2)).await;
}

/// Follows the guide there and back, so many times in a row.
async fn follow(times: usize) {
    if let Some(program) = missing_program() {
        println!("skipped: {program} is not installed");
        return;
    }
    let logs = Path::new(LOGS).join(format!("guide-{times}"));
    let stage = Box::pin(stage::set(&logs, RATE, MAX_LEN)).await;
    sqlx::raw_sql(APPVIEW).execute(&stage.rig.pool).await.unwrap();
    let dashboard = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let guide = Guide::read(dashboard);
    let mut shell = Shell::start(&logs, stage.rig.environment(), &stage.theirs).await;
    for service in ["python-backfill-worker", "python-worker", "python-firehose"] {
        shell.compose().up(service).await;
    }
    events(&stage.reader, 300).await;

    shell.follow(&guide.commands("Before", Way::Forth), &BEFORE).await;
    shell.follow(&guide.commands("Step 0", Way::Forth), &[]).await;
    shell.follow(&guide.commands("Step 1", Way::Forth), &DASHBOARD).await;
    for _ in 0..times {
        shell.follow(&guide.commands("Step 2", Way::Forth), &WORKERS).await;
        events(&stage.reader, 200).await;
        shell.follow(&guide.commands("Step 3", Way::Forth), &INGEST).await;
        shell.follow(&["penstock doctor"], &SETTLED).await;
        events(&stage.reader, 200).await;
        shell.follow(&guide.commands("Step 3", Way::Back), &INGEST_BACK).await;
        events(&stage.reader, 200).await;
        shell.follow(&guide.commands("Step 2", Way::Back), &WORKERS_BACK).await;
        events(&stage.reader, 200).await;
    }

    for service in ["python-firehose", "python-worker"] {
        shell.follow(&[&format!("docker compose stop {service}")], &[]).await;
    }
    shell.end().await;
    // What their workers held is pending for good, but for ours.
    let worker = stage.rig.worker("the-last");
    // There may be nothing left to do before it listens to signals.
    worker.admin().await;
    let end = async || worker.stop().await;
    // Their cursor may promise an event more than they wrote.
    let verdict = judge(&stage.rig, &stage.theirs, &stage.reader, stage.settings, 0, end).await;
    println!("{verdict}");
    assert!(verdict.wrong.is_empty(), "{verdict}, see {}", logs.display());
    // Whoever keeps to the guide loses and doubles nothing by theirs either.
    assert_eq!((verdict.given_up, verdict.theirs_doubled, verdict.taken), (0, 0, 0), "{verdict}");
    std::fs::remove_dir_all(logs).unwrap();
}

/// Waits until so many more entries were written.
async fn events(reader: &Reader, more: usize) {
    let enough = reader.seen().len() + more;
    eventually("events flow", async || reader.seen().len() >= enough).await;
}

const BEFORE: [Shows; 3] = [
    Shows { words: "maxmemory-policy", what: "noeviction", is: |said| said.contains("noeviction") },
    Shows { words: "CONFIG GET appendonly", what: "yes", is: |said| said.contains("yes") },
    Shows { words: "XINFO GROUPS", what: "their group", is: |said| said.contains("firehose-processors") },
];

const DASHBOARD: [Shows; 1] = [Shows {
    words: "/api/metrics",
    what: "their cursor",
    is: |said| said.contains(r#""connected":true"#) && !said.contains(r#""currentCursor":null"#),
}];

const WORKERS: [Shows; 5] = [
    Shows {
        words: "penstock doctor",
        what: "who writes the database",
        is: |said| said.contains(" database.writers: "),
    },
    Shows { words: "penstock doctor", what: "a complete schema", is: |said| said.contains("\nok   schema: ") },
    Shows { words: "XINFO CONSUMERS", what: "ours beside theirs", is: |said| theirs(said) && ours(said) },
    Shows { words: "XPENDING", what: "nothing pending", is: |said| said.trim_start().starts_with("0\n") },
    Shows { words: "post_aggregations", what: "no post whose counts are wrong", is: |said| rows(said) == ["0"] },
];

const INGEST: [Shows; 7] = [
    Shows { words: "penstock doctor", what: "that no ingest runs", is: |said| said.contains("no ingest is running") },
    Shows { words: "GET firehose:status", what: "nobody connected", is: |said| said.trim().is_empty() },
    Shows { words: "GET firehose:status", what: "ours connected", is: |said| said.contains(r#""connected":true"#) },
    Shows {
        words: "XREVRANGE",
        what: "an entry of ours",
        is: |said| said.contains(r#""rev""#) || said.contains(r#""time""#),
    },
    Shows {
        words: "HGETALL",
        what: "no data loss",
        is: |said| !said.contains("dataLoss") || said.contains("dataLoss\n0\n"),
    },
    Shows { words: "penstock.checkpoint", what: "a checkpoint", is: |said| rows(said).len() == 1 },
    Shows { words: "firehose_cursor", what: "the row kept current", is: |said| rows(said).len() == 1 },
];

/// What the doctor says when ingest is ours.
const SETTLED: [Shows; 1] = [Shows {
    words: "penstock doctor",
    what: "that ours alone writes, and the cursor",
    is: |said| said.contains("\nok   stream.writers: ") && said.contains("\nok   cursor: "),
}];

const INGEST_BACK: [Shows; 1] = [Shows { words: "EXISTS", what: "no lease", is: |said| said.trim() == "0" }];

const WORKERS_BACK: [Shows; 1] =
    [Shows { words: "XINFO CONSUMERS", what: "theirs alone", is: |said| theirs(said) && !ours(said) }];

/// Whether consumers of theirs that live are among those that redis-cli shows.
fn theirs(said: &str) -> bool {
    said.contains("Python-")
}

fn ours(said: &str) -> bool {
    said.lines().zip(said.lines().skip(1)).any(|(name, value)| name == "name" && !value.starts_with("Python-"))
}

/// The rows that psql shows.
fn rows(said: &str) -> Vec<&str> {
    let rows = said.lines().skip_while(|line| !line.starts_with("--")).skip(1);
    rows.take_while(|line| !line.starts_with('(')).map(str::trim).collect()
}
