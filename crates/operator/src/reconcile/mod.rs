//! Brings the cluster to what a pipeline's resource says.
//!
//! In: changes of pipelines, of what they own and of the Secrets they name, queued by the watches. Out: children applied and orphans
//! deleted, or a deletion carried through; and the outcome in the status.
//! The way of one pipeline is [`pipeline::reconcile`]: dereference → validate → build → apply → status.

pub(crate) mod apis;
mod apply;
mod cleanup;
mod controller;
mod deletion;
mod dereference;
mod error;
mod hash_key;
mod migration;
mod pipeline;
mod proof;
mod sidecar;
mod stages;
mod watch;

pub(crate) use controller::run;
