//! What stands in the cluster of what pipelines own: little of each object, as the watches tell it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{ApiResource, ObjectMeta};
use penstock_autoscale::Fleet;

use crate::build::names;
use crate::crd::GROUP;
use crate::pipelines::{Name, Pipeline};
use crate::plan::Part;
use crate::status::Facts;

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

/// An object that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) uid: String,
    pub(crate) owner: Option<Owner>,
    /// Changes when somebody changes what is written, and not with its status.
    pub(crate) version: u64,
}

/// The pipeline that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// How far a Deployment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// How many pods are asked for.
    pub(crate) wanted: i32,
    /// How many there are.
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    /// Whether a change of the pods has not come to its end.
    pub(crate) rolling: bool,
    /// Whether it makes no progress any more: new pods do not become ready.
    pub(crate) stuck: bool,
}

/// How a Job ended, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Running,
    Complete,
    Failed { since: Timestamp },
}

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Index {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    owned: HashMap<ObjectKey, Owned>,
    rollouts: HashMap<Name, Rollout>,
    jobs: HashMap<Name, JobEnd>,
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
        Self { uid: metadata.uid.clone().unwrap_or_default(), owner: Owner::of(metadata), version: version(metadata) }
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

// === impl Rollout ===

impl Rollout {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let replicas = status.replicas.unwrap_or(0);
        let stuck = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        let behind =
            status.observed_generation.zip(deployment.metadata.generation).is_some_and(|(seen, now)| seen < now);
        Self {
            wanted,
            replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            // What is stuck is not on its way: those that are ready go on with what comes.
            rolling: behind || (!stuck && status.updated_replicas.unwrap_or(0) < replicas),
            stuck: stuck && !behind,
        }
    }

    /// Returns the same as the autoscaler sees it.
    pub(crate) fn fleet(&self) -> Fleet {
        let number = |count: i32| u16::try_from(count.max(0)).unwrap_or(u16::MAX);
        Fleet { desired: number(self.wanted), ready: number(self.ready), rolling: self.rolling }
    }
}

// === impl JobEnd ===

impl JobEnd {
    pub(crate) fn of(job: &Job) -> Self {
        let conditions = || job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is = |kind: &str| conditions().find(|condition| condition.type_ == kind && condition.status == "True");
        if is("Complete").is_some() {
            Self::Complete
        } else if let Some(failed) = is("Failed") {
            Self::Failed { since: failed.last_transition_time.as_ref().map_or_else(Timestamp::now, |time| time.0) }
        } else {
            Self::Running
        }
    }
}

// === impl Index ===

impl Index {
    /// Notes an object; returns whose it is or was, where that pipeline may have to do something.
    pub(crate) fn note(&self, key: ObjectKey, metadata: &ObjectMeta) -> Vec<Name> {
        let now = Owned::new(metadata);
        let namespace = key.namespace.clone();
        let before = self.seen().owned.insert(key, now.clone());
        if before.as_ref() == Some(&now) {
            return Vec::new();
        }
        owners(&namespace, [before, Some(now)])
    }

    /// Notes a Deployment; returns as [`Self::note`], also when pods came or went.
    pub(crate) fn note_deployment(&self, key: ObjectKey, deployment: &Deployment) -> Vec<Name> {
        let rollout = Rollout::of(deployment);
        let place = key.place();
        let before = self.seen().rollouts.insert(place.clone(), rollout.clone());
        let mut concerned = self.note(key, &deployment.metadata);
        if before != Some(rollout) {
            concerned.extend(owners(&place.namespace, [Some(Owned::new(&deployment.metadata))]));
        }
        concerned
    }

    /// Notes a Job; returns as [`Self::note`], also when it ended.
    pub(crate) fn note_job(&self, key: ObjectKey, job: &Job) -> Vec<Name> {
        let end = JobEnd::of(job);
        let place = key.place();
        let before = self.seen().jobs.insert(place.clone(), end);
        let mut concerned = self.note(key, &job.metadata);
        if before != Some(end) {
            concerned.extend(owners(&place.namespace, [Some(Owned::new(&job.metadata))]));
        }
        concerned
    }

    /// Notes that an object is gone; returns whose it was.
    pub(crate) fn gone(&self, key: &ObjectKey) -> Vec<Name> {
        let mut seen = self.seen();
        let before = seen.remove(key);
        owners(&key.namespace, [before])
    }

