//! What the schema cannot check, or an older one did not: times, and what depends on two fields.

use std::time::Duration;

use penstock_core::settings::Value as _;

use super::error::{BadField, PlanError};
use super::part::Part;
use crate::crd::{FirehosePipelineSpec, Time};

/// The mount of the settings, which is reserved.
pub(crate) const SETTINGS_FOLDER: &str = "/etc/penstock";

/// The volume of the settings, which is reserved.
pub(crate) const SETTINGS_VOLUME: &str = "settings";

/// The mount of the volume for repos that do not fit into a healer's memory, which is reserved in its pods.
pub(crate) const REPOS_FOLDER: &str = "/var/cache/penstock";

/// The volume for them, which is reserved in those pods.
pub(crate) const REPOS_VOLUME: &str = "repos";

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The times that the operator itself goes by.
pub(super) struct Times {
    pub(super) drain_target: Duration,
    pub(super) stabilization_window: Duration,
}

/// Gathers what is wrong, so that everything is reported at once.
#[derive(Default)]
struct Found(Vec<BadField>);

/// Checks the fields that no setting stands behind.
pub(super) fn fields(spec: &FirehosePipelineSpec) -> Result<Times, PlanError> {
    let mut found = Found::default();
    for (section, url, secret) in [
        ("redis", &spec.redis.url, &spec.redis.url_secret),
        ("postgres", &spec.postgres.url, &spec.postgres.url_secret),
    ] {
        found.unless(url.is_some() != secret.is_some(), section, || {
            format!("set exactly one of {section}.url (without a password) and {section}.urlSecret (name and key)")
        });
    }
    // The settings file joins lists by commas.
    found.unless(!spec.relay.urls.iter().any(|url| url.contains(',')), "relay.urls", || {
        "a URL cannot contain a comma: list each relay as a separate item".to_owned()
    });
    let scaling = &spec.workers.autoscaling;
    let (min, max) = (scaling.min_replicas, scaling.max_replicas);
    found.unless(min <= max, "workers.autoscaling.minReplicas", || format!("{min} is greater than maxReplicas, {max}"));
    if let Some(ingress) = &spec.dashboard.ingress {
        found.unless(ingress.path.starts_with('/'), "dashboard.ingress.path", || "must begin with /".to_owned());
    }
    let is_guarded = spec.dashboard.auth.read_token_secret.is_some();
    found.unless(!(spec.message_buffer.open_admin && is_guarded), "messageBuffer.openAdmin", || {
        "clients that may not read must not be able to reset: remove either this or dashboard.auth.readTokenSecret"
            .to_owned()
    });
    let (min, max) = (spec.heal.min_replicas, spec.heal.max_replicas);
    found.unless(min <= max, "heal.minReplicas", || format!("{min} is greater than maxReplicas, {max}"));
    found.unless(spec.heal.storage.bytes().is_some_and(|bytes| bytes > 0), "heal.storage", || {
        format!("{:?} is not allowed; allowed: a size such as 512Mi or 10Gi", spec.heal.storage.0)
    });
    // The settings file joins lists by commas.
    found.unless(!spec.heal.mirrors.iter().any(|url| url.contains(',')), "heal.mirrors", || {
        "a URL cannot contain a comma: list each mirror as a separate item".to_owned()
    });
    for part in [Part::Ingest, Part::Worker, Part::Dashboard, Part::Heal] {
        ours(&mut found, part, spec);
    }
    let ms = Duration::from_millis(1);
    let times = Times {
        drain_target: found.time("workers.autoscaling.drainTarget", &scaling.drain_target, (SECOND, DAY), "1s to 1d"),
        stabilization_window: found.time(
            "workers.autoscaling.stabilizationWindow",
            &scaling.stabilization_window,
            (Duration::ZERO, DAY),
            "0s to 1d",
        ),
    };
    found.time("messageBuffer.batchDelay", &spec.message_buffer.batch_delay, (ms, 60 * SECOND), "1ms to 1m");
    for (field, monitor) in [
        ("telemetry.serviceMonitor.interval", &spec.telemetry.service_monitor),
        ("telemetry.prometheusRule.interval", &spec.telemetry.prometheus_rule),
    ] {
        found.time(field, &monitor.interval, (SECOND, HOUR), "1s to 1h");
    }
    if found.0.is_empty() { Ok(times) } else { Err(PlanError::Fields(found.0)) }
}

/// Keeps the volumes and the folders of the settings and of repos for those.
fn ours(found: &mut Found, part: Part, spec: &FirehosePipelineSpec) {
    let (pod, field) = (part.pod(spec), part.pod_field());
    let text = |value: &serde_json::Value, key: &str| value.get(key).and_then(|text| text.as_str()).map(str::to_owned);
    let repos = (part == Part::Heal).then_some((REPOS_VOLUME, REPOS_FOLDER, "repos"));
    for (volume, folder, what) in [(SETTINGS_VOLUME, SETTINGS_FOLDER, "the settings")].into_iter().chain(repos) {
        let taken = pod.extra_volumes.iter().any(|other| text(&other.0, "name").as_deref() == Some(volume));
        found.unless(!taken, &format!("{field}.extraVolumes"), || {
            format!("the name {volume} is reserved for {what}: use another")
        });
        let under = |path: String| path.trim_end_matches('/') == folder;
        let taken = pod.extra_volume_mounts.iter().any(|mount| text(&mount.0, "mountPath").is_some_and(under));
        found.unless(!taken, &format!("{field}.extraVolumeMounts"), || {
            format!("{folder} is reserved for {what}: use another mountPath")
        });
    }
}

// === impl Found ===

impl Found {
    fn unless(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(BadField { field: field.to_owned(), message: message() });
        }
    }

    fn time(&mut self, field: &str, time: &Time, (low, high): (Duration, Duration), allowed: &str) -> Duration {
        let read = Duration::parse(time.as_str());
        let fits = read.is_some_and(|time| (low..=high).contains(&time));
        self.unless(fits, field, || {
            format!("{:?} is not allowed; allowed: a duration such as 30s or 5m, from {allowed}", time.0)
        });
        read.unwrap_or(low)
    }
}
