//! The pipelines of a Kubernetes cluster, and the way to their dashboards: a port-forward through the API server, with the rights of
//! whoever asks.

mod forward;
mod mask;
mod report;
mod resource;

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret as KubeSecret};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client as KubeClient, Config};
use penstock_core::settings::{Secret, without_line_end};
use serde_json::Value;

use crate::client::Client;
use crate::error::ClusterError;
use crate::status::{Status, look};
use crate::target::Target;
use crate::{ConsoleError, tail, top};
use forward::Forward;
use resource::Resource;

pub use report::{ReportOptions, Written};

/// How to reach a cluster, and which pipelines are meant; what is not given is as for kubectl.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The file in the place of `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context in the place of the current one.
    pub context: Option<String>,
    /// The namespace in the place of the context's.
    pub namespace: Option<String>,
}

/// A cluster that is asked.
pub struct Cluster {
    client: KubeClient,
    namespace: String,
}

/// What a pipeline is made as in the API.
pub(crate) const GROUP: &str = "penstock.dev";
const VERSION: &str = "v1alpha1";
const KIND: &str = "FirehosePipeline";
const PLURAL: &str = "firehosepipelines";

/// Returns the selector of everything that a pipeline owns.
fn owned_by(pipeline: &str) -> String {
    format!("app.kubernetes.io/managed-by=penstock-operator,app.kubernetes.io/instance={pipeline}")
}

/// Returns the selector of a pipeline's dashboard pods.
fn dashboards_of(pipeline: &str) -> String {
    format!(
        "app.kubernetes.io/name=penstock,app.kubernetes.io/instance={pipeline},app.kubernetes.io/component=dashboard"
    )
}

// === impl Cluster ===

impl Cluster {
    /// Reads how to reach it; nothing is asked yet.
    ///
    /// # Errors
    /// There is no kubeconfig and no service account, or it cannot be used.
    pub async fn connect(place: &Place) -> Result<Self, ClusterError> {
        let config = config(place).await?;
        let namespace = place.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = KubeClient::try_from(config).map_err(|error| ClusterError::Connect(Box::new(error)))?;
        Ok(Self { client, namespace })
    }

