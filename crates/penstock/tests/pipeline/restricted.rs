//! Redis users that may do only what the manual says, each part with its own; and servers that lack commands.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::CustomCommand;
use penstock_core::permissions::Part;
use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, unpacked};
use serde_json::{Value, json};

use crate::http::{self, LiveStream};
use crate::rig::{Rig, eventually, relay};
use crate::service::Service;

const PREFIX: &str = "ps:";

#[tokio::test(flavor = "multi_thread")]
async fn each_part_does_its_work_with_the_rights_of_the_manual() {
    works_with_few_rights(RedisOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_does_its_work_with_the_rights_of_the_manual_on_newer_servers() {
    for name in ["redis-8", "valkey-8", "valkey-9"] {
        if let Some(programs) = unpacked(name) {
            works_with_few_rights(RedisOptions { programs: Some(programs), ..RedisOptions::default() }).await;
        }
    }
}

async fn works_with_few_rights(options: RedisOptions) {
    let redis = TestRedis::start_with(options).await.unwrap();
    let mut rig = Rig::over(&[("REDIS_URL", &redis.url()), ("PENSTOCK_REDIS_KEY_PREFIX", PREFIX)]).await;
    rig.set("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true");
    rig.set("PENSTOCK_MESSAGE_BUFFER_BATCH_DELAY", "20ms");
    rig.migrate().await;
    let (relay, recording) = relay(1_500).await;
    let buffer = Part::MessageBuffer.rules(&rig.keys);
    // A client of the page is there before the first event.
    let rules = [Part::Dashboard.rules(&rig.keys), buffer.clone()].concat();
    let dashboard = as_user(&mut rig, &redis, "dashboard", rules).await.start(&["dashboard"]);
    ready(&dashboard).await;
    let address = dashboard.dashboard().await;
    let mut live = LiveStream::open(address).await;
    live.wait_for("metrics").await;
    let rules = Part::Ingest.rules(&rig.keys);
    let ingest = as_user(&mut rig, &redis, "ingest", rules).await.ingest(&relay);
    let rules = [Part::Worker.rules(&rig.keys), buffer].concat();
    let worker = as_user(&mut rig, &redis, "worker", rules).await.worker("w-0");
    for service in [&ingest, &worker, &dashboard] {
        ready(service).await;
    }
    rig.ingested(recording.last).await;
    live.wait_for("event").await;
    rig.settled().await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    for path in [
        "/api/metrics",
        "/api/ingest",
        "/api/workers",
        "/api/events/recent",
        "/api/redis/dead-letters",
        "/queue/status",
    ] {
        http::json(address, path).await;
    }
    let message = r#"{"user_id":1,"channel_id":2,"content":"few rights"}"#;
    let message = format!(r#"{{"tracking_id":"fewright","created_at":"2026-07-04T14:38:08Z",{}"#, &message[1..]);
    let () = fred::interfaces::ListInterface::lpush(&rig.client, rig.keys.pending_messages(), message).await.unwrap();
    eventually("the message is a row", async || rig.count("messages").await == 1).await;
    let rules = Part::Doctor.rules(&rig.keys);
    as_user(&mut rig, &redis, "doctor", rules).await;
    let report = rig.run(&["doctor"]).await;
    let report = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(report.contains("redis.server") && !report.contains("redis.unseen"), "{report}");
    for service in [ingest, worker, dashboard] {
        service.stop().await;
    }
    rig.assert_result_is(&recording.entries, 1).await;
    let refused: fred::types::Value = admin(&rig.client, "ACL", &["LOG"]).await;
    assert_eq!(
        refused.into_array().len(),
        0,
        "redis refused something: {:?}",
        admin(&rig.client, "ACL", &["LOG"]).await
    );
}

/// What is missing is named by the part that lacks it, and it goes on by itself once it is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_lacks_is_named_until_it_is_given() {
    let redis = TestRedis::start().await.unwrap();
    let mut rig = Rig::over(&[("REDIS_URL", &redis.url()), ("PENSTOCK_REDIS_KEY_PREFIX", PREFIX)]).await;
    rig.migrate().await;
    let (relay, recording) = relay(300).await;
    let without = |part: Part, lacking: &[&str]| {
        let mut rules = part.rules(&rig.keys);
        rules.retain(|rule| !lacking.contains(&rule.as_str()));
        rules
    };
    let ingest = without(Part::Ingest, &["+xtrim", "+info"]);
    let worker = without(Part::Worker, &["+xautoclaim", "~ps:cluster:metrics"]);
    let ingest = as_user(&mut rig, &redis, "ingest", ingest).await.ingest(&relay);
    let worker = as_user(&mut rig, &redis, "worker", worker).await.worker("w-0");
    unready(&ingest, "redis", "lacks what ingest needs: add +xtrim to its rules").await;
    unready(&worker, "redis", "lacks what worker needs: add +xautoclaim ~ps:cluster:metrics to its rules").await;
    let _ = admin(&rig.client, "ACL", &["SETUSER", "ingest", "+xtrim", "resetchannels"]).await;
    let _ = admin(&rig.client, "ACL", &["SETUSER", "worker", "+xautoclaim", "~ps:cluster:metrics"]).await;
    ready(&worker).await;
    // Without channels events still become rows.
    rig.ingested(recording.last).await;
    rig.settled().await;
    eventually("all is trimmed", async || rig.length().await == 0).await;
    let lacking = "+publish &ps:firehose:events:broadcast +subscribe &ps:firehose:ingest:control";
    unready(&ingest, "permissions", lacking).await;
    ingest.says("redis does not allow info").await;
    ingest.says(lacking).await;
    for service in [ingest, worker] {
        service.stop().await;
    }
    rig.assert_result_is(&recording.entries, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_role_config_info_and_acl_carries_everything() {
    let renamed = ["ROLE", "CONFIG", "INFO", "ACL"].iter().flat_map(|command| ["--rename-command", command, ""]);
    // With a password: whether it runs is asked by INFO otherwise.
    let extra = ["--requirepass", "hunter2"].into_iter().chain(renamed).map(str::to_owned).collect();
    let redis = TestRedis::start_with(RedisOptions { extra, ..RedisOptions::default() }).await.unwrap();
    let rig = Rig::over(&[("REDIS_URL", &format!("redis://:hunter2@127.0.0.1:{}", redis.port()))]).await;
    rig.migrate().await;
    let (relay, recording) = relay(1_000).await;
    let parts = [rig.ingest(&relay), rig.worker("w-0"), rig.start(&["dashboard"])];
    for part in &parts {
        ready(part).await;
    }
    rig.ingested(recording.last).await;
    rig.settled().await;
    let [ingest, worker, dashboard] = parts;
    let answer = http::json(dashboard.dashboard().await, "/api/metrics").await;
    assert_eq!(answer["redis"], Value::Null, "{answer}");
    ingest.says("redis does not allow info").await;
    for service in [ingest, worker, dashboard] {
        service.stop().await;
    }
    rig.assert_result_is(&recording.entries, 1).await;
}

/// Makes a user, and has what is started from here on use it.
async fn as_user<'r>(rig: &'r mut Rig, redis: &TestRedis, name: &str, rules: Vec<String>) -> &'r Rig {
    let words = ["SETUSER", name, "reset", "on", ">hunter2"].into_iter();
    let words: Vec<&str> = words.chain(rules.iter().map(String::as_str)).collect();
    let _ = admin(&rig.client, "ACL", &words).await;
    rig.set("REDIS_URL", &format!("redis://{name}:hunter2@127.0.0.1:{}", redis.port()));
    rig
}

async fn admin(client: &Client, command: &'static str, words: &[&str]) -> fred::types::Value {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    client.custom(CustomCommand::new_static(command, None, false), words).await.unwrap()
}

/// Waits until `/readyz` of a service is well.
pub(crate) async fn ready(service: &Service) {
    let admin = service.admin().await;
    let mut said = String::new();
    eventually("it is ready", async || {
        let Some((status, body)) = http::get(admin, "/readyz").await else { return false };
        said = body;
        status == 200
    })
    .await;
}

/// Waits until a check of `/readyz` fails with these words.
async fn unready(service: &Service, check: &str, words: &str) {
    let admin = service.admin().await;
    eventually(words, async || {
        let Some((503, body)) = http::get(admin, "/readyz").await else { return false };
        let body: Value = serde_json::from_str(&body).unwrap_or(json!(null));
        body["checks"][check]["detail"].as_str().is_some_and(|detail| detail.contains(words))
    })
    .await;
}
