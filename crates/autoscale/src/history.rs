//! What is remembered from one decision to the next; bounded, and lost without harm.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::decision::Decision;
use crate::observation::{Fleet, Lag, Observation, Queue};
use crate::policy::Policy;
use crate::rates::{Look, Looks, RATE_WINDOW, Rates};

/// How much a new measure of a worker's capacity counts beside what was learnt.
const LEARNING: f64 = 0.3;

/// How fast a capacity below a tenth of the prior is forgotten while workers keep up, as a share of the difference a look.
const FORGETTING: f64 = 0.05;

/// How much a new arrival rate counts beside the usual one: that of some minutes.
const USUAL: f64 = 0.02;

/// By how much more the last workers added are to settle, as a share; where they were few, half of what they should bring.
const GAIN: f64 = 0.1;

/// Up to which lag behind the relay ingest counts as reading live: then it writes what happens.
const LIVE: Duration = Duration::from_secs(30);

/// What earlier looks and decisions left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    started: Timestamp,
    looks: Looks,
    /// Recommendations of the window that no later one exceeds, the oldest and greatest first: never more than there are
    /// numbers of workers.
    peaks: VecDeque<(Timestamp, u16)>,
    capacity: Option<f64>,
    /// What one worker was seen to settle before this began.
    inherited: Option<f64>,
    usual_arrival: Option<f64>,
    raise: Option<Raise>,
    still_since: Option<Timestamp>,
    unsettled_since: Option<Timestamp>,
}

/// The last time that workers were added.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Raise {
    from: u16,
    to: u16,
    /// Entries a second settled by workers that never waited, before; none where they did.
    before: Option<f64>,
    /// Since when all were ready.
    full_since: Option<Timestamp>,
}

/// What the last workers added brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gain {
    /// Enough, or it does not matter: nothing speaks against more.
    Enough,
    /// Not to be said yet.
    Open,
    /// Nothing worth it.
    None,
}

// === impl History ===

