//! What is remembered of each pipeline.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use penstock_autoscale::{Decision, History};

use crate::crd::{FirehosePipeline, PipelineStatus, UNSEEN};
use crate::name::Name;
use crate::status::{Facts, Written};

use super::healers::Healers;
use super::target::Target;

/// Every pipeline that this operator reconciles.
#[derive(Default)]
pub(crate) struct Pipelines {
    known: Mutex<HashMap<Name, Arc<Pipeline>>>,
    /// The names of the resources, by namespace or all together, as complete lists and what came after them say.
    listed: Mutex<HashMap<Option<String>, HashSet<Name>>>,
}

/// One pipeline.
pub(crate) struct Pipeline {
    pub(crate) name: Name,
    pub(crate) uid: String,
    /// What Events are about.
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
    /// The healers; absent where there are none, and before the first plan.
    pub(crate) healers: Option<Healers>,
    pub(crate) history: History,
    pub(crate) decision: Option<Decision>,
    /// The number of workers that the resource says; none before it was read.
    pub(crate) asked: Option<i32>,
    /// When the number of workers was changed last.
    pub(crate) scaled: Option<Timestamp>,
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

    /// Records which resources there are in a namespace, or in all.
    pub(crate) fn record_listed(&self, namespace: Option<&str>, names: impl Iterator<Item = Name>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.insert(namespace.map(str::to_owned), names.collect());
    }

    /// Says whether there is a resource of a name, read or not; none before the first complete list.
    pub(crate) fn exists(&self, name: &Name) -> Option<bool> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let names = listed.get(&None).or_else(|| listed.get(&Some(name.namespace.clone())))?;
        Some(names.contains(name))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Pipeline>> {
        self.known().values().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Arc<Pipeline>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what one worker settled by the word of the status, which the operator before wrote: the least that one can.
fn seen_each(status: &PipelineStatus) -> Option<f64> {
    let workers = status.workers.as_ref()?;
    let rate: f64 = workers.service_rate.as_ref()?.parse().ok()?;
    let each = rate / f64::from(u16::try_from(workers.ready).ok()?);
    each.is_finite().then_some(each)
}

// === impl Pipeline ===

impl Pipeline {
    fn new(name: Name, uid: String, object: &FirehosePipeline) -> Self {
        let mut status: PipelineStatus = object.status.clone().unwrap_or_default();
        status.observed_generation = status.observed_generation.filter(|generation| *generation != UNSEEN);
        let scaled = status.workers.as_ref().and_then(|workers| workers.last_scale_time.as_ref()).map(|time| time.0);
        let state = State {
            facts: Facts { generation: status.observed_generation, ..Facts::default() },
            target: None,
            healers: None,
            history: History::new(Timestamp::now()).inherit(seen_each(&status)),
            decision: None,
            asked: None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::WorkersStatus;

    #[test]
    fn the_operator_before_says_what_a_worker_settles() {
        let of = |rate: Option<&str>, ready: i32| {
            let workers = WorkersStatus { service_rate: rate.map(str::to_owned), ready, ..WorkersStatus::default() };
            seen_each(&PipelineStatus { workers: Some(workers), ..PipelineStatus::default() })
        };
        assert_eq!(of(Some("16100"), 2), Some(8_050.0));
        assert_eq!(of(Some("0.0"), 1), Some(0.0));
        for unknown in [of(None, 2), of(Some("16100"), 0), of(Some("many"), 1), of(Some("1"), -1)] {
            assert_eq!(unknown, None);
        }
        assert_eq!(seen_each(&PipelineStatus::default()), None);
    }
}
