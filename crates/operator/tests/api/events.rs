//! What `kubectl describe` shows: each Event says what happened then.

use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use penstock_local::testing::TempFolder;
use serde_json::json;

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready};

/// Lists the notes of a reason, as the API server holds them.
pub(crate) async fn notes(rig: &Rig, reason: &str) -> Vec<String> {
    let events = rig.api::<Event>().list(&Default::default()).await.unwrap();
    let of = events.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of.filter_map(|event| event.note).collect()
}

/// What a person sees.
fn describe(rig: &Rig, name: &str) -> String {
    let folder = TempFolder::new().unwrap();
    let config = folder.path().join("kubeconfig");
    std::fs::write(&config, rig.server.kubeconfig()).unwrap();
    let mut command = Command::new(rig.server.programs().join("kubectl"));
    command.arg("--kubeconfig").arg(&config).arg("--cache-dir").arg(folder.path());
    command.args(["--namespace", &rig.namespace, "describe", "firehosepipeline", name]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_says_what_happened_then_and_not_what_happened_first() {
    let Some(rig) = Rig::new("notes").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let workers = json!({ "replicas": 1, "autoscaling": { "mode": "fixed" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let mut from = 1;
    // To three twice, from another number each time.
    for to in [3, 2, 3, 5, 3] {
        rig.change("p", json!({ "workers": { "replicas": to } })).await;
        let has = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(to);
        rig.until::<Deployment>("p-worker", "scaled", has).await;
        let said = format!("{from} to {to} workers, as set in the resource");
        eventually(&said, async || notes(&rig, "Scaled").await.contains(&said)).await;
        from = to;
    }
    let described = describe(&rig, "p");
    for said in ["1 to 3", "3 to 2", "2 to 3", "3 to 5", "5 to 3"] {
        assert!(described.contains(&format!("{said} workers")), "no {said:?} in:\n{described}");
    }
}
