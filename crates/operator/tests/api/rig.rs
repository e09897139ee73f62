//! The one API server of this test process, and a namespace of its own for each test.

use std::fmt::Debug;
use std::io::Write;
use std::ops::Deref;
use std::sync::Once;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Api, Client, Config, Resource};
use penstock_local::testing::TestApiServer;
pub(crate) use penstock_operator::crd::{FirehoseBackfill, FirehosePipeline};
use penstock_operator::{children, crd};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long anything may take, on a machine that has much else to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Selects what the operator made.
pub(crate) const MANAGED: &str = "app.kubernetes.io/managed-by=penstock-operator";

static SHARED: OnceCell<Option<TestApiServer>> = OnceCell::const_new();

/// A namespace on an API server, and its administrator.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// The API server of all tests, or of one that breaks it.
pub(crate) enum Server {
    Shared(&'static TestApiServer),
    Own(Box<TestApiServer>),
}

// === impl Rig ===

impl Rig {
    /// Makes a namespace on the shared server, which has the resource and the optional kinds; `None`, after a line that says why, where no API server is installed.
    pub(crate) async fn new(namespace: &str) -> Option<Self> {
        let shared = SHARED.get_or_init(async || {
            let server = start_server().await?;
            let client = client_for(&server.kubeconfig()).await;
            install(&client).await;
            install_optional(&client).await;
            Some(server)
        });
        Some(Self::on(Server::Shared(shared.await.as_ref()?), namespace).await)
    }

    /// Makes a namespace on a server of one's own, which has neither the resource nor the optional kinds; `None` as [`Self::new`].
    pub(crate) async fn alone(namespace: &str) -> Option<Self> {
        Some(Self::on(Server::Own(Box::new(start_server().await?)), namespace).await)
    }

    async fn on(server: Server, namespace: &str) -> Self {
        let client = client_for(&server.kubeconfig()).await;
        make_namespace(&client, namespace).await;
        Self { server, client, namespace: namespace.to_owned() }
    }

    /// Returns the server of one's own, to be broken.
    pub(crate) fn own(&mut self) -> &mut TestApiServer {
        match &mut self.server {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("other tests use it too"),
        }
    }

    /// Makes sure of a garbage collector; `None`, after a line that says so, where there is none.
    pub(crate) fn with_collector(self) -> Option<Self> {
        static SAID: Once = Once::new();
        if self.server.collects_garbage() {
            return Some(self);
        }
        SAID.call_once(|| {
            say("skipped the tests that delete owners: no kube-controller-manager beside kube-apiserver");
        });
        None
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pipelines as they lie there, whatever they hold.
    pub(crate) fn raw(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<FirehosePipeline>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// Makes a pipeline of the least spec and what `changes` says (a merge patch), or says why it was refused.
    pub(crate) async fn try_create(&self, name: &str, changes: &Value) -> Result<DynamicObject, String> {
        self.raw().create(&PostParams::default(), &pipeline(name, changes)).await.map_err(|error| words(&error))
    }

    pub(crate) async fn create(&self, name: &str, changes: Value) -> FirehosePipeline {
        let made = self.try_create(name, &changes).await.unwrap();
        made.try_parse().unwrap()
    }

    /// Changes a pipeline by a merge patch of its spec, or says why that was refused.
    pub(crate) async fn try_change(&self, name: &str, spec: Value) -> Result<DynamicObject, String> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.raw().patch(name, &PatchParams::default(), &patch).await.map_err(|error| words(&error))
    }

    pub(crate) async fn change(&self, name: &str, spec: Value) {
        self.try_change(name, spec).await.unwrap();
    }

    /// Makes or changes a Secret with one key, `url`.
    pub(crate) async fn secret(&self, name: &str, url: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "url": url },
        });
        let params = PatchParams::apply("test").force();
        self.api::<Secret>().patch(name, &params, &Patch::Apply(&secret)).await.unwrap();
    }

    /// Waits until an object is there and `holds`, and returns it.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>();
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = api.get_opt(name).await.unwrap();
            if let Some(object) = seen.as_ref().filter(|object| holds(object)) {
                return object.clone();
            }
            assert!(Instant::now() < end, "{}/{name} not {what}: {seen:#?}", self.namespace);
            pause().await;
        }
    }

    /// Waits until an object is not there.
    pub(crate) async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>();
        eventually(&format!("{}/{name} of kind {} is gone", self.namespace, K::kind(&())), async || {
            api.get_opt(name).await.unwrap().is_none()
        })
        .await;
    }
}

