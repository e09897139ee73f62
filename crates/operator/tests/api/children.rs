//! What becomes of a pipeline: its children, which are made, repaired, and taken away again.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt};
use penstock_operator::children;
use serde_json::{Value, json};

use crate::cluster::{Nodes, failed, succeeded};
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, MANAGED};
use crate::rig::{Rig, eventually, is_ready, reason};

/// Lists `Kind name` of everything that the operator made in the rig's namespace.
async fn made(rig: &Rig) -> Vec<String> {
    let mut made = Vec::new();
    for kind in children::kinds() {
        let api: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), &rig.namespace, &kind);
        let listed = api.list_metadata(&ListParams::default().labels(MANAGED)).await;
        let listed = listed.map(|list| list.items).unwrap_or_default();
        made.extend(listed.iter().map(|object| format!("{} {}", kind.kind, object.name_any())));
    }
    // The end of a Job's name is the hash of what it holds.
    let short =
        |name: String| name.split_once("-migrate-").map(|(before, _)| format!("{before}-migrate-…")).unwrap_or(name);
    let mut made: Vec<String> = made.into_iter().map(short).collect();
    made.sort();
    made
}

async fn object(rig: &Rig, kind: &ApiResource, name: &str) -> Option<Value> {
    let api: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), &rig.namespace, kind);
    api.get_opt(name).await.unwrap().map(|object| serde_json::to_value(object).unwrap())
}

