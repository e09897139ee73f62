//! One object that a pipeline owns.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
use serde::Serialize;
use serde_json::{Value, json};

use super::labels;
use crate::crd::{Free, Pod};

/// When a child is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// At once.
    Before,
    /// Once the tables are as this version needs them: what writes them.
    After,
}

/// One object that a pipeline owns, as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// When it is applied.
    pub stage: Stage,
    /// Its kind.
    pub resource: ApiResource,
    /// The object.
    pub object: DynamicObject,
}

// === impl Child ===

impl Child {
    /// Returns the object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the part of the pipeline that it is of, as its label says.
    #[must_use]
    pub fn component(&self) -> Option<&str> {
        self.object.metadata.labels.as_ref()?.get(labels::COMPONENT).map(String::as_str)
    }

    /// Takes an object of a kind that Kubernetes itself has.
    pub(super) fn of<K: Resource<DynamicType = ()> + Serialize>(stage: Stage, object: &K) -> Self {
        let data = match to_value(object) {
            // Type and metadata stand beside the rest.
            Value::Object(map) => {
                map.into_iter().filter(|(key, _)| !["apiVersion", "kind", "metadata"].contains(&key.as_str())).collect()
            }
            other => other,
        };
        Self::new(stage, ApiResource::erase::<K>(&()), object.meta().clone(), data)
    }

    /// Takes an object with pods, and puts in what is written of them in their own words.
    pub(super) fn with_pods<K: Resource<DynamicType = ()> + Serialize>(stage: Stage, object: &K, pod: &Pod) -> Self {
        let mut child = Self::of(stage, object);
        let selector = child.object.data.pointer("/spec/selector").cloned();
        if let Some(spec) = child.object.data.pointer_mut("/spec/template/spec") {
            insert_free(spec, pod, selector.as_ref());
        }
        child
    }

    /// Takes an object of a kind that somebody else brought into the cluster.
    pub(super) fn foreign(resource: ApiResource, metadata: ObjectMeta, spec: &Value) -> Self {
        Self::new(Stage::Before, resource, metadata, json!({ "spec": spec }))
    }

    pub(super) fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    fn new(stage: Stage, resource: ApiResource, metadata: ObjectMeta, data: Value) -> Self {
        let types = TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() };
        Self { stage, resource, object: DynamicObject { types: Some(types), metadata, data } }
    }
}

/// Names a kind that somebody else brought into the cluster.
pub(super) fn foreign_kind(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// The API server judges these fields, so that the operator does not have to know each one that a newer Kubernetes has.
fn insert_free(spec: &mut Value, pod: &Pod, selector: Option<&Value>) {
    if let Some(affinity) = &pod.affinity {
        spec["affinity"] = affinity.0.clone();
    }
    // The one pod of a Job has none to be spread among.
    if let (Some(constraints), Some(selector)) = (&pod.topology_spread_constraints, selector) {
        // One that names no pods would count none: it means these.
        let constraint = |written: &Free| {
            let mut constraint = written.0.clone();
            if let Value::Object(map) = &mut constraint {
                map.entry("labelSelector").or_insert_with(|| selector.clone());
            }
            constraint
        };
        spec["topologySpreadConstraints"] = constraints.iter().map(constraint).collect();
    }
    let contexts = [
        ("/securityContext", &pod.security_context),
        ("/containers/0/securityContext", &pod.container_security_context),
    ];
    for (place, written) in contexts {
        if let (Some(Value::Object(ours)), Some(Free(Value::Object(theirs)))) = (spec.pointer_mut(place), written) {
            ours.extend(theirs.clone());
        }
    }
    let lists = [("/volumes", &pod.extra_volumes), ("/containers/0/volumeMounts", &pod.extra_volume_mounts)];
    for (place, further) in lists {
        if let Some(Value::Array(list)) = spec.pointer_mut(place) {
            list.extend(further.iter().map(|item| item.0.clone()));
        }
    }
}

fn to_value(object: &impl Serialize) -> Value {
    #[expect(clippy::expect_used, reason = "every key of an object is text, which is all that JSON could refuse")]
    serde_json::to_value(object).expect("an object is json")
}
