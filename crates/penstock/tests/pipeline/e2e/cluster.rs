//! The cluster, as a person with kubectl and helm sees it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{env, fs};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::sleep;

/// Where the pipeline is.
const NAMESPACE: &str = "firehose";

/// Where the operator is.
const OPERATOR: &str = "penstock";

/// How long anything may take, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often one looks.
const LOOK: Duration = Duration::from_millis(500);

/// What is kept of each moment.
const SHOWN: [&str; 3] =
    ["get fhp,deployments,pods --output wide", "describe fhp", "get events --sort-by=.metadata.creationTimestamp"];

/// A namespace that takes only pods which give up every privilege.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce";

/// The cluster that KUBECONFIG leads to.
pub(super) struct Cluster {
    /// The image that its nodes have: repository and tag.
    image: (String, String),
    evidence: PathBuf,
}

/// Whose pods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Ingest,
    Worker,
    Dashboard,
    Heal,
    Operator,
}

// === impl Part ===

impl Part {
    /// Namespace and labels.
    fn selector(self) -> [String; 2] {
        let (namespace, instance, component) = match self {
            Self::Ingest => (NAMESPACE, "bluesky", "ingest"),
            Self::Worker => (NAMESPACE, "bluesky", "worker"),
            Self::Dashboard => (NAMESPACE, "bluesky", "dashboard"),
            Self::Heal => (NAMESPACE, "bluesky", "heal"),
            Self::Operator => (OPERATOR, "penstock", "operator"),
        };
        let labels = format!("app.kubernetes.io/instance={instance},app.kubernetes.io/component={component}");
        [namespace.to_owned(), labels]
    }
}

// === impl Cluster ===

