//! The resource and the operator against a real Kubernetes API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests fail by panicking, and say what they show by their names"
)]

mod children;
mod cluster;
mod conditions;
mod definition;
mod deletion;
mod leader;
mod many;
mod operator;
mod outage;
mod redis;
mod rig;
mod role;
mod rollout;
mod scaling;
