//! The chart's own role: enough, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use penstock_local::testing::TempFolder;
use penstock_operator::crd::BackfillPhase;
use serde_json::{Value, json};

use crate::backfills;
use crate::cluster::Nodes;
use crate::healer::Healer;
use crate::operator::{Operator, recommendation};
use crate::redis::Redis;
use crate::rig::{FirehoseBackfill, FirehosePipeline, Rig, eventually, is_ready, make_namespace};

/// Group, resource with its subresource, and verb.
type Right = (String, String, String);

/// What an operator under a role of the chart did, by the word of the API server.
#[derive(Debug, Default)]
struct Deeds {
    used: BTreeSet<Right>,
    forbidden: BTreeMap<String, usize>,
}

fn right(group: &str, resource: &str, verb: &str) -> Right {
    (group.to_owned(), resource.to_owned(), verb.to_owned())
}

/// Finds helm: beside the API server's programs, or on the PATH.
fn helm(rig: &Rig) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(rig.server.programs().to_owned()).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("helm")).find(|program| program.is_file())
}

/// Applies what the chart makes of its role, in a namespace, and returns a kubeconfig of the operator's account.
async fn account(rig: &Rig, release: &str, values: &[&str]) -> Option<String> {
    let Some(helm) = helm(rig) else {
        println!("skipped: no helm beside the API server or on the PATH");
        return None;
    };
    make_namespace(&rig.client, release).await;
    let folder = TempFolder::new().unwrap();
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/penstock");
    let mut command = Command::new(helm);
    command.args(["template", release, chart, "--namespace", release]).args(values);
    command.args(["--show-only=templates/rbac.yaml", "--show-only=templates/serviceaccount.yaml"]);
    command
        .env("HELM_CACHE_HOME", folder.path())
        .env("HELM_CONFIG_HOME", folder.path())
        .env("HELM_DATA_HOME", folder.path());
    let rendered = command.output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let (manifest, config) = (folder.path().join("role.yaml"), folder.path().join("kubeconfig"));
    std::fs::write(&manifest, rendered.stdout).unwrap();
    std::fs::write(&config, rig.server.kubeconfig()).unwrap();
    let mut command = Command::new(rig.server.programs().join("kubectl"));
    command
        .arg("--kubeconfig")
        .arg(config)
        .arg("--cache-dir")
        .arg(folder.path())
        .arg("apply")
        .arg("--filename")
        .arg(manifest);
    let applied = command.output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let accounts: Api<ServiceAccount> = Api::namespaced(rig.client.clone(), release);
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let name = format!("{release}-operator");
    let token = accounts.create_token_request(&name, &PostParams::default(), &request).await.unwrap();
    Some(rig.server.kubeconfig_for(&token.status.unwrap().token))
}

/// Reads what the accounts of a namespace asked for.
fn deeds(rig: &Rig, namespace: &str) -> Deeds {
    let user = format!("system:serviceaccount:{namespace}:");
    let mut deeds = Deeds::default();
    for line in std::fs::read_to_string(rig.server.audit_log()).unwrap().lines() {
        // The last line may be half written.
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        if !event["user"]["username"].as_str().unwrap_or_default().starts_with(&user) {
            continue;
        }
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0);
        let (group, verb) = (text("/objectRef/apiGroup"), text("/verb"));
        let resource = match text("/objectRef/subresource") {
            "" => text("/objectRef/resource").to_owned(),
            subresource => format!("{}/{subresource}", text("/objectRef/resource")),
        };
        if code == 403 {
            *deeds.forbidden.entry(format!("{verb} {}", text("/requestURI"))).or_default() += 1;
        }
        if resource.is_empty() || code >= 400 && code != 404 && code != 409 {
            continue;
        }
        // Who applies what is not there yet makes it, and must be allowed to.
        if verb == "patch" && code == 201 {
            deeds.used.insert(right(group, &resource, "create"));
        }
        deeds.used.insert(right(group, &resource, verb));
    }
    deeds
}

fn granted(rules: Option<Vec<PolicyRule>>) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for rule in rules.unwrap_or_default() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                granted.extend(rule.verbs.iter().map(|verb| right(group, resource, verb)));
            }
        }
    }
    granted
}

