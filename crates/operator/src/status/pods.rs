//! What keeps pods from running, in one sentence: by the word of their own status, of their Deployment, or of an Event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

/// Where Kubernetes names the Job of a pod.
const JOB: &str = "batch.kubernetes.io/job-name";

/// Where a pod says which part it is.
const COMPONENT: &str = "app.kubernetes.io/component";

/// From how long on a pod that migrates has got past what made the one before it fail.
const UNDER_WAY: i64 = 15;

/// The exit code of a migration that could not connect to PostgreSQL.
const UNAVAILABLE: i32 = 69;

/// The longest text of a container that is repeated, in bytes.
const LONGEST: usize = 600;

/// Why a part's pods do not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodTrouble {
    /// `ingest`, `worker`, `dashboard` or `migrate`.
    pub(crate) component: String,
    /// In one word, such as `ImagePullBackOff`.
    pub(crate) reason: String,
    /// In a sentence, with the pod's name.
    pub(crate) message: String,
    /// Whether it is that PostgreSQL cannot be reached, or refuses the connection.
    pub(crate) is_of_database: bool,
}

/// A pod, as far as it counts here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    reason: Option<String>,
    message: Option<String>,
    start_time: Option<Timestamp>,
    conditions: Vec<PodCondition>,
    init_container_statuses: Vec<Container>,
    container_statuses: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    ready: bool,
    state: State,
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    reason: Option<String>,
    message: Option<String>,
}

/// Finds what keeps the pods of each part from running: of each the newest pod that says so. Of Jobs only `job` counts.
pub(crate) fn troubles(mut pods: Vec<Pod>, job: Option<&str>, now: Timestamp) -> Vec<PodTrouble> {
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && pod.job().is_none_or(|of| Some(of) == job));
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.made()));
    let mut found: Vec<PodTrouble> = Vec::new();
    let mut over: Vec<&str> = Vec::new();
    for pod in &pods {
        let component = pod.component();
        if over.contains(&component) {
            continue;
        }
        if let Some(trouble) = pod.trouble() {
            over.push(component);
            found.push(trouble);
        } else if pod.job().is_some() && pod.is_under_way(now) {
            // What ended the pods before it did not end this one.
            over.push(component);
        }
    }
    found
}

// === impl PodTrouble ===

impl PodTrouble {
    /// Makes one of pods that are not even made: a quota or an admission webhook refuses them.
    pub(crate) fn refused(component: &str, message: &str) -> Self {
        let message = format!("Kubernetes refuses the pods of {component}: {}", ended(&clip(message)));
        Self { component: component.to_owned(), reason: "FailedCreate".to_owned(), message, is_of_database: false }
    }

    /// Says whether it may be over while a Job still waits to be tried again.
    pub(crate) fn may_be_over(&self) -> bool {
        self.is_of_database || self.reason == "FailedCreate"
    }
}

// === impl Pod ===

impl Pod {
    /// Says whether a Job made it.
    pub(crate) fn is_of(&self, job: &str) -> bool {
        self.job() == Some(job)
    }

    fn component(&self) -> &str {
        self.label(COMPONENT).unwrap_or_default()
    }

    fn job(&self) -> Option<&str> {
        self.label(JOB)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.get(name).map(String::as_str)
    }

    fn made(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp
    }

    fn is_under_way(&self, now: Timestamp) -> bool {
        let since = self.status.start_time.map(|time| now.duration_since(time).as_secs());
        self.status.phase == "Succeeded"
            || self.status.phase == "Running" && since.is_some_and(|since| since > UNDER_WAY)
    }

