//! What a FirehosePipeline says of itself, as findings beside those of the dashboard.

use std::time::Instant;

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::format::plain;
use crate::state::State;
use crate::status::Status;
use crate::verdict::{Finding, Level, Verdict};

/// Conditions that are bad where they are true; the others are bad where they are false.
const BAD: [&str; 2] = ["Stalled", "DataLoss"];

/// A condition that says only that something is on its way, or not.
const NEUTRAL: &str = "Reconciling";

/// Reasons why something is not known that nobody has to look into.
const EXPECTED: [&str; 6] = ["Suspended", "SwitchedOff", "NotOurs", "NotUsed", "Off", "NotReported"];

/// A resource in the words that count here.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) json: Value,
    findings: Vec<Finding>,
    phase: Option<String>,
}

// === impl Resource ===

impl Resource {
    /// Reads it.
    pub(crate) fn of(pipeline: &DynamicObject) -> Self {
        let metadata = &pipeline.metadata;
        let status = pipeline.data.get("status").cloned().unwrap_or_default();
        let phase = status.get("phase").and_then(Value::as_str).map(str::to_owned);
        let empty = Vec::new();
        let conditions = status.get("conditions").and_then(Value::as_array).unwrap_or(&empty);
        let text =
            |condition: &Value, name: &str| condition.get(name).and_then(Value::as_str).map(plain).unwrap_or_default();
        let mut findings: Vec<_> = of_phase(phase.as_deref()).into_iter().collect();
        for condition in conditions {
            let (kind, holds) = (text(condition, "type"), text(condition, "status"));
            // What is unknown because nothing is to run is no finding.
            if kind == NEUTRAL || holds == "Unknown" && EXPECTED.contains(&text(condition, "reason").as_str()) {
                continue;
            }
            let level = match (BAD.contains(&kind.as_str()), holds.as_str()) {
                (true, "True") | (false, "False") => Level::Degraded,
                (_, "Unknown") => Level::Unknown,
                _ => continue,
            };
            let message = text(condition, "message");
            let why = if message.ends_with('.') { message } else { format!("{message}.") };
            let headline = format!("{kind} is {holds} ({})", text(condition, "reason"));
            findings.push(Finding { level, step: None, headline, why });
        }
        let json = json!({
            "namespace": metadata.namespace,
            "name": metadata.name,
            "phase": phase,
            "generation": metadata.generation,
            "observedGeneration": status.get("observedGeneration"),
            "conditions": conditions,
        });
        Self { json, findings, phase }
    }

    /// Returns `namespace/name`.
    fn name(&self) -> String {
        let part = |name: &str| self.json.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{}/{}", part("namespace"), part("name"))
    }
}

fn of_phase(phase: Option<&str>) -> Option<Finding> {
    let (level, headline, why) = match phase {
        Some("Running") => return None,
        Some("Suspended") => (Level::Degraded, "Suspended", "spec.suspend is true: nothing runs."),
        Some("Degraded") => {
            (Level::Degraded, "Degraded", "Something does not run as it should; the conditions say what.")
        }
        Some("Pending") => (Level::Down, "Pending", "What is needed is not there yet; the conditions say what."),
        Some("Failed") => (Level::Down, "Failed", "The resource cannot be carried out as it is written."),
        Some("Deleting") => (Level::Down, "Deleting", "The resource is being deleted."),
        _ => (Level::Unknown, "Phase not known", "No operator has written the status: see whether it runs."),
    };
    Some(Finding { level, step: None, headline: headline.to_owned(), why: why.to_owned() })
}

// === impl Status ===

impl Status {
    /// Adds what the resource says; the worst goes first.
    pub(crate) fn with_resource(mut self, resource: Resource) -> Self {
        self.dashboard = format!("{} by {}", resource.name(), self.dashboard);
        self.verdict.findings.extend(resource.findings);
        // What the dashboard sees stands before what the operator wrote of it.
        self.verdict.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        if let Some(worst) = self.verdict.findings.first()
            && worst.level > self.verdict.level
        {
            (self.verdict.level, self.verdict.headline, self.verdict.why) =
                (worst.level, worst.headline.clone(), worst.why.clone());
        }
        self.resource = Some(resource.json);
        self
    }

    /// Says how a pipeline without a dashboard is: as its resource says.
    pub(crate) fn of_resource(resource: Resource) -> Self {
        let mut status = Self::of(State::default(), "no dashboard".to_owned(), Instant::now(), Timestamp::now());
        let phase = resource.phase.clone().unwrap_or_default();
        let why = "By the word of its conditions: it has no dashboard.".to_owned();
        status.verdict = Verdict { level: Level::Good, headline: plain(&phase), why, findings: Vec::new() };
        status.with_resource(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::situations::Situation;

    fn pipeline(phase: &str, conditions: &[(&str, &str)]) -> Resource {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| json!({"type": kind, "status": status, "reason": "Why", "message": "Because"}))
            .collect();
        let object = json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehosePipeline",
            "metadata": {"name": "bluesky", "namespace": "firehose"},
            "status": {"phase": phase, "conditions": conditions},
        });
        Resource::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn the_resource_is_never_better_than_its_word() {
        type Case<'c> = (&'c str, &'c [(&'c str, &'c str)], Level, &'c str);
        let cases: [Case<'_>; 10] = [
            ("Running", &[("Ready", "True"), ("Progressing", "True")], Level::Good, "Running"),
            ("Running", &[("Ready", "True"), ("Reconciling", "False")], Level::Good, "Running"),
            ("Running", &[("Progressing", "False")], Level::Degraded, "Progressing is False (Why)"),
            ("Running", &[("DataLoss", "True")], Level::Degraded, "DataLoss is True (Why)"),
            ("Running", &[("LagKnown", "Unknown")], Level::Unknown, "LagKnown is Unknown (Why)"),
            ("Degraded", &[], Level::Degraded, "Degraded"),
            ("Suspended", &[], Level::Degraded, "Suspended"),
            ("Pending", &[("Ready", "False")], Level::Down, "Pending"),
            ("Failed", &[], Level::Down, "Failed"),
            ("", &[], Level::Unknown, "Phase not known"),
        ];
        for (phase, conditions, level, headline) in cases {
            let status = Status::of_resource(pipeline(phase, conditions));
            assert_eq!((status.level(), status.verdict.headline.as_str()), (level, headline));
            let json: Value = serde_json::from_str(&status.to_json()).unwrap();
            assert_eq!((&json["resource"]["name"], &json["status"]), (&json!("bluesky"), &json!(level.word())));
            assert!(status.to_text().contains("firehose/bluesky by no dashboard"), "{}", status.to_text());
        }
    }

    #[test]
    fn a_dashboard_on_which_all_is_well_does_not_outshine_the_operator() {
        let of = |resource| {
            let (state, now) = Situation::default().play();
            Status::of(state, "http://d".to_owned(), now, Timestamp::now()).with_resource(resource)
        };
        let good = of(pipeline("Running", &[("Ready", "True")]));
        assert_eq!((good.level(), good.verdict.headline.as_str()), (Level::Good, "Current: rows 0.8 s behind"));
        let bad = of(pipeline("Running", &[("Ready", "False")]));
        assert_eq!((bad.level(), bad.verdict.headline.as_str()), (Level::Degraded, "Ready is False (Why)"));
        assert!(bad.to_text().contains("rows "), "the figures stay");
    }
}
