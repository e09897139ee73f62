//! How fast entries come and go, from the differences between looks.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use penstock_core::stream::StreamId;

use crate::observation::{Acked, Lag, Queue};

/// Over which time a rate is taken: long enough for batches, short enough for a decision every 5 s.
pub(crate) const RATE_WINDOW: Duration = Duration::from_secs(15);

/// How many looks are kept at most, however often one looks.
const MOST_LOOKS: usize = 64;

/// What one look leaves behind for the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    pub(crate) at: Timestamp,
    added: Option<u64>,
    last_id: Option<StreamId>,
    acked: Option<Acked>,
    paused: bool,
    /// Undelivered and pending; none where that is not whole.
    unsettled: Option<u64>,
    /// What workers held: it may be settled already, and not yet acknowledged.
    pending: u64,
    /// What workers had before them, as far as certain; without a bound where they are behind and nobody knows how far.
    ahead: u64,
    ready: u16,
}

/// The looks of the last seconds, the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Looks(VecDeque<Look>);

/// How fast entries come and go, in entries a second; none where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Written to the stream: the greater of the last look's and the window's, so that a rise counts at once.
    pub(crate) arrival: Option<f64>,
    /// Settled, over the window.
    pub(crate) service: Option<f64>,
    /// Settled since the last look.
    pub(crate) service_now: Option<f64>,
    /// Settled since the last look and held by nobody then, so that all the work on it was done in between: the least that the
    /// workers can settle, busy or not.
    pub(crate) proven: Option<f64>,
    /// Whether there was always more to read than the workers settle in a second: they never waited.
    pub(crate) busy: bool,
    /// Whether as many workers were ready at the last look.
    pub(crate) same_ready: bool,
}

// === impl Look ===

impl Look {
    pub(crate) fn new(queue: &Queue, ready: u16, at: Timestamp) -> Self {
        let undelivered = queue.undelivered.at_least();
        let unsettled = undelivered.saturating_add(queue.pending());
        let is_behind = queue.behind().is_some_and(|behind| behind >= Duration::from_secs(1));
        let ahead = if is_behind && matches!(queue.undelivered, Lag::AtLeast(_)) { u64::MAX } else { undelivered };
        Self {
            at,
            added: queue.added,
            last_id: queue.last_id,
            acked: queue.acked,
            paused: queue.ingest.paused,
            unsettled: queue.undelivered.is_exact().then_some(unsettled),
            pending: queue.pending(),
            ahead,
            ready,
        }
    }

    fn arrival_since(&self, then: &Self) -> Option<f64> {
        // While ingest holds back, what it writes says nothing of what there is; nor does another stream of the same name.
        if self.paused || then.paused || self.last_id < then.last_id {
            return None;
        }
        let added = self.added?.checked_sub(then.added?)?;
        Some(added as f64 / self.seconds_since(then)?)
    }

    fn service_since(&self, then: &Self) -> Option<f64> {
        let acked = self.acked?.since(then.acked?)?;
        // More than there was cannot have been settled: the group was moved, or Redis counted anew.
        let added = self.added.zip(then.added).and_then(|(now, then)| now.checked_sub(then));
        let most = added.zip(then.unsettled).map(|(added, there)| added.saturating_add(there));
        if most.is_some_and(|most| acked > most) {
            return None;
        }
        Some(acked as f64 / self.seconds_since(then)?)
    }

    fn proven_since(&self, then: &Self) -> Option<f64> {
        let service = self.service_since(then)?;
        let held = then.pending as f64 / self.seconds_since(then)?;
        Some((service - held).max(0.0))
    }

    fn seconds_since(&self, then: &Self) -> Option<f64> {
        Some(self.at.duration_since(then.at).as_secs_f64()).filter(|seconds| *seconds > 0.0)
    }
}

// === impl Looks ===

impl Looks {
    /// Compares a new look with those before.
    pub(crate) fn rates(&self, now: &Look) -> Rates {
        let Some(last) = self.0.back() else { return Rates::default() };
        let of_window = || self.0.iter().filter(|look| now.at.duration_since(look.at).as_secs_f64() <= within());
        let oldest = of_window().next().unwrap_or(last);
        let (short, long) = (now.arrival_since(last), now.arrival_since(oldest));
        let service = now.service_since(oldest);
        let service_now = now.service_since(last);
        let enough = (service_now.unwrap_or(0.0) as u64).max(1);
        Rates {
            arrival: short.zip(long).map(|(short, long)| short.max(long)).or(short),
            service,
            service_now,
            proven: now.proven_since(last),
            busy: now.ahead >= enough && of_window().all(|look| look.ahead >= enough),
            same_ready: last.ready == now.ready,
        }
    }

    /// Keeps a look, and forgets those before the window; the last one stays however old it is.
    pub(crate) fn note(&mut self, look: Look) {
        while self.0.len() >= MOST_LOOKS
            || self.0.front().is_some_and(|first| look.at.duration_since(first.at).as_secs_f64() > within())
        {
            self.0.pop_front();
        }
        self.0.push_back(look);
    }
}

/// A tick that comes a little late belongs to the window too.
fn within() -> f64 {
    RATE_WINDOW.as_secs_f64() + 1.0
}
