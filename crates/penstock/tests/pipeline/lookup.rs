//! `penstock repo`: what it says of accounts and records of a pipeline that runs, and with which exit code.

use penstock_replay::{Settings, Signing};
use serde_json::Value;

use crate::rig::{Rig, relay_with};

const LENGTH: u64 = 583;

/// Runs `penstock repo`, and returns its exit code and what it printed.
async fn look(rig: &Rig, arguments: &[&str]) -> (Option<i32>, String) {
    let done = rig.run(&[&["repo"][..], arguments].concat()).await;
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

async fn look_json(rig: &Rig, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = look(rig, &[arguments, &["--output", "json"]].concat()).await;
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_why_a_post_is_there_or_not() {
    let signing = Some(Signing::Both);
    let settings = Settings { total: Some(LENGTH), signing, directory: true, ..Settings::default() };
    let (relay, recording) = relay_with(settings).await;
    let mut rig = Rig::new().await;
    let address = relay.url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    rig.set("PENSTOCK_IDENTITY_PLC_URL", &format!("http://{address}"));
    rig.set("PENSTOCK_IDENTITY_ALLOWED_NETWORKS", "127.0.0.0/8");
    rig.set("PENSTOCK_IDENTITY_TIMEOUT", "2s");
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("ours"));
    rig.ingested(recording.last).await;
    rig.settled().await;

    let (uri, did): (String, String) =
        sqlx::query_as("SELECT uri, author_did FROM posts ORDER BY uri LIMIT 1").fetch_one(&rig.pool).await.unwrap();
    let (code, text) = look(&rig, &[&uri, "--offline"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with(&format!("{uri}\nStored in posts, since ")), "{text}");
    assert!(text.contains("  host      not asked: --offline\n"), "{text}");

    // The whole account, of which the host is asked too.
    let (code, repo) = look_json(&rig, &[&did]).await;
    assert!([Some(0), Some(1), Some(2)].contains(&code), "{repo}");
    assert_eq!(repo["did"], did);
    assert!(repo["held"]["found"]["repo"]["rev"].is_string(), "{repo}");
    assert!(!repo["held"]["found"]["collections"].as_array().unwrap().is_empty(), "{repo}");
    assert!(repo["host"]["found"]["host"].as_str().is_some_and(|host| host.contains(&address)), "{repo}");
    assert_eq!(repo["waiting"]["found"]["entries"], Value::Array(Vec::new()), "{repo}");

    // A record that nobody has ever seen.
    let (code, none) = look_json(&rig, &[&format!("at://{did}/app.bsky.feed.post/none"), "--offline"]).await;
    assert_eq!((code, none["answer"]["good"].is_null()), (Some(2), true), "{none}");

    // Without Redis, and without PostgreSQL, the rest is told.
    let away = ["--set", "redis.url=redis://127.0.0.1:1", "--set", "redis.commandTimeout=1s"];
    let (code, text) = look(&rig, &[&[uri.as_str(), "--offline"][..], &away].concat()).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("  stream    not asked: redis does not answer"), "{text}");
    let away = ["--set", "postgres.url=postgres://nobody@127.0.0.1:1/none"];
    let (code, text) = look(&rig, &[&[uri.as_str(), "--offline"][..], &away].concat()).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("  held      not asked: postgresql does not answer"), "{text}");

    let wrong = rig.run(&["repo", "alice"]).await;
    assert_eq!(wrong.status.code(), Some(64), "{}", String::from_utf8_lossy(&wrong.stderr));
    worker.stop().await;
    ingest.stop().await;
}