impl History {
    /// Begins to remember.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            looks: Looks::default(),
            peaks: VecDeque::new(),
            capacity: None,
            inherited: None,
            usual_arrival: None,
            raise: None,
            still_since: None,
            unsettled_since: None,
        }
    }

    /// Begins where another one ended, who saw one worker settle so many entries a second: the prior counts only where it is more.
    #[must_use]
    pub fn inherit(mut self, each: Option<f64>) -> Self {
        self.inherited = each;
        self
    }

    /// Returns what one worker was seen to settle, in entries a second; none before any was seen busy.
    #[must_use]
    pub fn learnt_capacity(&self) -> Option<f64> {
        self.capacity
    }

    /// Returns what one worker is taken to settle: what was learnt, or else the prior, and at least what it did just now. A prior that
    /// is too low would ask for many workers where one is enough.
    pub(crate) fn capacity(&self, rates: &Rates, fleet: Fleet, policy: &Policy) -> f64 {
        let known = self.known_capacity(policy);
        proven_each(rates, fleet).map_or(known, |each| known.max(each))
    }

    /// Returns what one worker is taken to settle, the present moment aside.
    pub(crate) fn known_capacity(&self, policy: &Policy) -> f64 {
        let prior = policy.capacity_prior;
        self.capacity.unwrap_or_else(|| self.inherited.map_or(prior, |each| each.max(prior)))
    }

    /// Remembers a look and the decision that followed. To be called once after each [`decide`](crate::decide()), whether or
    /// not the decision could be carried out.
    pub fn note(&mut self, seen: &Observation, decision: &Decision, now: Timestamp, policy: &Policy) {
        let fleet = seen.fleet;
        if decision.replicas < fleet.desired {
            self.raise = None;
        } else if let Some(raise) = &mut self.raise
            && raise.full_since.is_none()
            && fleet.ready >= raise.to
        {
            raise.full_since = Some(now);
        }
        if let Ok(queue) = &seen.queue {
            let look = Look::new(queue, fleet.ready, now);
            let rates = self.looks.rates(&look);
            self.still_since = self.still(queue, fleet.ready, &rates, now);
            self.unsettled_since = self.unsettled(queue, &rates, now);
            self.learn(seen, queue, &rates, now, policy);
            if decision.replicas > fleet.desired {
                let before = rates.service.filter(|_| rates.busy);
                self.raise = Some(Raise { from: fleet.desired, to: decision.replicas, before, full_since: None });
            }
            if !matches!(queue.undelivered, Lag::Unknown(_)) {
                self.looks.note(look);
            }
        }
        // Where the number is held, what is held is what counts later: a silence is no proof that fewer would do.
        let recommended = if decision.replicas == fleet.desired && !decision.may_shrink() {
            decision.recommended.max(fleet.desired)
        } else {
            decision.recommended
        };
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= recommended) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, recommended));
        while self.peaks.front().is_some_and(|(at, _)| !is_within(*at, now, policy.stabilisation_window)) {
            self.peaks.pop_front();
        }
    }

    /// What was recommended at most within the window.
    pub(crate) fn peak(&self, now: Timestamp, window: Duration) -> u16 {
        // The greatest come first, so the first that is young enough is the greatest.
        self.peaks.iter().find(|(at, _)| is_within(*at, now, window)).map_or(0, |(_, peak)| *peak)
    }

    /// Says whether less than a window was watched.
    pub(crate) fn is_young(&self, now: Timestamp, window: Duration) -> bool {
        is_within(self.started, now, window)
    }

    pub(crate) fn rates(&self, look: &Look) -> Rates {
        self.looks.rates(look)
    }

    /// What arrives usually; a first guess is what is settled.
    pub(crate) fn usual_arrival(&self, rates: &Rates) -> Option<f64> {
        self.usual_arrival.or(rates.service)
    }

    /// Since when nothing was settled although something waits and workers are ready.
    pub(crate) fn still(&self, queue: &Queue, ready: u16, rates: &Rates, now: Timestamp) -> Option<Timestamp> {
        (ready > 0).then(|| silence(self.still_since, queue, rates, now))?
    }

    /// Since when nothing was settled although something waits, whether or not a worker is ready: one that cannot reach its database is
    /// not.
    pub(crate) fn unsettled(&self, queue: &Queue, rates: &Rates, now: Timestamp) -> Option<Timestamp> {
        silence(self.unsettled_since, queue, rates, now)
    }

    /// The same as of the last look, for a moment at which nothing can be seen.
    pub(crate) fn unsettled_before(&self) -> Option<Timestamp> {
        self.unsettled_since
    }

    /// Judges what the last workers added brought.
    pub(crate) fn gain(&self, rates: &Rates, now: Timestamp) -> Gain {
        let Some(Raise { from, to, before: Some(before), full_since }) = self.raise else { return Gain::Enough };
        let expected = f64::from(to) / f64::from(from.max(1)) - 1.0;
        let wanted = before * (1.0 + GAIN.min(expected / 2.0));
        // Good news counts at once; bad news only after a whole window with all of them.
        if !rates.busy || [rates.service, rates.service_now].into_iter().flatten().any(|after| after >= wanted) {
            return Gain::Enough;
        }
        match full_since {
            Some(since) if rates.service.is_some() && !is_within(since, now, RATE_WINDOW) => Gain::None,
            _ => Gain::Open,
        }
    }

    fn learn(&mut self, seen: &Observation, queue: &Queue, rates: &Rates, now: Timestamp, policy: &Policy) {
        let behind_relay = queue.ingest.event_time.map(|event| now.duration_since(event).as_secs_f64());
        if let Some(arrival) = rates.arrival
            && behind_relay.is_none_or(|behind| behind < LIVE.as_secs_f64())
        {
            self.usual_arrival = Some(self.usual_arrival.map_or(arrival, |usual| usual + USUAL * (arrival - usual)));
        }
        let fleet = seen.fleet;
        let steady = rates.same_ready && !fleet.rolling && fleet.ready == fleet.desired && fleet.ready > 0;
        // What each settles while the database is the limit says nothing of what one alone could.
        if steady
            && rates.busy
            && self.gain(rates, now) == Gain::Enough
            && let Some(service) = rates.service_now.filter(|rate| *rate > 0.0)
        {
            let each = service / f64::from(fleet.ready);
            self.capacity = Some(self.capacity.map_or(each, |learnt| learnt + LEARNING * (each - learnt)));
        }
        // Busy or not, they can settle what they did; a database that gets slower is learnt while they are busy.
        if let Some(each) = proven_each(rates, fleet)
            && each > self.known_capacity(policy)
        {
            self.capacity = Some(each);
        }
        // Workers that keep up cannot show what they could settle. What a bad time taught must not outlast it: it would
        // ask for as many workers as there may be, and these would never be busy enough to teach better.
        let least = policy.capacity_prior / 10.0;
        if !rates.busy
            && rates.service_now.is_some()
            && let Some(learnt) = self.capacity.as_mut().filter(|learnt| **learnt < least)
        {
            *learnt += FORGETTING * (least - *learnt);
        }
    }
}

/// Returns the least that one worker can settle, where as many were ready all the time.
fn proven_each(rates: &Rates, fleet: Fleet) -> Option<f64> {
    let steady = rates.same_ready && fleet.ready > 0;
    rates.proven.filter(|_| steady).map(|rate| rate / f64::from(fleet.ready))
}

/// Since when nothing is settled of what waits, where it began as said.
fn silence(since: Option<Timestamp>, queue: &Queue, rates: &Rates, now: Timestamp) -> Option<Timestamp> {
    if queue.undelivered.at_least() == 0 && queue.pending() == 0 {
        return None;
    }
    match rates.service_now {
        Some(rate) if rate > 0.0 => None,
        Some(_) => since.or(Some(now)),
        // Not known: neither a sign of life nor one of death.
        None => since,
    }
}

/// Says whether a moment lies less than a time ago.
fn is_within(moment: Timestamp, now: Timestamp, time: Duration) -> bool {
    now.duration_since(moment).as_secs_f64() < time.as_secs_f64()
}
