//! What the operator tells in its log and its metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_autoscale::Decision;
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use tracing::{debug, error, info, warn};

use crate::crd::Phase;
use crate::error::chain;
use crate::pipelines::Name;

/// Every phase, with the value of its label.
const PHASES: [(Phase, &str); 6] = [
    (Phase::Pending, "pending"),
    (Phase::Running, "running"),
    (Phase::Degraded, "degraded"),
    (Phase::Suspended, "suspended"),
    (Phase::Failed, "failed"),
    (Phase::Deleting, "deleting"),
];

/// Writes a log line and counts, for what happens in the operator.
#[derive(Clone)]
pub(crate) struct Telemetry {
    metrics: Metrics,
    reconcile: Histogram,
    applied: Counter,
    deleted: Counter,
    status_writes: Counter,
    round: Histogram,
    patches: Counter,
    leading: Gauge,
    gauges: Arc<Gauges>,
    /// What is amiss for good, told once: by what it is about.
    told: Arc<Mutex<HashMap<String, String>>>,
}

struct Gauges {
    phases: Vec<(Phase, Gauge)>,
    lag_unknown: Gauge,
    backlog: Gauge,
    stranded: Gauge,
    lag: Gauge,
    desired: Gauge,
    ready: Gauge,
}

/// What all pipelines are like together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) phases: Vec<Phase>,
    pub(crate) lag_unknown: u64,
    pub(crate) backlog: u64,
    pub(crate) stranded: u64,
    pub(crate) lag_seconds: i64,
    pub(crate) desired: i64,
    pub(crate) ready: i64,
}

// === impl Telemetry ===

