//! The backfills as the watch reported them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::crd::{BackfillPhase, FirehoseBackfill, Order};
use crate::name::Name;

/// Keeps a backfill until the healers have been told that it is not wanted any more. It is there from the first time that they are told
/// of the backfill until it is complete.
pub(crate) const FINALIZER: &str = "penstock.dev/backfill";

/// Every backfill that the watch reported.
#[derive(Default)]
pub(crate) struct Backfills {
    known: Mutex<HashMap<Name, Arc<FirehoseBackfill>>>,
    /// The namespaces of which a complete list was seen; without a name: all.
    listed: Mutex<HashSet<Option<String>>>,
}

// === impl Backfills ===

impl Backfills {
    /// Records a backfill; returns the pipeline that must have healers from now on, or need not any more.
    pub(crate) fn record(&self, object: FirehoseBackfill) -> Option<Name> {
        let (name, pipeline) = (Name::of(&object), pipeline_of(&object));
        let before = self.is_served(&pipeline);
        self.known().insert(name, Arc::new(object));
        (before != self.is_served(&pipeline)).then_some(pipeline)
    }

    /// Removes a backfill that is gone; returns the same.
    pub(crate) fn remove(&self, name: &Name) -> Option<Name> {
        let removed = self.known().remove(name)?;
        let pipeline = pipeline_of(&removed);
        (is_at_work(&removed) && !self.is_served(&pipeline)).then_some(pipeline)
    }

    /// Forgets what a complete list, of one namespace or of all, no longer has; returns the same of each.
    pub(crate) fn retain(&self, namespace: Option<&str>, listed: &HashSet<Name>) -> Vec<Name> {
        let here = |name: &Name| namespace.is_none_or(|namespace| name.namespace == namespace);
        let lost: Vec<Name> =
            self.known().keys().filter(|name| here(name) && !listed.contains(*name)).cloned().collect();
        lost.iter().filter_map(|name| self.remove(name)).collect()
    }

    /// Notes that every backfill of a namespace, or of all, is known.
    pub(crate) fn record_listed(&self, namespace: Option<&str>) {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.map(str::to_owned));
    }

    /// Says whether every backfill of a namespace is known.
    pub(crate) fn is_listed(&self, namespace: &str) -> bool {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.contains(&None) || listed.contains(&Some(namespace.to_owned()))
    }

    pub(crate) fn all(&self) -> Vec<Arc<FirehoseBackfill>> {
        self.known().values().cloned().collect()
    }

    /// Says whether a pipeline must have healers because of a backfill.
    pub(crate) fn is_served(&self, pipeline: &Name) -> bool {
        self.known().values().any(|object| pipeline_of(object) == *pipeline && is_at_work(object))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Name, Arc<FirehoseBackfill>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the pipeline whose tables a backfill writes.
pub(crate) fn pipeline_of(object: &FirehoseBackfill) -> Name {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    Name { namespace, name: object.spec.pipeline.clone() }
}

/// Says whether the healers have something to do with a backfill: something to read, or to be told.
fn is_at_work(object: &FirehoseBackfill) -> bool {
    if object.metadata.deletion_timestamp.is_some() {
        return object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    }
    let phase = object.status.as_ref().and_then(|status| status.phase);
    match phase {
        Some(BackfillPhase::Complete | BackfillPhase::Failed) => false,
        // They have been told, and have finished what they had begun.
        Some(BackfillPhase::Suspended) => !object.spec.suspend,
        _ => true,
    }
}

/// Returns where a backfill stands among the repairs.
pub(crate) fn priority(order: Order) -> i16 {
    match order {
        Order::Last => 0,
        // Above the most urgent reason of a repair.
        Order::First => 100,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backfill(name: &str, changes: &Value) -> FirehoseBackfill {
        let mut object = json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehoseBackfill",
            "metadata": { "name": name, "namespace": "ns", "uid": name },
            "spec": { "pipeline": "p", "scope": { "all": true } },
        });
        for (path, value) in changes.as_object().unwrap() {
            let (parent, field) = path.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn healers_are_there_for_what_is_to_be_read_or_told() {
        let gone = json!("2026-01-01T00:00:00Z");
        let table = [
            (json!({}), true),
            (json!({ "/status": { "phase": "Running" } }), true),
            (json!({ "/spec/suspend": true }), true),
            (json!({ "/spec/suspend": true, "/status": { "phase": "Suspended" } }), false),
            // The pipeline was suspended, not the backfill.
            (json!({ "/status": { "phase": "Suspended" } }), true),
            (json!({ "/status": { "phase": "Complete" } }), false),
            (json!({ "/status": { "phase": "Failed" } }), false),
            (json!({ "/metadata/deletionTimestamp": gone }), false),
            (json!({ "/metadata/deletionTimestamp": gone, "/metadata/finalizers": [FINALIZER] }), true),
        ];
        for (changes, wanted) in table {
            assert_eq!(is_at_work(&backfill("b", &changes)), wanted, "{changes}");
        }
    }

    #[test]
    fn a_pipeline_is_news_when_its_first_backfill_begins_and_its_last_one_ends() {
        let (backfills, pipeline) = (Backfills::default(), Name { namespace: "ns".into(), name: "p".into() });
        let done = json!({ "/status": { "phase": "Complete" } });
        assert_eq!(backfills.record(backfill("a", &json!({}))), Some(pipeline.clone()));
        assert_eq!(backfills.record(backfill("b", &json!({}))), None);
        assert_eq!(backfills.record(backfill("a", &done)), None);
        assert_eq!(backfills.remove(&Name { namespace: "ns".into(), name: "a".into() }), None);
        assert_eq!(backfills.retain(Some("other"), &HashSet::new()), []);
        assert_eq!(backfills.retain(None, &HashSet::new()), std::slice::from_ref(&pipeline));
        assert!(!backfills.is_served(&pipeline));
        assert_eq!(backfills.record(backfill("a", &json!({}))), Some(pipeline.clone()));
    }
}
