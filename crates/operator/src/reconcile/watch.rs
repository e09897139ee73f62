//! Watches pipelines, what they own and the Secrets they name, and queues the pipelines that a change concerns.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::Backoff as KubeBackoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource};
use penstock_core::backoff::Backoff;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::children::labels;
use crate::context::Context;
use crate::crd::{FirehoseBackfill, FirehosePipeline};
use crate::name::Name;
use crate::pause::is_paused;
use crate::plan;
use crate::state::{Index, ObjectKey};

use super::{apis, deletion};

/// A pipeline, or why it cannot be read.
pub(super) type Guarded = DeserializeGuard<FirehosePipeline>;

/// How many objects one page of a list holds.
const PAGE: u32 = 25;

/// The pauses after a watch failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Where the names of pipelines go that are to be reconciled.
#[derive(Clone)]
pub(super) struct Queue(mpsc::UnboundedSender<ObjectRef<Guarded>>);

/// The pauses of a watch, as kube wants them.
struct Pauses(Backoff);

/// What the watch of pipelines remembers of each: its uid and its revision.
type Known = HashMap<Name, (String, Revision)>;

/// What is reconciled when it changes: a write of the status alone changes none of it.
#[derive(Clone, Debug, PartialEq)]
struct Revision {
    generation: Option<i64>,
    is_deleting: bool,
    is_paused: bool,
    finalizers: Option<Vec<String>>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<ObjectRef<Guarded>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    pub(super) fn push(&self, name: &Name) {
        // Nobody takes them only when everything ends.
        let _ = self.0.send(ObjectRef::new(&name.name).within(&name.namespace));
    }

    pub(super) fn push_all(&self, names: Vec<Name>) {
        for name in names {
            self.push(&name);
        }
    }
}

// === impl Pauses ===

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.fail().max(PAUSES.0 / 2))
    }
}

impl KubeBackoff for Pauses {
    fn reset(&mut self) {
        self.0.succeed();
    }
}

/// Watches the pipelines of a namespace, or of all, into a store.
pub(super) async fn pipelines(
    context: Arc<Context>,
    namespace: Option<String>,
    mut writer: store::Writer<Guarded>,
    queue: Queue,
) {
    let api: Api<Guarded> = scoped(&context, namespace.as_deref());
    let events = watch(api, watcher::Config::default().page_size(PAGE)).backoff(pauses());
    pin_mut!(events);
    let mut known = Known::new();
    let mut listed = Known::new();
    while let Some(event) = events.next().await {
        let mut event = match event {
            Ok(event) => event,
            Err(error) => {
                context.events.watch_failed("FirehosePipeline", &error);
                continue;
            }
        };
        if let Event::Apply(object) | Event::InitApply(object) = &mut event {
            object.meta_mut().managed_fields = None;
        }
        writer.apply_watcher_event(&event);
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(Name::of(&object), revision(&object));
            }
            Event::InitDone => {
                context.events.watching("FirehosePipeline");
                context.pipelines.record_listed(namespace.as_deref(), listed.keys().cloned());
                for (name, (uid, _)) in &known {
                    if listed.get(name).is_none_or(|(now, _)| now != uid) {
                        deletion::forget(&context, name, uid);
                    }
                }
                known = std::mem::take(&mut listed);
                // After a gap in the watch each is reconciled anew.
                known.keys().for_each(|name| queue.push(name));
            }
            Event::Apply(object) => {
                let (name, now) = (Name::of(&object), revision(&object));
                let before = known.insert(name.clone(), now.clone());
                if let Some((uid, _)) = before.as_ref().filter(|(uid, _)| *uid != now.0) {
                    deletion::forget(&context, &name, uid);
                }
                if before.as_ref() != Some(&now) {
                    queue.push(&name);
                }
                if before.is_none() {
                    context.pipelines.record_listed(namespace.as_deref(), known.keys().cloned());
                }
            }
            Event::Delete(object) => {
                let name = Name::of(&object);
                if let Some((uid, _)) = known.remove(&name) {
                    deletion::forget(&context, &name, &uid);
                }
                context.pipelines.record_listed(namespace.as_deref(), known.keys().cloned());
            }
        }
    }
}

