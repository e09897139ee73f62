//! How far a Deployment or a Job is, by its own status.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use penstock_autoscale::Fleet;

/// Marks a Job whose own container has ended well, whatever becomes of its pods.
pub(crate) const MIGRATED: &str = "penstock.dev/migrated";

/// How far a Deployment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// How many pods are asked for.
    pub(crate) wanted: i32,
    /// How many there are.
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    /// Whether a change of the pods has not come to its end.
    pub(crate) rolling: bool,
    /// Whether it makes no progress any more: new pods do not become ready.
    pub(crate) stuck: bool,
    /// Whether there is a pod of a version before the one that is asked for, or the change was not looked at yet.
    pub(crate) outdated: bool,
    /// Why Kubernetes refuses to make its pods: a quota or an admission webhook.
    pub(crate) refused: Option<String>,
}

/// How a Job ended, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Running,
    /// It has no pod, and waits to be tried again.
    Resting {
        since: Timestamp,
    },
    Complete,
    Failed {
        since: Timestamp,
    },
}

// === impl Rollout ===

impl Rollout {
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let replicas = status.replicas.unwrap_or(0);
        let stuck = status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        let refused = status.conditions.iter().flatten().find(|of| of.type_ == "ReplicaFailure" && of.status == "True");
        let behind =
            status.observed_generation.zip(deployment.metadata.generation).is_some_and(|(seen, now)| seen < now);
        Self {
            wanted,
            replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            // What is stuck is not on its way: those that are ready go on with what comes.
            rolling: behind || (!stuck && status.updated_replicas.unwrap_or(0) < replicas),
            stuck: stuck && !behind,
            outdated: behind || status.updated_replicas.unwrap_or(0) < replicas,
            refused: refused.and_then(|of| of.message.clone()),
        }
    }

    /// Says whether all pods that are asked for are there, ready and of the last version.
    pub(crate) fn is_settled(&self) -> bool {
        !self.outdated && !self.stuck && self.replicas == self.wanted && self.available.min(self.ready) >= self.wanted
    }

    /// Returns the same as the autoscaler sees it.
    pub(crate) fn fleet(&self) -> Fleet {
        let number = |count: i32| u16::try_from(count.max(0)).unwrap_or(u16::MAX);
        Fleet { desired: number(self.wanted), ready: number(self.ready), rolling: self.rolling }
    }
}

// === impl JobEnd ===

impl JobEnd {
    pub(crate) fn of(job: &Job) -> Self {
        // Its own container has ended well; that of a sidecar never would.
        if job.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIGRATED)) {
            return Self::Complete;
        }
        let conditions = || job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is = |kind: &str| conditions().find(|condition| condition.type_ == kind && condition.status == "True");
        if is("Complete").is_some() {
            Self::Complete
        } else if let Some(failed) = is("Failed") {
            Self::Failed { since: failed.last_transition_time.as_ref().map_or_else(Timestamp::now, |time| time.0) }
        } else {
            Self::resting(job).unwrap_or(Self::Running)
        }
    }

    /// Since the last pod ended, as far as that is known: a Job without pods changes nothing but the count of those that failed.
    fn resting(job: &Job) -> Option<Self> {
        let status = job.status.as_ref()?;
        let pods = status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
        let since =
            job.metadata.managed_fields.iter().flatten().filter_map(|of| of.time.as_ref()).map(|time| time.0).max();
        let since = since.or(status.start_time.as_ref().map(|time| time.0))?;
        (pods == 0 && status.start_time.is_some()).then_some(Self::Resting { since })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_has_ended_only_by_its_conditions() {
        let job =
            |conditions| -> Job { serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap() };
        assert_eq!(JobEnd::of(&Job::default()), JobEnd::Running);
        assert_eq!(JobEnd::of(&job(json!([{"type": "Complete", "status": "True"}]))), JobEnd::Complete);
        let since: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let failed = json!([{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]);
        assert_eq!(JobEnd::of(&job(failed)), JobEnd::Failed { since });
        assert_eq!(JobEnd::of(&job(json!([{"type": "Failed", "status": "False"}]))), JobEnd::Running);
        let marked =
            json!({"metadata": {"annotations": {MIGRATED: "true"}}, "spec": {"suspend": true, "template": {}}});
        assert_eq!(JobEnd::of(&serde_json::from_value(marked).unwrap()), JobEnd::Complete);
    }

    #[test]
    fn a_deployment_rolls_until_all_its_pods_are_of_the_last_version() {
        let of = |status| {
            let json = json!({"metadata": {"generation": 3}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": status});
            Rollout::of(&serde_json::from_value::<Deployment>(json).unwrap())
        };
        assert!(of(json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2})).rolling);
        assert!(of(json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 1})).rolling);
        let done = of(json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 1}));
        assert_eq!(done.fleet(), Fleet { desired: 2, ready: 1, rolling: false });
        assert!(!of(json!({})).rolling, "nobody has looked at it yet");
        let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]);
        let stuck = of(json!({"observedGeneration": 3, "replicas": 3, "updatedReplicas": 1, "conditions": late}));
        assert!(stuck.stuck && !stuck.rolling);
        let mended = of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "conditions": late}));
        assert!(mended.rolling && !mended.stuck, "that was of the version before");
        assert!(stuck.outdated && mended.outdated && !done.outdated);
        assert!(!done.is_settled(), "one of two is ready");
        let all = json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        assert!(of(all).is_settled());
    }

    #[test]
    fn pods_that_a_quota_refuses_are_told_by_the_deployment() {
        let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
            "message": "pods \"p\" is forbidden: exceeded quota"}]);
        let json = json!({"spec": {"selector": {}, "template": {}}, "status": {"conditions": failure}});
        let rollout = Rollout::of(&serde_json::from_value::<Deployment>(json).unwrap());
        assert_eq!(rollout.refused.as_deref(), Some("pods \"p\" is forbidden: exceeded quota"));
        assert!(!rollout.is_settled());
    }
}
