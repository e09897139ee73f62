//! A bundle for a bug report: the resource, what was made of it, its events, logs and figures, without secrets.
//!
//! Secrets are never put into it. Those that the resource names are read, where the user may, only to find their values elsewhere.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, LogParams};
use penstock_core::causes::chain;
use serde_json::{Value, json};

use super::mask::Mask;
use super::{Cluster, GROUP, owned_by};
use crate::error::ClusterError;

/// How many pods' logs are read, and how many bytes of each container's.
const PODS: usize = 50;
const LOG_BYTES: i64 = 4 * 1024 * 1024;

/// The operator's pods, in whatever namespace they are.
const OPERATORS: &str = "app.kubernetes.io/name=penstock,app.kubernetes.io/component=operator";

/// What a pipeline may own: group, version, kind, plural.
const CHILDREN: [(&str, &str, &str, &str); 15] = [
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("batch", "v1", "Job", "jobs"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ("networking.k8s.io", "v1", "Ingress", "ingresses"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
];

/// What is asked of the dashboard.
const ROUTES: [(&str, &str); 6] = [
    ("/api/metrics", "metrics.json"),
    ("/api/ingest", "ingest.json"),
    ("/api/workers", "workers.json"),
    ("/ready", "ready.json"),
    ("/api/metrics/activity-history", "activity.json"),
    ("/api/redis/dead-letters?limit=100", "dead-letters.json"),
];

/// Where a report goes, and how much of the logs.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// A file, or a folder in which a file of its own name is made. Default: the present folder.
    pub output: Option<PathBuf>,
    /// The last lines of each container's log.
    pub log_lines: u32,
}

/// A report that was written.
#[derive(Debug)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// How many files are in it.
    pub files: usize,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// What is in a bundle.
struct Bundle {
    mask: Mask,
    files: Vec<(String, Vec<u8>)>,
    problems: Vec<String>,
}

/// Gathers all and writes it.
pub(super) async fn write(
    cluster: &Cluster,
    pipeline: &DynamicObject,
    options: &ReportOptions,
) -> Result<Written, ClusterError> {
    let name = pipeline.metadata.name.clone().unwrap_or_default();
    let now = Timestamp::now();
    let path = place(options.output.as_deref(), &name, now);
    let mut bundle = Bundle { mask: Mask::new(), files: Vec::new(), problems: Vec::new() };
    // First of all: what is gathered then is masked by it.
    learn(cluster, pipeline, &mut bundle).await;
    let resource = serde_json::to_value(pipeline).unwrap_or_default();
    bundle.json("pipeline.json", resource);
    let (pods, names) = children(cluster, &name, &mut bundle).await;
    events(cluster, &names, &mut bundle).await;
    logs(cluster, &pods, options.log_lines, &mut bundle).await;
    operator(cluster, options.log_lines, &mut bundle).await;
    dashboard(cluster, pipeline, &mut bundle).await;
    versions(cluster, &pods, &mut bundle).await;
    let folder = format!("penstock-report-{name}");
    let problems = bundle.problems.clone();
    let files = bundle.finish(&name, &cluster.namespace, now);
    let count = files.len();
    pack(&path, &folder, &files, now).map_err(|source| ClusterError::Write { path: path.clone(), source })?;
    Ok(Written { path, files: count, problems })
}

/// Learns the values of the Secrets that the resource names, and the token in use.
async fn learn(cluster: &Cluster, pipeline: &DynamicObject, bundle: &mut Bundle) {
    let mut names = BTreeSet::new();
    secrets_of(&pipeline.data, &mut names);
    for name in names {
        match cluster.secret(&name).await {
            Some(values) => values.values().for_each(|value| bundle.mask.learn(value)),
            None => bundle.problems.push(format!(
                "Secret {name}: could not be read, so its values were masked only where they look like secrets"
            )),
        }
    }
    if let Some(token) = cluster.read_token(pipeline).await {
        bundle.mask.learn(token.expose().as_bytes());
    }
}

/// Finds the names of Secrets: under `…Secret: {name, key}`, `secretKeyRef` and `secretRef`.
fn secrets_of(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if (field.ends_with("Secret") || field == "secretKeyRef" || field == "secretRef")
                    && let Some(name) = value.get("name").and_then(Value::as_str)
                {
                    names.insert(name.to_owned());
                }
                secrets_of(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| secrets_of(item, names)),
        _ => {}
    }
}

