//! What the operator logs and counts.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::watcher;
use penstock_autoscale::Decision;
use penstock_core::causes::chain;
use penstock_telemetry::metrics::{Counter, Gauge, Histogram, Metric, Metrics};
use tracing::{debug, error, info, warn};

use crate::crd::Phase;
use crate::name::Name;
use crate::outage::Servers;

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
pub(crate) struct Events {
    servers: Servers,
    metrics: Metrics,
    reconcile: Histogram,
    applied: Counter,
    deleted: Counter,
    status_writes: Counter,
    turn: Histogram,
    patches: Counter,
    leading: Gauge,
    gauges: Arc<Gauges>,
    /// What is wrong and was logged, by what it is about: the same is logged once.
    logged: Arc<Mutex<HashMap<String, String>>>,
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

/// What all pipelines have together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) phases: Vec<Phase>,
    pub(crate) lag_unknown: u64,
    pub(crate) backlog: u64,
    pub(crate) stranded: u64,
    pub(crate) lag_seconds: i64,
    pub(crate) desired: i64,
    pub(crate) ready: i64,
}

// === impl Events ===

impl Events {
    pub(crate) fn new(metrics: &Metrics, servers: Servers) -> Self {
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
            servers,
            metrics: metrics.clone(),
            reconcile: metrics.histogram(Metric::ReconcileSeconds, None),
            applied: metrics.counter(Metric::ChildrenApplied, None),
            deleted: metrics.counter(Metric::ChildrenDeleted, None),
            status_writes: metrics.counter(Metric::StatusWrites, None),
            turn: metrics.histogram(Metric::ScalingSeconds, None),
            patches: metrics.counter(Metric::ScalePatches, None),
            leading: gauge(Metric::Leading),
            gauges: Arc::new(gauges),
            logged: Arc::default(),
        }
    }

    pub(crate) fn leading(&self, leads: bool) {
        self.leading.set(if leads { 1.0 } else { 0.0 });
    }

    pub(crate) fn reconcile_took(&self, took: Duration) {
        self.reconcile.observe_here(took.as_secs_f64());
    }

    pub(crate) fn reconcile_failed(&self, name: &Name, reason: &'static str, error: &(dyn Error + 'static)) {
        self.metrics.counter(Metric::ReconcileErrors, reason).inc();
        let message = &*chain(error);
        if self.servers.is_of_outage(error) {
            debug!(pipeline = %name, reason, error = message, "could not reconcile the pipeline");
        } else if self.is_news(&format!("reconcile {name}"), message) {
            warn!(pipeline = %name, reason, error = message, "could not reconcile the pipeline");
        }
    }

    pub(crate) fn malformed(&self, name: &Name, error: &str) {
        self.metrics.counter(Metric::ReconcileErrors, "malformed").inc();
        if self.is_news(&format!("reconcile {name}"), error) {
            warn!(pipeline = %name, error, "could not parse the pipeline, skipping it");
        }
    }

    /// Reports that a pipeline is reconciled again after a failure.
    pub(crate) fn reconciled(&self, name: &Name) {
        if self.is_over(&format!("reconcile {name}")) {
            info!(pipeline = %name, "pipeline reconciled again");
        }
    }

    pub(crate) fn applied(&self, name: &Name, kind: &str, child: &str) {
        self.applied.inc();
        debug!(pipeline = %name, kind, child, "child applied");
    }

    pub(crate) fn deleted(&self, name: &Name, kind: &str, child: &str) {
        self.deleted.inc();
        info!(pipeline = %name, kind, child, "child deleted");
    }

    pub(crate) fn left_paused(&self, name: &Name, kind: &str, child: &str) {
        debug!(pipeline = %name, kind, child, "child is paused, leaving it as it is");
    }

    pub(crate) fn status_written(&self) {
        self.status_writes.inc();
    }

    pub(crate) fn status_refused(&self, name: &Name, error: &kube::Error) {
        let is_of_outage = self.servers.is_of_outage(error);
        let error = chain(error);
        if is_of_outage {
            debug!(pipeline = %name, error, "could not write the pipeline status");
        } else if self.is_news(&format!("status {name}"), &error) {
            warn!(pipeline = %name, error, "could not write the pipeline status");
        }
    }

    pub(crate) fn event_refused(&self, error: &kube::Error) {
        debug!(error = chain(error), "could not record a kubernetes event");
    }

    pub(crate) fn watch_failed(&self, kind: &str, error: &(dyn Error + 'static)) {
        let is_of_outage = self.servers.is_of_outage(error);
        let is_absent = is_not_found(error);
        let error = chain(error);
        if is_of_outage {
            debug!(kind, error, "watch failed, retrying");
            return;
        }
        let about = format!("watch {kind}");
        // An absent kind answers in several ways; that is one piece of news.
        if self.is_news(&about, if is_absent { "404" } else { &error }) {
            match is_absent {
                true => warn!(kind, error, "kind not found in the cluster, waiting for its definition"),
                false => warn!(kind, error, "watch failed, retrying"),
            }
        }
    }

    pub(crate) fn watching(&self, kind: &str) {
        if self.is_over(&format!("watch {kind}")) {
            info!(kind, "watch restored");
        }
    }

    pub(crate) fn decided(&self, name: &Name, decision: &Decision) {
        self.metrics.counter(Metric::Decisions, decision.reason.name()).inc();
        if self.is_news(&format!("decision {name}"), decision.reason.name()) {
            info!(pipeline = %name, reason = decision.reason.name(), %decision, "scaling decision changed");
        }
    }

    pub(crate) fn scaled(&self, name: &Name, from: i32, to: i32) {
        self.patches.inc();
        info!(pipeline = %name, from, to, "workers scaled");
    }

    /// Reports a backfill that cannot be read, which the schema of an older definition let through.
    pub(crate) fn malformed_backfill(&self, name: &Name, error: &str) {
        self.metrics.counter(Metric::ReconcileErrors, "malformed").inc();
        if self.is_news(&format!("backfill {name}"), error) {
            let backfill = name.to_string();
            warn!(backfill, error, "could not parse the backfill, skipping it");
        }
    }

    pub(crate) fn backfill_refused(&self, name: &Name, error: &kube::Error) {
        let is_of_outage = self.servers.is_of_outage(error);
        let (backfill, error) = (name.to_string(), chain(error));
        if is_of_outage {
            debug!(backfill, error, "could not write the backfill");
        } else if self.is_news(&format!("backfill {name}"), &error) {
            warn!(backfill, error, "could not write the backfill");
        }
    }

    pub(crate) fn backfill_tended(&self, name: &Name) {
        self.is_over(&format!("backfill {name}"));
    }

    pub(crate) fn backfill_given_up(&self, name: &Name, why: &str) {
        let backfill = name.to_string();
        error!(backfill, why, "released the backfill at the deletion deadline, healers that come back go on with it");
    }

    pub(crate) fn backfill_expired(&self, name: &Name) {
        let backfill = name.to_string();
        info!(backfill, "removed the backfill at the end of ttlAfterFinished");
    }

    /// Reports that no healer of a pipeline answers; each way once.
    pub(crate) fn healer_away(&self, name: &Name, why: &str) {
        if self.is_news(&format!("healer {name}"), why) {
            warn!(pipeline = %name, why, "no healer answers, their number stays");
        }
    }

    pub(crate) fn healer_back(&self, name: &Name) {
        if self.is_over(&format!("healer {name}")) {
            info!(pipeline = %name, "a healer answers again");
        }
    }

    pub(crate) fn healers_scaled(&self, name: &Name, from: i32, to: i32) {
        self.patches.inc();
        info!(pipeline = %name, from, to, "healers scaled");
    }

    pub(crate) fn scale_refused(&self, name: &Name, error: &kube::Error) {
        let is_of_outage = self.servers.is_of_outage(error);
        let error = chain(error);
        if is_of_outage {
            debug!(pipeline = %name, error, "could not scale the workers");
        } else if self.is_news(&format!("scale {name}"), &error) {
            warn!(pipeline = %name, error, "could not scale the workers");
        }
    }

    /// Reports a Redis that cannot be used; `cause` says why it gives no answer, and none that it refuses.
    pub(crate) fn redis_away(&self, url: &str, cause: Option<&str>, error: &str) {
        if let Some(cause) = cause {
            self.servers.redis(url).failed_because(cause);
        } else if self.is_news(&format!("redis {url}"), error) {
            warn!(redis = url, error, "redis is unavailable, autoscaling is on hold");
        }
    }

    /// Reports why a Redis that answers does not give the backlog; the same once.
    pub(crate) fn backlog_unknown(&self, workers: &Name, error: &str) {
        if self.is_news(&format!("backlog {workers}"), error) {
            warn!(deployment = %workers, error, "could not read the backlog from redis, autoscaling is on hold");
        }
    }

    pub(crate) fn backlog_known(&self, workers: &Name) {
        if self.is_over(&format!("backlog {workers}")) {
            info!(deployment = %workers, "redis reports the backlog again");
        }
    }

    pub(crate) fn redis_back(&self, url: &str) {
        self.servers.redis(url).answered();
        if self.is_over(&format!("redis {url}")) {
            info!(redis = url, "redis is available again");
        }
    }

    pub(crate) fn cleaned(&self, name: &Name, keys: usize, stream_kept: bool) {
        info!(pipeline = %name, keys, stream_kept, "removed the pipeline's keys from redis");
    }

    pub(crate) fn gave_up(&self, name: &Name, why: &str) {
        error!(pipeline = %name, why, "removed the finalizer at the deletion deadline, keys may be left in redis");
    }

    /// Reports that the claim of a deleted resource of the same name was removed.
    pub(crate) fn claim_freed(&self, name: &Name, key: &str) {
        info!(pipeline = %name, key, "removed the claim of a deleted pipeline of this name");
    }

    pub(crate) fn claim_untended(&self, name: &Name, error: &fred::error::Error) {
        debug!(pipeline = %name, error = chain(error), "could not read or write whose the claim is");
    }

    /// Counts how long the turn of one pipeline took.
    pub(crate) fn turn_took(&self, took: Duration) {
        self.turn.observe(took.as_secs_f64());
    }

    /// Sets the gauges of all pipelines together.
    pub(crate) fn totals(&self, totals: &Totals) {
        for (phase, gauge) in &self.gauges.phases {
            gauge.set(totals.phases.iter().filter(|of| *of == phase).count() as f64);
        }
        self.gauges.lag_unknown.set(totals.lag_unknown as f64);
        self.gauges.backlog.set(totals.backlog as f64);
        self.gauges.stranded.set(totals.stranded as f64);
        self.gauges.lag.set(totals.lag_seconds as f64);
        self.gauges.desired.set(totals.desired as f64);
        self.gauges.ready.set(totals.ready as f64);
    }

    /// Forgets a pipeline that is gone, and the Deployment of its workers.
    pub(crate) fn forget(&self, name: &Name, workers: &Name) {
        let of = [format!(" {name}"), format!(" {workers}")];
        self.logged().retain(|about, _| !of.iter().any(|of| about.ends_with(of)));
    }

    /// Forgets every Redis but these: no pipeline asks for the others any more.
    pub(crate) fn keep_redis(&self, shown: &HashSet<String>) {
        let is_unused = |about: &str| about.strip_prefix("redis ").is_some_and(|url| !shown.contains(url));
        self.logged().retain(|about, _| !is_unused(about));
        self.servers.keep_redis(shown);
    }

    #[cfg(test)]
    fn told(&self) -> Vec<String> {
        self.logged().keys().cloned().collect()
    }

    fn is_news(&self, about: &str, what: &str) -> bool {
        self.logged().insert(about.to_owned(), what.to_owned()).is_none_or(|before| before != what)
    }

    fn is_over(&self, about: &str) -> bool {
        self.logged().remove(about).is_some()
    }

    fn logged(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the API server answered that there is no such thing.
fn is_not_found(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = match (error.downcast_ref::<kube::Error>(), error.downcast_ref::<watcher::Error>()) {
            (Some(kube::Error::Api(status)), _) => Some(status.code),
            (_, Some(watcher::Error::WatchError(status))) => Some(status.code),
            _ => None,
        };
        if let Some(code) = code {
            return code == 404;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn events() -> Events {
        Events::new(&Metrics::default(), Servers::new("https://api:6443", Duration::from_secs(2)))
    }

    fn name(name: &str) -> Name {
        Name { namespace: "ns".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn only_the_code_of_an_answer_says_that_a_kind_is_absent() {
        let answer = |code: u16, message: &str| Status { code, message: message.to_owned(), ..Status::default() };
        let list = |status: Status| watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)));
        assert!(is_not_found(&list(answer(404, "the server could not find the requested resource"))));
        assert!(is_not_found(&watcher::Error::WatchError(Box::new(answer(404, "")))));
        assert!(!is_not_found(&list(answer(403, "secrets \"team-404\" is forbidden"))));
        assert!(!is_not_found(&std::io::Error::other("404")));
    }

    #[test]
    fn nothing_is_remembered_of_a_pipeline_that_is_gone() {
        let events = events();
        let refused = kube::Error::Api(Box::default());
        for pipeline in [name("p"), name("pp")] {
            let workers = name(&format!("{}-worker", pipeline.name));
            events.reconcile_failed(&pipeline, "ApplyFailed", &refused);
            events.scale_refused(&pipeline, &refused);
            events.backlog_unknown(&workers, "WRONGTYPE");
            events.redis_away(&format!("redis://{}", pipeline.name), None, "WRONGPASS");
        }
        events.forget(&name("p"), &name("p-worker"));
        events.keep_redis(&HashSet::from(["redis://pp".to_owned()]));
        let told = events.told();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(told.iter().all(|about| about.contains("pp")), "{told:?}");
    }
}
