//! The objects in the cluster that pipelines own: little of each, as the watches report it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, ObjectMeta};

use crate::children::names;
use crate::crd::GROUP;
use crate::name::Name;
use crate::pause::is_paused;
use crate::plan::Part;
use crate::status::{JobEnd, Rollout};

use super::pipelines::Pipeline;

/// Written by the Deployment controller, and so no sign that somebody changed anything.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object as the watches reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) uid: String,
    pub(crate) owner: Option<Owner>,
    /// That of what is written; absent where the kind has none.
    pub(crate) generation: Option<i64>,
    /// Changes when somebody changes what is written, and not with its status.
    pub(crate) version: u64,
    /// Whether a person stopped the operator's hands.
    pub(crate) paused: bool,
}

/// The pipeline that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// Everything that the watches reported.
#[derive(Default)]
pub(crate) struct Index {
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    owned: HashMap<ObjectKey, Owned>,
    rollouts: HashMap<Name, Rollout>,
    jobs: HashMap<Name, JobEnd>,
    /// Jobs of which a pod has run.
    started: HashSet<Name>,
    /// The images of the Deployments.
    images: HashMap<Name, String>,
}

// === impl ObjectKey ===

impl ObjectKey {
    pub(crate) fn of(resource: &ApiResource, metadata: &ObjectMeta) -> Self {
        Self {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Names the Deployment of a pipeline's part.
    pub(crate) fn deployment(namespace: &str, pipeline: &str, part: Part) -> Self {
        Self {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: namespace.to_owned(),
            name: names::part(pipeline, part),
        }
    }

    fn place(&self) -> Name {
        Name { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

// === impl Owned ===

impl Owned {
    pub(crate) fn new(metadata: &ObjectMeta) -> Self {
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            owner: Owner::of(metadata),
            generation: metadata.generation,
            version: version(metadata),
            paused: is_paused(metadata),
        }
    }

    pub(crate) fn is_of(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }
}

// === impl Owner ===

impl Owner {
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        let owners = metadata.owner_references.iter().flatten();
        let ours = |api_version: &str| api_version.split('/').next() == Some(GROUP);
        owners
            .filter(|owner| {
                owner.controller == Some(true) && owner.kind == "FirehosePipeline" && ours(&owner.api_version)
            })
            .map(|owner| Self { name: owner.name.clone(), uid: owner.uid.clone() })
            .next()
    }
}

// === impl Index ===

impl Index {
    /// Records an object; returns the pipelines that own or owned it and may have to be reconciled.
    pub(crate) fn record(&self, key: ObjectKey, metadata: &ObjectMeta) -> Vec<Name> {
        let now = Owned::new(metadata);
        let namespace = key.namespace.clone();
        let before = self.objects().owned.insert(key, now.clone());
        if before.as_ref() == Some(&now) {
            return Vec::new();
        }
        owners(&namespace, [before, Some(now)])
    }

    /// Records a Deployment; returns the same as [`Self::record`], and the owner too when pods came or went.
    pub(crate) fn record_deployment(&self, key: ObjectKey, deployment: &Deployment) -> Vec<Name> {
        let rollout = Rollout::of(deployment);
        let place = key.place();
        // What was written just now is known before the watch reports it, and what it reports late is older than that.
        let known = self.objects().owned.get(&key).map(|owned| (owned.uid.clone(), owned.generation));
        let seen = (deployment.metadata.uid.clone().unwrap_or_default(), deployment.metadata.generation);
        if known.is_some_and(|(uid, generation)| uid == seen.0 && generation > seen.1) {
            return Vec::new();
        }
        let before = {
            let mut objects = self.objects();
            match image_of(deployment) {
                Some(image) => objects.images.insert(place.clone(), image.to_owned()),
                None => objects.images.remove(&place),
            };
            objects.rollouts.insert(place.clone(), rollout.clone())
        };
        let mut concerned = self.record(key, &deployment.metadata);
        if before != Some(rollout) {
            concerned.extend(owners(&place.namespace, [Some(Owned::new(&deployment.metadata))]));
        }
        concerned
    }

    /// Records a Deployment as it was just written, unless the watch has reported that already, and maybe what followed.
    pub(crate) fn record_written(&self, key: ObjectKey, deployment: &Deployment) {
        let known = self.objects().owned.get(&key).map(|owned| (owned.uid.clone(), owned.generation));
        let written = (deployment.metadata.uid.clone().unwrap_or_default(), deployment.metadata.generation);
        if known.is_none_or(|(uid, generation)| uid != written.0 || generation < written.1) {
            self.record_deployment(key, deployment);
        }
    }

    /// Records a Job; returns the same as [`Self::record`], and the owner too when its first pod ran, and when it ended.
    pub(crate) fn record_job(&self, key: ObjectKey, job: &Job) -> Vec<Name> {
        let end = JobEnd::of(job);
        let place = key.place();
        let ready = job.status.as_ref().and_then(|status| status.ready).unwrap_or(0) > 0;
        let (before, starts) = {
            let mut objects = self.objects();
            let runs = ready || end == JobEnd::Complete;
            let starts = runs && objects.started.insert(place.clone());
            (objects.jobs.insert(place.clone(), end), starts)
        };
        let mut concerned = self.record(key, &job.metadata);
        if before != Some(end) || starts {
            concerned.extend(owners(&place.namespace, [Some(Owned::new(&job.metadata))]));
        }
        concerned
    }

    /// Removes an object that is gone; returns whose it was.
    pub(crate) fn remove(&self, key: &ObjectKey) -> Vec<Name> {
        let mut objects = self.objects();
        let before = objects.remove(key);
        owners(&key.namespace, [before])
    }

    /// Forgets what a complete list of a kind, in one namespace or in all, no longer has; returns whose it was.
    pub(crate) fn retain(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        listed: &HashSet<ObjectKey>,
    ) -> Vec<Name> {
        let mut objects = self.objects();
        let lost: Vec<ObjectKey> = objects
            .owned
            .keys()
            .filter(|key| key.kind == resource.kind && key.group == resource.group)
            .filter(|key| namespace.is_none_or(|namespace| key.namespace == namespace) && !listed.contains(*key))
            .cloned()
            .collect();
        lost.iter()
            .flat_map(|key| {
                let before = objects.remove(key);
                owners(&key.namespace, [before])
            })
            .collect()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Owned> {
        self.objects().owned.get(key).cloned()
    }

    /// Lists what a pipeline owns.
    pub(crate) fn of(&self, namespace: &str, uid: &str) -> Vec<(ObjectKey, Owned)> {
        let objects = self.objects();
        let of = objects.owned.iter().filter(|(key, owned)| key.namespace == namespace && owned.is_of(uid));
        of.map(|(key, owned)| (key.clone(), owned.clone())).collect()
    }

    /// Returns how far a part's Deployment is, if there is one of that name and the pipeline owns it.
    pub(crate) fn rollout(&self, pipeline: &Pipeline, part: Part) -> Option<Rollout> {
        let key = ObjectKey::deployment(&pipeline.name.namespace, &pipeline.name.name, part);
        let objects = self.objects();
        objects.owned.get(&key).filter(|owned| owned.is_of(&pipeline.uid))?;
        objects.rollouts.get(&key.place()).cloned()
    }

    /// Records a number of workers that was just written, before the watch reports it.
    pub(crate) fn record_scale(&self, place: &Name, wanted: i32) {
        if let Some(rollout) = self.objects().rollouts.get_mut(place) {
            rollout.wanted = wanted;
        }
    }

    pub(crate) fn job(&self, place: &Name) -> Option<JobEnd> {
        self.objects().jobs.get(place).copied()
    }

    /// Returns whether a pod of a Job has run: its image is there, and what it starts is in it.
    pub(crate) fn has_run(&self, place: &Name) -> bool {
        self.objects().started.contains(place)
    }

    /// Returns the image of a Deployment, where the watch has reported it.
    pub(crate) fn image(&self, place: &Name) -> Option<String> {
        self.objects().images.get(place).cloned()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Objects ===

impl Objects {
    fn remove(&mut self, key: &ObjectKey) -> Option<Owned> {
        match key.kind.as_str() {
            "Deployment" => {
                self.rollouts.remove(&key.place());
                self.images.remove(&key.place());
            }
            "Job" => {
                self.jobs.remove(&key.place());
                self.started.remove(&key.place());
            }
            _ => {}
        }
        self.owned.remove(key)
    }
}

/// Returns the image of a Deployment's pods.
pub(crate) fn image_of(deployment: &Deployment) -> Option<&str> {
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    containers.first()?.image.as_deref()
}

/// Lists the pipelines of objects, each once.
fn owners<const N: usize>(namespace: &str, objects: [Option<Owned>; N]) -> Vec<Name> {
    let mut owners: Vec<Name> = objects
        .into_iter()
        .flatten()
        .filter_map(|owned| Some(Name { namespace: namespace.to_owned(), name: owned.owner?.name }))
        .collect();
    owners.dedup();
    owners
}

/// Sums up what somebody may have changed. The generation of an object says that of its spec; where a kind has none, every
/// write counts.
fn version(metadata: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    match metadata.generation {
        Some(generation) => generation.hash(&mut hasher),
        None => metadata.resource_version.hash(&mut hasher),
    }
    metadata.uid.hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    metadata.labels.hash(&mut hasher);
    for (name, value) in metadata.annotations.iter().flatten().filter(|(name, _)| *name != REVISION) {
        (name, value).hash(&mut hasher);
    }
    for owner in metadata.owner_references.iter().flatten() {
        (&owner.uid, owner.controller).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(name: &str, generation: i64, labels: &[(&str, &str)]) -> ObjectMeta {
        serde_json::from_value(json!({
            "name": name, "namespace": "ns", "uid": "u1", "generation": generation, "resourceVersion": "7",
            "labels": labels.iter().copied().collect::<HashMap<_, _>>(),
            "ownerReferences": [{"apiVersion": "penstock.dev/v1alpha1", "kind": "FirehosePipeline", "name": "p", "uid": "o",
                "controller": true}],
        }))
        .unwrap()
    }

    fn kind() -> ApiResource {
        ApiResource::erase::<Deployment>(&())
    }

    fn pipeline() -> Vec<Name> {
        vec![Name { namespace: "ns".into(), name: "p".into() }]
    }

    #[test]
    fn only_what_somebody_wrote_concerns_the_pipeline() {
        let index = Index::default();
        let first = meta("d", 1, &[]);
        let key = ObjectKey::of(&kind(), &first);
        assert_eq!(index.record(key.clone(), &first), pipeline());
        let mut status_only = first.clone();
        status_only.resource_version = Some("8".into());
        assert_eq!(index.record(key.clone(), &status_only), []);
        assert_eq!(index.record(key.clone(), &meta("d", 2, &[])), pipeline(), "the spec");
        assert_eq!(index.record(key.clone(), &meta("d", 2, &[("a", "b")])), pipeline(), "a label");
        assert_eq!(index.remove(&key), pipeline());
        assert_eq!(index.remove(&key), []);
    }

    #[test]
    fn what_was_written_is_known_at_once_and_what_is_reported_late_changes_nothing() {
        let index = Index::default();
        let of = |generation, replicas: i32, updated: i32| -> Deployment {
            let metadata = meta("d", generation, &[]);
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"replicas": replicas, "selector": {}, "template": {}},
                "status": {"observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated}}),
            )
            .unwrap()
        };
        let key = ObjectKey::of(&kind(), &meta("d", 1, &[]));
        let updated =
            || index.objects().rollouts.values().map(|rollout| (rollout.wanted, rollout.outdated)).collect::<Vec<_>>();
        index.record_deployment(key.clone(), &of(1, 1, 1));
        index.record_written(key.clone(), &of(2, 2, 1));
        assert_eq!(updated(), [(2, true)]);
        index.record_deployment(key.clone(), &of(1, 1, 1));
        assert_eq!(updated(), [(2, true)], "reported late");
        index.record_deployment(key.clone(), &of(2, 2, 2));
        index.record_written(key, &of(2, 2, 1));
        assert_eq!(updated(), [(2, false)], "the answer came after the report");
    }

    #[test]
    fn a_list_without_an_object_is_the_news_of_its_end() {
        let index = Index::default();
        let meta = meta("d", 1, &[]);
        let key = ObjectKey::of(&kind(), &meta);
        index.record(key.clone(), &meta);
        assert_eq!(index.retain(&kind(), Some("other"), &HashSet::new()), []);
        assert_eq!(index.retain(&kind(), None, &HashSet::from([key.clone()])), []);
        assert_eq!(index.retain(&kind(), None, &HashSet::new()), pipeline());
        assert_eq!(index.get(&key), None);
    }
}
