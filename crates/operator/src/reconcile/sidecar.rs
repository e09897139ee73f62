//! A migration whose pod goes on after its own container has ended, because a mesh put a sidecar into it that never ends.
//!
//! Called by the stages while the Job runs. In come its pods; out goes a Job that is suspended, which ends them, and that says in an
//! annotation whether it has migrated or is to be tried again.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::children::{Child, labels};
use crate::context::Context;
use crate::plan::Part;
use crate::state::Pipeline;
use crate::status::{JobEnd, MIGRATED};

use super::apply::{self, ApplyError};

/// Marks a Job that is suspended to end a pod that failed, and goes on once it is gone.
const TRY_AGAIN: &str = "penstock.dev/try-again";

/// The container that migrates.
const OWN: &str = "penstock";

/// How a pod that has not ended stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// Its own container has not ended, or nothing else holds it up.
    Running,
    Succeeded,
    Failed,
}

/// What is done with the Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// It has migrated, and its pods are of no more use.
    Finish,
    /// Its pod would stay failed for good.
    EndPods,
    /// The pods that failed are gone.
    GoOn,
}

/// Looks after the Job's pods while it runs.
///
/// # Errors
/// The pods could not be listed, or the Job not be written.
pub(super) async fn settle(context: &Context, pipeline: &Pipeline, job: &Child) -> Result<(), ApplyError> {
    let key = apply::key_of(job);
    let name = crate::name::Name::of(&job.object);
    let (Some(JobEnd::Running), Some(seen)) = (context.index.job(&name), context.index.get(&key)) else {
        return Ok(());
    };
    if seen.paused {
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &pipeline.name.namespace);
    let ours = ListParams::default().labels(&labels::pods_of(&pipeline.name.name, Part::Migrate));
    let failed = |source| ApplyError::of(&key, source);
    let mut pods = pods.list(&ours).await.map_err(failed)?.items;
    pods.retain(|pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == seen.uid));
    let standing: Vec<Own> = pods.iter().filter(|pod| !has_ended(pod)).map(own).collect();
    let jobs = apply::api(&context.client, &job.resource, &key.namespace);
    let Some(is_paused) = is_paused(&jobs, &key.name).await.map_err(failed)? else { return Ok(()) };
    let patch = match next(&standing, is_paused) {
        Step::Wait => return Ok(()),
        Step::Finish => written(true, &[(MIGRATED, json!("true")), (TRY_AGAIN, Value::Null)]),
        Step::EndPods => written(true, &[(TRY_AGAIN, json!("true"))]),
        Step::GoOn => written(false, &[(TRY_AGAIN, Value::Null)]),
    };
    jobs.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch)).await.map_err(failed)?;
    Ok(())
}

/// Says whether the Job is suspended by us to end its pods; nothing where it is gone, or suspended by somebody else.
async fn is_paused(jobs: &Api<kube::api::DynamicObject>, name: &str) -> Result<Option<bool>, kube::Error> {
    let Some(job) = jobs.get_opt(name).await? else { return Ok(None) };
    let is_ours = job.metadata.annotations.is_some_and(|annotations| annotations.contains_key(TRY_AGAIN));
    let is_suspended = job.data.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true);
    Ok(match (is_suspended, is_ours) {
        (false, _) => Some(false),
        (true, true) => Some(true),
        (true, false) => None,
    })
}

fn written(suspend: bool, annotations: &[(&str, Value)]) -> Value {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({ "metadata": { "annotations": annotations }, "spec": { "suspend": suspend } })
}

/// Decides by the pods that have not ended, and by whether the Job is suspended to end them.
fn next(standing: &[Own], is_paused: bool) -> Step {
    if standing.contains(&Own::Succeeded) {
        Step::Finish
    } else if is_paused {
        if standing.is_empty() { Step::GoOn } else { Step::Wait }
    } else if standing.contains(&Own::Failed) && !standing.contains(&Own::Running) {
        Step::EndPods
    } else {
        Step::Wait
    }
}

/// Says whether the pod has ended as a whole, which the Job sees by itself.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn own(pod: &Pod) -> Own {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let others_run = containers
        .clone()
        .any(|other| other.name != OWN && other.state.as_ref().is_none_or(|state| state.terminated.is_none()));
    let mut ended =
        containers.filter(|container| container.name == OWN).filter_map(|own| own.state.as_ref()?.terminated.as_ref());
    match ended.next() {
        Some(ended) if others_run && ended.exit_code == 0 => Own::Succeeded,
        Some(_) if others_run => Own::Failed,
        _ => Own::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, containers: &[(&str, Option<i32>)]) -> Pod {
        let state = |exit: &Option<i32>| match exit {
            Some(code) => json!({ "terminated": { "exitCode": code } }),
            None => json!({ "running": {} }),
        };
        let statuses: Vec<Value> = containers
            .iter()
            .map(|(name, exit)| {
                json!({
                    "name": name, "state": state(exit), "image": "", "imageID": "", "ready": false, "restartCount": 0,
                })
            })
            .collect();
        serde_json::from_value(json!({ "status": { "phase": phase, "containerStatuses": statuses } })).unwrap()
    }

    #[test]
    fn a_pod_is_judged_by_its_own_container_where_another_goes_on() {
        assert_eq!(own(&pod("Pending", &[])), Own::Running);
        assert_eq!(own(&pod("Running", &[("penstock", None), ("proxy", None)])), Own::Running);
        assert_eq!(own(&pod("Running", &[("proxy", None), ("penstock", Some(0))])), Own::Succeeded);
        assert_eq!(own(&pod("Running", &[("penstock", Some(1)), ("proxy", None)])), Own::Failed);
        // The job's own business: it is about to end by itself.
        assert_eq!(own(&pod("Running", &[("penstock", Some(0))])), Own::Running);
        assert_eq!(own(&pod("Running", &[("penstock", Some(1)), ("proxy", Some(0))])), Own::Running);
        assert_eq!(own(&pod("Running", &[("penstock", None), ("proxy", Some(0))])), Own::Running);
        assert!(
            has_ended(&pod("Succeeded", &[])) && has_ended(&pod("Failed", &[])) && !has_ended(&pod("Running", &[]))
        );
    }

    #[test]
    fn what_has_migrated_is_finished_and_what_failed_is_tried_again() {
        let table: [(&[Own], bool, Step); 8] = [
            (&[], false, Step::Wait),
            (&[Own::Running], false, Step::Wait),
            (&[Own::Failed], false, Step::EndPods),
            (&[Own::Failed, Own::Running], false, Step::Wait),
            (&[Own::Failed], true, Step::Wait),
            (&[], true, Step::GoOn),
            (&[Own::Succeeded], false, Step::Finish),
            (&[Own::Failed, Own::Succeeded], true, Step::Finish),
        ];
        for (standing, is_paused, wanted) in table {
            assert_eq!(next(standing, is_paused), wanted, "{standing:?} {is_paused}");
        }
    }
}
