//! What the operator remembers between two rounds, in memory only.
//!
//! In: what the watches report, what was applied, what Redis and the autoscaler said. Out: the same to whoever asks.
//! Nothing here decides or does anything, and nothing here knows the reconciler, the scaling loop or the context.

mod applied;
mod backfills;
mod clients;
mod healers;
mod index;
mod pipelines;
mod target;

pub(crate) use applied::{Applied, Mark};
pub(crate) use backfills::{Backfills, FINALIZER, pipeline_of, priority};
pub(crate) use clients::{Absent, Clients};
pub(crate) use healers::Healers;
pub(crate) use index::{Index, ObjectKey, Owned, Owner, image_of};
pub(crate) use pipelines::{Pipeline, Pipelines};
pub(crate) use target::{ScaledBy, Target};
