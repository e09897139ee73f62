//! Writes the status when it changed, and tells changes as Events.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Context, MANAGER, resource};
use crate::crd::{Condition, ConditionStatus, FirehosePipeline, Phase, PipelineStatus};
use crate::pipelines::{Name, Pipeline};

/// How often numbers alone are worth a write.
const NUMBERS_EVERY: Duration = Duration::from_secs(10);

/// The longest note of an Event, in bytes.
const LONGEST_NOTE: usize = 1_000;

/// The status as it stands in the cluster.
pub(crate) struct Written {
    status: PipelineStatus,
    /// When this process wrote it; none before.
    at: Option<Instant>,
}

/// A change that a person may want to know of.
#[derive(Debug, PartialEq)]
struct Change {
    warning: bool,
    reason: String,
    note: String,
    action: String,
}

// === impl Written ===

impl Written {
    pub(crate) fn new(status: PipelineStatus) -> Self {
        Self { status, at: None }
    }

    /// Returns the state in one word, as it was written last.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    fn is_due(&self, status: &PipelineStatus, now: Instant) -> bool {
        if *status == self.status {
            return false;
        }
        let rested = self.at.is_none_or(|at| now.duration_since(at) >= NUMBERS_EVERY);
        rested || without_numbers(status) != without_numbers(&self.status)
    }
}

/// Writes the status of a pipeline, if it changed and is due.
pub(crate) async fn publish(context: &Context, pipeline: &Pipeline) {
    let mut written = pipeline.written.lock().await;
    let status = {
        let mut state = pipeline.state();
        context.index.refresh(&pipeline.name, &mut state.facts);
        // An operator that has just started has not looked at Redis yet: what the one before saw is nearer to the truth.
        if written.status.observed_generation.is_some() && state.facts.awaits_look() {
            return;
        }
        state.facts.status(state.decision.as_ref(), state.scaled, &written.status, Timestamp::now())
    };
    if !written.is_due(&status, Instant::now()) {
        return;
    }
    if let Err(error) = write(context, &pipeline.name, Some(&pipeline.uid), &status).await {
        context.telemetry.status_refused(&pipeline.name, &error);
        return;
    }
    let changes = changes(&written.status.conditions, &status.conditions);
    *written = Written { status, at: Some(Instant::now()) };
    drop(written);
    for Change { warning, reason, note, action } in changes {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(clip(note)), action, secondary: None };
        context.tell(event, &pipeline.reference).await;
    }
}

