//! What goes with a pipeline in trouble: hands on its children, an operator or a Redis that is away, a namespace that goes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cluster::Nodes;
use crate::events::notes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready, reason};

const CLAIM: &str = "firehose:pipeline";
const UID: &str = "firehose:pipeline:uid";

async fn delete(rig: &Rig, name: &str) {
    rig.api::<FirehosePipeline>().delete(name, &DeleteParams::default()).await.unwrap();
}

async fn claim(rig: &Rig, redis: &Redis) {
    redis.command(&format!(r#"SET {CLAIM} {{"pipeline":"{}/p","incarnation":"one"}}"#, rig.namespace)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claim_of_a_resource_that_went_unseen_is_free_for_the_next_of_its_name() {
    let Some(rig) = Rig::new("heir").await else { return };
    let redis = Redis::start().await;
    redis.flow("").await;
    claim(&rig, &redis).await;
    let operator = Operator::start(&rig).await;
    let spec = json!({ "redis": { "url": redis.url() } });
    let first = rig.create("p", spec.clone()).await;
    eventually("the claim is noted", async || redis.get(UID).await == first.uid()).await;
    // Nobody is there to give the claim back.
    operator.stop().await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    assert!(redis.has(CLAIM).await);

    // A worker lives still: whose the claim is may not be taken from it.
    redis.command("XGROUP CREATECONSUMER firehose:events firehose-processors w-0").await;
    redis.command("SET firehose:consumer:w-0:alive x").await;
    let _operator = Operator::start(&rig).await;
    rig.create("p", spec).await;
    rig.until::<FirehosePipeline>("p", "looked at", |p| reason(p, "LagKnown") == Some("Known")).await;
    assert!(redis.has(CLAIM).await && redis.get(UID).await == first.uid());
    redis.command("DEL firehose:consumer:w-0:alive").await;
    eventually("the claim is free", async || !redis.has(CLAIM).await && !redis.has(UID).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_takes_the_claim_over_with_workers_that_have_joined() {
    let Some(rig) = Rig::new("takeover").await else { return };
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    redis.flow("").await;
    claim(&rig, &redis).await;
    redis.command(&format!("SET {UID} another")).await;
    let _operator = Operator::start(&rig).await;
    let made = rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    // One that looks before the workers are ready frees it; then theirs is claimed anew.
    eventually("the claim is its own or free", async || {
        redis.get(UID).await == made.uid() || (!redis.has(UID).await && !redis.has(CLAIM).await)
    })
    .await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    claim(&rig, &redis).await;
    eventually("the claim is its own", async || redis.get(UID).await == made.uid()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dead_workers_had_taken_goes_with_the_keys() {
    let Some(rig) = Rig::new("taken").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    claim(&rig, &redis).await;
    // Its consumer is long gone, and it never counted anything; another one counted, and has no consumer.
    redis.command("ZADD pending_messages:workers 1 dead-0").await;
    redis.command("LPUSH pending_messages:taken:dead-0 a b").await;
    redis.command("HSET firehose:counts:published dead-1/posts 1").await;
    redis.command("LPUSH pending_messages:taken:dead-1 c").await;
    redis.command("XGROUP CREATECONSUMER firehose:events firehose-processors dead-2").await;
    redis.command("LPUSH pending_messages:taken:dead-2 d").await;
    redis.command("SET pending_messages:taken:neighbour e").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    let left = redis.command("KEYS *").await.into_array();
    let left: Vec<String> = left.into_iter().filter_map(|key| key.into_string()).collect();
    assert_eq!(left, ["pending_messages:taken:neighbour"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_no_watch_sees_end_before_the_keys_go() {
    let Some(rig) = Rig::new("unseen").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    redis.flow("").await;
    claim(&rig, &redis).await;
    let operator = Operator::start(&rig).await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    operator.stop().await;
    // Without its labels no watch lists it; the finalizer stands for pods that take their time.
    let hidden = json!({ "metadata": {
        "labels": { "app.kubernetes.io/managed-by": null }, "finalizers": ["test.penstock.dev/pods"],
    } });
    let (deployments, other) = (rig.api::<Deployment>(), PatchParams::default());
    deployments.patch("p-worker", &other, &Patch::Merge(&hidden)).await.unwrap();
    delete(&rig, "p").await;
    let _operator = Operator::start(&rig).await;
    let ends = |deployment: &Deployment| deployment.metadata.deletion_timestamp.is_some();
    rig.until::<Deployment>("p-worker", "ending", ends).await;
    assert!(rig.api::<FirehosePipeline>().get_opt("p").await.unwrap().is_some(), "it waits for them");
    assert!(redis.has(CLAIM).await && redis.has("firehose:python_cursor").await);
    let free = json!({ "metadata": { "finalizers": null } });
    deployments.patch("p-worker", &other, &Patch::Merge(&free)).await.unwrap();
    rig.until_gone::<FirehosePipeline>("p").await;
    assert!(!redis.has("firehose:python_cursor").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_does_not_wait_for_its_whole_deadline_when_redis_is_away() {
    let Some(rig) = Rig::new("redis-away").await.and_then(Rig::with_collector) else { return };
    let (mut redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    let _operator = Operator::start_with(&rig, &[("operator.deletionDeadline", "1h")]).await;
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    redis.server.kill();
    // Pods that hang because Redis is away are no reason to wait either.
    let held = json!({ "metadata": { "finalizers": ["test.penstock.dev/pods"] } });
    let (deployments, other) = (rig.api::<Deployment>(), PatchParams::default());
    deployments.patch("p-worker", &other, &Patch::Merge(&held)).await.unwrap();
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    let said = notes(&rig, "RedisNotCleaned").await;
    assert_eq!(said.len(), 1, "{said:?}");
    let free = json!({ "metadata": { "finalizers": null } });
    deployments.patch("p-worker", &other, &Patch::Merge(&free)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_taken_away_is_restored() {
    let Some(rig) = Rig::new("owners").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let made = rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let (orphaned, other) = (json!({ "metadata": { "ownerReferences": null } }), PatchParams::default());
    rig.api::<Deployment>().patch("p-worker", &other, &Patch::Merge(&orphaned)).await.unwrap();
    rig.api::<Service>().patch("p-dashboard", &other, &Patch::Merge(&orphaned)).await.unwrap();
    let owned = |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
        owners.iter().map(|owner| owner.uid.clone()).eq(made.uid())
    };
    rig.until::<Deployment>("p-worker", "owned again", |of| owned(of.owner_references())).await;
    rig.until::<Service>("p-dashboard", "owned again", |of| owned(of.owner_references())).await;
    // What somebody else made under the name stays theirs.
    rig.change("p", json!({ "dashboard": { "enabled": false } })).await;
    rig.until_gone::<Service>("p-dashboard").await;
    let theirs = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "p-dashboard" }, "spec": { "ports": [{ "port": 1 }] } });
    rig.api::<Service>().create(&Default::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    rig.change("p", json!({ "dashboard": { "enabled": true } })).await;
    rig.until::<FirehosePipeline>("p", "refused", |p| reason(p, "Ready") == Some("NameTaken")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_goes_is_no_missing_permission() {
    let Some(rig) = Rig::new("going").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    // Nobody here empties it: it stays as it is in its last seconds.
    let namespaces: Api<Namespace> = Api::all(rig.client.clone());
    namespaces.delete("going", &DeleteParams::default()).await.unwrap();
    rig.api::<Service>().delete("p-dashboard", &DeleteParams::default()).await.unwrap();
    let told = |p: &FirehosePipeline| !matches!(reason(p, "Ready"), Some("Running") | None);
    let told = rig.until::<FirehosePipeline>("p", "told", told).await;
    assert_eq!(reason(&told, "Ready"), Some("NamespaceTerminating"));
}