    /// Says why the pod does not run, where it says so itself.
    fn trouble(&self) -> Option<PodTrouble> {
        let (name, status) = (&self.metadata.name, &self.status);
        let trouble = |reason: &str, message: String, is_of_database| {
            let (component, message) = (self.component().to_owned(), ended(&message));
            Some(PodTrouble { component, reason: reason.to_owned(), message, is_of_database })
        };
        let scheduled = status.conditions.iter().find(|of| of.kind == "PodScheduled" && of.status == "False");
        if let Some(unscheduled) = scheduled {
            let reason = unscheduled.reason.as_deref().unwrap_or("Unschedulable");
            let why = unscheduled.message.as_deref().unwrap_or("no node takes it");
            return trouble(reason, format!("Pod {name} gets no node: {}", clip(why)), false);
        }
        for container in status.init_container_statuses.iter().chain(&status.container_statuses) {
            if let Some(waiting) = &container.state.waiting
                && let Some((reason, what)) = waiting.bad()
            {
                let told = waiting.message.as_deref().map(clip).filter(|told| !told.is_empty());
                let last = container.last_state.terminated.as_ref().map(Terminated::told);
                let why = match reason {
                    "CrashLoopBackOff" => last.or(told),
                    _ => told,
                };
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                return trouble(reason, format!("Container {} of pod {name} {what}{why}", container.name), false);
            }
            let ended = container.state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
            let ended =
                ended.or(container.last_state.terminated.as_ref().filter(|of| of.exit_code != 0 && !container.ready));
            if let Some(ended) = ended {
                let of_database = self.job().is_some() && ended.exit_code == UNAVAILABLE;
                let reason = ended.reason.as_deref().filter(|reason| *reason != "Error").unwrap_or("ContainerFailed");
                let message = format!("Container {} of pod {name} ended: {}", container.name, ended.told());
                return trouble(reason, message, of_database);
            }
        }
        (status.phase == "Failed").then_some(())?;
        let reason = status.reason.as_deref().unwrap_or("PodFailed");
        let why = status.message.as_deref().map_or_else(|| "no reason is given".to_owned(), clip);
        trouble(reason, format!("Pod {name} failed: {why}"), false)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Tells what is wrong from what every pod waits for in its beginning.
    fn bad(&self) -> Option<(&'static str, &'static str)> {
        Some(match self.reason.as_str() {
            // The two take turns.
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                ("ImagePullBackOff", "cannot pull its image")
            }
            "InvalidImageName" => ("InvalidImageName", "has an invalid image name"),
            "CreateContainerConfigError" => ("CreateContainerConfigError", "cannot be configured"),
            "CreateContainerError" | "RunContainerError" => ("CreateContainerError", "cannot be created"),
            "CrashLoopBackOff" => ("CrashLoopBackOff", "ends again and again"),
            _ => return None,
        })
    }
}

// === impl Terminated ===

impl Terminated {
    /// Says how it ended: by its own last line, where it left one.
    fn told(&self) -> String {
        let line = self
            .message
            .as_deref()
            .and_then(|message| message.lines().rev().map(last_words).find(|line| !line.is_empty()));
        match (line, &self.reason) {
            (Some(line), _) => clip(&line),
            (None, Some(reason)) if reason != "Error" => format!("{reason} (exit code {})", self.exit_code),
            (None, _) => format!("exit code {}", self.exit_code),
        }
    }
}

/// Reads one line of a log: what a command says at its end, or the message and error of a line in JSON.
fn last_words(line: &str) -> String {
    let line = line.trim();
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(line) {
        let text = |name: &str| {
            let of = json.get(name).or_else(|| json.get("fields").and_then(|fields| fields.get(name)));
            of.and_then(serde_json::Value::as_str).map(str::to_owned)
        };
        let words: Vec<String> = [text("message"), text("error")].into_iter().flatten().collect();
        return words.join(": ");
    }
    line.strip_prefix("penstock: ").unwrap_or(line).to_owned()
}

