//! The migration's pod with a sidecar that never ends, as a mesh makes it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{Rig, eventually};

/// Makes the pod that the Job's controller would make, with a sidecar beside the container that migrates.
async fn start_pod(rig: &Rig, job: &Job, name: &str) {
    let template = serde_json::to_value(&job.spec.as_ref().unwrap().template).unwrap();
    let mut spec = template["spec"].clone();
    let sidecar = json!({ "name": "proxy", "image": "proxy" });
    spec["containers"].as_array_mut().unwrap().insert(0, sidecar);
    // Nobody makes accounts here, and the pod never runs.
    spec.as_object_mut().unwrap().remove("serviceAccountName");
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid(), "controller": true });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": template["metadata"]["labels"], "ownerReferences": [owner] }, "spec": spec,
    });
    rig.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    set_own(rig, name, json!({ "running": {} })).await;
}

/// Writes what the kubelet would: the state of the container that migrates; the sidecar runs.
async fn set_own(rig: &Rig, name: &str, state: Value) {
    let container = |name: &str, state: &Value| json!({ "name": name, "state": state, "image": "i", "imageID": "i", "ready": false, "restartCount": 0 });
    let status = json!({ "status": {
        "phase": "Running", "containerStatuses": [container("proxy", &json!({ "running": {} })), container("penstock", &state)],
    } });
    rig.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_never_ends_does_not_keep_the_migration_running() {
    let Some(rig) = Rig::new("sidecar").await else { return };
    let (redis, _operator) = (Redis::start().await, Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let jobs = rig.api::<Job>();
    eventually("the job is made", async || !jobs.list(&ListParams::default()).await.unwrap().items.is_empty()).await;
    let job = jobs.list(&ListParams::default()).await.unwrap().items.remove(0);
    let name = job.name_any();

    // It fails: its pod is ended, so that the controller makes another.
    start_pod(&rig, &job, "first").await;
    set_own(&rig, "first", json!({ "terminated": { "exitCode": 1 } })).await;
    rig.until::<Job>(&name, "suspended to end the pod that failed", is_suspended).await;
    assert!(rig.api::<Deployment>().get_opt("p-worker").await.unwrap().is_none(), "nothing has migrated");
    rig.api::<Pod>().delete("first", &DeleteParams::default().grace_period(0)).await.unwrap();
    rig.until::<Job>(&name, "going on", |job| !is_suspended(job)).await;

    // It succeeds: the workers start, and the sidecar's pod is ended.
    start_pod(&rig, &job, "second").await;
    set_own(&rig, "second", json!({ "terminated": { "exitCode": 0 } })).await;
    rig.until::<Deployment>("p-worker", "made", |_| true).await;
    let finished = rig.until::<Job>(&name, "suspended to end the sidecar", is_suspended).await;
    assert_eq!(finished.uid(), job.uid(), "it is not made anew");
}
