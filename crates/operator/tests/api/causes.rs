//! The status names the cause, soon, until it is gone; and an Event tells it once.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready, message, reason};

/// What keeps a pipeline from running, and what its status must say.
struct Cause {
    what: &'static str,
    /// The condition besides Ready, and the reason of both.
    kind: &'static str,
    reason: &'static str,
    /// A part of the sentence.
    says: &'static str,
}

async fn told(rig: &Rig, cause: &Cause, since: Instant) {
    let Cause { what, kind, reason: expected, says } = cause;
    let said = rig
        .until::<FirehosePipeline>("p", what, |p| {
            reason(p, "Ready") == Some(expected) && reason(p, kind) == Some(expected) && message(p, kind).contains(says)
        })
        .await;
    println!("{what}: said after {:.1} s: {}", since.elapsed().as_secs_f64(), message(&said, "Ready"));
}

async fn events(rig: &Rig, reason: &str) -> i32 {
    let events = rig.api::<Event>().list(&ListParams::default()).await.unwrap();
    let of = events.items.into_iter().filter(|event| {
        event.reason.as_deref() == Some(reason)
            && event.regarding.as_ref().is_some_and(|of| of.kind.as_deref() == Some("FirehosePipeline"))
    });
    of.map(|event| event.series.map_or(1, |series| series.count)).sum()
}

async fn withdrawn(rig: &Rig, cause: &Cause, since: Instant) {
    rig.until::<FirehosePipeline>("p", "ready again", is_ready).await;
    println!("{}: withdrawn after {:.1} s", cause.what, since.elapsed().as_secs_f64());
    eventually("the event", async || events(rig, cause.reason).await > 0).await;
    assert_eq!(events(rig, cause.reason).await, 1, "{}", cause.what);
}

/// A pod of a part, as the node reports it.
async fn pod(rig: &Rig, name: &str, component: &str, job: Option<&str>, status: Value) {
    let mut labels = json!({
        "app.kubernetes.io/managed-by": "penstock-operator", "app.kubernetes.io/instance": "p",
        "app.kubernetes.io/component": component,
    });
    if let Some(job) = job {
        labels["batch.kubernetes.io/job-name"] = json!(job);
    }
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "containers": [{ "name": "penstock", "image": "x" }] },
    }))
    .unwrap();
    let api = rig.api::<Pod>();
    api.create(&PostParams::default(), &pod).await.unwrap();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await.unwrap();
}

async fn no_pod(rig: &Rig, name: &str) {
    rig.api::<Pod>().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
}

fn waiting(why: &str, message: &str) -> Value {
    let state = json!({ "waiting": { "reason": why, "message": message } });
    json!({ "phase": "Pending", "containerStatuses": [
        { "name": "penstock", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state }] })
}

fn ended(code: i32, message: &str) -> Value {
    let state = json!({ "terminated": { "exitCode": code, "reason": "Error", "message": message } });
    json!({ "phase": "Failed", "containerStatuses": [
        { "name": "penstock", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state }] })
}

