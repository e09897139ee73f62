//! What a deleted pipeline leaves behind.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready};

const CLAIM: &str = r#"{"pipeline":"NAMESPACE/p","incarnation":"x"}"#;

impl Redis {
    async fn claim(&self, prefix: &str, namespace: &str) {
        let claim = CLAIM.replace("NAMESPACE", namespace);
        self.command(&format!("SET {prefix}firehose:pipeline {claim}")).await;
    }
}

async fn delete(rig: &Rig, name: &str) {
    rig.api::<FirehosePipeline>().delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_under_retain_everything_goes_but_the_keys_and_the_claim_is_free() {
    let Some(rig) = Rig::new("retain").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    redis.claim("", "retain").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let made = rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    assert_eq!(made.finalizers(), Vec::<String>::new());
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    // By their owner references.
    for part in ["p-ingest", "p-worker", "p-dashboard"] {
        rig.until_gone::<Deployment>(part).await;
    }
    rig.until_gone::<Service>("p-dashboard").await;
    rig.until_gone::<ConfigMap>("p-settings").await;
    eventually("the claim is free", async || !redis.has("firehose:pipeline").await).await;
    assert!(redis.has("firehose:events").await && redis.has("firehose:python_cursor").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_under_delete_its_keys_go_and_nobody_elses() {
    let Some(rig) = Rig::new("delete").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    for prefix in ["a:", "b:"] {
        redis.flow(prefix).await;
        redis.claim(prefix, "delete").await;
        redis.command(&format!("HSET {prefix}cluster:metrics totalEvents 1")).await;
        redis.add(prefix, 3).await;
    }
    rig.create("p", json!({ "redis": { "url": redis.url(), "keyPrefix": "a:" }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    let left = redis.command("KEYS *").await.into_array();
    let mut left: Vec<String> = left.into_iter().filter_map(|key| key.into_string()).collect();
    left.sort();
    assert_eq!(
        left,
        [
            "b:cluster:metrics",
            "b:firehose:events",
            "b:firehose:pipeline",
            "b:firehose:python_cursor",
            "b:firehose:status"
        ]
    );
    rig.until_gone::<Deployment>("p-worker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_others_read_is_never_deleted() {
    let Some(rig) = Rig::new("others").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    redis.claim("", "others").await;
    redis.add("", 3).await;
    redis.command("XGROUP CREATE firehose:events osprey-consumers 0").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    assert_eq!(redis.command("XLEN firehose:events").await.as_u64(), Some(3));
    let groups = redis.command("XINFO GROUPS firehose:events").await.into_array();
    assert_eq!(groups.len(), 1, "ours is gone, theirs stays");
    assert!(!redis.has("firehose:python_cursor").await && !redis.has("firehose:pipeline").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_that_is_another_pipelines_is_left_alone() {
    let Some(rig) = Rig::new("theirs").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    redis.claim("", "elsewhere").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<Deployment>("p-worker", "made", |_| true).await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    for key in ["firehose:events", "firehose:python_cursor", "firehose:pipeline"] {
        assert!(redis.has(key).await, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_claim_of_ours_nothing_is_removed() {
    let Some(rig) = Rig::new("unclaimed").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    // What another system writes and reads, whose workers claim nothing.
    redis.flow("").await;
    let only_ingest =
        json!({ "redis": { "url": redis.url() }, "workers": { "enabled": false }, "deletionPolicy": "Delete" });
    rig.create("p", only_ingest).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    for key in ["firehose:events", "firehose:python_cursor"] {
        assert!(redis.has(key).await, "{key}");
    }
    let groups = redis.command("XINFO GROUPS firehose:events").await.into_array();
    assert_eq!(groups.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_says_when_it_is_deleted_counts() {
    let Some(rig) = Rig::new("changed").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    redis.flow("").await;
    redis.claim("", "changed").await;
    let operator = Operator::start(&rig).await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", |p| is_ready(p) && p.finalizers() == ["penstock.dev/redis"]).await;
    // Nobody is there to take the finalizer away.
    operator.stop().await;
    rig.change("p", json!({ "deletionPolicy": "Retain" })).await;
    delete(&rig, "p").await;
    let _operator = Operator::start(&rig).await;
    rig.until_gone::<FirehosePipeline>("p").await;
    for key in ["firehose:events", "firehose:python_cursor"] {
        assert!(redis.has(key).await, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_never_blocks_a_deletion() {
    let Some(rig) = Rig::new("blocked").await else { return };
    let (mut redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    let _operator = Operator::start_with(&rig, &[("operator.deletionDeadline", "5s")]).await;
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "deletionPolicy": "Delete" })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    redis.server.kill();
    delete(&rig, "p").await;
    rig.until_gone::<FirehosePipeline>("p").await;
    let events = rig.api::<k8s_openapi::api::events::v1::Event>().list(&Default::default()).await.unwrap();
    assert!(events.items.iter().any(|event| event.reason.as_deref() == Some("RedisNotCleaned")));
}