/// Which field managers wrote the number of a Deployment's pods.
async fn writers_of_replicas(rig: &Rig, name: &str) -> Vec<String> {
    let deployment = rig.api::<Deployment>().get(name).await.unwrap();
    let managed = deployment.metadata.managed_fields.unwrap_or_default();
    let writes = |fields: &Value| fields.pointer("/f:spec/f:replicas").is_some();
    managed
        .into_iter()
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| writes(&fields.0)))
        .filter_map(|entry| entry.manager)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_becomes_its_children_each_as_it_should_be() {
    let Some(rig) = Rig::new("children").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let ingress = json!({ "host": "firehose.example.com" });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "dashboard": { "ingress": ingress } })).await;
    let pipeline = rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let expected = [
        "ConfigMap p-settings",
        "Deployment p-dashboard",
        "Deployment p-ingest",
        "Deployment p-worker",
        "Ingress p-dashboard",
        "Job p-migrate-…",
        "NetworkPolicy p-dashboard",
        "NetworkPolicy p-ingest",
        "NetworkPolicy p-migrate",
        "NetworkPolicy p-worker",
        "PodDisruptionBudget p-dashboard",
        "PodDisruptionBudget p-ingest",
        "PodDisruptionBudget p-worker",
        "Service p-dashboard",
        "ServiceAccount p-dashboard",
        "ServiceAccount p-ingest",
        "ServiceAccount p-migrate",
        "ServiceAccount p-worker",
    ];
    assert_eq!(made(&rig).await, expected);

    let mut components = Vec::new();
    for kind in children::kinds() {
        let api: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), &rig.namespace, &kind);
        for object in api.list(&ListParams::default().labels(MANAGED)).await.map(|list| list.items).unwrap_or_default()
        {
            let [owner] = object.owner_references() else { panic!("{object:#?}") };
            assert_eq!((owner.uid.as_str(), owner.controller), (pipeline.uid().unwrap().as_str(), Some(true)));
            assert_eq!(owner.block_owner_deletion, Some(true));
            assert_eq!(object.labels()["app.kubernetes.io/instance"], "p");
            components.push(object.labels()["app.kubernetes.io/component"].clone());
        }
    }
    for component in ["ingest", "worker", "dashboard", "migrate"] {
        assert!(components.iter().any(|found| found == component), "{components:?}");
    }

    let kinds = |kind: &str| children::kinds().into_iter().find(|found| found.kind == kind).unwrap();
    for (part, replicas, strategy) in
        [("ingest", 1, "Recreate"), ("worker", 1, "RollingUpdate"), ("dashboard", 1, "RollingUpdate")]
    {
        let deployment = object(&rig, &kinds("Deployment"), &format!("p-{part}")).await.unwrap();
        let at = |path: &str| deployment.pointer(path).cloned().unwrap_or_else(|| panic!("{path}: {deployment:#}"));
        assert_eq!((at("/spec/replicas"), at("/spec/strategy/type")), (json!(replicas), json!(strategy)));
        let pod = "/spec/template/spec";
        assert_eq!(at(&format!("{pod}/securityContext/runAsNonRoot")), json!(true));
        assert_eq!(at(&format!("{pod}/automountServiceAccountToken")), json!(false));
        assert_eq!(at(&format!("{pod}/serviceAccountName")), json!(format!("p-{part}")));
        assert_eq!(at(&format!("{pod}/containers/0/image")), json!("penstock:test"));
        assert_eq!(at(&format!("{pod}/containers/0/command")), json!(["penstock"]));
        assert_eq!(at(&format!("{pod}/containers/0/args")), json!([part, "--config", "/etc/penstock/settings.yaml"]));
        assert_eq!(at(&format!("{pod}/containers/0/securityContext/readOnlyRootFilesystem")), json!(true));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert!(at(&format!("{pod}/containers/0/{probe}/httpGet/path")).is_string());
        }
    }
    let settings = rig.api::<ConfigMap>().get("p-settings").await.unwrap().data.unwrap()["settings.yaml"].clone();
    for text in [redis.url().as_str(), "children/p"] {
        assert!(settings.contains(text), "no {text:?} in:\n{settings}");
    }
    let policy = rig.api::<NetworkPolicy>().get("p-ingest").await.unwrap().spec.unwrap();
    assert_eq!((policy.policy_types.unwrap(), policy.egress), (vec!["Ingress".to_owned()], None));
    let budget = rig.api::<PodDisruptionBudget>().get("p-ingest").await.unwrap().spec.unwrap();
    assert_eq!(serde_json::to_value(budget.max_unavailable).unwrap(), json!(1));
    assert_eq!(rig.api::<ServiceAccount>().get("p-worker").await.unwrap().automount_service_account_token, Some(false));
    let rule = &rig.api::<Ingress>().get("p-dashboard").await.unwrap().spec.unwrap().rules.unwrap()[0];
    assert_eq!(rule.host.as_deref(), Some("firehose.example.com"));

    let status = pipeline.status.clone().unwrap();
    assert_eq!(status.observed_generation, pipeline.metadata.generation);
    assert_eq!(status.ingest.unwrap().cursor.as_deref(), Some("42"));
    let said: Vec<&str> = status.conditions.iter().map(|condition| condition.kind.as_str()).collect();
    assert_eq!(said[..3], ["Ready", "Reconciling", "RedisReachable"]);
    assert!(!writers_of_replicas(&rig, "p-worker").await.contains(&"penstock-operator".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_while_nothing_changes() {
    let Some(rig) = Rig::new("still").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let versions = async || {
        let mut versions = Vec::new();
        for kind in children::kinds() {
            let api: Api<DynamicObject> = Api::namespaced_with(rig.client.clone(), &rig.namespace, &kind);
            let listed = api.list_metadata(&ListParams::default().labels(MANAGED)).await.map(|list| list.items);
            versions
                .extend(listed.unwrap_or_default().iter().map(|object| (object.name_any(), object.resource_version())));
        }
        versions
    };
    let before = versions().await;
    // Another pipeline, reconciled from beginning to end, is the time in which nothing may happen to the first.
    rig.create("q", json!({ "redis": { "url": redis.url(), "keyPrefix": "q:" }, "ingest": { "enabled": false } }))
        .await;
    rig.until::<Deployment>("q-worker", "made", |_| true).await;
    let after = versions().await;
    assert!(before.iter().all(|object| after.contains(object)), "{before:#?}\n{after:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_start_only_once_the_tables_are_made() {
    let Some(rig) = Rig::new("migration").await else { return };
    let (redis, _operator) = (Redis::start().await, Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<Deployment>("p-ingest", "made", |_| true).await;
    rig.until::<FirehosePipeline>("p", "migrating", |p| reason(p, "WorkersAvailable") == Some("Migrating")).await;
    let jobs = rig.api::<Job>();
    let job = jobs.list(&ListParams::default()).await.unwrap().items.remove(0);
    assert!(job.name_any().starts_with("p-migrate-"));
    assert!(rig.api::<Deployment>().get_opt("p-worker").await.unwrap().is_none());

    jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(&failed())).await.unwrap();
    let said = rig.until::<FirehosePipeline>("p", "failed", |p| reason(p, "Ready") == Some("MigrationFailed")).await;
    let ready = said.status.unwrap().conditions.remove(0);
    assert!(ready.message.contains(&format!("kubectl logs job/{}", job.name_any())), "{}", ready.message);
    assert!(rig.api::<Deployment>().get_opt("p-worker").await.unwrap().is_none());

    // As the message says: deleted, it is tried again.
    jobs.delete(&job.name_any(), &DeleteParams::background()).await.unwrap();
    let again = rig.until::<Job>(&job.name_any(), "made again", |again| again.uid() != job.uid()).await;
    jobs.patch_status(&again.name_any(), &PatchParams::default(), &Patch::Merge(&succeeded())).await.unwrap();
    rig.until::<Deployment>("p-worker", "made", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_changes_or_deletes_is_repaired() {
    let Some(rig) = Rig::new("drift").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let (other, force) = (PatchParams::default(), PatchParams::apply("somebody").force());

    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "penstock", "image": "other:1" }] } } } });
    rig.api::<Deployment>().patch("p-ingest", &other, &Patch::Strategic(&image)).await.unwrap();
    let settings = json!({ "data": { "settings.yaml": "relay: {}" } });
    rig.api::<ConfigMap>().patch("p-settings", &other, &Patch::Merge(&settings)).await.unwrap();
    // By server-side apply of another manager, who then owns the field.
    let port = json!({
        "apiVersion": "v1", "kind": "Service", "spec": { "ports": [{ "port": 8000, "protocol": "TCP", "targetPort": 1 }] },
    });
    rig.api::<Service>().patch("p-dashboard", &force, &Patch::Apply(&port)).await.unwrap();
    let unlabelled = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } });
    rig.api::<ServiceAccount>().patch("p-worker", &other, &Patch::Merge(&unlabelled)).await.unwrap();
    rig.api::<PodDisruptionBudget>().delete("p-worker", &DeleteParams::default()).await.unwrap();
    rig.api::<Deployment>().delete("p-dashboard", &DeleteParams::background()).await.unwrap();

    rig.until::<Deployment>("p-ingest", "repaired", |deployment| {
        let template = &deployment.spec.as_ref().unwrap().template;
        template.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("penstock:test")
    })
    .await;
    rig.until::<ConfigMap>("p-settings", "repaired", |map| {
        map.data.as_ref().unwrap()["settings.yaml"].contains("drift/p")
    })
    .await;
    rig.until::<Service>("p-dashboard", "repaired", |service| {
        let ports = service.spec.as_ref().unwrap().ports.clone().unwrap();
        serde_json::to_value(&ports[0].target_port).unwrap() == json!("http")
    })
    .await;
    rig.until::<ServiceAccount>("p-worker", "labelled", |account| {
        account.labels().get("app.kubernetes.io/managed-by").map(String::as_str) == Some("penstock-operator")
    })
    .await;
    rig.until::<PodDisruptionBudget>("p-worker", "made again", |_| true).await;
    rig.until::<Deployment>("p-dashboard", "made again", |_| true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_switched_off_goes_and_comes_back() {
    let Some(rig) = Rig::new("switches").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let ingress = json!({ "ingress": { "host": "a.example.com" } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "dashboard": ingress })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let all = made(&rig).await;
    let without = |all: &[String], words: &[&str]| -> Vec<String> {
        all.iter().filter(|object| !words.iter().any(|word| object.contains(word))).cloned().collect()
    };
    let steps = [
        (json!({ "dashboard": { "ingress": null } }), without(&all, &["Ingress"])),
        (json!({ "networkPolicy": { "enabled": false } }), without(&all, &["Ingress", "NetworkPolicy"])),
        (json!({ "dashboard": { "enabled": false } }), without(&all, &["Ingress", "NetworkPolicy", "dashboard"])),
        (
            json!({ "ingest": { "enabled": false } }),
            without(&all, &["Ingress", "NetworkPolicy", "dashboard", "ingest"]),
        ),
        (json!({ "workers": { "enabled": false } }), vec!["ConfigMap p-settings".to_owned()]),
        (
            json!({
                "ingest": { "enabled": true }, "workers": { "enabled": true }, "networkPolicy": { "enabled": true },
                "dashboard": { "enabled": true, "ingress": { "host": "b.example.com" } },
            }),
            all.clone(),
        ),
    ];
    for (change, expected) in steps {
        rig.change("p", change.clone()).await;
        eventually(&format!("{expected:?} after {change}"), async || made(&rig).await == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_somebody_elses_is_left_alone_and_said() {
    let Some(rig) = Rig::new("taken-names").await else { return };
    let _nodes = Nodes::start(&rig);
    let theirs: Service = serde_json::from_value(json!({
        "metadata": { "name": "p-dashboard", "labels": { "whose": "theirs" } }, "spec": { "ports": [{ "port": 80 }] },
    }))
    .unwrap();
    rig.api::<Service>().create(&PostParams::default(), &theirs).await.unwrap();
    let (redis, _operator) = (Redis::start().await, Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let said = rig.until::<FirehosePipeline>("p", "refused", |p| reason(p, "Ready") == Some("NameTaken")).await;
    let ready = said.status.unwrap().conditions.remove(0);
    assert!(ready.message.contains("Service p-dashboard"), "{}", ready.message);
    let service = rig.api::<Service>().get("p-dashboard").await.unwrap();
    assert_eq!((service.labels()["whose"].as_str(), service.owner_references().len()), ("theirs", 0));
    rig.api::<Service>().delete("p-dashboard", &DeleteParams::default()).await.unwrap();
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_services_would_refuse_is_a_condition_and_no_crash_loop() {
    let Some(rig) = Rig::new("refusals").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let changes = json!({ "redis": { "url": redis.url() }, "relay": { "dataTimeout": "1ms" } });
    rig.create("p", changes).await;
    let said = rig.until::<FirehosePipeline>("p", "refused", |p| reason(p, "Ready") == Some("InvalidSpec")).await;
    let status = said.status.unwrap();
    assert!(status.conditions[0].message.contains("relay.dataTimeout"), "{}", status.conditions[0].message);
    assert_eq!(serde_json::to_value(status.phase).unwrap(), json!("Failed"));
    assert_eq!(made(&rig).await, Vec::<String>::new());
    rig.change("p", json!({ "relay": { "dataTimeout": "10s" } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
}
