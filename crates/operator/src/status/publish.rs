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

/// How long what is normal for pods that begin is not told as an Event.
const BEGINNING: Duration = Duration::from_secs(120);

/// The longest note of an Event, in bytes.
const LONGEST_NOTE: usize = 1_000;

/// The status as it stands in the cluster.
pub(crate) struct Written {
    status: PipelineStatus,
    /// When this process wrote it; none before.
    at: Option<Instant>,
    told: Told,
}

/// The conditions as Events told them last.
struct Told {
    conditions: Vec<Condition>,
    /// Since when the pipeline begins to run, for the first time or after a pause.
    begins: Option<Instant>,
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
        let told = Told { conditions: status.conditions.clone(), begins: None };
        Self { status, at: None, told }
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

// === impl Told ===

impl Told {
    /// Lists what became better or worse, and counts it as told; the same twice is told once.
    fn changes(&mut self, after: &[Condition], at: Instant) -> Vec<Change> {
        let ready = |conditions: &[Condition]| {
            conditions.iter().find(|one| one.kind == "Ready").map(|ready| ready.reason.clone()).unwrap_or_default()
        };
        let rested = matches!(ready(&self.conditions).as_str(), "" | "Suspended" | "Reconciling" | "Migrating");
        let begins = rested && !matches!(ready(after).as_str(), "Suspended" | "Migrating");
        self.begins = begins.then(|| self.begins.unwrap_or(at));
        let beginning = self.begins.is_some_and(|since| at.duration_since(since) < BEGINNING);
        let mut changes: Vec<Change> = Vec::new();
        // The details go before what follows from them.
        let deleting = ready(after) == "Deleting";
        for now in after.iter().rev().filter(|now| !deleting || now.kind == "Ready") {
            let then = self.conditions.iter().position(|then| then.kind == now.kind);
            let then = then.map(|at| self.conditions.swap_remove(at));
            if beginning && is_bad(now) && is_usual_at_first(now) {
                // Told when it stays.
                self.conditions.extend(then);
                continue;
            }
            self.conditions.push(now.clone());
            let same = then.as_ref().is_some_and(|then| then.status == now.status && then.reason == now.reason);
            if same || now.status == ConditionStatus::Unknown || changes.iter().any(|told| told.reason == now.reason) {
                continue;
            }
            let warning = is_bad(now);
            if warning || then.as_ref().is_some_and(is_bad) || now.kind == "Ready" {
                let (reason, note) = (now.reason.clone(), now.message.clone());
                changes.push(Change { warning, reason, note, action: now.kind.clone() });
            }
        }
        changes
    }
}

/// Writes the status of a pipeline, if it changed and is due.
pub(crate) async fn publish(context: &Context, pipeline: &Pipeline) {
    let mut written = pipeline.written.lock().await;
    let status = {
        let mut state = pipeline.state();
        context.index.refresh(pipeline, &mut state.facts);
        // An operator that has just started has not looked at Redis yet: what the one before saw is nearer to the truth.
        if written.status.observed_generation.is_some() && state.facts.awaits_look() {
            return;
        }
        state.facts.status(state.decision.as_ref(), state.scaled, &written.status, Timestamp::now())
    };
    if written.is_due(&status, Instant::now()) {
        if let Err(error) = write(context, &pipeline.name, Some(&pipeline.uid), &status).await {
            context.telemetry.status_refused(&pipeline.name, &error);
            return;
        }
        written.status = status;
        written.at = Some(Instant::now());
    }
    let Written { status, told, .. } = &mut *written;
    let changes = told.changes(&status.conditions, Instant::now());
    drop(written);
    for Change { warning, reason, note, action } in changes {
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        let event = Event { type_, reason, note: Some(clip(note)), action, secondary: None };
        context.tell(event, &pipeline.reference).await;
    }
}

/// Says of an object that cannot be read why not, where the API server lets it: one that its schema refuses may be too wrong.
pub(crate) async fn publish_malformed(context: &Context, name: &Name, metadata: &ObjectMeta, error: &str) {
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
    if let Err(error) = write(context, name, metadata.uid.as_deref(), &status).await {
        context.telemetry.status_refused(name, &error);
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

fn is_bad(condition: &Condition) -> bool {
    let expected = matches!(condition.reason.as_str(), "Suspended" | "Deleting" | "Migrating" | "NotCreated");
    let worse = match condition.kind.as_str() {
        "Stalled" | "DataLoss" => ConditionStatus::True,
        _ => ConditionStatus::False,
    };
    condition.status == worse && !expected
}

/// Says whether pods that begin bring this about: none is ready, nothing is read, and there is no stream or group yet.
fn is_usual_at_first(condition: &Condition) -> bool {
    let usual = ["NoIngest", "Disconnected", "IngestUnavailable", "DashboardUnavailable", "NoneReady"];
    usual.contains(&condition.reason.as_str()) || condition.reason.ends_with("Missing")
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
        tell(&mut Told { conditions: before.to_vec(), begins: None }, after, Instant::now())
    }

    fn tell(told: &mut Told, after: &[Condition], now: Instant) -> Vec<(bool, String)> {
        told.changes(after, now).into_iter().map(|change| (change.warning, change.reason)).collect()
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

    #[test]
    fn what_is_usual_at_first_is_told_only_when_it_stays() {
        use ConditionStatus::{False, True};
        let begun = Instant::now();
        let later = begun + BEGINNING;
        let starting = [condition("Ready", False, "NoneReady"), condition("LagKnown", False, "GroupMissing")];
        let running = [condition("Ready", True, "Running"), condition("LagKnown", True, "Known")];
        let missing = || vec![(true, "GroupMissing".to_owned()), (true, "NoneReady".to_owned())];
        for before in [vec![], vec![condition("Ready", False, "Suspended")]] {
            let mut fresh = Told { conditions: before.clone(), begins: None };
            assert_eq!(tell(&mut fresh, &starting, begun), []);
            assert_eq!(tell(&mut fresh, &running, begun), [(false, "Running".to_owned())]);
            // Once it ran, the same is told at once.
            assert_eq!(tell(&mut fresh, &starting, begun), missing());

            let mut stuck = Told { conditions: before, begins: None };
            assert_eq!(tell(&mut stuck, &starting, begun), []);
            assert_eq!(tell(&mut stuck, &starting, later), missing());
            assert_eq!(tell(&mut stuck, &starting, later), []);
            // What is not usual is told even then.
            let mut refused = Told { conditions: vec![], begins: None };
            assert_eq!(
                tell(&mut refused, &[condition("Ready", False, "RedisShared")], begun),
                [(true, "RedisShared".to_owned())]
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_alone_wait_and_everything_else_is_written_at_once() {
        let status = |backlog: &str, ready: i32| PipelineStatus {
            workers: Some(WorkersStatus { backlog: Some(backlog.to_owned()), ready, ..WorkersStatus::default() }),
            ..PipelineStatus::default()
        };
        let now = Instant::now();
        let written = Written { at: Some(now), ..Written::new(status("5", 1)) };
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
