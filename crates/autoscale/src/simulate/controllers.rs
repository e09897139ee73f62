//! Our controller: the real decision, every 5 s.

use std::time::Duration;

use jiff::Timestamp;
use penstock_core::lag::{MOST_COUNTED, Told};
use penstock_core::stream::StreamId;

use super::world::{Controller, View};
use crate::decide::decide;
use crate::history::History;
use crate::observation::{Acked, Fleet, Group, Ingest, Lag, Observation, Queue};
use crate::policy::Policy;

/// How often the operator decides, in seconds.
const LOOP: u64 = 5;

/// When every trace begins: some moment.
const START: i64 = 1_700_000_000;

/// The real decision with a history of its own.
pub(crate) struct Ours {
    policy: Policy,
    history: History,
    wanted: Option<u16>,
}

// === impl Ours ===

impl Ours {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { policy: *policy, history: History::new(moment(0.0)), wanted: None }
    }
}

impl Controller for Ours {
    fn tick(&mut self, now: u64, view: &View<'_>) -> u16 {
        let (desired, ready) = view.fleet();
        if now.is_multiple_of(LOOP) {
            let fleet = Fleet { desired, ready, rolling: false };
            let seen = Observation { queue: Ok(queue(now, view)), fleet };
            let at = moment(now as f64);
            let decision = decide(&seen, &self.history, at, &self.policy);
            self.history.note(&seen, &decision, at, &self.policy);
            self.wanted = Some(decision.replicas);
        }
        self.wanted.unwrap_or(desired)
    }
}

/// What Redis would show, judged as in reality.
fn queue(now: u64, view: &View<'_>) -> Queue {
    let (undelivered, length) = (view.undelivered(), view.length());
    let (stranded, claimable) = view.stranded();
    let (added, settled) = view.counts();
    let (paused, event_time) = view.ingest();
    let last = id(now as f64);
    let delivered = if undelivered == 0 { last } else { id(view.unread_since() - 0.001) };
    let first = (length == undelivered).then_some(last);
    let unread = (undelivered > 0).then(|| undelivered.min(MOST_COUNTED));
    let kept = Some(length.saturating_sub(undelivered).min(MOST_COUNTED));
    let told = Told { length, first, last, delivered, lag: view.lag(), unread, kept };
    let pending = length.saturating_sub(undelivered).max(stranded);
    Queue {
        length,
        added: Some(added),
        last_id: Some(last),
        group: Some(Group { last_delivered: delivered, pending }),
        undelivered: told.undelivered(),
        stranded: Lag::Exact(claimable),
        consumers: Vec::new(),
        acked: Some(Acked::Read(settled)),
        ingest: Ingest { paused, event_time: event_time.map(moment) },
    }
}

fn id(second: f64) -> StreamId {
    StreamId { ms: u64::try_from(moment(second).as_millisecond()).unwrap_or_default(), seq: 0 }
}

/// The moment so many seconds after the start.
pub(crate) fn moment(second: f64) -> Timestamp {
    let start = Timestamp::from_second(START).unwrap_or_default();
    let after = Duration::from_secs_f64(second.max(0.0));
    let before = Duration::from_secs_f64((-second).max(0.0));
    let moment = start.checked_add(after).and_then(|moment| moment.checked_sub(before));
    moment.unwrap_or(start)
}
