//! What the operator says about a pipeline. Pure: no client, no clock.
//!
//! In: [`Facts`] and the last decision. Out: the status, and which of its changes are worth an Event ([`Written`]).
//! The reconciler and the scaling loop gather the facts; `report` writes what comes out.

mod conditions;
mod facts;
mod flow;
mod healed;
mod pods;
mod reach;
mod rollout;
mod summary;
pub(crate) mod text;
mod verdict;
mod verified;
mod written;

pub(crate) use facts::{Facts, HealFacts, ImageProof, Migration, Outcome, Reading, Snapshot, Why};
pub(crate) use pods::{Pod, PodTrouble, troubles};
pub(crate) use rollout::{JobEnd, MIGRATED, Rollout};
pub(crate) use verdict::Verdict;
pub(crate) use written::{Change, Written, clip};