/// Watches the backfills of a namespace, or of all, and queues the pipelines that must have healers from now on, or need not any more.
pub(super) async fn backfills(context: Arc<Context>, namespace: Option<String>, queue: Queue) {
    let api: Api<DeserializeGuard<FirehoseBackfill>> = scoped(&context, namespace.as_deref());
    let events = watch(api, watcher::Config::default().page_size(PAGE)).backoff(pauses());
    pin_mut!(events);
    let record = |object: DeserializeGuard<FirehoseBackfill>| match (Name::of(&object), object.0) {
        (_, Ok(mut object)) => {
            object.metadata.managed_fields = None;
            context.backfills.record(object)
        }
        (name, Err(invalid)) => {
            context.events.malformed_backfill(&name, &invalid.error);
            context.backfills.remove(&name)
        }
    };
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(Name::of(&object));
                queue.push_all(record(object).into_iter().collect());
            }
            Ok(Event::InitDone) => {
                context.events.watching("FirehoseBackfill");
                let listed = std::mem::take(&mut listed);
                queue.push_all(context.backfills.retain(namespace.as_deref(), &listed));
                if !namespace.as_deref().is_some_and(|namespace| context.backfills.is_listed(namespace)) {
                    context.backfills.record_listed(namespace.as_deref());
                    // Those that were planned before kept the healers that they had.
                    queue.push_all(context.pipelines.all().iter().map(|of| of.name.clone()).collect());
                }
            }
            Ok(Event::Apply(object)) => queue.push_all(record(object).into_iter().collect()),
            Ok(Event::Delete(object)) => {
                queue.push_all(context.backfills.remove(&Name::of(&object)).into_iter().collect());
            }
            Err(error) => context.events.watch_failed("FirehoseBackfill", &error),
        }
    }
}

/// Watches one kind of what pipelines own; `synced` is sent after the first whole list.
pub(super) async fn children(
    context: Arc<Context>,
    namespace: Option<String>,
    resource: ApiResource,
    queue: Queue,
    synced: oneshot::Sender<()>,
) {
    let scope = namespace.as_deref();
    match resource.kind.as_str() {
        "Deployment" => {
            let api: Api<Deployment> = scoped(&context, scope);
            let record = |index: &Index, key, deployment: &Deployment| index.record_deployment(key, deployment);
            owned(&context, scope, api, &resource, &queue, synced, record).await;
        }
        "Job" => {
            let api: Api<Job> = scoped(&context, scope);
            owned(&context, scope, api, &resource, &queue, synced, |index: &Index, key, job: &Job| {
                index.record_job(key, job)
            })
            .await;
        }
        _ => {
            let client = context.client.clone();
            let api: Api<PartialObjectMeta<DynamicObject>> = match scope {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            let record =
                |index: &Index, key, object: &PartialObjectMeta<DynamicObject>| index.record(key, &object.metadata);
            owned(&context, scope, api, &resource, &queue, synced, record).await;
        }
    }
}

/// Watches a kind that the cluster has only while somebody has installed it.
pub(super) async fn optional_children(
    context: Arc<Context>,
    namespace: Option<String>,
    resource: ApiResource,
    queue: Queue,
) {
    let mut apis = context.apis.subscribe();
    loop {
        if apis.wait_for(|apis| apis::has(*apis, &resource)).await.is_err() {
            return;
        }
        // Who asked for it so far in vain gets it now.
        let here = |name: &Name| namespace.as_deref().is_none_or(|namespace| name.namespace == namespace);
        queue.push_all(context.pipelines.all().iter().map(|of| of.name.clone()).filter(here).collect());
        let (synced, _) = oneshot::channel();
        let watching = children(Arc::clone(&context), namespace.clone(), resource.clone(), queue.clone(), synced);
        tokio::select! {
            () = watching => return,
            gone = apis.wait_for(|apis| !apis::has(*apis, &resource)) => if gone.is_err() {
                return;
            },
        }
        queue.push_all(context.index.retain(&resource, namespace.as_deref(), &HashSet::new()));
    }
}

/// Watches Secrets by their metadata, and queues the pipelines that name one that changed.
pub(super) async fn secrets(context: Arc<Context>, namespace: Option<String>, pipelines: Store<Guarded>, queue: Queue) {
    let api: Api<PartialObjectMeta<Secret>> = scoped(&context, namespace.as_deref());
    let events = watch(api, watcher::Config::default().page_size(PAGE)).backoff(pauses());
    pin_mut!(events);
    // Of those that are named: a new list is no change.
    let mut versions: HashMap<Name, Option<String>> = HashMap::new();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        let (secret, is_there) = match event {
            Ok(Event::Apply(secret)) => (secret, true),
            Ok(Event::InitApply(secret)) => {
                listed.insert(Name::of(&secret));
                (secret, true)
            }
            Ok(Event::Delete(secret)) => (secret, false),
            Ok(Event::InitDone) => {
                context.events.watching("Secret");
                // Those that went while nobody watched.
                let listed = std::mem::take(&mut listed);
                for (name, version) in &mut versions {
                    if !listed.contains(name) && version.take().is_some() {
                        queue.push_all(naming(&pipelines, name));
                    }
                }
                continue;
            }
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Err(error) => {
                context.events.watch_failed("Secret", &error);
                continue;
            }
        };
        let name = Name::of(&secret);
        let concerned = naming(&pipelines, &name);
        if concerned.is_empty() {
            continue;
        }
        let version = secret.metadata.resource_version.filter(|_| is_there);
        if versions.insert(name, version.clone()) != Some(version) {
            queue.push_all(concerned);
        }
    }
}

