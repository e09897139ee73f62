//! What the operator keeps of each pipeline between two looks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use penstock_autoscale::{Decision, History};

use crate::crd::{FirehosePipeline, PipelineStatus};
use crate::scaling::Target;
use crate::status::{Facts, Written};

/// Namespace and name of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// All pipelines that this operator carries out.
#[derive(Default)]
pub(crate) struct Pipelines {
    known: Mutex<HashMap<Name, Arc<Pipeline>>>,
}

/// One pipeline.
pub(crate) struct Pipeline {
    pub(crate) name: Name,
    pub(crate) uid: String,
    /// What Events speak of.
    pub(crate) reference: ObjectReference,
    state: Mutex<State>,
    /// The status as it stands in the cluster; one writes at a time.
    pub(crate) written: tokio::sync::Mutex<Written>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) facts: Facts,
    /// What is scaled and by what it is decided; absent before the first plan.
    pub(crate) target: Option<Arc<Target>>,
    pub(crate) history: History,
    pub(crate) decision: Option<Decision>,
    /// When the number of workers was changed last.
    pub(crate) scaled: Option<Timestamp>,
}

// === impl Name ===

impl Name {
    pub(crate) fn of(object: &impl Resource) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Pipelines ===

impl Pipelines {
    /// Returns what is kept of a pipeline; one that was deleted and made again is another one.
    pub(crate) fn ensure(&self, object: &FirehosePipeline) -> Arc<Pipeline> {
        let name = Name::of(object);
        let uid = object.uid().unwrap_or_default();
        let mut known = self.known();
        match known.get(&name) {
            Some(pipeline) if pipeline.uid == uid => Arc::clone(pipeline),
            _ => {
                let pipeline = Arc::new(Pipeline::new(name.clone(), uid, object));
                known.insert(name, Arc::clone(&pipeline));
                pipeline
            }
        }
    }

    pub(crate) fn get(&self, name: &Name) -> Option<Arc<Pipeline>> {
        self.known().get(name).cloned()
    }

    /// Forgets a pipeline, unless another one of that name is there already.
    pub(crate) fn forget(&self, name: &Name, uid: &str) -> Option<Arc<Pipeline>> {
        let mut known = self.known();
        if known.get(name).is_some_and(|pipeline| pipeline.uid == uid) { known.remove(name) } else { None }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pipeline>> {
        self.known().values().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Arc<Pipeline>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pipeline ===

impl Pipeline {
    fn new(name: Name, uid: String, object: &FirehosePipeline) -> Self {
        let status: PipelineStatus = object.status.clone().unwrap_or_default();
        let scaled = status.workers.as_ref().and_then(|workers| workers.last_scale_time.as_ref()).map(|time| time.0);
        let state = State {
            facts: Facts { generation: status.observed_generation, ..Facts::default() },
            target: None,
            history: History::new(Timestamp::now()),
            decision: None,
            scaled,
        };
        Self {
            name,
            uid,
            reference: object.object_ref(&()),
            state: Mutex::new(state),
            written: tokio::sync::Mutex::new(Written::new(status)),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
