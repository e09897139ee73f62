//! `penstock doctor`: what it says of a pipeline that runs, and with which exit code.

use penstock_local::testing::{TestPostgres, TestRedis};
use penstock_local::{Persistence, PostgresOptions, RedisOptions};
use serde_json::Value;

use crate::rig::{Rig, eventually, serve};

/// The level of a check.
fn level<'a>(report: &'a Value, check: &str) -> &'a str {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {report:#}"))["level"].as_str().unwrap()
}

#[tokio::test]
async fn a_pipeline_that_runs_is_found_sound() {
    // As servers should be set: what the tests usually have, the doctor would warn of.
    let options =
        RedisOptions { persistence: Persistence::Aof, max_memory: Some(1_000_000_000), ..RedisOptions::default() };
    let redis = TestRedis::start_with(options).await.unwrap();
    let postgres = TestPostgres::start_with(PostgresOptions::default()).await.unwrap();
    let rig = Rig::between(&[("REDIS_URL", &redis.url())], &postgres.url()).await;
    rig.migrate().await;
    let relay = serve(penstock_replay::Settings {
        rate: penstock_replay::Rate::PerSecond(50.try_into().unwrap()),
        ..Default::default()
    })
    .await;
    let (_ingest, _worker) = (rig.ingest(&relay), rig.worker("ours"));
    let host = relay.url.clone();
    let arguments = ["doctor", "--json", "--pause", "500ms", "--set", &format!("relay.urls={host}")].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    eventually("the doctor finds everything as it should be", async || {
        let done = rig.run(&arguments).await;
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        let sound = [
            "stream.writers",
            "groups.firehose-processors",
            "cursor",
            "claim",
            "claim.database",
            "checkpoint",
            "schema",
        ];
        sound.iter().all(|check| {
            report["findings"].to_string().contains(&format!("\"check\":\"{check}\"")) && level(&report, check) == "ok"
        }) && done.status.code() == Some(0)
    })
    .await;
}

#[tokio::test]
async fn the_exit_code_tells_warnings_failures_and_bad_settings_apart() {
    let rig = Rig::new().await;
    let warned = rig.run(&["doctor", "--pause", "50ms"]).await;
    let text = String::from_utf8(warned.stdout).unwrap();
    assert_eq!(warned.status.code(), Some(1), "{text}");
    assert!(text.contains("warn redis.persistence: ") && text.ends_with(" ok\n"), "{text}");
    let failed = rig.run(&["doctor", "--pause", "50ms", "--set", "redis.url=redis://:hunter2@127.0.0.1:1"]).await;
    let text = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(failed.status.code(), Some(2), "{text}");
    assert!(
        text.contains("fail redis.server: ") && text.contains("postgres.server") && !text.contains("hunter2"),
        "{text}"
    );
    for bad in [&["doctor", "--pause", "2h"][..], &["doctor", "--set", "redis.url=http://h"][..]] {
        assert_eq!(rig.run(bad).await.status.code(), Some(64), "{bad:?}");
    }
}