/// Has everything done that the operator of a namespace ever does.
async fn exercise(rig: &Rig, redis: &Redis, healer: &Healer, operator: &str) {
    redis.flow("").await;
    rig.secret("redis", &redis.url_of_operator().await).await;
    let scaling = json!({ "drainTarget": "1s", "capacityPerWorker": 10 });
    let all = json!({
        "redis": { "url": null, "urlSecret": { "name": "redis", "key": "url" } },
        "deletionPolicy": "Delete",
        "workers": { "autoscaling": scaling },
        "dashboard": { "ingress": { "host": "a.example.com" }, "httpRoute": { "parentRefs": [{ "name": "public" }] } },
        "telemetry": { "serviceMonitor": { "enabled": true }, "prometheusRule": { "enabled": true } },
    });
    rig.create("p", all).await;
    // While the migration has no pod, the operator reads the Events of its Job.
    let asked = right("events.k8s.io", "events", "list");
    eventually("it asks why a Job has no pod", async || deeds(rig, operator).used.contains(&asked)).await;
    let _nodes = Nodes::start(rig);
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    redis.add("", 1_000).await;
    rig.until::<Deployment>("p-worker", "scaled up", |deployment| {
        deployment.spec.as_ref().unwrap().replicas == Some(10)
    })
    .await;
    rig.change("p", json!({ "workers": { "autoscaling": { "mode": "keda" } } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    let backfill = json!({ "ttlAfterFinished": "1s" });
    backfills::create(rig, "all", backfill).await;
    backfills::until_phase(rig, "all", BackfillPhase::Running).await;
    healer.report(backfills::complete);
    rig.until_gone::<FirehoseBackfill>("all").await;
    let off = json!({
        "ingest": { "enabled": false }, "workers": { "enabled": false }, "dashboard": { "enabled": false },
        "telemetry": { "serviceMonitor": { "enabled": false }, "prometheusRule": { "enabled": false } },
    });
    rig.change("p", off).await;
    for part in ["p-ingest", "p-worker", "p-dashboard"] {
        rig.until_gone::<Deployment>(part).await;
    }
    rig.change("p", json!({ "workers": { "enabled": true, "autoscaling": { "mode": "operator" } } })).await;
    rig.until::<Deployment>("p-worker", "made again", |_| true).await;
    rig.api::<FirehosePipeline>().delete("p", &DeleteParams::default()).await.unwrap();
    rig.until_gone::<FirehosePipeline>("p").await;
    let refused = redis.command("ACL LOG").await.into_array();
    assert!(refused.is_empty(), "redis refused something: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_charts_role_is_enough_and_no_more() {
    let Some(rig) = Rig::new("role-team").await else { return };
    let Some(kubeconfig) = account(&rig, "penstock-role", &["--set", "watchNamespaces={role-team}"]).await else {
        return;
    };
    let (redis, healer) = (Redis::start().await, Healer::start().await);
    let settings = [
        ("operator.namespace", "penstock-role"),
        ("operator.leaseName", "penstock-role-operator"),
        ("operator.healUrl", &healer.url),
    ];
    let operator = Operator::start_as(&kubeconfig, "role-team", &settings);
    eventually("it leads", async || {
        let leases: Api<Lease> = Api::namespaced(rig.client.clone(), "penstock-role");
        leases.get_opt("penstock-role-operator").await.unwrap().is_some()
    })
    .await;
    // Before anything is decided it asks the API server.
    assert_eq!(recommendation(&operator.address, "role-team", "none").await, None);
    exercise(&rig, &redis, &healer, "penstock-role").await;
    operator.stop().await;
    let roles: Api<ClusterRole> = Api::all(rig.client.clone());
    let leader: Api<Role> = Api::namespaced(rig.client.clone(), "penstock-role");
    let mut granted = granted(roles.get("penstock-role-operator").await.unwrap().rules);
    let reads_secrets = granted.iter().any(|(_, resource, _)| resource == "secrets");
    assert!(!reads_secrets, "those of other namespaces are nothing that it has to see");
    let secrets: Api<Role> = Api::namespaced(rig.client.clone(), "role-team");
    granted.extend(self::granted(secrets.get("penstock-role-operator-secrets").await.unwrap().rules));
    granted.extend(self::granted(leader.get("penstock-role-operator-leader").await.unwrap().rules));
    let deeds = deeds(&rig, "penstock-role");
    assert!(deeds.forbidden.is_empty(), "{:#?}", deeds.forbidden);
    // Asked for by the API server itself, where it guards owner references that block deletion, as the one here does.
    let guarded = right("penstock.dev", "firehosepipelines/finalizers", "update");
    let unused: Vec<_> = granted.iter().filter(|right| !deeds.used.contains(*right) && **right != guarded).collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_its_namespaces_a_role_is_enough() {
    let Some(rig) = Rig::new("role-a").await else { return };
    make_namespace(&rig.client, "role-b").await;
    let values = ["--set", "rbac.scope=namespace,rbac.userRoles=false,watchNamespaces={role-a,role-b}"];
    let Some(kubeconfig) = account(&rig, "penstock-small", &values).await else { return };
    let (redis, healer) = (Redis::start().await, Healer::start().await);
    let settings = [
        ("operator.namespace", "penstock-small"),
        ("operator.healUrl", &healer.url),
        ("operator.leaseName", "penstock-small-operator"),
        ("operator.watchNamespaces", "role-a,role-b"),
    ];
    let operator = Operator::start_as(&kubeconfig, "role-a", &settings);
    exercise(&rig, &redis, &healer, "penstock-small").await;
    let there = Rig { namespace: "role-b".to_owned(), ..rig };
    there.create("p", json!({})).await;
    there.until::<Deployment>("p-ingest", "made", |_| true).await;
    eventually("its audit is written", async || !deeds(&there, "penstock-small").used.is_empty()).await;
    operator.stop().await;
    let deeds = deeds(&there, "penstock-small");
    assert!(deeds.forbidden.is_empty(), "{:#?}", deeds.forbidden);
}
