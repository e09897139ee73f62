//! The objects that a pipeline owns.
//!
//! In: a [`Plan`]. Out: its children, in the order in which they are applied; the same plan always makes the same children.
//! The reconciler calls [`build`]. No client, no clock: one file for each kind of child.

mod accounts;
mod child;
mod config;
mod dashboard;
mod deployment;
mod disruption;
mod env;
mod heal;
mod ingest;
pub mod labels;
mod migration;
mod monitor;
pub mod names;
mod network;
mod pod;
mod proof;
mod route;
mod rules;
mod scaled_object;
mod volumes;
mod workers;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::ApiResource;

pub use child::{Child, Stage};
pub use migration::job as migration_job;
pub use proof::job as image_proof;

use crate::plan::Plan;

/// Builds every child of a pipeline, in the order in which they are applied.
#[must_use]
pub fn build(plan: &Plan) -> Vec<Child> {
    let mut children = vec![config::settings(plan)];
    children.extend(accounts::children(plan));
    children.extend(network::children(plan));
    children.extend(disruption::children(plan));
    children.extend(ingest::deployment(plan));
    children.extend(dashboard::children(plan));
    children.extend(route::children(plan));
    children.extend(monitor::children(plan));
    children.extend(rules::rule(plan));
    children.extend(migration::job(plan));
    children.extend(workers::deployment(plan));
    children.extend(heal::children(plan));
    children.extend(scaled_object::scaled_object(plan));
    children
}

/// Lists every kind that a pipeline may own. The last four are there only where somebody installed them.
#[must_use]
pub fn kinds() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<Job>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<Ingress>(&()),
        route::http_route_kind(),
        monitor::kind(),
        rules::kind(),
        scaled_object::kind(),
    ]
}

#[cfg(test)]
mod tests;
