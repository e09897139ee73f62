//! Brings children into the cluster and takes orphans away: by server-side apply, and only where something differs.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use thiserror::Error;

use crate::build::{self, Child};
use crate::context::{Context, MANAGER};
use crate::pipelines::Pipeline;

use super::index::{ObjectKey, Owned, Owner};

/// What was applied last, by object.
#[derive(Default)]
pub(crate) struct Applied {
    marks: Mutex<HashMap<ObjectKey, Mark>>,
}

/// What was asked for, and what stood there after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    asked: u64,
    version: u64,
}

/// Why a child is not as it should be.
#[derive(Debug, Error)]
pub(crate) enum ApplyError {
    /// Something of the same name is not this pipeline's.
    #[error(
        "{kind} {name} is there and is {owner}, not this pipeline's: delete or rename it, or give the pipeline another name"
    )]
    Taken { kind: String, name: String, owner: String },
    /// The operator may not.
    #[error("the operator may not write {kind} {name}: give its role that permission (rbac of the chart)")]
    Forbidden { kind: String, name: String, source: Box<kube::Error> },
    /// The API server refuses what is asked for.
    #[error("{kind} {name} is refused by the api server")]
    Refused { kind: String, name: String, source: Box<kube::Error> },
    /// The API server does not do it.
    #[error("could not write {kind} {name}")]
    Write { kind: String, name: String, source: Box<kube::Error> },
    /// An object that nothing asks for is still there.
    #[error("could not delete {kind} {name}")]
    Delete { kind: String, name: String, source: Box<kube::Error> },
}

// === impl Applied ===

impl Applied {
    fn get(&self, key: &ObjectKey) -> Option<Mark> {
        self.marks().get(key).copied()
    }

    fn set(&self, key: ObjectKey, mark: Mark) {
        self.marks().insert(key, mark);
    }

    fn remove(&self, key: &ObjectKey) {
        self.marks().remove(key);
    }

    /// Forgets what belongs to a pipeline that is gone.
    pub(crate) fn forget(&self, keys: &[(ObjectKey, Owned)]) {
        let mut marks = self.marks();
        for (key, _) in keys {
            marks.remove(key);
        }
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<ObjectKey, Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ApplyError ===

impl ApplyError {
    /// Returns the reason for the condition Ready, in one word.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "NameTaken",
            Self::Forbidden { .. } => "Forbidden",
            Self::Refused { .. } => "ChildRefused",
            Self::Write { .. } => "ApplyFailed",
            Self::Delete { .. } => "DeleteFailed",
        }
    }

    fn of(key: &ObjectKey, source: kube::Error) -> Self {
        let (kind, name, code) = (key.kind.clone(), key.name.clone(), code(&source));
        let source = Box::new(source);
        match code {
            401 | 403 => Self::Forbidden { kind, name, source },
            400 | 409 | 422 => Self::Refused { kind, name, source },
            _ => Self::Write { kind, name, source },
        }
    }
}

/// Brings one child into the cluster, where it is not there as it should be.
pub(super) async fn apply(context: &Context, pipeline: &Pipeline, child: &Child) -> Result<(), ApplyError> {
    let key = ObjectKey::of(&child.resource, &child.object.metadata);
    let seen = context.index.get(&key).filter(|seen| seen.is_of(&pipeline.uid));
    let asked = asked(&child.object);
    if let Some(seen) = &seen {
        // What a Job asks for cannot be changed: its name carries the hash of it.
        let is_job = child.resource.kind == "Job";
        if is_job || context.applied.get(&key) == Some(Mark { asked, version: seen.version }) {
            return Ok(());
        }
    }
    let api = api(&context.client, &child.resource, &key.namespace);
    let failed = |source| ApplyError::of(&key, source);
    if seen.is_none()
        && let Some(there) = metadata(&context.client, &child.resource, &key).await.map_err(failed)?
    {
        let owner = Owner::of(&there.metadata);
        if owner.as_ref().is_none_or(|owner| owner.uid != pipeline.uid) {
            let owner = match owner {
                Some(owner) => format!("the pipeline {}'s, with uid {}", owner.name, owner.uid),
                None => "somebody else's".to_owned(),
            };
            return Err(ApplyError::Taken { kind: key.kind, name: key.name, owner });
        }
    }
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch(&key.name, &params, &Patch::Apply(&child.object)).await.map_err(failed)?;
    context.telemetry.applied(&pipeline.name, &key.kind, &key.name);
    let version = Owned::new(&written.metadata).version;
    context.applied.set(key, Mark { asked, version });
    Ok(())
}