impl Telemetry {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |metric| metrics.gauge(metric, None);
        let gauges = Gauges {
            phases: PHASES.map(|(phase, name)| (phase, metrics.gauge(Metric::Pipelines, name))).to_vec(),
            lag_unknown: gauge(Metric::PipelinesLagUnknown),
            backlog: gauge(Metric::ObservedBacklog),
            stranded: gauge(Metric::ObservedStranded),
            lag: gauge(Metric::ObservedLagSeconds),
            desired: gauge(Metric::DesiredWorkers),
            ready: gauge(Metric::ReadyWorkers),
        };
        Self {
            metrics: metrics.clone(),
            reconcile: metrics.histogram(Metric::ReconcileSeconds, None),
            applied: metrics.counter(Metric::ChildrenApplied, None),
            deleted: metrics.counter(Metric::ChildrenDeleted, None),
            status_writes: metrics.counter(Metric::StatusWrites, None),
            round: metrics.histogram(Metric::ScalingSeconds, None),
            patches: metrics.counter(Metric::ScalePatches, None),
            leading: gauge(Metric::Leading),
            gauges: Arc::new(gauges),
            told: Arc::default(),
        }
    }

    pub(crate) fn leading(&self, leads: bool) {
        self.leading.set(if leads { 1.0 } else { 0.0 });
    }

    pub(crate) fn reconciled(&self, took: Duration) {
        self.reconcile.observe_here(took.as_secs_f64());
    }

    pub(crate) fn reconcile_failed(&self, name: &Name, reason: &'static str, message: &str) {
        self.metrics.counter(Metric::ReconcileErrors, reason).inc();
        if self.is_news(&format!("reconcile {name}"), message) {
            warn!(pipeline = %name, reason, error = message, "could not carry out a pipeline");
        }
    }

    pub(crate) fn malformed(&self, name: &Name, error: &str) {
        self.metrics.counter(Metric::ReconcileErrors, "malformed").inc();
        if self.is_news(&format!("reconcile {name}"), error) {
            warn!(pipeline = %name, error, "a pipeline cannot be read, passed over");
        }
    }

    /// Notes that a pipeline is carried out again.
    pub(crate) fn carried_out(&self, name: &Name) {
        if self.is_over(&format!("reconcile {name}")) {
            info!(pipeline = %name, "a pipeline is carried out again");
        }
    }

    pub(crate) fn applied(&self, name: &Name, kind: &str, child: &str) {
        self.applied.inc();
        debug!(pipeline = %name, kind, child, "applied");
    }

    pub(crate) fn deleted(&self, name: &Name, kind: &str, child: &str) {
        self.deleted.inc();
        info!(pipeline = %name, kind, child, "deleted what nothing asks for any more");
    }

    pub(crate) fn status_written(&self) {
        self.status_writes.inc();
    }

    pub(crate) fn status_refused(&self, name: &Name, error: &kube::Error) {
        let error = chain(error);
        if self.is_news(&format!("status {name}"), &error) {
            warn!(pipeline = %name, error, "could not write the status of a pipeline");
        }
    }

    pub(crate) fn event_refused(&self, error: &kube::Error) {
        debug!(error = chain(error), "could not write an event");
    }

    pub(crate) fn watch_failed(&self, kind: &str, error: &dyn std::error::Error) {
        let error = chain(error);
        let (about, is_absent) = (format!("watch {kind}"), error.contains("404"));
        // An absent kind answers in several ways; that is one piece of news.
        if self.is_news(&about, if is_absent { "404" } else { &error }) {
            match is_absent {
                true => warn!(kind, error, "the cluster does not know this kind, waiting for its definition"),
                false => warn!(kind, error, "could not watch, trying again"),
            }
        }
    }

    pub(crate) fn watching(&self, kind: &str) {
        if self.is_over(&format!("watch {kind}")) {
            info!(kind, "watching again");
        }
    }

    pub(crate) fn decided(&self, name: &Name, decision: &Decision) {
        self.metrics.counter(Metric::Decisions, decision.reason.name()).inc();
        if self.is_news(&format!("decision {name}"), decision.reason.name()) {
            info!(pipeline = %name, reason = decision.reason.name(), %decision, "decided");
        }
    }

    pub(crate) fn scaled(&self, name: &Name, from: i32, to: i32) {
        self.patches.inc();
        info!(pipeline = %name, from, to, "changed the number of workers");
    }

    pub(crate) fn scale_refused(&self, name: &Name, error: &kube::Error) {
        let error = chain(error);
        if self.is_news(&format!("scale {name}"), &error) {
            warn!(pipeline = %name, error, "could not change the number of workers");
        }
    }

    pub(crate) fn redis_away(&self, url: &str, error: &str) {
        if self.is_news(&format!("redis {url}"), error) {
            warn!(redis = url, error, "redis is away");
        }
    }

    /// Tells why Redis, which answers, does not say what waits; the same once.
    pub(crate) fn backlog_refused(&self, workers: &Name, error: &str) {
        if self.is_news(&format!("backlog {workers}"), error) {
            warn!(deployment = %workers, error, "redis does not say what waits, the number of workers is held");
        }
    }

    pub(crate) fn backlog_told(&self, workers: &Name) {
        if self.is_over(&format!("backlog {workers}")) {
            info!(deployment = %workers, "redis says again what waits");
        }
    }

    pub(crate) fn redis_back(&self, url: &str) {
        if self.is_over(&format!("redis {url}")) {
            info!(redis = url, "redis is back");
        }
    }

    pub(crate) fn cleaned(&self, name: &Name, keys: usize, stream_kept: bool) {
        info!(pipeline = %name, keys, stream_kept, "removed what the pipeline had in redis");
    }

    pub(crate) fn gave_up(&self, name: &Name, why: &str) {
        error!(pipeline = %name, why, "let a deleted pipeline go although it has left something in redis");
    }

    /// Notes how long it took to look at one pipeline.
    pub(crate) fn looked(&self, took: Duration) {
        self.round.observe(took.as_secs_f64());
    }

    /// Shows what all pipelines together look like.
    pub(crate) fn now(&self, sum: &Sum) {
        for (phase, gauge) in &self.gauges.phases {
            gauge.set(sum.phases.iter().filter(|of| *of == phase).count() as f64);
        }
        self.gauges.lag_unknown.set(sum.lag_unknown as f64);
        self.gauges.backlog.set(sum.backlog as f64);
        self.gauges.stranded.set(sum.stranded as f64);
        self.gauges.lag.set(sum.lag_seconds as f64);
        self.gauges.desired.set(sum.desired as f64);
        self.gauges.ready.set(sum.ready as f64);
    }

    /// Forgets a pipeline that is gone.
    pub(crate) fn forget(&self, name: &Name) {
        let ends = format!(" {name}");
        self.told().retain(|about, _| !about.ends_with(&ends));
    }

    fn is_news(&self, about: &str, what: &str) -> bool {
        self.told().insert(about.to_owned(), what.to_owned()).is_none_or(|before| before != what)
    }

    fn is_over(&self, about: &str) -> bool {
        self.told().remove(about).is_some()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
