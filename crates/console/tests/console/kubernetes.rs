//! The plugin's commands against a real API server, with a node of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use penstock_console::cluster::{Cluster, Place, ReportOptions};
use penstock_console::{ClusterError, ConsoleError, Level, tail};
use penstock_local::testing::{TempFolder, TestApiServer, TestRedis};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kubelet;
use crate::stage::{Crew, Dashboard, settings, until};

/// What must stand nowhere in a report.
const SECRETS: [&str; 12] = [
    "redis-geheim-1",
    "postgres-geheim-2",
    "read-geheim-3",
    "admin-geheim-4",
    "header-geheim-5",
    "variable-geheim-6",
    "annotation-geheim-7",
    "login-geheim-8",
    "applied-geheim-9",
    "bearer-geheim-10",
    "event-geheim-11",
    "unread-geheim-12",
];

const TOKEN: &str = "read-geheim-3";

/// An API server with a pipeline, and files of its own.
struct Stage {
    server: TestApiServer,
    folder: TempFolder,
}

impl Stage {
    async fn new() -> Option<Self> {
        let Some(server) = TestApiServer::start().await.unwrap() else {
            println!("skipped: no kube-apiserver; `make envtest` gets it");
            return None;
        };
        let folder = TempFolder::new().unwrap();
        fs::write(folder.path().join("config"), server.kubeconfig()).unwrap();
        let stage = Self { server, folder };
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
        stage.kubectl(&["apply", "--server-side", "--filename", definitions.to_str().unwrap()], "").await;
        let definition = "crd/firehosepipelines.penstock.dev";
        // It has no conditions at all for a moment, which `wait` takes as it is.
        stage.kubectl(&["wait", "--for=condition=Established", "--timeout=120s", definition], "").await;
        Some(stage)
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> String {
        let mut command = Command::new(self.server.programs().join("kubectl"));
        command.arg("--kubeconfig").arg(self.folder.path().join("config")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn apply(&self, object: Value) {
        self.kubectl(&["apply", "--filename", "-"], &object.to_string()).await;
    }

    /// Writes a status, which has a way of its own.
    async fn status(&self, kind: &str, name: &str, status: Value) {
        let patch = json!({"status": status}).to_string();
        self.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "--patch", &patch], "").await;
    }

    async fn cluster(&self) -> Cluster {
        let place = Place { kubeconfig: Some(self.folder.path().join("config")), ..Place::default() };
        Cluster::connect(&place).await.unwrap()
    }

    async fn pipeline(&self, name: &str, phase: &str) {
        let pipeline = json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehosePipeline", "metadata": {"name": name},
            "spec": {
                "redis": {"urlSecret": {"name": "redis", "key": "url"}},
                "postgres": {"urlSecret": {"name": "unread", "key": "url"}},
                "dashboard": {"auth": {
                    "readTokenSecret": {"name": "dashboard", "key": "read"},
                    "adminTokenSecret": {"name": "dashboard", "key": "admin"},
                }},
                "telemetry": {"otlp": {
                    "endpoint": "http://collector", "headersSecret": {"name": "collector", "key": "headers"},
                }},
                "workers": {"pod": {"extraEnv": [{"name": "MY_PASSWORD", "value": "variable-geheim-6"}]}},
            },
        });
        self.apply(pipeline).await;
        let conditions = json!([{
            "type": "Ready", "status": "True", "reason": "Running", "message": "All runs",
            "lastTransitionTime": "2026-07-04T14:38:08Z",
        }]);
        self.status("firehosepipeline", name, json!({"phase": phase, "conditions": conditions})).await;
    }

    async fn secret(&self, name: &str, key: &str, value: &str) {
        self.apply(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value}}),
        )
        .await;
    }

    /// A pod on the test's node, ready.
    async fn pod(&self, name: &str, component: &str, node: &str, env: Value) {
        self.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": labels(component),
                "annotations": {"example.com/login": "annotation-geheim-7"},
            },
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": component, "image": "ghcr.io/penstock/penstock:0.1.0", "env": env,
                    "ports": [{"name": "http", "containerPort": 8123}],
                }],
            },
        }))
        .await;
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        self.status("pod", name, ready).await;
    }
}

fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "penstock", "app.kubernetes.io/instance": "bluesky",
        "app.kubernetes.io/managed-by": "penstock-operator", "app.kubernetes.io/component": component,
    })
}

/// Unpacks a report: files by name, without the folder.
fn unpack(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().strip_prefix("penstock-report-bluesky").unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    files.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_of_a_cluster_is_told_followed_and_reported_without_its_secrets() {
    let Some(stage) = Stage::new().await else { return };
    let redis = TestRedis::start().await.unwrap();
    let settings = settings(&redis.url(), &[("dashboard.readToken", TOKEN)]);
    let dashboard = Dashboard::start(Arc::clone(&settings));
    let _crew = Crew::start(settings).await;

    let log = "{\"level\":\"WARN\",\"msg\":\"cannot reach redis://user:login-geheim-8@redis:6379\"}\n\
               said redis-geheim-1 and header-geheim-5 and admin-geheim-4 aloud\nauthorization: Bearer bearer-geheim-10\nplain line\n";
    let logs = BTreeMap::from([("dashboard", "dashboard starts\n".to_owned()), ("worker", log.to_owned())]);
    let node = kubelet::start(logs, dashboard.address).await;
    stage.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}})).await;
    let addresses = json!([{"type": "InternalIP", "address": node.ip().to_string()}]);
    let endpoints = json!({"kubeletEndpoint": {"Port": node.port()}});
    stage.status("node", "here", json!({"addresses": addresses, "daemonEndpoints": endpoints})).await;

    // Nothing there yet, then one of another name.
    let cluster = stage.cluster().await;
    let none = cluster.status(None, Duration::from_secs(1)).await.unwrap_err();
    assert!(none.is_usage() && matches!(none, ConsoleError::Cluster(ClusterError::Empty { .. })), "{none}");
    stage.secret("redis", "url", "redis://:redis-geheim-1@redis:6379").await;
    stage.secret("dashboard", "read", TOKEN).await;
    stage
        .kubectl(&["patch", "secret", "dashboard", "--patch", r#"{"stringData":{"admin":"admin-geheim-4"}}"#], "")
        .await;
    stage.secret("collector", "headers", "x-key=header-geheim-5").await;
    stage.pipeline("bluesky", "Running").await;
    let other = cluster.status(Some("nosuch"), Duration::from_secs(1)).await.unwrap_err();
    assert!(other.is_usage() && other.to_string().contains("there are: bluesky"), "{other}");

    // Without a pod of the dashboard.
    let pause = Duration::from_secs(1);
    let status = cluster.status(None, pause).await.unwrap().pop().unwrap();
    assert_eq!(status.level(), Level::Down, "{}", status.to_text());
    assert!(status.to_text().contains("the dashboard has no pod"), "{}", status.to_text());

    let env = json!([
        {"name": "REDIS_URL", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url"}}},
        {"name": "DATABASE_URL", "value": "postgres://app:postgres-geheim-2@db/app"},
        {"name": "PENSTOCK_WORKER_BATCH_SIZE", "value": "500"},
    ]);
    stage.pod("bluesky-dashboard-0", "dashboard", "here", json!([])).await;
    stage.pod("bluesky-worker-0", "worker", "here", env).await;
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "bluesky-settings", "labels": labels("settings")},
            "data": {"settings.yaml": "redis:\n  password: unread-geheim-12\nworker:\n  batchSize: 500\n"},
        }))
        .await;
    stage
        .apply(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e1"}, "reason": "BackOff", "type": "Warning",
            "message": "failed with password=event-geheim-11", "lastTimestamp": "2026-07-04T14:38:08Z",
            "involvedObject": {"kind": "Pod", "name": "bluesky-worker-0", "namespace": "default"},
        }))
        .await;
    // What kubectl keeps of what was applied.
    stage.kubectl(&["annotate", "firehosepipeline", "bluesky", "example.com/was=applied-geheim-9"], "").await;

    // Through the API server, with the token of the Secret.
    until("the dashboard is reached", async || {
        let status = cluster.status(Some("bluesky"), pause).await.unwrap().pop().unwrap();
        status.level() == Level::Good
    })
    .await;
    let status = cluster.status(Some("bluesky"), pause).await.unwrap().pop().unwrap();
    let told: Value = serde_json::from_str(&status.to_json()).unwrap();
    assert_eq!(told["resource"]["phase"], "Running", "{told:#}");
    assert!(told["headline"].as_str().unwrap().starts_with("Current: rows "), "{told:#}");
    assert!(status.to_text().contains("default/bluesky by http://bluesky-dashboard.default"), "{}", status.to_text());

    let options = tail::Options { limit: NonZeroU64::new(3), ..tail::Options::default() };
    let (mut out, mut notes) = (Vec::new(), std::io::sink());
    let tailing = cluster.tail(None, &options, &mut out, &mut notes);
    tokio::time::timeout(Duration::from_secs(30), tailing).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);

    // The report.
    let options = ReportOptions { output: Some(stage.folder.path().to_owned()), log_lines: 100 };
    let written = cluster.report(None, &options).await.unwrap();
    let files = unpack(&written.path);
    let names: BTreeSet<_> = files.keys().map(String::as_str).collect();
    for name in [
        "README.txt",
        "pipeline.json",
        "settings.yaml",
        "events.txt",
        "versions.json",
        "children/pod-bluesky-worker-0.json",
        "children/configmap-bluesky-settings.json",
        "logs/bluesky-worker-0-worker.log",
        "logs/bluesky-dashboard-0-dashboard.log",
        "dashboard/metrics.json",
        "dashboard/dead-letters.json",
    ] {
        assert!(names.contains(name), "{name} is not in {names:?}, {:?}", written.problems);
    }
    assert_eq!(written.files, files.len());
    for (name, text) in &files {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} stands in {name}:\n{text}");
        }
    }
    // What helps is still there.
    let has = |file: &str, part: &str| assert!(files[file].contains(part), "{part} is not in {file}:\n{}", files[file]);
    has("logs/bluesky-worker-0-worker.log", "plain line");
    has("logs/bluesky-worker-0-worker.log", "redis://user:***@redis:6379");
    has("settings.yaml", "batchSize: 500");
    has("events.txt", "Warning Pod/bluesky-worker-0 BackOff: failed with password=***");
    has("children/pod-bluesky-worker-0.json", "\"value\": \"500\"");
    has("children/pod-bluesky-worker-0.json", "postgres://app:***@db/app");
    has("pipeline.json", "\"phase\": \"Running\"");
    has("dashboard/metrics.json", "eventsProcessed");
    has("versions.json", "ghcr.io/penstock/penstock:0.1.0");
    // A Secret that is not there is named, not passed over.
    has("README.txt", "Secret unread: could not be read");
    assert!(written.problems.iter().any(|problem| problem.contains("operator")), "{:?}", written.problems);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&written.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    // Two of them: status tells both, the others want a name.
    stage.pipeline("second", "Pending").await;
    let all = cluster.status(None, pause).await.unwrap();
    assert_eq!(all.iter().map(|status| status.level()).collect::<Vec<_>>(), [Level::Good, Level::Down]);
    let which = cluster.report(None, &options).await.unwrap_err();
    assert!(which.is_usage() && which.to_string().contains("bluesky, second"), "{which}");
    dashboard.end().await;
}

#[tokio::test]
async fn without_a_kubeconfig_or_an_api_server_it_is_said_what_to_do() {
    let place = Place { kubeconfig: Some("/nowhere/config".into()), ..Place::default() };
    let refused = Cluster::connect(&place).await.err().unwrap();
    assert_eq!(refused.to_string(), "could not use the kubeconfig");
    let folder = TempFolder::new().unwrap();
    let config = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: \"http://127.0.0.1:9\"}}]\n\
                  users: []\ncontexts: [{name: c, context: {cluster: c, user: \"\"}}]\ncurrent-context: c\n";
    let file = folder.path().join("config");
    fs::write(&file, config).unwrap();
    let cluster = Cluster::connect(&Place { kubeconfig: Some(file), ..Place::default() }).await.unwrap();
    let refused = cluster.status(None, Duration::from_secs(1)).await.unwrap_err();
    assert!(!refused.is_usage(), "{refused}");
    assert!(refused.to_string().contains("FirehosePipelines of the namespace default"), "{refused}");
}
