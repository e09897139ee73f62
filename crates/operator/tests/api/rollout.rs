//! Changes that roll the pods, and those that do not.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, is_ready, reason};

const SETTINGS: &str = "penstock.dev/settings-hash";
const SECRETS: &str = "penstock.dev/secrets-hash";

fn annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let template = &deployment.spec.as_ref().unwrap().template;
    template.metadata.as_ref().and_then(|metadata| metadata.annotations.clone()).unwrap_or_default()
}

async fn annotation(rig: &Rig, part: &str, name: &str) -> Option<String> {
    annotations(&rig.api::<Deployment>().get(&format!("p-{part}")).await.unwrap()).remove(name)
}

async fn until_rolled(rig: &Rig, part: &str, name: &str, before: &Option<String>) {
    let rolled = |deployment: &Deployment| annotations(deployment).get(name) != before.as_ref();
    rig.until::<Deployment>(&format!("p-{part}"), "rolled", rolled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_rolls_the_pods_that_read_it_and_no_others() {
    let Some(rig) = Rig::new("settings").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let worker = annotation(&rig, "worker", SETTINGS).await;
    let dashboard = annotation(&rig, "dashboard", SETTINGS).await;
    let ingest = annotation(&rig, "ingest", SETTINGS).await;
    assert!(worker.is_some() && dashboard.is_some() && ingest.is_some());
    rig.change("p", json!({ "workers": { "batchSize": 77 } })).await;
    until_rolled(&rig, "worker", SETTINGS, &worker).await;
    let worker = annotation(&rig, "worker", SETTINGS).await;
    rig.change("p", json!({ "telemetry": { "logLevel": "debug" } })).await;
    until_rolled(&rig, "worker", SETTINGS, &worker).await;
    until_rolled(&rig, "ingest", SETTINGS, &ingest).await;
    until_rolled(&rig, "dashboard", SETTINGS, &dashboard).await;
    let (worker, ingest) = (annotation(&rig, "worker", SETTINGS).await, annotation(&rig, "ingest", SETTINGS).await);
    rig.change("p", json!({ "dashboard": { "allowedOrigins": ["https://app.example.com"] } })).await;
    let before = annotation(&rig, "dashboard", SETTINGS).await;
    until_rolled(&rig, "dashboard", SETTINGS, &dashboard).await;
    let generation = rig.api::<FirehosePipeline>().get("p").await.unwrap().metadata.generation;
    rig.until::<FirehosePipeline>("p", "reconciled", |p| {
        p.status.as_ref().is_some_and(|status| status.observed_generation == generation)
    })
    .await;
    assert_ne!(before, None);
    assert_eq!(annotation(&rig, "worker", SETTINGS).await, worker);
    assert_eq!(annotation(&rig, "ingest", SETTINGS).await, ingest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_rolls_the_pods_and_is_never_copied() {
    let Some(rig) = Rig::new("secrets").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let by_secret = json!({ "url": null, "urlSecret": { "name": "redis", "key": "url" } });
    rig.create(
        "p",
        json!({ "redis": by_secret, "postgres": { "url": null, "urlSecret": { "name": "postgres", "key": "url" } } }),
    )
    .await;
    let said = rig.until::<FirehosePipeline>("p", "waiting", |p| reason(p, "Ready") == Some("SecretMissing")).await;
    let message = &said.status.as_ref().unwrap().conditions[0].message;
    assert!(message.contains("redis.urlSecret") && message.contains("postgres.urlSecret"), "{message}");

    rig.secret("redis", &redis.url()).await;
    rig.secret("postgres", "postgres://penstock:sesame@postgres/penstock").await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let before = annotation(&rig, "ingest", SECRETS).await;
    let settings = annotation(&rig, "ingest", SETTINGS).await;
    assert!(before.is_some());
    // The end of a line is no part of it, and no change.
    rig.secret("redis", &format!("{}\n", redis.url())).await;
    rig.change("p", json!({ "workers": { "batchSize": 78 } })).await;
    let generation = rig.api::<FirehosePipeline>().get("p").await.unwrap().metadata.generation;
    rig.until::<FirehosePipeline>("p", "ready", |p| p.status.as_ref().unwrap().observed_generation == generation).await;
    assert_eq!(annotation(&rig, "ingest", SECRETS).await, before);
    rig.secret("redis", &format!("{}/0", redis.url())).await;
    for part in ["ingest", "worker", "dashboard"] {
        until_rolled(&rig, part, SECRETS, &before).await;
    }
    assert_eq!(annotation(&rig, "ingest", SETTINGS).await, settings);

    let mut written = String::new();
    for kind in penstock_operator::children::kinds() {
        let api: kube::Api<kube::api::DynamicObject> =
            kube::Api::namespaced_with(rig.client.clone(), &rig.namespace, &kind);
        written
            .extend(api.list(&Default::default()).await.iter().map(|list| serde_json::to_string(&list.items).unwrap()));
    }
    assert!(written.contains("secretKeyRef") && !written.contains("sesame"));

    let secrets = rig.api::<k8s_openapi::api::core::v1::Secret>();
    secrets.delete("postgres", &DeleteParams::default()).await.unwrap();
    rig.until::<FirehosePipeline>("p", "waiting", |p| reason(p, "Ready") == Some("SecretMissing")).await;
    let ingest = rig.api::<Deployment>().get("p-ingest").await.unwrap();
    assert_eq!(ingest.spec.unwrap().replicas, Some(1), "what runs goes on");
    // Suspended it needs none.
    rig.change("p", json!({ "suspend": true })).await;
    let ended = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(0);
    rig.until::<Deployment>("p-ingest", "without pods", ended).await;
    rig.until::<Deployment>("p-worker", "without pods", ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_of_secrets_has_a_key_that_outlives_the_operator() {
    let Some(rig) = Rig::new("keyed").await else { return };
    let (redis, _nodes, operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.secret("redis", &format!("{}\n", redis.url())).await;
    let by_secret = json!({ "url": null, "urlSecret": { "name": "redis", "key": "url" } });
    rig.create("p", json!({ "redis": by_secret })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let before = annotation(&rig, "ingest", SECRETS).await;
    let secrets = rig.api::<k8s_openapi::api::core::v1::Secret>();
    let key = secrets.get("penstock-operator-hash-key").await.unwrap().data.unwrap()["key"].0.clone();
    assert_eq!(key.len(), 32);
    operator.stop().await;
    let operator = Operator::start(&rig).await;
    rig.change("p", json!({ "ingest": { "hotStandby": true } })).await;
    let two = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(2);
    rig.until::<Deployment>("p-ingest", "of two", two).await;
    assert_eq!(annotation(&rig, "ingest", SECRETS).await, before, "the next operator has the same key");
    // With another key the same Secret has another hash: who has not the key learns nothing from it.
    operator.stop().await;
    secrets.delete("penstock-operator-hash-key", &DeleteParams::default()).await.unwrap();
    let _operator = Operator::start(&rig).await;
    until_rolled(&rig, "ingest", SECRETS, &before).await;
    assert_ne!(secrets.get("penstock-operator-hash-key").await.unwrap().data.unwrap()["key"].0, key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_it_has_no_pods_and_keeps_its_cursor_and_resumed_it_goes_on() {
    let Some(rig) = Rig::new("suspend").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    rig.change("p", json!({ "suspend": true })).await;
    let has = |count: i32| move |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(count);
    for part in ["p-ingest", "p-worker", "p-dashboard"] {
        rig.until::<Deployment>(part, "without pods", has(0)).await;
    }
    rig.until::<FirehosePipeline>("p", "suspended", |p| reason(p, "Ready") == Some("Suspended")).await;
    assert_eq!(redis.get("firehose:python_cursor").await.as_deref(), Some("42"));
    assert!(redis.has("firehose:events").await);
    rig.change("p", json!({ "suspend": false })).await;
    for part in ["p-ingest", "p-worker", "p-dashboard"] {
        rig.until::<Deployment>(part, "with a pod", has(1)).await;
    }
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    assert_eq!(redis.get("firehose:python_cursor").await.as_deref(), Some("42"));
}
