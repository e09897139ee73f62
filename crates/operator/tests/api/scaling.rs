//! The number of workers, on a real Redis.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Nodes;
use crate::operator::{Operator, recommendation};
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready};

/// The operator's own interval, for what the budget speaks of.
const INTERVAL: (&str, &str) = ("operator.scalingInterval", "5s");

fn has(replicas: i32) -> impl Fn(&Deployment) -> bool {
    move |deployment| deployment.spec.as_ref().unwrap().replicas == Some(replicas)
}

/// Says why there are as many workers as there are.
fn why(pipeline: &FirehosePipeline) -> Option<&str> {
    pipeline.status.as_ref()?.workers.as_ref()?.reason.as_deref()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_met_with_workers_within_one_round() {
    let Some(rig) = Rig::new("backlog").await else { return };
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    let _operator = Operator::start_with(&rig, &[INTERVAL]).await;
    redis.flow("").await;
    let scaling = json!({ "drainTarget": "1s", "capacityPerWorker": 10 });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "autoscaling": scaling } })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && why(p).is_some()).await;
    redis.add("", 1_000).await;
    let since = Instant::now();
    let deployment = rig.until::<Deployment>("p-worker", "scaled up", has(10)).await;
    let took = since.elapsed();
    println!("backlog to scale patch: {took:.2?} (interval 5 s, budget 6 s)");
    // The budget is for a machine that has time: here for one that has not.
    assert!(took < Duration::from_secs(30), "{took:?}");
    let managed = deployment.metadata.managed_fields.unwrap_or_default();
    let writes = |fields: &Value| fields.pointer("/f:spec/f:replicas").is_some();
    let by: Vec<_> = managed.iter().filter(|entry| writes(&entry.fields_v1.as_ref().unwrap().0)).collect();
    assert_eq!(by.len(), 1, "{managed:#?}");
    assert_eq!((by[0].manager.as_deref(), by[0].subresource.as_deref()), (Some("penstock-autoscaler"), Some("scale")));
    let seen = rig
        .until::<FirehosePipeline>("p", "told", |p| {
            p.status.as_ref().unwrap().workers.as_ref().unwrap().summary.as_deref() == Some("10/10")
        })
        .await;
    let workers = seen.status.unwrap().workers.unwrap();
    assert_eq!((workers.ready, workers.desired), (10, 10));
    assert!(workers.last_scale_time.is_some() && workers.message.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_delays_no_other_pipeline() {
    let Some(rig) = Rig::new("hanging").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    // Takes connections, and never says a word.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", mute.local_addr().unwrap());
    let _mute = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = mute.accept().await {
            held.push(connection);
        }
    });
    for name in ["a", "b", "z"] {
        rig.create(name, json!({ "redis": { "url": url, "keyPrefix": format!("{name}:") } })).await;
    }
    redis.flow("").await;
    let scaling = json!({ "drainTarget": "1s", "capacityPerWorker": 10 });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "autoscaling": scaling } })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && why(p).is_some()).await;
    let away = |p: &FirehosePipeline| crate::rig::reason(p, "Ready") == Some("RedisUnreachable");
    rig.until::<FirehosePipeline>("a", "told", away).await;
    redis.add("", 1_000).await;
    rig.until::<Deployment>("p-worker", "scaled up", has(10)).await;
    assert!(has(1)(&rig.api::<Deployment>().get("a-worker").await.unwrap()), "held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_holds_the_number_of_workers() {
    let Some(rig) = Rig::new("unknown").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    // Without a window, fewer workers would come at once where nothing speaks against it.
    let scaling =
        json!({ "drainTarget": "1s", "capacityPerWorker": 10, "maxReplicas": 5, "stabilizationWindow": "0s" });
    let workers = json!({ "autoscaling": scaling, "claimTime": "1h" });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    redis.add("", 1_000).await;
    rig.until::<Deployment>("p-worker", "scaled up", has(5)).await;
    let causes = [("DEL firehose:events", "StreamMissing"), ("XADD firehose:events * type commit", "GroupMissing")];
    for (command, gap) in causes {
        redis.command(command).await;
        let told = |p: &FirehosePipeline| crate::rig::reason(p, "LagKnown") == Some(gap);
        rig.until::<FirehosePipeline>("p", gap, told).await;
        assert!(has(5)(&rig.api::<Deployment>().get("p-worker").await.unwrap()), "{gap}");
    }
    // Known and empty: now they go.
    redis.command("XGROUP CREATE firehose:events firehose-processors $").await;
    rig.until::<Deployment>("p-worker", "scaled down", has(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_number_is_what_the_resource_says_and_kubectl_scale_writes_it() {
    let Some(rig) = Rig::new("fixed").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let workers = json!({ "replicas": 3, "autoscaling": { "mode": "fixed" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<Deployment>("p-worker", "of three", has(3)).await;
    let four = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    rig.raw().patch_scale("p", &PatchParams::default(), &four).await.unwrap();
    rig.until::<Deployment>("p-worker", "of four", has(4)).await;
    eventually("the scale subresource tells them", async || {
        let scale = rig.raw().get_scale("p").await.unwrap();
        scale
            .status
            .is_some_and(|status| status.replicas == 4 && status.selector.is_some_and(|text| text.contains("worker")))
    })
    .await;
    // Whoever scales the Deployment itself has no say.
    let seven = Patch::Merge(json!({ "spec": { "replicas": 7 } }));
    rig.api::<Deployment>().patch_scale("p-worker", &PatchParams::default(), &seven).await.unwrap();
    rig.until::<Deployment>("p-worker", "of four again", has(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_zero_and_from_zero_by_what_waits() {
    let Some(rig) = Rig::new("zero").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let workers = json!({ "autoscaling": { "minReplicas": 0, "stabilizationWindow": "0s" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<Deployment>("p-worker", "at zero", has(0)).await;
    redis.add("", 1).await;
    rig.until::<Deployment>("p-worker", "woken", has(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_holds_keeps_somebody_there() {
    let Some(rig) = Rig::new("stranded").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    redis.add("", 20).await;
    redis.command("XREADGROUP GROUP firehose-processors dead COUNT 20 STREAMS firehose:events >").await;
    let workers = json!({ "claimTime": "500ms", "autoscaling": { "minReplicas": 0, "stabilizationWindow": "0s" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    // By Redis' own word there is no lag.
    let stranded = |p: &FirehosePipeline| {
        let workers = p.status.as_ref().and_then(|status| status.workers.as_ref());
        workers.is_some_and(|workers| workers.backlog.as_deref() == Some("20"))
    };
    rig.until::<FirehosePipeline>("p", "aware of what is stranded", stranded).await;
    rig.until::<Deployment>("p-worker", "of one", has(1)).await;
    redis.command("XGROUP DESTROY firehose:events firehose-processors").await;
    redis.command("XGROUP CREATE firehose:events firehose-processors $").await;
    rig.until::<Deployment>("p-worker", "at zero", has(0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_keda_the_operator_recommends_and_does_not_write() {
    let Some(rig) = Rig::new("keda").await else { return };
    let (redis, _nodes, operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let scaling = json!({ "mode": "keda", "drainTarget": "1s", "capacityPerWorker": 10, "maxReplicas": 6 });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "autoscaling": scaling } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let kinds = penstock_operator::children::kinds();
    let kind = kinds.iter().find(|kind| kind.kind == "ScaledObject").unwrap();
    let objects: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), &rig.namespace, kind);
    let made = objects.get("p-worker").await.unwrap();
    let trigger = &made.data["spec"]["triggers"][0];
    assert_eq!(trigger["type"], "metrics-api");
    assert_eq!(trigger["metadata"]["url"], "http://penstock-operator.penstock.svc:8080/recommendation/keda/p");
    assert_eq!(made.data["spec"]["scaleTargetRef"]["name"], "p-worker");
    redis.add("", 1_000).await;
    eventually("six are recommended", async || recommendation(&operator.address, "keda", "p").await == Some(6)).await;
    assert!(has(1)(&rig.api::<Deployment>().get("p-worker").await.unwrap()));
    assert_eq!(recommendation(&operator.address, "keda", "q").await, None);
    // Suspended, KEDA is told to pause at none; in another mode the object goes.
    rig.change("p", json!({ "suspend": true })).await;
    eventually("it is paused", async || {
        let object = objects.get("p-worker").await.unwrap();
        let annotations = object.metadata.annotations.unwrap_or_default();
        annotations.get("autoscaling.keda.sh/paused-replicas").map(String::as_str) == Some("0")
    })
    .await;
    rig.change("p", json!({ "suspend": false, "workers": { "autoscaling": { "mode": "operator" } } })).await;
    eventually("it is gone", async || objects.get_opt("p-worker").await.unwrap().is_none()).await;
    rig.until::<Deployment>("p-worker", "scaled up", has(6)).await;
}
