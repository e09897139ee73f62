//! The plan of a pipeline: what was written and what the cluster knows, checked once, so that builders only build.

mod check;
mod error;
mod part;
mod secrets;
mod settings;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use penstock_core::settings::Settings;

pub(crate) use check::{REPOS_FOLDER, REPOS_VOLUME, SETTINGS_FOLDER, SETTINGS_VOLUME};
pub use error::{BadField, MissingSecret, PlanError};
pub use part::Part;
pub use secrets::{Reference, Secrets, references};

use crate::crd::{AutoscalingMode, FirehosePipeline, FirehosePipelineSpec};
use crate::hash::{HashKey, hash_of_token};

pub(crate) use settings::FILTER_FILES;
use settings::File;

/// What the operator and the cluster know besides the pipeline itself.
#[derive(Clone, Debug, Default)]
pub struct Dereferenced {
    /// The image of pipelines that name none: the operator's own. Empty: not known.
    pub default_image: String,
    /// The hash of the schema that this version's workers need.
    pub schema: String,
    /// The optional kinds that the cluster knows.
    pub api: Apis,
    /// The operator's own key of the hashes of Secrets.
    pub hash_key: HashKey,
    /// What stands in the Secrets that [`references`] names.
    pub secrets: Secrets,
    /// The URL at which KEDA asks the operator, such as `http://penstock.penstock.svc:8080`. Absent: none.
    pub recommendation_url: Option<String>,
    /// The base URL of the runbooks.
    pub runbooks_url: String,
    /// Whether the workers' Deployment exists: one is not made for a pipeline that is suspended.
    pub workers_exist: bool,
    /// Whether a backfill of the pipeline is at work, for which there must be healers.
    pub backfills: bool,
}

/// The optional kinds that the cluster knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apis {
    /// ServiceMonitor of the Prometheus operator.
    pub service_monitor: bool,
    /// PrometheusRule of the Prometheus operator.
    pub prometheus_rule: bool,
    /// ScaledObject of KEDA.
    pub scaled_object: bool,
    /// HTTPRoute of the Gateway API.
    pub http_route: bool,
}

/// A pipeline that can be built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What everything that is built says of whose it is.
    pub owner: OwnerReference,
    /// What was written.
    pub spec: FirehosePipelineSpec,
    /// The image of every part.
    pub image: String,
    /// The parts that have pods.
    pub parts: Vec<PartPlan>,
    /// The settings as the parts read them: the keys in Redis and the addresses for the operator's own use.
    pub settings: Settings,
    /// The settings file, YAML.
    pub settings_file: String,
    /// The hash of the schema that the workers need.
    pub schema: String,
    /// The optional kinds that the cluster knows.
    pub api: Apis,
    /// Where KEDA asks for the number of workers, the pipeline's own path included.
    pub recommendation_url: Option<String>,
    /// The base URL of the runbooks, without a slash at its end.
    pub runbooks_url: String,
    /// Whether the workers' Deployment exists.
    pub workers_exist: bool,
    /// By what the healers know the operator's token, where there are healers: the hash of it, which tells nobody the token.
    pub heal_token_hash: Option<String>,
    /// Target time to clear a backlog.
    pub drain_target: Duration,
    /// How far to look back before scaling down: the highest recommendation wins.
    pub stabilization_window: Duration,
    /// What was asked for and this cluster cannot provide; nothing else fails because of it.
    pub left_out: Vec<LeftOut>,
}

/// What one part needs to know of itself.
#[derive(Clone, Debug)]
pub struct PartPlan {
    /// Which one.
    pub part: Part,
    /// Changes when a setting changes that this part reads.
    pub settings_hash: String,
    /// Changes when a Secret changes that this part reads; absent where it reads none.
    pub secrets_hash: Option<String>,
    /// The port of probes and metrics.
    pub admin_port: u16,
    /// The port of the dashboard's API.
    pub http_port: u16,
    /// How much memory its caches of repos and of identities may take, in bytes.
    pub caches: u64,
}

/// Something that was asked for and this cluster cannot provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The field that asks for it.
    pub field: &'static str,
    /// Why it is left out, and what to do.
    pub why: &'static str,
}

// === impl Plan ===

