//! The labels by which what a pipeline owns is found, and the metadata that all of it has.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::plan::{Part, Plan};

/// The value of app.kubernetes.io/managed-by.
pub const MANAGER: &str = "penstock-operator";

/// Labels or annotations.
pub(super) type Texts = BTreeMap<String, String>;

const NAME: &str = "app.kubernetes.io/name";
const INSTANCE: &str = "app.kubernetes.io/instance";
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const PART_OF: &str = "app.kubernetes.io/part-of";
const VERSION: &str = "app.kubernetes.io/version";
const PENSTOCK: &str = "penstock";

/// Returns the selector, as text, of everything that a pipeline owns.
#[must_use]
pub fn owned_by(pipeline: &str) -> String {
    format!("{MANAGED_BY}={MANAGER},{INSTANCE}={pipeline}")
}

/// Returns the selector, as text, of everything that the operator made.
#[must_use]
pub fn managed() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

/// Returns the selector, as text, of a part's pods.
#[must_use]
pub fn pods_of(pipeline: &str, part: Part) -> String {
    let labels: Vec<String> =
        selector(pipeline, part.component()).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// The labels that select pods: few, and never others, because a Deployment's selector cannot be changed.
pub(super) fn selector(pipeline: &str, component: &str) -> Texts {
    texts([(NAME, PENSTOCK), (INSTANCE, pipeline), (COMPONENT, component)])
}

/// The same as Kubernetes wants it.
pub(super) fn select(plan: &Plan, part: Part) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(&plan.name, part.component())), match_expressions: None }
}

/// The labels of pods: without the version, because a new operator alone is no reason to restart them.
pub(super) fn of_pods(pipeline: &str, component: &str) -> Texts {
    let mut labels = selector(pipeline, component);
    labels.extend(texts([(MANAGED_BY, MANAGER), (PART_OF, PENSTOCK)]));
    labels
}

/// The metadata of a child.
pub(super) fn meta(plan: &Plan, name: String, component: &str) -> ObjectMeta {
    let mut labels = of_pods(&plan.name, component);
    labels.extend(texts([(VERSION, env!("CARGO_PKG_VERSION"))]));
    ObjectMeta {
        name: Some(name),
        namespace: Some(plan.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![plan.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// The metadata of a child with what a person adds; ours wins.
pub(super) fn meta_with(plan: &Plan, name: String, component: &str, labels: &Texts, annotations: &Texts) -> ObjectMeta {
    let mut meta = meta(plan, name, component);
    let ours = meta.labels.take().unwrap_or_default();
    meta.labels = Some(merged(labels, ours));
    meta.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    meta
}

/// Puts ours over theirs.
pub(super) fn merged(theirs: &Texts, ours: Texts) -> Texts {
    theirs.clone().into_iter().chain(ours).collect()
}

fn texts<const N: usize>(pairs: [(&str, &str); N]) -> Texts {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