async fn owned<K>(
    context: &Context,
    namespace: Option<&str>,
    api: Api<K>,
    resource: &ApiResource,
    queue: &Queue,
    synced: oneshot::Sender<()>,
    record: impl Fn(&Index, ObjectKey, &K) -> Vec<Name>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().labels(&labels::managed()).page_size(PAGE);
    let events = watch(api, config).backoff(pauses());
    pin_mut!(events);
    let mut synced = Some(synced);
    let mut listed = HashSet::new();
    let key_of = |metadata: &ObjectMeta| ObjectKey::of(resource, metadata);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let key = key_of(object.meta());
                listed.insert(key.clone());
                queue.push_all(record(&context.index, key, &object));
            }
            Ok(Event::InitDone) => {
                context.events.watching(&resource.kind);
                let listed = std::mem::take(&mut listed);
                queue.push_all(context.index.retain(resource, namespace, &listed));
                let is_other = |key: &ObjectKey| key.kind != resource.kind || key.group != resource.group;
                context.applied.retain(|key| is_other(key) || context.index.get(key).is_some());
                if let Some(synced) = synced.take() {
                    let _ = synced.send(());
                }
            }
            Ok(Event::Apply(object)) => queue.push_all(record(&context.index, key_of(object.meta()), &object)),
            Ok(Event::Delete(object)) => {
                let key = key_of(object.meta());
                queue.push_all(context.index.remove(&key));
                context.applied.remove(&key);
            }
            Err(error) => context.events.watch_failed(&resource.kind, &error),
        }
    }
}

/// Lists the pipelines that name a Secret.
fn naming(pipelines: &Store<Guarded>, secret: &Name) -> Vec<Name> {
    let names = |object: &Guarded| match &object.0 {
        Ok(pipeline) => plan::references(pipeline).iter().any(|reference| reference.secret.name == secret.name),
        Err(_) => false,
    };
    let here = |object: &Guarded| object.meta().namespace.as_deref() == Some(secret.namespace.as_str());
    pipelines.state_filter(|object| here(object) && names(object)).iter().map(|object| Name::of(&**object)).collect()
}

fn revision(object: &Guarded) -> (String, Revision) {
    let meta = object.meta();
    let revision = Revision {
        generation: meta.generation,
        is_deleting: meta.deletion_timestamp.is_some(),
        is_paused: is_paused(meta),
        finalizers: meta.finalizers.clone(),
    };
    (meta.uid.clone().unwrap_or_default(), revision)
}

fn scoped<K>(context: &Context, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    }
}

fn pauses() -> Pauses {
    Pauses(Backoff::new(PAUSES.0, PAUSES.1))
}