// === impl Server ===

impl Deref for Server {
    type Target = TestApiServer;

    fn deref(&self) -> &TestApiServer {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// Starts an API server; `None`, after the one line of this process that says so, where there is none to start.
pub(crate) async fn start_server() -> Option<TestApiServer> {
    static SAID: Once = Once::new();
    let server = TestApiServer::start().await.unwrap();
    if server.is_none() {
        SAID.call_once(|| say("skipped all tests against an API server: no kube-apiserver (`make envtest` gets it)"));
    }
    server
}

/// Says a line past the capture of the test harness, which shows nothing of a test that passes.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("operator: {line}\n").as_bytes());
}

pub(crate) async fn client_for(kubeconfig: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Installs the resources, and waits until the API server serves them.
pub(crate) async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crd::definitions() {
        let name = definition.metadata.name.clone().unwrap();
        // It may still be going from the test before.
        eventually("the definition is taken", async || {
            api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await.is_ok()
        })
        .await;
    }
    for kind in [ApiResource::erase::<FirehosePipeline>(&()), ApiResource::erase::<FirehoseBackfill>(&())] {
        // Whatever they hold.
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        eventually("the resource is served", async || objects.list(&Default::default()).await.is_ok()).await;
    }
}

/// Installs the kinds that somebody else brings into a cluster, with schemas that take everything.
async fn install_optional(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = children::kinds();
    let optional = all.iter().filter(|kind| kind.group.contains('.') && !kind.group.ends_with(".k8s.io"));
    let route = all.iter().filter(|kind| kind.kind == "HTTPRoute");
    for ApiResource { group, version, kind, plural, .. } in optional.chain(route) {
        let name = format!("{plural}.{group}");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            // The groups of Kubernetes' own projects are guarded.
            "metadata": { "name": name, "annotations": { "api-approved.kubernetes.io": "unapproved, test" } },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                }],
            },
        });
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await.unwrap();
    }
    for kind in all {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        eventually(&format!("{} is served", kind.kind), async || api.list(&Default::default()).await.is_ok()).await;
    }
}

pub(crate) async fn make_namespace(client: &Client, name: &str) {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let api: Api<Namespace> = Api::all(client.clone());
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&namespace)).await.unwrap();
}

/// A pipeline with the least that must be said, and what `changes` says of the spec (a merge patch).
pub(crate) fn pipeline(name: &str, changes: &Value) -> DynamicObject {
    let mut spec = json!({
        "redis": { "url": "redis://redis:6379" },
        "postgres": { "url": "postgres://penstock@postgres/penstock" },
    });
    merge(&mut spec, changes);
    serde_json::from_value(json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehosePipeline", "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    into.remove(name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (into @ Value::Null, Value::Object(_)) => {
            *into = json!({});
            merge(into, patch);
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// Returns the reason of a condition.
pub(crate) fn reason<'a>(pipeline: &'a FirehosePipeline, kind: &str) -> Option<&'a str> {
    let conditions = &pipeline.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.kind == kind).map(|condition| condition.reason.as_str())
}

/// Returns the message of a condition; none where there is no such condition.
pub(crate) fn message(pipeline: &FirehosePipeline, kind: &str) -> String {
    let conditions = pipeline.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.kind == kind).map(|condition| condition.message.clone()).collect()
}

/// Says whether everything runs, by the word of a status that speaks of what is written now.
pub(crate) fn is_ready(pipeline: &FirehosePipeline) -> bool {
    let observed = pipeline.status.as_ref().and_then(|status| status.observed_generation);
    reason(pipeline, "Ready") == Some("Running") && observed == pipeline.metadata.generation
}

/// What the API server said.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "still not: {what}");
        pause().await;
    }
}

/// Between two looks.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