fn clip(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn ended(text: &str) -> String {
    text.trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the cases read better")]
    fn pod(name: &str, component: &str, made: &str, status: Value) -> Pod {
        let mut labels = json!({COMPONENT: component});
        if component == "migrate" {
            labels[JOB] = json!("p-migrate-1");
        }
        let metadata = json!({"name": name, "labels": labels, "creationTimestamp": made});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "penstock", "state": {"waiting": {"reason": reason, "message": message}}}]})
    }

    fn ended_with(code: i32, message: &str) -> Value {
        json!({"phase": "Failed", "containerStatuses": [
            {"name": "penstock", "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}}]})
    }

    fn now() -> Timestamp {
        "2026-01-02T03:05:00Z".parse().unwrap()
    }

    fn found(pods: Vec<Pod>) -> Vec<(String, String, bool)> {
        let found = troubles(pods, Some("p-migrate-1"), now());
        found.into_iter().map(|of| (of.reason, of.message, of.is_of_database)).collect()
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_said_with_its_name() {
        let refused =
            "penstock: could not migrate the database: could not connect to postgresql at db:5432: connection refused";
        let restarted = json!({"phase": "Running", "containerStatuses": [{"name": "penstock", "ready": false,
            "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
        let log = r#"{"level":"ERROR","message":"worker ended","error":"no room"}"#;
        let cases: [(Value, &str, &str); 8] = [
            (
                waiting("ErrImagePull", "no such host"),
                "ImagePullBackOff",
                "Container penstock of pod x cannot pull its image: no such host",
            ),
            (
                waiting("ImagePullBackOff", "Back-off"),
                "ImagePullBackOff",
                "Container penstock of pod x cannot pull its image: Back-off",
            ),
            (
                waiting("CreateContainerConfigError", "secret \"redis\" not found"),
                "CreateContainerConfigError",
                "Container penstock of pod x cannot be configured: secret \"redis\" not found",
            ),
            (unscheduled, "Unschedulable", "Pod x gets no node: 0/1 nodes are available: 1 Insufficient cpu"),
            (restarted, "OOMKilled", "Container penstock of pod x ended: OOMKilled (exit code 137)"),
            (
                ended_with(1, &format!("first\n{log}\n")),
                "ContainerFailed",
                "Container penstock of pod x ended: worker ended: no room",
            ),
            (ended_with(1, ""), "ContainerFailed", "Container penstock of pod x ended: exit code 1"),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}),
                "Evicted",
                "Pod x failed: The node was low on memory",
            ),
        ];
        for (status, reason, message) in cases {
            let expected = vec![(reason.to_owned(), message.to_owned(), false)];
            assert_eq!(found(vec![pod("x", "worker", "2026-01-02T03:04:05Z", status)]), expected);
        }
        let migration = pod("m", "migrate", "2026-01-02T03:04:05Z", ended_with(69, refused));
        let [(_, message, true)] = &found(vec![migration])[..] else { panic!("it is the database") };
        assert!(message.ends_with("could not connect to postgresql at db:5432: connection refused"), "{message}");
    }

    #[test]
    fn what_begins_or_runs_is_no_trouble() {
        let ready = json!({"phase": "Running", "containerStatuses": [{"name": "penstock", "ready": true, "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1}}}]});
        for status in [waiting("ContainerCreating", ""), waiting("PodInitializing", ""), json!({}), ready] {
            assert_eq!(found(vec![pod("x", "worker", "2026-01-02T03:04:05Z", status)]), []);
        }
    }

    #[test]
    fn the_newest_pod_that_fails_speaks_for_its_part_and_another_jobs_pods_for_nobody() {
        let old = || pod("old", "migrate", "2026-01-02T03:04:00Z", ended_with(69, "first"));
        let new = pod("new", "migrate", "2026-01-02T03:04:20Z", ended_with(1, "second"));
        assert_eq!(found(vec![old(), new])[0].1, "Container penstock of pod new ended: second");
        // One that has just begun has shown nothing yet; one that has gone on for longer has.
        let running =
            |since: &str| pod("r", "migrate", "2026-01-02T03:04:30Z", json!({"phase": "Running", "startTime": since}));
        assert_eq!(found(vec![running("2026-01-02T03:04:55Z"), old()]).len(), 1);
        assert_eq!(found(vec![running("2026-01-02T03:04:30Z"), old()]), []);
        assert_eq!(troubles(vec![old()], Some("p-migrate-2"), now()), []);
    }
}