/// Lists what the pipeline owns; returns its pods, and all names.
async fn children(cluster: &Cluster, pipeline: &str, bundle: &mut Bundle) -> (Vec<Pod>, BTreeSet<String>) {
    let (mut pods, mut names) = (Vec::new(), BTreeSet::from([pipeline.to_owned()]));
    let listed = ListParams::default().labels(&owned_by(pipeline));
    for (group, version, kind, plural) in CHILDREN {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource);
        let items = match api.list(&listed).await {
            Ok(list) => list.items,
            // The cluster has no such kind.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => {
                bundle.problems.push(format!("{plural}: {}", chain(&error)));
                continue;
            }
        };
        for item in items {
            let name = item.metadata.name.clone().unwrap_or_default();
            let mut value = serde_json::to_value(&item).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                fields.insert("apiVersion".to_owned(), api_version.into());
                fields.insert("kind".to_owned(), kind.into());
            }
            if kind == "Pod"
                && let Ok(pod) = serde_json::from_value(value.clone())
            {
                pods.push(pod);
            }
            // The settings once more, as they are read.
            if let Some(settings) = value.pointer("/data/settings.yaml").and_then(Value::as_str) {
                bundle.text("settings.yaml", settings);
            }
            bundle.json(&format!("children/{}-{name}.json", kind.to_lowercase()), value);
            names.insert(name);
        }
    }
    (pods, names)
}

/// Reads the events of all that the pipeline owns, the oldest first.
async fn events(cluster: &Cluster, names: &BTreeSet<String>, bundle: &mut Bundle) {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let list = match api.list(&ListParams::default()).await {
        Ok(list) => list,
        Err(error) => return bundle.problems.push(format!("events: {}", chain(&error))),
    };
    let of = |event: &Event| event.involved_object.name.as_ref().is_some_and(|name| names.contains(name));
    let mut events: Vec<_> = list.items.into_iter().filter(of).collect();
    let when = |event: &Event| {
        let last = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    events.sort_by_key(when);
    let mut text = String::new();
    for event in &events {
        let object = &event.involved_object;
        text += &format!(
            "{} {} {}/{} {}: {}\n",
            when(event).map_or_else(|| "?".to_owned(), |time| time.to_string()),
            event.type_.as_deref().unwrap_or("?"),
            object.kind.as_deref().unwrap_or("?"),
            object.name.as_deref().unwrap_or("?"),
            event.reason.as_deref().unwrap_or("?"),
            event.message.as_deref().unwrap_or_default(),
        );
    }
    bundle.text("events.txt", &text);
}

/// Reads the end of each container's log, and of the log before where it was restarted.
async fn logs(cluster: &Cluster, pods: &[Pod], lines: u32, bundle: &mut Bundle) {
    if pods.len() > PODS {
        bundle.problems.push(format!("logs: those of {PODS} of {} pods were read", pods.len()));
    }
    for pod in pods.iter().take(PODS) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or(&cluster.namespace);
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
        for container in containers {
            let states =
                pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
            let restarted = states.iter().any(|state| state.name == container.name && state.restart_count > 0);
            for previous in [false, true] {
                if previous && !restarted {
                    continue;
                }
                let params = LogParams {
                    container: Some(container.name.clone()),
                    tail_lines: Some(lines.into()),
                    limit_bytes: Some(LOG_BYTES),
                    timestamps: true,
                    previous,
                    ..LogParams::default()
                };
                let which = if previous { "-previous" } else { "" };
                let file = format!("logs/{name}-{}{which}.log", container.name);
                match api.logs(name, &params).await {
                    Ok(log) => bundle.text(&file, &log),
                    Err(error) => bundle.problems.push(format!("{file}: {}", chain(&error))),
                }
            }
        }
    }
}

/// Reads the operator's logs, where the user may see its namespace.
async fn operator(cluster: &Cluster, lines: u32, bundle: &mut Bundle) {
    let api: Api<Pod> = Api::all(cluster.client.clone());
    match api.list(&ListParams::default().labels(OPERATORS)).await {
        Ok(list) if list.items.is_empty() => bundle.problems.push("operator: no pod of it was found".to_owned()),
        Ok(list) => logs(cluster, &list.items, lines, bundle).await,
        Err(error) => bundle.problems.push(format!("operator: {}", chain(&error))),
    }
}

