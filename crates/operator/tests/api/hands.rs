//! Hands off: what a person pauses is left as it is, and a scale that does not count is answered.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::Nodes;
use crate::events::notes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready, reason};

fn paused(value: Option<&str>) -> Value {
    json!({ "metadata": { "annotations": { "penstock.dev/paused": value } } })
}

/// Changes a Deployment by hand.
async fn meddle(rig: &Rig, name: &str) {
    let change = json!({ "spec": { "progressDeadlineSeconds": 77, "revisionHistoryLimit": 9 } });
    rig.api::<Deployment>().patch(name, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

fn is_meddled_with(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().unwrap().revision_history_limit == Some(9)
}

async fn annotate<K>(rig: &Rig, name: &str, value: Option<&str>)
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    rig.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&paused(value))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_child_is_left_alone_and_all_others_are_not() {
    let Some(rig) = Rig::new("paused-child").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let workers = json!({ "replicas": 2, "autoscaling": { "mode": "fixed" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let has =
        |replicas: i32| move |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(replicas);
    rig.until::<Deployment>("p-worker", "of two", has(2)).await;
    // Long before it matters: the watch of Services has the time of all that follows to report it.
    annotate::<Service>(&rig, "p-dashboard", Some("true")).await;
    annotate::<Deployment>(&rig, "p-worker", Some("by Ann")).await;
    meddle(&rig, "p-worker").await;
    // What is not paused is mended. One watch reports both, one after the other: by then the operator knows of the annotation.
    meddle(&rig, "p-ingest").await;
    rig.until::<Deployment>("p-ingest", "mended", |deployment| !is_meddled_with(deployment)).await;
    rig.change("p", json!({ "workers": { "replicas": 5, "batchSize": 77 } })).await;
    let generation = rig.api::<FirehosePipeline>().get("p").await.unwrap().metadata.generation;
    rig.until::<FirehosePipeline>("p", "reconciled", |p| p.status.as_ref().unwrap().observed_generation == generation)
        .await;
    let worker = rig.api::<Deployment>().get("p-worker").await.unwrap();
    assert!(is_meddled_with(&worker) && has(2)(&worker), "{worker:#?}");
    // Not even what is no longer wanted is taken away.
    rig.change("p", json!({ "dashboard": { "enabled": false } })).await;
    rig.until_gone::<Deployment>("p-dashboard").await;
    assert!(rig.api::<Service>().get_opt("p-dashboard").await.unwrap().is_some());

    annotate::<Deployment>(&rig, "p-worker", None).await;
    annotate::<Service>(&rig, "p-dashboard", Some("false")).await;
    rig.until::<Deployment>("p-worker", "mended", |deployment| !is_meddled_with(deployment)).await;
    rig.until::<Deployment>("p-worker", "of five", has(5)).await;
    rig.until_gone::<Service>("p-dashboard").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_pipeline_is_left_alone_until_it_is_not() {
    let Some(rig) = Rig::new("paused").await else { return };
    let (redis, _nodes, operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let scaling = json!({ "drainTarget": "1s", "capacityPerWorker": 10 });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "autoscaling": scaling } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    annotate::<FirehosePipeline>(&rig, "p", Some("true")).await;
    rig.until::<FirehosePipeline>("p", "told", |p| reason(p, "Ready") == Some("Paused")).await;
    eventually("an event says so", async || notes(&rig, "Paused").await.len() == 1).await;
    // The next operator leaves it alone from the beginning.
    operator.stop().await;
    let _operator = Operator::start(&rig).await;
    meddle(&rig, "p-ingest").await;
    rig.change("p", json!({ "ingest": { "hotStandby": true } })).await;
    redis.add("", 1_000).await;
    // Its numbers are still told: what waits was seen, and nothing was done about it.
    let seen =
        |p: &FirehosePipeline| p.status.as_ref().unwrap().workers.as_ref().is_some_and(|workers| workers.desired == 10);
    let told = rig.until::<FirehosePipeline>("p", "aware of the backlog", seen).await;
    assert_eq!(reason(&told, "Ready"), Some("Paused"));
    let observed = told.status.unwrap().observed_generation;
    assert!(observed < told.metadata.generation, "what was changed meanwhile is not carried out");
    let ingest = rig.api::<Deployment>().get("p-ingest").await.unwrap();
    assert!(is_meddled_with(&ingest) && ingest.spec.unwrap().replicas == Some(1));
    assert_eq!(rig.api::<Deployment>().get("p-worker").await.unwrap().spec.unwrap().replicas, Some(1));
    annotate::<FirehosePipeline>(&rig, "p", None).await;
    let mended =
        |deployment: &Deployment| !is_meddled_with(deployment) && deployment.spec.as_ref().unwrap().replicas == Some(2);
    rig.until::<Deployment>("p-ingest", "mended", mended).await;
    // A deletion is a person's own word.
    annotate::<FirehosePipeline>(&rig, "p", Some("true")).await;
    rig.api::<FirehosePipeline>().delete("p", &DeleteParams::default()).await.unwrap();
    rig.until_gone::<FirehosePipeline>("p").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_that_does_not_count_is_answered() {
    let Some(rig) = Rig::new("ignored").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let made = rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "replicas": 3 } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    assert_eq!(notes(&rig, "ScaleIgnored").await, Vec::<String>::new(), "what was written at first is no scale");
    let seven = Patch::Merge(json!({ "spec": { "replicas": 7 } }));
    rig.raw().patch_scale(&made.name_any(), &PatchParams::default(), &seven).await.unwrap();
    eventually("an event answers", async || !notes(&rig, "ScaleIgnored").await.is_empty()).await;
    let said = notes(&rig, "ScaleIgnored").await;
    assert!(said[0].contains("workers.replicas is now 7") && said[0].contains("it is operator"), "{said:?}");
    // Where it counts there is nothing to say.
    rig.change("p", json!({ "workers": { "autoscaling": { "mode": "fixed" } } })).await;
    rig.raw()
        .patch_scale("p", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "replicas": 4 } })))
        .await
        .unwrap();
    rig.until::<Deployment>("p-worker", "of four", |of| of.spec.as_ref().unwrap().replicas == Some(4)).await;
    assert_eq!(notes(&rig, "ScaleIgnored").await.len(), 1);
}