impl Cluster {
    /// Makes the two namespaces.
    pub(super) async fn new() -> Self {
        let image = env::var("IMAGE").unwrap();
        let (repository, tag) = image.rsplit_once(':').unwrap();
        let evidence = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/e2e"));
        fs::create_dir_all(&evidence).unwrap();
        let cluster = Self { image: (repository.to_owned(), tag.to_owned()), evidence };
        for name in [NAMESPACE, OPERATOR] {
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {RESTRICTED: "restricted"}},
            });
            cluster.apply(&namespace.to_string()).await;
        }
        cluster
    }

    /// Runs kubectl where the pipeline is; words hold no spaces.
    pub(super) async fn kubectl(&self, line: &str) -> String {
        let words = ["--namespace", NAMESPACE].into_iter().chain(line.split_whitespace()).collect::<Vec<_>>();
        run("kubectl", &words, "").await.unwrap_or_else(|said| panic!("kubectl {line}: {said}"))
    }

    /// Applies a manifest where the pipeline is.
    pub(super) async fn apply(&self, manifest: &str) {
        let done = run("kubectl", &["--namespace", NAMESPACE, "apply", "--filename", "-"], manifest).await;
        done.unwrap_or_else(|said| panic!("{said}, of\n{manifest}"));
    }

    /// Makes the secret that holds an address.
    pub(super) async fn secret(&self, name: &str, url: &str) {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url}});
        self.apply(&secret.to_string()).await;
    }

    /// Changes the pipeline.
    pub(super) async fn patch(&self, patch: &Value) {
        self.kubectl(&format!("patch fhp bluesky --type=merge --patch={patch}")).await;
    }

    /// Installs, upgrades or uninstalls the chart.
    pub(super) async fn helm(&self, verb: &str, arguments: &[impl AsRef<str>]) {
        let (repository, tag) = (format!("image.repository={}", self.image.0), format!("image.tag={}", self.image.1));
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/penstock");
        let mut words = vec![verb, "penstock"];
        match verb {
            "install" => words.extend([chart, "--set", &repository, "--set", &tag]),
            "upgrade" => words.extend([chart, "--reset-then-reuse-values"]),
            _ => {}
        }
        words.extend(["--namespace", OPERATOR, "--wait", "--timeout", "4m"]);
        words.extend(arguments.iter().map(AsRef::as_ref));
        run("helm", &words, "").await.unwrap_or_else(|said| panic!("helm {verb}: {said}"));
    }

    /// Runs helm where the pipelines are, and waits for what it does; words hold no spaces.
    pub(super) async fn helm_of_pipelines(&self, line: &str) -> String {
        let of = ["--namespace", NAMESPACE, "--wait", "--timeout", "4m"];
        let words = line.split_whitespace().chain(of).collect::<Vec<_>>();
        match run("helm", &words, "").await {
            Ok(said) => said,
            Err(said) => {
                self.keep("0-helm-failed").await;
                panic!("helm {line}: {said}; see {}", self.evidence.display());
            }
        }
    }

    /// Sets the number of operators, past Helm.
    pub(super) async fn scale_operator(&self, replicas: u32) {
        let scale = format!("scale deployment penstock-operator --namespace={OPERATOR} --replicas={replicas}");
        self.kubectl(&scale).await;
    }

    /// Whether the API server is ready.
    pub(super) async fn answers(&self) -> bool {
        run("kubectl", &["get", "--raw", "/readyz"], "").await.is_ok()
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !is().await {
            if started.elapsed() > PATIENCE {
                self.keep("0-in-vain").await;
                panic!("waited in vain: {what}; see {}", self.evidence.display());
            }
            sleep(LOOK).await;
        }
        println!("e2e: {what} ({:.1} s)", started.elapsed().as_secs_f64());
    }

    /// Waits until the pipeline is ready, as written now.
    pub(super) async fn is_ready(&self) {
        self.until("the pipeline is ready", async || self.is_ready_now().await).await;
    }

    /// Whether the pipeline is ready, as written now.
    pub(super) async fn is_ready_now(&self) -> bool {
        let pipeline = self.get("fhp bluesky").await;
        let conditions = pipeline["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| {
            condition["type"] == "Ready"
                && condition["status"] == "True"
                && condition["observedGeneration"] == pipeline["metadata"]["generation"]
        })
    }

    /// The conditions of the pipeline; none before there are any.
    pub(super) async fn conditions(&self) -> Vec<Value> {
        self.get("fhp bluesky").await["status"]["conditions"].as_array().cloned().unwrap_or_default()
    }

    /// How many workers the autoscaler wants; 0 before there are any.
    pub(super) async fn wanted_workers(&self) -> u64 {
        self.get("deployment bluesky-worker").await["spec"]["replicas"].as_u64().unwrap_or(0)
    }

    /// The names of the pods of a part.
    pub(super) async fn pods(&self, part: Part) -> Vec<String> {
        self.pods_that(part, |_| true).await
    }

    /// The names of the pods of a part that are ready and are not asked to end.
    pub(super) async fn ready_pods(&self, part: Part) -> Vec<String> {
        let is_ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready =
                conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            ready && pod["metadata"]["deletionTimestamp"].is_null()
        };
        self.pods_that(part, is_ready).await
    }

    async fn pods_that(&self, part: Part, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
        let [namespace, labels] = part.selector();
        let found = self.get(&format!("pods --namespace={namespace} --selector={labels}")).await;
        let pods = found["items"].as_array().into_iter().flatten().filter(|pod| wanted(pod));
        pods.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The users that the pods of a part ask for.
    pub(super) async fn users(&self, part: Part) -> Vec<Option<i64>> {
        let [namespace, labels] = part.selector();
        let found = self.get(&format!("pods --namespace={namespace} --selector={labels}")).await;
        let pods = found["items"].as_array().cloned().unwrap_or_default();
        pods.iter().map(|pod| pod["spec"]["securityContext"]["runAsUser"].as_i64()).collect()
    }

    /// Deletes the pods of a part: kills them, or asks them to end.
    pub(super) async fn delete_pods(&self, part: Part, kill: bool) {
        let [namespace, labels] = part.selector();
        let how = if kill { "--force --grace-period=0" } else { "" };
        self.kubectl(&format!("delete pods --namespace={namespace} --selector={labels} --wait=false {how}")).await;
    }

    /// What there is of the pipeline besides itself.
    pub(super) async fn children(&self) -> Vec<String> {
        let kinds = "deployments,pods,jobs,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets";
        let get = format!("get {kinds} --selector=app.kubernetes.io/instance=bluesky --output=name");
        self.kubectl(&get).await.lines().map(str::to_owned).collect()
    }

    /// Keeps what a person sees at this moment.
    pub(super) async fn keep(&self, moment: &str) {
        let mut text = String::new();
        for line in SHOWN {
            let words = ["--namespace", NAMESPACE].into_iter().chain(line.split(' ')).collect::<Vec<_>>();
            let shown = run("kubectl", &words, "").await.unwrap_or_else(|said| said);
            text += &format!("$ kubectl {line}\n{shown}\n");
        }
        fs::write(self.evidence.join(format!("{moment}.txt")), text).unwrap();
    }

    /// Keeps what a person sees of the backfills at this moment.
    pub(super) async fn keep_backfill(&self, moment: &str) {
        let mut text = String::new();
        for line in ["get fhb", "get fhb --output wide", "describe fhb", "get deployments,pods"] {
            text += &format!("$ kubectl {line}\n{}\n", self.kubectl(line).await);
        }
        fs::write(self.evidence.join(format!("{moment}.txt")), text).unwrap();
    }

    /// An object, or null where there is none.
    pub(super) async fn get(&self, what: &str) -> Value {
        let found = self.kubectl(&format!("get {what} --output=json --ignore-not-found")).await;
        if found.trim().is_empty() { Value::Null } else { serde_json::from_str(&found).unwrap() }
    }
}

/// Runs a program to its end; returns what it says, as an error where it fails.
async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let done = child.wait_with_output().await.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(said.into_owned()) } else { Err(format!("{said}{complained}")) }
}
