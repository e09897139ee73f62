//! Decides how many workers run: what Redis shows goes in, a number and its reason come out.
//!
//! [`observe`](observe()) reads Redis, [`decide`](decide()) is pure, [`History::note`] remembers between two decisions, and
//! [`simulate`] runs the same `decide` on traces of arrivals, beside the rule that KEDA follows.

mod decide;
mod decision;
mod history;
mod observation;
mod observe;
mod policy;
mod rates;
pub mod simulate;

pub use decide::decide;
pub use decision::{Decision, Reason};
pub use history::History;
pub use observation::{Acked, Consumer, Fleet, Group, Ingest, Lag, LagGap, Observation, Queue};
pub use observe::{Ask, ObserveError, observe};
pub use policy::Policy;
