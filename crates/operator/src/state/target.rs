//! What is scaled, and by what it is decided.

use std::num::NonZeroU16;
use std::time::Duration;

use penstock_autoscale::Policy;
use penstock_core::settings::Settings;

use crate::children::names;
use crate::crd::AutoscalingMode;
use crate::name::Name;
use crate::plan::{Part, Plan};

/// How long Redis may take to answer the operator.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many batches a worker rightly holds: what is read, applied and acknowledged.
const BATCHES: u64 = 4;

/// What is scaled, and by what it is decided.
#[derive(Debug)]
pub(crate) struct Target {
    /// The keys and the address of Redis.
    pub(crate) settings: Settings,
    pub(crate) policy: Policy,
    pub(crate) scaled_by: ScaledBy,
    /// The workers' Deployment.
    pub(crate) deployment: Name,
}

/// Who writes the number of workers, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaledBy {
    /// There are no workers of ours.
    Nobody,
    /// What is decided.
    Operator,
    /// KEDA, by what is decided.
    Keda,
    /// This many, whatever is decided.
    Fixed(u16),
}

// === impl Target ===

impl Target {
    pub(crate) fn new(plan: &Plan) -> Self {
        let (workers, scaling) = (&plan.spec.workers, &plan.spec.workers.autoscaling);
        let mut settings = plan.settings.clone();
        settings.redis.command_timeout = PATIENCE;
        let in_flight = u64::try_from(settings.worker.batch_size).unwrap_or(u64::MAX).saturating_mul(BATCHES);
        let policy = Policy {
            min: number(scaling.min_replicas),
            max: number(scaling.max_replicas),
            step_up: at_least_one(scaling.max_step_up),
            step_down: at_least_one(scaling.max_step_down),
            drain_target: plan.drain_target,
            target_utilisation: f64::from(scaling.target_utilization) / 100.0,
            capacity_prior: f64::from(scaling.capacity_per_worker),
            stabilisation_window: plan.stabilization_window,
            claim_time: settings.worker.claim_time,
            in_flight,
            ..Policy::default()
        };
        let scaled_by = match scaling.mode {
            _ if !workers.enabled => ScaledBy::Nobody,
            // Where KEDA has its own pause, nobody else writes.
            AutoscalingMode::Keda if plan.by_keda() => ScaledBy::Keda,
            _ if plan.spec.suspend => ScaledBy::Fixed(0),
            // Where KEDA is not there, somebody has to.
            AutoscalingMode::Keda | AutoscalingMode::Operator => ScaledBy::Operator,
            AutoscalingMode::Fixed => ScaledBy::Fixed(number(workers.replicas)),
        };
        let deployment = Name { namespace: plan.namespace.clone(), name: names::part(&plan.name, Part::Worker) };
        Self { settings, policy, scaled_by, deployment }
    }

    /// Returns how many workers there are to be, where somebody here writes that.
    pub(crate) fn wanted(&self, decided: u16) -> Option<u16> {
        match self.scaled_by {
            ScaledBy::Nobody | ScaledBy::Keda => None,
            ScaledBy::Operator => Some(decided),
            ScaledBy::Fixed(replicas) => Some(replicas),
        }
    }
}

fn number(replicas: i32) -> u16 {
    u16::try_from(replicas.max(0)).unwrap_or(u16::MAX)
}

fn at_least_one(step: i32) -> u16 {
    NonZeroU16::new(number(step)).map_or(1, NonZeroU16::get)
}