    /// Forgets what a complete list of a kind, in one namespace or in all, no longer has; returns whose it was.
    pub(crate) fn retain(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        listed: &HashSet<ObjectKey>,
    ) -> Vec<Name> {
        let mut seen = self.seen();
        let lost: Vec<ObjectKey> = seen
            .owned
            .keys()
            .filter(|key| key.kind == resource.kind && key.group == resource.group)
            .filter(|key| namespace.is_none_or(|namespace| key.namespace == namespace) && !listed.contains(*key))
            .cloned()
            .collect();
        lost.iter()
            .flat_map(|key| {
                let before = seen.remove(key);
                owners(&key.namespace, [before])
            })
            .collect()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Owned> {
        self.seen().owned.get(key).cloned()
    }

    /// Lists what a pipeline owns.
    pub(crate) fn of(&self, namespace: &str, uid: &str) -> Vec<(ObjectKey, Owned)> {
        let seen = self.seen();
        let of = seen.owned.iter().filter(|(key, owned)| key.namespace == namespace && owned.is_of(uid));
        of.map(|(key, owned)| (key.clone(), owned.clone())).collect()
    }

    /// Returns how far a part's Deployment is; somebody else's of that name is none.
    pub(crate) fn rollout(&self, pipeline: &Pipeline, part: Part) -> Option<Rollout> {
        let key = ObjectKey::deployment(&pipeline.name.namespace, &pipeline.name.name, part);
        let seen = self.seen();
        seen.owned.get(&key).filter(|owned| owned.is_of(&pipeline.uid))?;
        seen.rollouts.get(&key.place()).cloned()
    }

    /// Notes a number of workers that was just written, before the watch tells it.
    pub(crate) fn note_scale(&self, place: &Name, wanted: i32) {
        if let Some(rollout) = self.seen().rollouts.get_mut(place) {
            rollout.wanted = wanted;
        }
    }

    pub(crate) fn job(&self, place: &Name) -> Option<JobEnd> {
        self.seen().jobs.get(place).copied()
    }

    /// Puts how far the Deployments are into the facts.
    pub(crate) fn refresh(&self, pipeline: &Pipeline, facts: &mut Facts) {
        facts.ingest.rollout = self.rollout(pipeline, Part::Ingest);
        facts.workers.rollout = self.rollout(pipeline, Part::Worker);
        facts.dashboard.rollout = self.rollout(pipeline, Part::Dashboard);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seen ===

impl Seen {
    fn remove(&mut self, key: &ObjectKey) -> Option<Owned> {
        match key.kind.as_str() {
            "Deployment" => drop(self.rollouts.remove(&key.place())),
            "Job" => drop(self.jobs.remove(&key.place())),
            _ => {}
        }
        self.owned.remove(key)
    }
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
        assert_eq!(index.note(key.clone(), &first), pipeline());
        let mut status_only = first.clone();
        status_only.resource_version = Some("8".into());
        assert_eq!(index.note(key.clone(), &status_only), []);
        assert_eq!(index.note(key.clone(), &meta("d", 2, &[])), pipeline(), "the spec");
        assert_eq!(index.note(key.clone(), &meta("d", 2, &[("a", "b")])), pipeline(), "a label");
        assert_eq!(index.gone(&key), pipeline());
        assert_eq!(index.gone(&key), []);
    }

    #[test]
    fn a_list_without_an_object_is_the_news_of_its_end() {
        let index = Index::default();
        let meta = meta("d", 1, &[]);
        let key = ObjectKey::of(&kind(), &meta);
        index.note(key.clone(), &meta);
        assert_eq!(index.retain(&kind(), Some("other"), &HashSet::new()), []);
        assert_eq!(index.retain(&kind(), None, &HashSet::from([key.clone()])), []);
        assert_eq!(index.retain(&kind(), None, &HashSet::new()), pipeline());
        assert_eq!(index.get(&key), None);
    }

    #[test]
    fn a_job_has_ended_only_by_its_conditions() {
        let job =
            |conditions| -> Job { serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap() };
        assert_eq!(JobEnd::of(&Job::default()), JobEnd::Running);
        assert_eq!(JobEnd::of(&job(json!([{"type": "Complete", "status": "True"}]))), JobEnd::Complete);
        let since: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let failed = json!([{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]);
        assert_eq!(JobEnd::of(&job(failed)), JobEnd::Failed { since });
        assert_eq!(JobEnd::of(&job(json!([{"type": "Failed", "status": "False"}]))), JobEnd::Running);
    }

    #[test]
    fn a_deployment_rolls_until_all_its_pods_are_of_the_last_version() {
        let of = |status| {
            let json = json!({"metadata": {"generation": 3}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": status});
            Rollout::of(&serde_json::from_value::<Deployment>(json).unwrap())
        };
        assert!(of(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2})).rolling);
        assert!(of(json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1})).rolling);
        let done = of(json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1}));
        assert_eq!(done.fleet(), Fleet { desired: 2, ready: 1, rolling: false });
        assert!(!of(json!({})).rolling, "nobody has looked at it yet");
        let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        let stuck = of(json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "conditions": late}));
        assert!(stuck.stuck && !stuck.rolling);
        let mended = of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "conditions": late}));
        assert!(mended.rolling && !mended.stuck, "that was of the version before");
    }
}
