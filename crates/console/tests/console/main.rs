//! The console against a real dashboard on a real Redis, and against a real Kubernetes API server.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod dashboard;
mod kubelet;
mod kubernetes;
mod stage;
