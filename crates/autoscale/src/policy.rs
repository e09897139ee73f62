//! How the number of workers is to be decided.

use std::time::Duration;

/// The bounds and aims of a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The fewest workers, 0 or more; with 0 a queue that is empty and silent needs none. Default 1.
    pub min: u16,
    /// The most workers, 1 or more. Default 10.
    pub max: u16,
    /// The most workers that one decision adds, 1 or more. Default 10: with the other defaults, all there may be at once.
    pub step_up: u16,
    /// The most workers that one decision takes away, 1 or more. Default 4.
    pub step_down: u16,
    /// In which time a backlog is to be gone, 1 s or more. Default 30 s.
    pub drain_target: Duration,
    /// Which share of a worker's capacity arrivals are to use, above 0 and up to 1. Default 0.8.
    pub target_utilisation: f64,
    /// Entries a second that one worker settles, until that was learnt; above 0. Default 1,000.
    pub capacity_prior: f64,
    /// By how much of the present number demand must exceed it before a worker is added, 0 or more. Default 0.05.
    pub tolerance: f64,
    /// How long fewer workers must have been enough before any is taken away. Default 5 min.
    pub stabilisation_window: Duration,
    /// The workers' claim time: how long nothing may be settled before the workers count as stalled. Default 1 min.
    pub claim_time: Duration,
    /// Entries that one worker rightly holds at once. Default 4,000: four batches of 1,000.
    pub in_flight: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            step_up: 10,
            step_down: 4,
            drain_target: Duration::from_secs(30),
            target_utilisation: 0.8,
            capacity_prior: 1_000.0,
            tolerance: 0.05,
            stabilisation_window: Duration::from_secs(300),
            claim_time: Duration::from_secs(60),
            in_flight: 4_000,
        }
    }
}

impl Policy {
    /// Brings a number of workers within the bounds; where they contradict each other, the lower one counts.
    #[must_use]
    pub fn bound(&self, replicas: u16) -> u16 {
        replicas.clamp(self.min, self.max.max(self.min))
    }

    /// Entries a second that a worker of this capacity is to be given.
    pub(crate) fn share(&self, capacity: f64) -> f64 {
        (capacity * self.target_utilisation.clamp(0.01, 1.0)).max(0.001)
    }

    pub(crate) fn drain_seconds(&self) -> f64 {
        self.drain_target.as_secs_f64().max(1.0)
    }
}
