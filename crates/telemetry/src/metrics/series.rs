//! The handles of one metric, each with its own value of the label.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A label's key and value; `None` where the metric has no label.
pub(super) type Label = Option<(&'static str, &'static str)>;

/// Holds the handles that were taken of one metric; clones share them.
///
/// In the place of the library's `Family`, which writes `{}` after a name without a label and sorts by chance.
#[derive(Debug, Clone)]
pub(super) struct Series<M> {
    handles: Arc<Mutex<BTreeMap<Label, M>>>,
}

impl<M: Clone> Series<M> {
    pub(super) fn new() -> Self {
        Self { handles: Arc::default() }
    }

    /// Returns the handle of `label`, made by `make` the first time.
    pub(super) fn handle(&self, label: Label, make: impl FnOnce() -> M) -> M {
        self.handles().entry(label).or_insert_with(make).clone()
    }
}

impl<M> Series<M> {
    fn handles(&self) -> MutexGuard<'_, BTreeMap<Label, M>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Series<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let handles = self.handles();
        if let Some(only) = handles.get(&None) {
            return only.encode(encoder);
        }
        for (label, handle) in handles.iter().filter_map(|(label, handle)| Some((label.as_ref()?, handle))) {
            let (keys, values) = *label;
            let labels: Vec<_> = keys.split(',').zip(values.split(',')).collect();
            handle.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.handles().is_empty()
    }
}