/// Asks the dashboard for its figures. Of dead letters the records stay out.
async fn dashboard(cluster: &Cluster, pipeline: &DynamicObject, bundle: &mut Bundle) {
    let client = match cluster.dashboard(pipeline).await {
        Ok(client) => client,
        Err(error) => return bundle.problems.push(format!("dashboard: {}", chain(&error))),
    };
    for (route, file) in ROUTES {
        match client.bytes(route).await {
            Ok((status, body)) => match serde_json::from_slice::<Value>(&body) {
                Ok(mut answer) => {
                    for letter in answer.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
                        if let Some(fields) = letter.as_object_mut() {
                            fields.remove("data");
                        }
                    }
                    bundle.json(&format!("dashboard/{file}"), answer);
                }
                Err(_) => bundle.problems.push(format!("dashboard{route}: it answers {status}, and not in JSON")),
            },
            // What one question meets the others meet too.
            Err(error) => return bundle.problems.push(format!("dashboard{route}: {}", chain(&error))),
        }
    }
}

/// Says what runs in which version.
async fn versions(cluster: &Cluster, pods: &[Pod], bundle: &mut Bundle) {
    let server = match cluster.client.apiserver_version().await {
        Ok(version) => version.git_version.into(),
        Err(error) => {
            bundle.problems.push(format!("version of the API server: {}", chain(&error)));
            Value::Null
        }
    };
    let images: BTreeSet<_> = pods
        .iter()
        .flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers))
        .filter_map(|container| container.image.clone())
        .collect();
    let versions = json!({"reporter": env!("CARGO_PKG_VERSION"), "kubernetes": server, "images": images});
    bundle.json("versions.json", versions);
}

// === impl Bundle ===

impl Bundle {
    fn json(&mut self, name: &str, value: Value) {
        let text = format!("{:#}\n", self.mask.value(value));
        self.add(name, text);
    }

    fn text(&mut self, name: &str, text: &str) {
        let text = self.mask.text(text);
        self.add(name, text);
    }

    fn add(&mut self, name: &str, text: String) {
        // Names come from the cluster: none leads out of the folder.
        let name = name.split('/').filter(|part| !part.is_empty() && *part != "..").collect::<Vec<_>>().join("/");
        self.files.push((name, text.into_bytes()));
    }

    /// Adds what tells a reader what there is.
    fn finish(mut self, pipeline: &str, namespace: &str, now: Timestamp) -> Vec<(String, Vec<u8>)> {
        let problems: String = self.problems.iter().map(|problem| format!("- {}\n", self.mask.text(problem))).collect();
        let missing = if problems.is_empty() { "Everything could be read.\n".to_owned() } else { problems };
        let text = format!(
            "Report of the FirehosePipeline {namespace}/{pipeline}, made by penstock {} at {now}.\n\n\
             pipeline.json  the resource ({GROUP}) with its status\n\
             settings.yaml  the settings of its pods\n\
             children/      what the operator made of it, and the pods\n\
             events.txt     the events of all that, the oldest first\n\
             logs/          the ends of the logs, the operator's too\n\
             dashboard/     the figures; of dead letters the records are left out\n\
             versions.json  versions and images\n\n\
             Passwords, tokens, values of Secrets and variables that are no settings stand as *** in all of it. Records,\n\
             handles and DIDs in logs are public data and stay. Look through it before you give it away.\n\n\
             Could not be read:\n{missing}",
            env!("CARGO_PKG_VERSION")
        );
        self.files.push(("README.txt".to_owned(), text.into_bytes()));
        self.files
    }
}

fn place(output: Option<&Path>, pipeline: &str, now: Timestamp) -> PathBuf {
    let name = format!("penstock-report-{pipeline}-{}.tar.gz", now.strftime("%Y%m%dT%H%M%SZ"));
    match output {
        None => PathBuf::from(name),
        Some(folder) if folder.is_dir() => folder.join(name),
        Some(file) => file.to_owned(),
    }
}

/// Writes a new file that only its owner reads.
fn pack(path: &Path, folder: &str, files: &[(String, Vec<u8>)], now: Timestamp) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut archive = tar::Builder::new(GzEncoder::new(options.open(path)?, Compression::default()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        archive.append_data(&mut header, format!("{folder}/{name}"), bytes.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()
}
