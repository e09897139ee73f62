//! How many workers there are to be.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::decision::{Decision, Reason};
use crate::history::{Gain, History};
use crate::observation::{Fleet, Lag, LagGap, Observation, Queue};
use crate::policy::Policy;
use crate::rates::{Look, Rates};

/// Decides how many workers there are to be. Pure: the same looks give the same decision.
#[must_use]
pub fn decide(seen: &Observation, history: &History, now: Timestamp, policy: &Policy) -> Decision {
    let fleet = seen.fleet;
    match &seen.queue {
        Ok(queue) => weigh(queue, fleet, history, now, policy),
        Err(gap) => hold(*gap, fleet, Rates::default(), history, policy),
    }
}

/// What is asked for, and what speaks against following it.
struct Case<'a> {
    fleet: Fleet,
    policy: &'a Policy,
    /// In workers.
    demand: f64,
    recommended: u16,
    /// Why the number must not fall, whatever is recommended.
    floor: Option<Reason>,
    gain: Gain,
    is_young: bool,
    peak: u16,
    in_flight: bool,
}

fn weigh(queue: &Queue, fleet: Fleet, history: &History, now: Timestamp, policy: &Policy) -> Decision {
    let rates = history.rates(&Look::new(queue, fleet.ready, now));
    if let Lag::Unknown(gap) = queue.undelivered {
        let held = hold(gap, fleet, rates, history, policy);
        // Without a worker nobody would ever make the group.
        let wake = gap == LagGap::GroupMissing && queue.length > 0 && held.replicas == 0;
        return if wake { Decision { replicas: policy.bound(1), reason: Reason::ScaleFromZero, ..held } } else { held };
    }
    let capacity = history.capacity(&rates, fleet, policy);
    let backlog = backlog(queue, fleet, policy);
    let relay_lag = relay_lag(queue, now);
    // While ingest is paused, what arrives at the relay is on its way too.
    let (arrival, upstream) = match relay_lag {
        Some(lag) => {
            let usual = history.usual_arrival(&rates).unwrap_or(0.0);
            (usual, lag * usual)
        }
        None => (rates.arrival.unwrap_or(0.0), 0.0),
    };
    let waiting = waiting(queue, backlog, rates.arrival);
    let demand = (arrival + (waiting + upstream) / policy.drain_seconds()) / policy.share(capacity);
    let recommended = recommend(demand, fleet.desired, policy);
    let in_flight = queue.pending() > 0 || queue.undelivered.at_least() > 0;
    let recommended = if in_flight { recommended.max(policy.bound(1)) } else { recommended };
    // What only a dead worker holds is taken over after a claim time, and a third of one for somebody to look.
    let patience = if queue.undelivered.at_least() > 0 { policy.claim_time } else { policy.claim_time * 2 };
    let lasts = |since: Timestamp| now.duration_since(since).as_secs_f64() >= patience.as_secs_f64();
    let stalled = history.still(queue, fleet.ready, &rates, now).is_some_and(lasts);
    let unsettled_since = history.unsettled(queue, &rates, now);
    let floor = if !backlog.is_exact() {
        Some(Reason::LagAtLeast)
    } else if queue.ingest.paused {
        Some(Reason::IngestPaused)
    } else if rates.arrival.is_none() {
        Some(Reason::ArrivalUnknown)
    } else {
        None
    };
    let case = Case {
        fleet,
        policy,
        demand,
        recommended,
        floor,
        gain: history.gain(&rates, now),
        is_young: history.is_young(now, policy.stabilisation_window),
        peak: history.peak(now, policy.stabilisation_window),
        in_flight,
    };
    let (replicas, reason) = if stalled { case.hold(Reason::Stalled) } else { case.settle() };
    Decision {
        replicas,
        from: fleet.desired,
        reason,
        recommended,
        demand,
        lag_known: true,
        stalled,
        unsettled_since,
        overdue: unsettled_since.is_some_and(lasts),
        arrival: rates.arrival,
        service: rates.service,
        backlog,
        capacity,
        relay_lag,
    }
}

// === impl Case ===