impl Plan {
    /// Checks a pipeline against what is known.
    ///
    /// # Errors
    /// Names every field that is not valid, and what to write instead.
    pub fn new(pipeline: &FirehosePipeline, known: &Dereferenced) -> Result<Self, PlanError> {
        let (name, namespace, owner) = identity(pipeline)?;
        let spec = &pipeline.spec;
        let image = spec.image.reference.clone().unwrap_or_else(|| known.default_image.clone());
        if image.is_empty() {
            return Err(PlanError::Image);
        }
        let times = check::fields(spec)?;
        // Nothing that is suspended runs, and so nothing reads them.
        if !spec.suspend {
            secrets::present(pipeline, known.backfills, &known.secrets)?;
        }
        let file = File::new(spec, &namespace, &name)?;
        let settings = file.load(spec, &known.secrets)?;
        let parts: Vec<PartPlan> = Part::enabled(spec, known.backfills)
            .map(|part| {
                let own = file.load_for(part, spec, &known.secrets)?;
                Ok(PartPlan {
                    part,
                    settings_hash: file.hash_for(part),
                    secrets_hash: secrets::hash_for(part, spec, &known.secrets, &known.hash_key),
                    admin_port: own.telemetry.admin_address.port(),
                    http_port: own.dashboard.address.port(),
                    caches: part.caches(&own),
                })
            })
            .collect::<Result<_, PlanError>>()?;
        let recommendation_url = known
            .recommendation_url
            .as_ref()
            .map(|url| format!("{}/recommendation/{namespace}/{name}", url.trim_end_matches('/')));
        let heals = parts.iter().any(|own| own.part == Part::Heal);
        Ok(Self {
            heal_token_hash: heals.then(|| hash_of_token(&known.hash_key.heal_token(&owner.uid))),
            left_out: left_out(spec, known.api, recommendation_url.is_some()),
            name,
            namespace,
            owner,
            spec: spec.clone(),
            image,
            parts,
            settings,
            settings_file: file.text,
            schema: known.schema.clone(),
            api: known.api,
            recommendation_url,
            runbooks_url: known.runbooks_url.trim_end_matches('/').to_owned(),
            workers_exist: known.workers_exist,
            drain_target: times.drain_target,
            stabilization_window: times.stabilization_window,
        })
    }

    /// Returns what a part needs, where the pipeline has it.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&PartPlan> {
        self.parts.iter().find(|plan| plan.part == part)
    }

    /// Says whether the workers' Deployment is made or kept: a new one begins with one pod, and one that is suspended is to have none.
    #[must_use]
    pub fn makes_workers(&self) -> bool {
        self.spec.workers.enabled && (self.workers_exist || !self.spec.suspend)
    }

    /// Says whether KEDA scales the workers.
    #[must_use]
    pub fn by_keda(&self) -> bool {
        self.spec.workers.enabled
            && self.spec.workers.autoscaling.mode == AutoscalingMode::Keda
            && self.api.scaled_object
            && self.recommendation_url.is_some()
    }
}

fn identity(pipeline: &FirehosePipeline) -> Result<(String, String, OwnerReference), PlanError> {
    let meta = &pipeline.metadata;
    let name = meta.name.clone().unwrap_or_default();
    if !is_name(&name) {
        return Err(PlanError::Name { name });
    }
    let namespace = meta.namespace.clone().ok_or(PlanError::Identity)?;
    let owner = pipeline.controller_owner_ref(&()).ok_or(PlanError::Identity)?;
    Ok((name, namespace, OwnerReference { block_owner_deletion: Some(true), ..owner }))
}

/// Services are made from the name, and theirs begin with a letter and hold no dot.
fn is_name(name: &str) -> bool {
    name.len() <= 50
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn left_out(spec: &FirehosePipelineSpec, api: Apis, recommends: bool) -> Vec<LeftOut> {
    let keda = spec.workers.enabled && spec.workers.autoscaling.mode == AutoscalingMode::Keda;
    let wanted = [
        (
            keda && !api.scaled_object,
            "workers.autoscaling.mode",
            "the cluster has no ScaledObject kind, so the operator scales the workers: install KEDA, or set it to operator",
        ),
        (
            keda && api.scaled_object && !recommends,
            "workers.autoscaling.mode",
            "operator.recommendationUrl is not set, so KEDA cannot ask the operator, and the operator scales the workers: set \
             it in the operator's settings, or set this field to operator",
        ),
        (
            spec.dashboard.enabled && spec.dashboard.http_route.is_some() && !api.http_route,
            "dashboard.httpRoute",
            "the cluster has no HTTPRoute kind: install the Gateway API, or use dashboard.ingress",
        ),
        (
            spec.telemetry.service_monitor.enabled && !api.service_monitor,
            "telemetry.serviceMonitor",
            "the cluster has no ServiceMonitor kind: install the Prometheus operator, or let Prometheus discover the pods",
        ),
        (
            spec.telemetry.prometheus_rule.enabled && !api.prometheus_rule,
            "telemetry.prometheusRule",
            "the cluster has no PrometheusRule kind: install the Prometheus operator, or load the rules into Prometheus",
        ),
    ];
    wanted.into_iter().filter(|(missing, ..)| *missing).map(|(_, field, why)| LeftOut { field, why }).collect()
}

#[cfg(test)]
mod tests;