    /// Says how the named pipeline is, or each of the namespace; the resource's own word counts beside the dashboard's.
    ///
    /// # Errors
    /// There is no such pipeline, or the API server does not answer.
    pub async fn status(&self, name: Option<&str>, pause: Duration) -> Result<Vec<Status>, ConsoleError> {
        let pipelines = match name {
            Some(name) => vec![self.pipeline(Some(name)).await?],
            None => self.pipelines().await?,
        };
        if pipelines.is_empty() {
            return Err(ClusterError::Empty { namespace: self.namespace.clone() }.into());
        }
        let mut all = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            let resource = Resource::of(&pipeline);
            all.push(match self.dashboard(&pipeline).await {
                Ok(client) => look(&client, pause).await.with_resource(resource),
                Err(ConsoleError::Cluster(ClusterError::NoDashboard { .. })) => Status::of_resource(resource),
                Err(error) => return Err(error),
            });
        }
        Ok(all)
    }

    /// Draws the named pipeline, or the only one, until `q` or `ending`.
    ///
    /// # Errors
    /// There is no such pipeline, it has no dashboard, or there is no terminal.
    pub async fn top(&self, name: Option<&str>, ending: impl Future<Output = ()>) -> Result<(), ConsoleError> {
        let pipeline = self.pipeline(name).await?;
        top::follow(self.dashboard(&pipeline).await?, ending).await
    }

    /// Writes the events of the named pipeline, or of the only one.
    ///
    /// # Errors
    /// As [`tail::tail`]; there is no such pipeline, or it has no dashboard.
    pub async fn tail(
        &self,
        name: Option<&str>,
        options: &tail::Options,
        out: &mut impl std::io::Write,
        notes: &mut impl std::io::Write,
    ) -> Result<(), ConsoleError> {
        let pipeline = self.pipeline(name).await?;
        tail::follow(&self.dashboard(&pipeline).await?, options, out, notes).await
    }

    /// Writes a bundle for a bug report of the named pipeline, or of the only one, with its secrets masked.
    ///
    /// # Errors
    /// There is no such pipeline, or the file cannot be written. What cannot be read is named in the bundle.
    pub async fn report(&self, name: Option<&str>, options: &ReportOptions) -> Result<Written, ConsoleError> {
        let pipeline = self.pipeline(name).await?;
        Ok(report::write(self, &pipeline, options).await?)
    }

    /// Returns the named pipeline, or the only one.
    async fn pipeline(&self, name: Option<&str>) -> Result<DynamicObject, ClusterError> {
        let namespace = self.namespace.clone();
        let mut pipelines = self.pipelines().await?;
        let names = |pipelines: &[DynamicObject]| {
            let names: Vec<_> = pipelines.iter().filter_map(|pipeline| pipeline.metadata.name.as_deref()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        match name {
            Some(name) => {
                let found = pipelines.iter().position(|pipeline| pipeline.metadata.name.as_deref() == Some(name));
                match found {
                    Some(place) => Ok(pipelines.swap_remove(place)),
                    None => Err(ClusterError::NoSuch { name: name.to_owned(), namespace, others: names(&pipelines) }),
                }
            }
            None if pipelines.len() > 1 => Err(ClusterError::Several { namespace, names: names(&pipelines) }),
            None => pipelines.pop().ok_or(ClusterError::Empty { namespace }),
        }
    }

    async fn pipelines(&self) -> Result<Vec<DynamicObject>, ClusterError> {
        let what = GroupVersionKind::gvk(GROUP, VERSION, KIND);
        let api = ApiResource::from_gvk_with_plural(&what, PLURAL);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &api);
        let what = format!("the FirehosePipelines of the namespace {}", self.namespace);
        let list = api.list(&ListParams::default()).await.map_err(ClusterError::read(what))?;
        // A list leaves out what its items have in common.
        let named = list.items.into_iter().map(|mut pipeline| {
            pipeline.types.get_or_insert_with(|| kube::api::TypeMeta {
                api_version: format!("{GROUP}/{VERSION}"),
                kind: KIND.to_owned(),
            });
            pipeline
        });
        Ok(named.collect())
    }

    /// Makes a client of a pipeline's dashboard, with the read token where one is set.
    async fn dashboard(&self, pipeline: &DynamicObject) -> Result<Client, ConsoleError> {
        let name = pipeline.metadata.name.clone().unwrap_or_default();
        let flag = |pointer: &str| pipeline.data.pointer(pointer).and_then(Value::as_bool);
        if flag("/spec/dashboard/enabled") == Some(false) || flag("/spec/suspend") == Some(true) {
            return Err(ClusterError::NoDashboard { name }.into());
        }
        // The forward ends in the pod itself, where only the path of the address counts; the name is what people see.
        let target = Target::new(&format!("http://{name}-dashboard.{}", self.namespace))?;
        let target = match self.read_token(pipeline).await {
            Some(token) => target.with_token(&token, "the Secret of dashboard.auth.readTokenSecret")?,
            None => target,
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(Client::new(target, Box::new(Forward::new(pods, dashboards_of(&name)))))
    }

    /// Returns the token for reading: that of the environment, else that of the Secret, where the user may read it.
    async fn read_token(&self, pipeline: &DynamicObject) -> Option<Secret> {
        if let Ok(token) = std::env::var(crate::TOKEN_VARIABLE)
            && !token.trim().is_empty()
        {
            return Some(Secret::from(without_line_end(token)));
        }
        let key = pipeline.data.pointer("/spec/dashboard/auth/readTokenSecret")?;
        let (name, key) = (key.get("name")?.as_str()?, key.get("key")?.as_str()?);
        let value = self.secret(name).await?.remove(key)?;
        String::from_utf8(value).ok().map(without_line_end).map(Secret::from)
    }

    /// Reads a Secret, where the user may.
    async fn secret(&self, name: &str) -> Option<std::collections::BTreeMap<String, Vec<u8>>> {
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get_opt(name).await.ok()??;
        Some(secret.data?.into_iter().map(|(key, ByteString(value))| (key, value)).collect())
    }
}

async fn config(place: &Place) -> Result<Config, ClusterError> {
    let options = KubeConfigOptions { context: place.context.clone(), ..KubeConfigOptions::default() };
    let bad = |error| ClusterError::Config(Box::new(error));
    match &place.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(Path::new(path)).map_err(bad)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(bad)
        }
        None if place.context.is_some() => Config::from_kubeconfig(&options).await.map_err(bad),
        None => Config::infer().await.map_err(|error| ClusterError::Infer(Box::new(error))),
    }
}