impl Case<'_> {
    fn settle(&self) -> (u16, Reason) {
        let current = self.fleet.desired;
        if self.policy.bound(current) != current {
            return self.hold(Reason::Bounds);
        }
        match self.recommended {
            more if more > current => self.rise(more),
            fewer if fewer < current => self.fall(),
            _ if self.demand > f64::from(self.policy.bound(u16::MAX)) => (current, Reason::AtMaximum),
            _ if current > 0 && self.demand.ceil() < f64::from(current) => {
                let vetoed = self.in_flight && self.policy.min < current;
                (current, if vetoed { Reason::InFlight } else { Reason::AtMinimum })
            }
            _ => (current, Reason::AtTarget),
        }
    }

    fn rise(&self, recommended: u16) -> (u16, Reason) {
        let Fleet { desired: current, ready, rolling } = self.fleet;
        if rolling {
            return (current, Reason::RollingOut);
        }
        if ready < current {
            return (current, Reason::AwaitingReady);
        }
        match self.gain {
            Gain::Open => (current, Reason::Judging),
            Gain::None => (current, Reason::Saturated),
            Gain::Enough => {
                let step = current.saturating_add(self.policy.step_up.max(1));
                (recommended.min(step), if current == 0 { Reason::ScaleFromZero } else { Reason::ScaleUp })
            }
        }
    }

    fn fall(&self) -> (u16, Reason) {
        let current = self.fleet.desired;
        if let Some(floor) = self.floor {
            return (current, floor);
        }
        if self.is_young {
            return (current, Reason::Restarted);
        }
        let target = self.policy.bound(self.recommended.max(self.peak));
        if target >= current {
            return (current, Reason::Stabilising);
        }
        let step = current.saturating_sub(self.policy.step_down.max(1));
        let replicas = target.max(step);
        (replicas, if replicas == 0 { Reason::ScaleToZero } else { Reason::ScaleDown })
    }

    /// Keeps the number, as far as the bounds allow.
    fn hold(&self, reason: Reason) -> (u16, Reason) {
        (self.policy.bound(self.fleet.desired), reason)
    }
}

// === impl Decision ===

impl Decision {
    /// Says whether the number was free to fall as far as was recommended.
    pub(crate) fn may_shrink(&self) -> bool {
        !matches!(
            self.reason,
            Reason::LagUnknown(_)
                | Reason::LagAtLeast
                | Reason::ArrivalUnknown
                | Reason::IngestPaused
                | Reason::Stalled
        )
    }
}

/// Decides where nothing is known: the number stays.
fn hold(gap: LagGap, fleet: Fleet, rates: Rates, history: &History, policy: &Policy) -> Decision {
    let replicas = policy.bound(fleet.desired);
    Decision {
        replicas,
        from: fleet.desired,
        reason: Reason::LagUnknown(gap),
        recommended: replicas,
        demand: f64::from(replicas),
        lag_known: false,
        stalled: false,
        unsettled_since: history.unsettled_before(),
        overdue: false,
        arrival: rates.arrival,
        service: rates.service,
        backlog: Lag::Unknown(gap),
        capacity: history.known_capacity(policy),
        relay_lag: None,
    }
}

/// Adds up what waits: what nobody was given, what lies with the dead, and what ready workers cannot rightly hold.
fn backlog(queue: &Queue, fleet: Fleet, policy: &Policy) -> Lag {
    let (undelivered, stranded) = (queue.undelivered.at_least(), queue.stranded.at_least());
    let held = u64::from(fleet.ready).saturating_mul(policy.in_flight);
    let beyond = queue.pending().saturating_sub(stranded).saturating_sub(held);
    let sum = undelivered.saturating_add(stranded).saturating_add(beyond);
    if queue.undelivered.is_exact() && queue.stranded.is_exact() { Lag::Exact(sum) } else { Lag::AtLeast(sum) }
}

/// Returns how much waits, estimated where only a lower bound is known: as much as arrives in the time by which what was
/// delivered lies behind what was written, and never more than the stream holds.
fn waiting(queue: &Queue, backlog: Lag, arrival: Option<f64>) -> f64 {
    let certain = backlog.at_least() as f64;
    let estimate = match (queue.undelivered, queue.behind(), arrival) {
        (Lag::AtLeast(_), Some(behind), Some(arrival)) => (behind.as_secs_f64() * arrival).min(queue.length as f64),
        _ => 0.0,
    };
    certain.max(estimate)
}

/// How far ingest is behind the relay, in seconds, while it is paused.
fn relay_lag(queue: &Queue, now: Timestamp) -> Option<f64> {
    let event = queue.ingest.event_time.filter(|_| queue.ingest.paused)?;
    Some(now.duration_since(event).as_secs_f64().max(0.0))
}

/// Rounds demand to workers. A little more than there are is not worth another one: the target leaves that much room.
fn recommend(demand: f64, current: u16, policy: &Policy) -> u16 {
    let current_or_none = f64::from(current);
    let tolerated = demand > current_or_none && demand <= current_or_none * (1.0 + policy.tolerance.max(0.0));
    let workers = if tolerated { current } else { demand.ceil().clamp(0.0, f64::from(u16::MAX)) as u16 };
    policy.bound(workers)
}