/// Writes what the Deployment controller would: of `wanted` pods none is of the last version.
async fn hold_up(rig: &Rig, part: &str, conditions: Value) {
    let api: Api<Deployment> = rig.api();
    let status = json!({ "status": { "updatedReplicas": 0, "conditions": conditions } });
    api.patch_status(&format!("p-{part}"), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn let_go(rig: &Rig, part: &str) {
    let api: Api<Deployment> = rig.api();
    let status = json!({ "status": { "updatedReplicas": 1, "conditions": null } });
    api.patch_status(&format!("p-{part}"), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_cannot_begin_says_why() {
    let Some(rig) = Rig::new("beginning").await else { return };
    let (redis, _operator) = (Redis::start().await, Operator::start(&rig).await);
    redis.flow("").await;
    rig.secret("postgres", "postgres://app:sesame@db/app").await;
    let postgres = json!({ "url": null, "urlSecret": { "name": "postgres", "key": "url" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "postgres": postgres })).await;
    rig.until::<FirehosePipeline>("p", "migrating", |p| reason(p, "Ready") == Some("Migrating")).await;
    let job = async || rig.api::<Job>().list(&ListParams::default()).await.unwrap().items.remove(0);
    let name = job().await.metadata.name.unwrap();

    let since = Instant::now();
    let refused: Event = serde_json::from_value(json!({
        "metadata": { "name": "refused", "namespace": rig.namespace },
        "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "test", "reportingInstance": "test", "action": "Create",
        "reason": "FailedCreate", "type": "Warning", "note": "Error creating: pods is forbidden: exceeded quota: small",
        "regarding": { "apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": rig.namespace },
    }))
    .unwrap();
    rig.api::<Event>().create(&PostParams::default(), &refused).await.unwrap();
    let quota = Cause { what: "a quota", kind: "Migrated", reason: "FailedCreate", says: "exceeded quota: small" };
    told(&rig, &quota, since).await;

    let since = Instant::now();
    let why =
        "penstock: could not migrate the database: could not connect to postgresql at db:5432: connection refused";
    pod(&rig, "first", "migrate", Some(&name), ended(69, why)).await;
    let away = Cause {
        what: "PostgreSQL away",
        kind: "DatabaseReachable",
        reason: "DatabaseUnreachable",
        says: "could not connect to postgresql at db:5432: connection refused",
    };
    told(&rig, &away, since).await;
    let said =
        rig.until::<FirehosePipeline>("p", "said", |p| reason(p, "Migrated") == Some("DatabaseUnreachable")).await;
    assert!(!serde_json::to_string(&said.status).unwrap().contains("sesame"));

    // The database is back before Kubernetes would try again: the Job is made anew.
    let uid = job().await.metadata.uid;
    let rests = json!({ "status": { "startTime": "2026-01-02T03:04:05Z", "failed": 1, "active": 0, "ready": 0, "terminating": 0 } });
    rig.api::<Job>().patch_status(&name, &PatchParams::default(), &Patch::Merge(rests)).await.unwrap();
    eventually("the job is made anew", async || {
        let jobs = rig.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        jobs.first().is_some_and(|job| job.metadata.uid != uid && job.metadata.deletion_timestamp.is_none())
    })
    .await;
    let _nodes = Nodes::start(&rig);
    let since = Instant::now();
    no_pod(&rig, "first").await;
    withdrawn(&rig, &away, since).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_running_pipeline_from_working_is_said_until_it_is_gone() {
    let Some(rig) = Rig::new("causes").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;

    let cause = Cause {
        what: "a read-only database",
        kind: "DatabaseReachable",
        reason: "DatabaseRefuses",
        says: "(as seen by worker w-1)",
    };
    let since = Instant::now();
    let left = r#"{"part":"worker","process":"w-1","text":"postgresql_db:_read-only"}"#;
    redis.command(&format!("SET firehose:trouble:postgresql {left} PX 600000")).await;
    told(&rig, &cause, since).await;
    let since = Instant::now();
    redis.command("DEL firehose:trouble:postgresql").await;
    withdrawn(&rig, &cause, since).await;

    let cause =
        Cause { what: "a full Redis", kind: "RedisReachable", reason: "RedisFull", says: "is full and refuses writes" };
    let since = Instant::now();
    redis.command("CONFIG SET maxmemory 100000").await;
    told(&rig, &cause, since).await;
    let since = Instant::now();
    redis.command("CONFIG SET maxmemory 0").await;
    withdrawn(&rig, &cause, since).await;

    // The workers from before run on, and new ones do not come.
    let held_up = [
        (
            "an image that cannot be pulled",
            "ImagePullBackOff",
            waiting("ErrImagePull", "no such image"),
            "no such image",
        ),
        (
            "a missing key",
            "CreateContainerConfigError",
            waiting("CreateContainerConfigError", "couldn't find key url"),
            "couldn't find key url",
        ),
    ];
    for (what, expected, status, says) in held_up {
        let since = Instant::now();
        hold_up(&rig, "worker", Value::Null).await;
        pod(&rig, "new", "worker", None, status).await;
        let said = rig.until::<FirehosePipeline>("p", what, |p| reason(p, "Ready") == Some(expected)).await;
        println!("{what}: said after {:.1} s: {}", since.elapsed().as_secs_f64(), message(&said, "Ready"));
        assert!(message(&said, "Ready").contains(says) && message(&said, "WorkersAvailable").contains(says));
        let since = Instant::now();
        no_pod(&rig, "new").await;
        let_go(&rig, "worker").await;
        withdrawn(&rig, &Cause { what, kind: "Ready", reason: expected, says }, since).await;
    }

    let cause = Cause { what: "a quota", kind: "Ready", reason: "FailedCreate", says: "exceeded quota" };
    let since = Instant::now();
    let failure = json!([{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "pods are forbidden: exceeded quota" }]);
    hold_up(&rig, "dashboard", failure).await;
    told(&rig, &cause, since).await;
    let since = Instant::now();
    let_go(&rig, "dashboard").await;
    withdrawn(&rig, &cause, since).await;
}
