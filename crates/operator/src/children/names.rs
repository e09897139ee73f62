//! The names of what a pipeline owns.

use crate::plan::Part;

/// Returns the name of a part's Deployment, ServiceAccount, PodDisruptionBudget and NetworkPolicy.
#[must_use]
pub fn part(pipeline: &str, part: Part) -> String {
    format!("{pipeline}-{}", part.component())
}

/// Returns the name of the ConfigMap with the settings.
#[must_use]
pub fn settings(pipeline: &str) -> String {
    format!("{pipeline}-settings")
}

/// Returns the name of the Service, the Ingress and the HTTPRoute before the dashboard.
#[must_use]
pub fn dashboard(pipeline: &str) -> String {
    part(pipeline, Part::Dashboard)
}

/// Returns the name of the Service and the ServiceMonitor by which Prometheus finds the pods.
#[must_use]
pub fn metrics(pipeline: &str) -> String {
    format!("{pipeline}-metrics")
}

/// Returns the name of the Job that creates or migrates the tables; a Job cannot be changed, so its content is part of its name.
#[must_use]
pub fn migration(pipeline: &str, hash: &str) -> String {
    job(pipeline, "-migrate-", hash)
}

/// Returns the name of the Job that proves an image.
#[must_use]
pub fn proof(pipeline: &str, hash: &str) -> String {
    job(pipeline, "-image-", hash)
}

fn job(pipeline: &str, what: &str, hash: &str) -> String {
    let hash: String = hash.chars().take(8).collect();
    // Pods carry the Job's name as a label, which ends at 63 characters.
    let room = 63 - what.len() - hash.len();
    let pipeline: String = pipeline.chars().take(room).collect();
    format!("{}{what}{hash}", pipeline.trim_end_matches('-'))
}