/// Says of an object that cannot be read why not, where the API server lets it: one that its schema refuses may be too wrong.
pub(crate) async fn publish_malformed(context: &Context, metadata: &ObjectMeta, error: &str) {
    let name = Name {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    };
    let message = clip(format!("The resource cannot be read ({error}): correct it, or apply it anew"));
    let condition = Condition {
        kind: "Ready".to_owned(),
        status: ConditionStatus::False,
        reason: "Malformed".to_owned(),
        message: message.clone(),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: metadata.generation,
    };
    let status = PipelineStatus {
        observed_generation: metadata.generation,
        phase: Some(Phase::Failed),
        conditions: vec![condition],
        ..PipelineStatus::default()
    };
    if let Err(error) = write(context, &name, metadata.uid.as_deref(), &status).await {
        context.telemetry.status_refused(&name, &error);
    }
    let about = ObjectReference {
        api_version: Some(FirehosePipeline::api_version(&()).into_owned()),
        kind: Some(FirehosePipeline::kind(&()).into_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: "Malformed".to_owned(),
        note: Some(message),
        action: "Read".to_owned(),
        secondary: None,
    };
    context.tell(event, &about).await;
}

async fn write(context: &Context, name: &Name, uid: Option<&str>, status: &PipelineStatus) -> Result<(), kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &name.namespace, &resource());
    let patch = json!({
        "apiVersion": FirehosePipeline::api_version(&()),
        "kind": FirehosePipeline::kind(&()),
        // With the uid, a resource that was made anew under the name is not written to.
        "metadata": { "name": name.name, "uid": uid },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&name.name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => {
            context.telemetry.status_written();
            Ok(())
        }
        // It is gone: nobody reads its status any more.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Leaves out what moves all the time.
fn without_numbers(status: &PipelineStatus) -> PipelineStatus {
    let mut status = status.clone();
    if let Some(ingest) = &mut status.ingest {
        ingest.cursor = None;
        ingest.lag = None;
        ingest.lag_seconds = None;
    }
    if let Some(workers) = &mut status.workers {
        workers.backlog = None;
        workers.pending = None;
        workers.arrival_rate = None;
        workers.service_rate = None;
        workers.message = None;
    }
    status
}

/// Lists what became better or worse; the same twice is told once.
fn changes(before: &[Condition], after: &[Condition]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    // The details go before what follows from them.
    let deleting = after.iter().any(|now| now.kind == "Ready" && now.reason == "Deleting");
    for now in after.iter().rev().filter(|now| !deleting || now.kind == "Ready") {
        let then = before.iter().find(|then| then.kind == now.kind);
        let same = then.is_some_and(|then| then.status == now.status && then.reason == now.reason);
        if same || now.status == ConditionStatus::Unknown || changes.iter().any(|told| told.reason == now.reason) {
            continue;
        }
        let warning = is_bad(now);
        if warning || then.is_some_and(is_bad) || now.kind == "Ready" {
            let (reason, note) = (now.reason.clone(), now.message.clone());
            changes.push(Change { warning, reason, note, action: now.kind.clone() });
        }
    }
    changes
}

fn is_bad(condition: &Condition) -> bool {
    let expected = matches!(condition.reason.as_str(), "Suspended" | "Deleting" | "Migrating" | "NotCreated");
    let worse = match condition.kind.as_str() {
        "Stalled" | "DataLoss" => ConditionStatus::True,
        _ => ConditionStatus::False,
    };
    condition.status == worse && !expected
}

fn clip(mut text: String) -> String {
    if text.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::WorkersStatus;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message: String::new(),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        }
    }

    fn told(before: &[Condition], after: &[Condition]) -> Vec<(bool, String)> {
        changes(before, after).into_iter().map(|change| (change.warning, change.reason)).collect()
    }

    #[test]
    fn an_event_is_told_on_change_and_never_twice() {
        use ConditionStatus::{False, True};
        let good = [condition("Ready", True, "Running"), condition("IngestConnected", True, "Connected")];
        let bad = [condition("Ready", False, "Disconnected"), condition("IngestConnected", False, "Disconnected")];
        assert_eq!(told(&[], &good), [(false, "Running".to_owned())]);
        assert_eq!(told(&good, &good), []);
        assert_eq!(told(&good, &bad), [(true, "Disconnected".to_owned())]);
        assert_eq!(told(&bad, &good), [(false, "Connected".to_owned()), (false, "Running".to_owned())]);
    }

    #[test]
    fn what_is_expected_or_unknown_is_no_warning() {
        use ConditionStatus::{False, True, Unknown};
        let before = [condition("Ready", True, "Running"), condition("Stalled", False, "Flowing")];
        let after = [condition("Ready", False, "Suspended"), condition("Stalled", Unknown, "LagUnknown")];
        assert_eq!(told(&before, &after), [(false, "Suspended".to_owned())]);
        assert_eq!(told(&[], &[condition("DataLoss", False, "NoneKnown")]), []);
        assert_eq!(told(&[], &[condition("DataLoss", True, "EventsLost")]), [(true, "EventsLost".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_alone_wait_and_everything_else_is_written_at_once() {
        let status = |backlog: &str, ready: i32| PipelineStatus {
            workers: Some(WorkersStatus { backlog: Some(backlog.to_owned()), ready, ..WorkersStatus::default() }),
            ..PipelineStatus::default()
        };
        let now = Instant::now();
        let written = Written { status: status("5", 1), at: Some(now) };
        assert!(!written.is_due(&status("5", 1), now + NUMBERS_EVERY));
        assert!(!written.is_due(&status("6", 1), now));
        assert!(written.is_due(&status("6", 1), now + NUMBERS_EVERY));
        assert!(written.is_due(&status("5", 2), now));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let clipped = clip("é".repeat(900));
        assert!(clipped.len() <= LONGEST_NOTE + '…'.len_utf8() && clipped.ends_with('…'));
    }
}
