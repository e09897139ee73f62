//! What the controllers and the nodes of a cluster would do: what is asked for runs, and Jobs end.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::rig::Rig;

/// Plays the controllers and the nodes of a namespace until it is dropped.
pub(crate) struct Nodes(JoinHandle<()>);

// === impl Nodes ===

impl Nodes {
    /// Lets every pod that is asked for be ready, and every Job succeed.
    pub(crate) fn start(rig: &Rig) -> Self {
        let (deployments, jobs) = (rig.api::<Deployment>(), rig.api::<Job>());
        Self(tokio::spawn(async move {
            loop {
                let since = Instant::now();
                let idle = run_pods(&deployments).await & end_jobs(&jobs).await;
                // Of many, looking is work too, which the operator wants the machine for.
                let rest = if idle { since.elapsed() * 2 } else { Duration::ZERO };
                tokio::time::sleep(rest.max(Duration::from_millis(100))).await;
            }
        }))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes the status of every Deployment as if its pods were ready; says whether all were. What fails is tried again in the next round.
async fn run_pods(api: &Api<Deployment>) -> bool {
    let Ok(deployments) = api.list(&ListParams::default()).await else { return true };
    let mut idle = true;
    for deployment in deployments {
        let Some(name) = &deployment.metadata.name else { continue };
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let generation = deployment.metadata.generation;
        let status = deployment.status.unwrap_or_default();
        if status.observed_generation == generation && status.ready_replicas.unwrap_or(0) == wanted {
            continue;
        }
        let ready = json!({ "status": {
            "observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": wanted,
            "availableReplicas": wanted,
        } });
        let _ = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&ready)).await;
        idle = false;
    }
    idle
}

async fn end_jobs(api: &Api<Job>) -> bool {
    let Ok(jobs) = api.list(&ListParams::default()).await else { return true };
    let mut idle = true;
    for job in jobs {
        let ended = job.status.as_ref().is_some_and(|status| status.conditions.is_some());
        if let Some(name) = job.metadata.name.as_ref().filter(|_| !ended) {
            let _ = api.patch_status(name, &PatchParams::default(), &Patch::Merge(&succeeded())).await;
            idle = false;
        }
    }
    idle
}

/// The status of a Job that succeeded.
pub(crate) fn succeeded() -> Value {
    let now = Timestamp::now();
    let status = json!({ "startTime": now, "completionTime": now, "succeeded": 1, "ready": 0, "terminating": 0 });
    with_conditions(status, ["SuccessCriteriaMet", "Complete"], now)
}

/// The status of a Job that was tried in vain.
pub(crate) fn failed() -> Value {
    let now = Timestamp::now();
    let status = json!({ "startTime": now, "failed": 1, "ready": 0, "terminating": 0 });
    with_conditions(status, ["FailureTarget", "Failed"], now)
}

fn with_conditions(mut status: Value, kinds: [&str; 2], now: Timestamp) -> Value {
    let condition = |kind| json!({ "type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now, "reason": "Test", "message": "" });
    status["conditions"] = kinds.map(condition).into_iter().collect();
    json!({ "status": status })
}
