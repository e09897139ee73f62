//! A new image: nothing that runs ends before a pod of it has run.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Nodes, failed, succeeded};
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready, reason};

const PARTS: [&str; 3] = ["p-ingest", "p-worker", "p-dashboard"];

async fn image(rig: &Rig, name: &str) -> String {
    let deployment = rig.api::<Deployment>().get(name).await.unwrap();
    deployment.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap()
}

async fn images(rig: &Rig) -> Vec<String> {
    let mut images = Vec::new();
    for part in PARTS {
        images.push(image(rig, part).await);
    }
    images
}

/// Returns the Job whose pods have this image.
async fn job_of(rig: &Rig, image: &str) -> Option<Job> {
    let jobs = rig.api::<Job>().list(&ListParams::default()).await.unwrap().items;
    let has = |job: &Job| {
        job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0].image.as_deref() == Some(image)
    };
    jobs.into_iter().find(has)
}

async fn until_tried(rig: &Rig, image: &str) -> Job {
    eventually(&format!("a job tries {image}"), async || job_of(rig, image).await.is_some()).await;
    let generation = rig.api::<FirehosePipeline>().get("p").await.unwrap().metadata.generation;
    let observed = |p: &FirehosePipeline| p.status.as_ref().unwrap().observed_generation == generation;
    rig.until::<FirehosePipeline>("p", "reconciled", observed).await;
    job_of(rig, image).await.unwrap()
}

async fn set_status(rig: &Rig, job: &Job, status: &Value) {
    rig.api::<Job>().patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn until_all_run(rig: &Rig, image: &str) {
    eventually(&format!("all parts run {image}"), async || images(rig).await.iter().all(|seen| seen == image)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_never_runs_ends_nothing_and_one_that_runs_takes_over() {
    let Some(rig) = Rig::new("images").await else { return };
    let (redis, nodes) = (Redis::start().await, Nodes::start(&rig));
    let operator = Operator::start(&rig).await;
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    // From here on no Job ends by itself.
    drop(nodes);
    rig.change("p", json!({ "image": { "reference": "registry.invalid/penstock:bad" } })).await;
    until_tried(&rig, "registry.invalid/penstock:bad").await;
    assert_eq!(images(&rig).await, ["penstock:test"; 3], "what runs goes on");
    // An operator that starts anew knows no more of it.
    operator.stop().await;
    let _operator = Operator::start(&rig).await;
    rig.change("p", json!({ "ingest": { "hotStandby": true } })).await;
    until_tried(&rig, "registry.invalid/penstock:bad").await;
    assert_eq!(images(&rig).await, ["penstock:test"; 3], "what runs goes on");

    rig.change("p", json!({ "image": { "reference": "penstock:next" } })).await;
    let job = until_tried(&rig, "penstock:next").await;
    assert_eq!(images(&rig).await, ["penstock:test"; 3], "nothing has run of it yet");
    // Its pod runs: ingest goes at once, workers when the tables are as they need them.
    set_status(&rig, &job, &json!({ "status": { "active": 1, "ready": 1 } })).await;
    eventually("ingest runs it", async || image(&rig, "p-ingest").await == "penstock:next").await;
    assert_eq!(image(&rig, "p-worker").await, "penstock:test");
    let mut done = succeeded();
    done["status"]["active"] = json!(0);
    set_status(&rig, &job, &done).await;
    until_all_run(&rig, "penstock:next").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_is_migrated_a_job_of_its_own_proves_the_image() {
    let Some(rig) = Rig::new("proof").await else { return };
    let (redis, nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() }, "postgres": { "migrate": false } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    assert!(job_of(&rig, "penstock:test").await.is_none(), "there is nothing to lose yet");
    drop(nodes);
    rig.change("p", json!({ "image": { "reference": "registry.invalid/penstock:bad" } })).await;
    let job = until_tried(&rig, "registry.invalid/penstock:bad").await;
    assert_eq!(images(&rig).await, ["penstock:test"; 3], "what runs goes on");
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    assert_eq!(pod.containers[0].args.as_deref(), Some(&["--version".to_owned()][..]));
    assert_eq!(pod.service_account_name.as_deref(), Some("p-ingest"), "one that is there");
    let labels = job.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().labels.clone().unwrap();
    assert_eq!(labels["app.kubernetes.io/component"], "image", "no part's selector takes its pod");

    set_status(&rig, &job, &failed()).await;
    let told = rig.until::<FirehosePipeline>("p", "told", |p| reason(p, "Ready") == Some("ImageFailed")).await;
    let ready = told.status.unwrap().conditions.remove(0);
    assert!(ready.message.contains(&job.name_any()), "{}", ready.message);
    assert_eq!(images(&rig).await, ["penstock:test"; 3], "what runs goes on");
    // As the message says: deleted, it is tried again.
    rig.api::<Job>().delete(&job.name_any(), &DeleteParams::background()).await.unwrap();
    rig.until::<Job>(&job.name_any(), "made again", |again| again.uid() != job.uid()).await;

    rig.change("p", json!({ "image": { "reference": "penstock:next" } })).await;
    let job = until_tried(&rig, "penstock:next").await;
    set_status(&rig, &job, &succeeded()).await;
    until_all_run(&rig, "penstock:next").await;
    eventually("no job is left", async || {
        rig.api::<Job>().list(&ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
}
