//! Applies one child, or deletes one object: by server-side apply, and only where something differs.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use thiserror::Error;

use crate::children::{self, Child};
use crate::context::{Context, MANAGER};
use crate::pause::is_paused;
use crate::state::{Mark, ObjectKey, Owned, Owner, Pipeline};

/// Why a child is not as it should be.
#[derive(Debug, Error)]
pub(super) enum ApplyError {
    /// Something of the same name is not this pipeline's.
    #[error(
        "{kind} {name} already exists and belongs to {owner}: delete or rename it, or give this pipeline another name"
    )]
    Taken { kind: String, name: String, owner: String },
    /// The namespace is going, and takes nothing new.
    #[error("could not write {kind} {name}: the namespace is being terminated")]
    Terminating { kind: String, name: String, source: Box<kube::Error> },
    /// The operator's role does not allow it.
    #[error("the operator may not write {kind} {name}: grant its role this permission (see rbac in the chart)")]
    Forbidden { kind: String, name: String, source: Box<kube::Error> },
    /// The API server rejects the object.
    #[error("the api server rejected {kind} {name}")]
    Refused { kind: String, name: String, source: Box<kube::Error> },
    /// The write failed.
    #[error("could not write {kind} {name}")]
    Write { kind: String, name: String, source: Box<kube::Error> },
    /// An object that is no longer wanted is still there.
    #[error("could not delete {kind} {name}")]
    Delete { kind: String, name: String, source: Box<kube::Error> },
}

// === impl ApplyError ===

impl ApplyError {
    /// Returns the reason for the condition Ready, in one word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "NameTaken",
            Self::Terminating { .. } => "NamespaceTerminating",
            Self::Forbidden { .. } => "Forbidden",
            Self::Refused { .. } => "ChildRefused",
            Self::Write { .. } => "ApplyFailed",
            Self::Delete { .. } => "DeleteFailed",
        }
    }

    pub(super) fn of(key: &ObjectKey, source: kube::Error) -> Self {
        let (kind, name, code) = (key.kind.clone(), key.name.clone(), code(&source));
        let is_terminating = is_terminating(&source);
        let source = Box::new(source);
        match code {
            403 if is_terminating => Self::Terminating { kind, name, source },
            401 | 403 => Self::Forbidden { kind, name, source },
            400 | 409 | 422 => Self::Refused { kind, name, source },
            _ => Self::Write { kind, name, source },
        }
    }
}

/// Applies one child, unless it is in the cluster as it should be.
pub(super) async fn apply(context: &Context, pipeline: &Pipeline, child: &Child) -> Result<(), ApplyError> {
    let key = key_of(child);
    let seen = context.index.get(&key).filter(|seen| seen.is_of(&pipeline.uid));
    let asked = asked(&child.object);
    if let Some(seen) = &seen {
        if seen.paused {
            context.events.left_paused(&pipeline.name, &key.kind, &key.name);
            return Ok(());
        }
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
        if !belongs(&there.metadata, pipeline) {
            let owner = match Owner::of(&there.metadata) {
                Some(owner) => format!("the pipeline {} with uid {}", owner.name, owner.uid),
                None => "someone else".to_owned(),
            };
            return Err(ApplyError::Taken { kind: key.kind, name: key.name, owner });
        }
        if is_paused(&there.metadata) {
            context.events.left_paused(&pipeline.name, &key.kind, &key.name);
            return Ok(());
        }
    }
    let params = PatchParams::apply(MANAGER).force();
    let written = api.patch(&key.name, &params, &Patch::Apply(&child.object)).await.map_err(failed)?;
    context.events.applied(&pipeline.name, &key.kind, &key.name);
    let version = Owned::new(&written.metadata).version;
    context.applied.set(key.clone(), Mark { asked, version });
    // Before the watch reports it: until then the status would speak of the pods from before.
    if key.kind == "Deployment"
        && let Ok(deployment) = written.try_parse::<Deployment>()
    {
        context.index.record_written(key, &deployment);
    }
    Ok(())
}

/// Deletes what the pipeline owns and no longer wants.
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
    let Some(resource) = children::kinds().into_iter().find(|kind| kind.kind == key.kind && kind.group == key.group)
    else {
        return Ok(());
    };
    let still = Preconditions { uid: Some(owned.uid.clone()), resource_version: None };
    let params = params.clone().preconditions(still);
    match api(&context.client, &resource, &key.namespace).delete(&key.name, &params).await {
        Ok(_) => context.events.deleted(&pipeline.name, &key.kind, &key.name),
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

/// Selects what is no longer wanted.
fn orphans(
    owned: Vec<(ObjectKey, Owned)>,
    wanted: &HashSet<ObjectKey>,
    keep_jobs: bool,
) -> impl Iterator<Item = (ObjectKey, Owned)> {
    owned.into_iter().filter(move |(key, owned)| {
        let is_kept = keep_jobs && key.kind == "Job";
        !is_kept && !owned.paused && !wanted.contains(key)
    })
}

async fn metadata(
    client: &Client,
    resource: &ApiResource,
    key: &ObjectKey,
) -> Result<Option<PartialObjectMeta<DynamicObject>>, kube::Error> {
    api(client, resource, &key.namespace).get_metadata_opt(&key.name).await
}

pub(super) fn api(client: &Client, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, resource)
}

/// Returns the key of a child.
pub(super) fn key_of(child: &Child) -> ObjectKey {
    ObjectKey::of(&child.resource, &child.object.metadata)
}

/// Returns the HTTP status of an answer; 0 where there was none.
pub(super) fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Says whether the API server refuses what is new because the namespace is going.
fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Says whether an object under a name of the pipeline's children is the pipeline's. Without a controller it still is where the
/// operator wrote it: somebody took the reference away, and the next apply brings it back.
pub(super) fn belongs(metadata: &ObjectMeta, pipeline: &Pipeline) -> bool {
    if let Some(owner) = Owner::of(metadata) {
        return owner.uid == pipeline.uid;
    }
    let mut managers = metadata.managed_fields.iter().flatten().map(|entry| entry.manager.as_deref());
    let mut owners = metadata.owner_references.iter().flatten();
    managers.any(|manager| manager == Some(MANAGER)) && !owners.any(|owner| owner.controller == Some(true))
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
        Owned { uid: "u".into(), owner: None, generation: None, version: 0, paused: false }
    }

    #[test]
    fn what_nothing_asks_for_is_an_orphan() {
        let all = || vec![(key("Service", "a"), owned()), (key("Service", "b"), owned()), (key("Job", "m-1"), owned())];
        let wanted = HashSet::from([key("Service", "a")]);
        let names = |keep| orphans(all(), &wanted, keep).map(|(key, _)| key.name).collect::<Vec<_>>();
        assert_eq!(names(false), ["b", "m-1"]);
        assert_eq!(names(true), ["b"], "a suspended pipeline keeps the proof that it was migrated");
        let paused = vec![(key("Service", "b"), Owned { paused: true, ..owned() })];
        assert_eq!(orphans(paused, &wanted, false).count(), 0, "a person stopped the operator's hands");
    }
}
