//! The pods: one image, one container, nothing that a restricted namespace refuses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext,
    SleepAction, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::env;
use super::labels::{self, Texts};
use super::{config, names, volumes};
use crate::crd::{Pod, PullPolicy};
use crate::plan::{Part, PartPlan, Plan, SETTINGS_FOLDER};

/// The name of the dashboard's port.
pub(super) const HTTP: &str = "http";

/// The name of the port of probes and metrics.
pub(super) const METRICS: &str = "metrics";

/// How many old ReplicaSets a Deployment keeps.
pub(super) const REVISIONS: i32 = 3;

/// How long a pod may take to end, seconds: a worker commits its batch and publishes its counts, ingest writes what it has read.
const GRACE: i64 = 45;

/// Marks the pods that serve metrics.
const SCRAPED: &str = "penstock.dev/metrics";

/// Changes with the settings, so that a change rolls the pods.
const SETTINGS_HASH: &str = "penstock.dev/settings-hash";

/// Changes with the content of the Secrets, so that a change rolls the pods.
const SECRETS_HASH: &str = "penstock.dev/secrets-hash";

/// Selects the pods of a pipeline that serve metrics.
pub(super) fn scraped(pipeline: &str) -> Texts {
    let mut labels = labels::selector(pipeline, "");
    labels.retain(|_, value| !value.is_empty());
    labels.insert(SCRAPED.to_owned(), "true".to_owned());
    labels
}

/// Builds the pods of a part, but for what [`super::child::Child::with_pods`] puts in.
pub(super) fn template(plan: &Plan, own: &PartPlan) -> PodTemplateSpec {
    let written = own.part.pod(&plan.spec);
    let (further_labels, further_annotations) = own.part.of_its_own(&plan.spec);
    let mut labels = labels::of_pods(&plan.name, own.part.component());
    if serves(own.part) {
        labels.extend(scraped(&plan.name));
    }
    let mut annotations = Texts::from([(SETTINGS_HASH.to_owned(), own.settings_hash.clone())]);
    annotations.extend(own.secrets_hash.clone().map(|hash| (SECRETS_HASH.to_owned(), hash)));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::merged(&labels::merged(&written.labels, further_labels), labels)),
            annotations: Some(labels::merged(&labels::merged(&written.annotations, further_annotations), annotations)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(plan, own, written)),
    }
}

fn spec(plan: &Plan, own: &PartPlan, written: &Pod) -> PodSpec {
    let account = written.service_account_name.clone().unwrap_or_else(|| names::part(&plan.name, own.part));
    let secrets: Vec<LocalObjectReference> =
        plan.spec.image.pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        service_account_name: Some(account),
        automount_service_account_token: Some(false),
        // They would bring variables such as REDIS_PORT=tcp://…
        enable_service_links: Some(false),
        restart_policy: Some(if serves(own.part) { "Always" } else { "Never" }.to_owned()),
        termination_grace_period_seconds: Some(written.termination_grace_period_seconds.unwrap_or(GRACE)),
        security_context: Some(PodSecurityContext {
            // Which one is the image's business, or the platform's: OpenShift gives each namespace users of its own.
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        priority_class_name: written.priority_class_name.clone(),
        node_selector: (!written.node_selector.is_empty()).then(|| written.node_selector.clone()),
        tolerations: (!written.tolerations.is_empty()).then(|| written.tolerations.clone()),
        topology_spread_constraints: serves(own.part).then(|| vec![spread(plan, own.part)]),
        containers: vec![container(plan, own, written)],
        volumes: Some(volumes::of(plan, own.part)),
        ..PodSpec::default()
    }
}

fn container(plan: &Plan, own: &PartPlan, written: &Pod) -> Container {
    let component = own.part.component();
    let policy = match plan.spec.image.pull_policy {
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    };
    let probe = |path, period, failures| serves(own.part).then(|| probe(path, period, failures));
    let settings = format!("{SETTINGS_FOLDER}/{}", config::FILE);
    Container {
        name: "penstock".to_owned(),
        image: Some(plan.image.clone()),
        image_pull_policy: Some(policy.to_owned()),
        command: Some(vec!["penstock".to_owned()]),
        args: Some(vec![component.to_owned(), "--config".to_owned(), settings]),
        env: Some(env::variables(plan, own.part)),
        ports: serves(own.part).then(|| ports(own)),
        resources: Some(written.resources.clone().unwrap_or_else(|| resources(own))),
        startup_probe: probe("/healthz", 2, 30),
        liveness_probe: probe("/healthz", 10, 3),
        readiness_probe: probe("/readyz", 5, 2),
        lifecycle: (own.part == Part::Dashboard).then(|| {
            let grace = written.termination_grace_period_seconds.unwrap_or(GRACE);
            leave_service(grace)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // What a process said last is what `kubectl describe` shows of its end.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(volumes::mounts(own.part)),
        ..Container::default()
    }
}

/// A Job serves nothing.
fn serves(part: Part) -> bool {
    part != Part::Migrate
}

fn ports(own: &PartPlan) -> Vec<ContainerPort> {
    let http = (own.part == Part::Dashboard).then_some((HTTP, own.http_port));
    let named = http.into_iter().chain([(METRICS, own.admin_port)]);
    let port = |(name, port): (&str, u16)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    named.map(port).collect()
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(METRICS.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Waits until no Service sends to the pod any more: that goes its own way, beside the signal to end.
fn leave_service(grace: i64) -> Lifecycle {
    let seconds = (grace / 3).clamp(1, 5);
    let sleep = LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }
}

/// Over nodes where it can be, and each rollout by itself.
fn spread(plan: &Plan, part: Part) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(labels::select(plan, part)),
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    }
}

/// No limit of CPU: what is idle is free to take, and a throttled worker holds up the stream. Caches come on top: they fill.
fn resources(own: &PartPlan) -> ResourceRequirements {
    let (cpu, requested, limit) = match own.part {
        Part::Ingest => ("100m", 128, 256),
        Part::Worker => ("250m", 128, 512),
        // 5,000 live clients take about 200 MB.
        Part::Dashboard => ("50m", 64, 384),
        Part::Heal => ("100m", 64, 256),
        Part::Migrate => ("50m", 64, 256),
    };
    let caches = own.caches.div_ceil(1 << 20);
    let memory = |count: u64| ("memory", format!("{}Mi", count + caches));
    let quantities = |pairs: Vec<(&str, String)>| {
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), Quantity(value)));
        Some(pairs.collect::<BTreeMap<_, _>>())
    };
    ResourceRequirements {
        requests: quantities(vec![("cpu", cpu.to_owned()), memory(requested)]),
        limits: quantities(vec![memory(limit)]),
        claims: None,
    }
}