/// Deletes what the pipeline owns and nothing asks for.
pub(super) async fn delete_orphans(
    context: &Context,
    pipeline: &Pipeline,
    wanted: &HashSet<ObjectKey>,
    keep_jobs: bool,
) -> Result<(), ApplyError> {
    let owned = context.index.of(&pipeline.name.namespace, &pipeline.uid);
    for (key, owned) in orphans(owned, wanted, keep_jobs) {
        delete(context, pipeline, &key, &owned, &DeleteParams::background()).await?;
    }
    Ok(())
}

/// Deletes one object, if it is still the one that was seen.
pub(super) async fn delete(
    context: &Context,
    pipeline: &Pipeline,
    key: &ObjectKey,
    owned: &Owned,
    params: &DeleteParams,
) -> Result<(), ApplyError> {
    let Some(resource) = build::kinds().into_iter().find(|kind| kind.kind == key.kind && kind.group == key.group)
    else {
        return Ok(());
    };
    let still = Preconditions { uid: Some(owned.uid.clone()), resource_version: None };
    let params = params.clone().preconditions(still);
    match api(&context.client, &resource, &key.namespace).delete(&key.name, &params).await {
        Ok(_) => context.telemetry.deleted(&pipeline.name, &key.kind, &key.name),
        // Gone, or another one of that name by now.
        Err(error) if matches!(code(&error), 404 | 409) => {}
        Err(source) => {
            let (kind, name) = (key.kind.clone(), key.name.clone());
            return Err(ApplyError::Delete { kind, name, source: Box::new(source) });
        }
    }
    context.applied.remove(key);
    Ok(())
}

/// Chooses what nothing asks for.
fn orphans(
    owned: Vec<(ObjectKey, Owned)>,
    wanted: &HashSet<ObjectKey>,
    keep_jobs: bool,
) -> impl Iterator<Item = (ObjectKey, Owned)> {
    owned.into_iter().filter(move |(key, _)| {
        let is_kept = keep_jobs && key.kind == "Job";
        !is_kept && !wanted.contains(key)
    })
}

async fn metadata(
    client: &Client,
    resource: &ApiResource,
    key: &ObjectKey,
) -> Result<Option<PartialObjectMeta<DynamicObject>>, kube::Error> {
    api(client, resource, &key.namespace).get_metadata_opt(&key.name).await
}

fn api(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// Returns the HTTP status of an answer; 0 where there was none.
pub(super) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

fn asked(object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(object).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey { group: String::new(), kind: kind.into(), namespace: "ns".into(), name: name.into() }
    }

    fn owned() -> Owned {
        Owned { uid: "u".into(), owner: None, version: 0 }
    }

    #[test]
    fn what_nothing_asks_for_is_an_orphan() {
        let all = || vec![(key("Service", "a"), owned()), (key("Service", "b"), owned()), (key("Job", "m-1"), owned())];
        let wanted = HashSet::from([key("Service", "a")]);
        let names = |keep| orphans(all(), &wanted, keep).map(|(key, _)| key.name).collect::<Vec<_>>();
        assert_eq!(names(false), ["b", "m-1"]);
        assert_eq!(names(true), ["b"], "a suspended pipeline keeps the proof that it was migrated");
    }
}
