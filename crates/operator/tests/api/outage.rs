//! An API server that goes away, a definition that does, and resources that cannot be read.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use penstock_operator::crd;
use serde_json::{Value, json};

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{self, FirehosePipeline, Rig, eventually, is_ready, pipeline, reason};

const DEFINITION: &str = "firehosepipelines.penstock.dev";

/// Lets the API server take everything, as one with an older definition might have.
async fn loosen(definitions: &Api<CustomResourceDefinition>) {
    let mut loose = serde_json::to_value(crd::definition()).unwrap();
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let version = &mut loose["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"] =
        json!({ "type": "object", "properties": { "spec": anything, "status": anything } });
    definitions.patch(DEFINITION, &PatchParams::apply("test").force(), &Patch::Apply(&loose)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_what_goes_away_and_what_cannot_be_read() {
    let Some(mut rig) = Rig::alone("outage").await.and_then(Rig::with_collector) else { return };
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    redis.flow("").await;
    // A leader that cannot renew its lease ends, to be started again: here it is to live through it.
    let lease = [("operator.leaseDuration", "10m"), ("operator.renewDeadline", "9m")];
    let operator = Operator::start_with(&rig, &lease).await;

    // Without the definition it waits.
    let definitions: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    eventually("it leads", async || {
        let leases = rig.api::<k8s_openapi::api::coordination::v1::Lease>();
        leases.get_opt("penstock-operator").await.unwrap().is_some()
    })
    .await;
    assert!(operator.is_running());
    loosen(&definitions).await;

    // A resource that cannot be read, made under a definition that let it pass, is told and harms no other.
    let malformed = |name: &str| -> DynamicObject {
        let mut object = pipeline(name, &json!({}));
        object.data["spec"]["redis"] = json!("redis://redis:6379");
        object
    };
    let made = async || rig.raw().create(&PostParams::default(), &malformed("malformed")).await.is_ok();
    eventually("the malformed resource is made", made).await;
    rig::install(&rig.client).await;
    rig.create("good", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("good", "ready", is_ready).await;
    eventually("the malformed one is told", async || {
        let object = rig.raw().get("malformed").await.unwrap();
        object.data.pointer("/status/conditions/0/reason").and_then(Value::as_str) == Some("Malformed")
    })
    .await;
    rig.raw().delete("malformed", &DeleteParams::default()).await.unwrap();

    // What nobody has installed is left out, and that is said.
    rig.change("good", json!({ "telemetry": { "serviceMonitor": { "enabled": true } } })).await;
    let left_out = |p: &FirehosePipeline| reason(p, "Ready") == Some("PartlyLeftOut");
    let said = rig.until::<FirehosePipeline>("good", "told what is missing", left_out).await;
    assert!(said.status.unwrap().conditions[0].message.contains("ServiceMonitor"));
    rig.change("good", json!({ "telemetry": { "serviceMonitor": null } })).await;
    let before = rig.until::<FirehosePipeline>("good", "ready", is_ready).await;

    // The API server goes and comes back, and what was changed meanwhile is reconciled.
    rig.own().kill();
    rig.own().restart().await.unwrap();
    eventually("the api server answers", async || rig.raw().get("good").await.is_ok()).await;
    rig.change("good", json!({ "dashboard": { "replicas": 2 } })).await;
    let two = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(2);
    rig.until::<Deployment>("good-dashboard", "of two", two).await;

    // The definition goes, and all pipelines with it; when it is back, new ones are reconciled.
    definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
    eventually("the definition is gone", async || definitions.get_opt(DEFINITION).await.unwrap().is_none()).await;
    rig.until_gone::<Deployment>("good-ingest").await;
    assert!(operator.is_running());
    rig::install(&rig.client).await;
    let again = rig.create("good", json!({ "redis": { "url": redis.url() } })).await;
    assert_ne!(again.uid(), before.uid());
    let owned = |deployment: &Deployment| deployment.owner_references()[0].uid == again.uid().unwrap();
    rig.until::<Deployment>("good-ingest", "made again", owned).await;
    rig.until::<FirehosePipeline>("good", "ready", is_ready).await;
    operator.stop().await;
}
