//! The resource and the operator against a real Kubernetes API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking, and say what they show by their names"
)]

mod backfills;
mod causes;
mod children;
mod cluster;
mod conditions;
mod definition;
mod deletion;
mod events;
mod hands;
mod healer;
mod images;
mod leader;
mod leftovers;
mod many;
mod operator;
mod outage;
mod phases;
mod redis;
mod rig;
mod role;
mod rollout;
mod scaling;
mod sidecar;
