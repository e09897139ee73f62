//! A relay, an ingest, a stream and a fleet of workers, second by second.

use std::collections::VecDeque;
use std::time::Duration;

use super::outcome::{Outcome, Sample};
use super::trace::{LagReport, Trace};
use crate::policy::Policy;

/// How fast ingest reads what waits at the relay, in events a second.
const INGEST_RATE: f64 = 20_000.0;

/// At how many entries ingest stops reading, and below how many it goes on: 80 % and 50 % of the default cap.
const WATERMARKS: (f64, f64) = (400_000.0, 250_000.0);

/// How long it takes until the pods of a failed node are replaced, in seconds: what Kubernetes tolerates by default.
const EVICTION: u64 = 300;

/// How long an entry is unread while workers wait for it, in seconds.
const TRANSIT: f64 = 0.001;

/// How the fleet behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetModel {
    /// Events a second that one worker settles. Default 800.
    pub capacity: f64,
    /// Events a second that the database takes, however many workers there are. Default 12,000.
    pub database_limit: f64,
    /// From the decision to a worker that is ready. Default 15 s.
    pub start_up: Duration,
    /// Workers at the start, ready. Default 1.
    pub initial: u16,
}

/// Who decides how many workers there are.
pub(crate) trait Controller {
    /// Looks at second `now`, and says how many there are to be.
    fn tick(&mut self, now: u64, view: &View<'_>) -> u16;
}

/// What a controller may look at.
pub(crate) struct View<'w> {
    world: &'w World<'w>,
}

/// Events that arrived at the relay in one second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When they came to the relay, in seconds from the start of the trace.
    origin: f64,
    /// When they came into the stream.
    entered: f64,
    count: f64,
}

/// All that there is, at one second.
pub(crate) struct World<'t> {
    trace: &'t Trace,
    fleet: FleetModel,
    claim_time: u64,
    in_flight: f64,
    objective: f64,
    now: u64,
    /// Events that wait at the relay.
    relay: VecDeque<Bucket>,
    /// Entries that live workers hold or that nobody was given yet.
    stream: VecDeque<Bucket>,
    in_stream: f64,
    at_relay: f64,
    /// Entries that a dead worker holds, and since when it is dead.
    stranded: Vec<(u64, Vec<Bucket>)>,
    paused: bool,
    last_written: Option<f64>,
    arriving: f64,
    added: f64,
    settled: f64,
    /// The second from which each pod is ready, the oldest first.
    pods: Vec<u64>,
}

// === impl World ===

impl<'t> World<'t> {
    pub(crate) fn new(trace: &'t Trace, fleet: FleetModel, policy: &Policy, objective: Duration) -> Self {
        let (rate, seconds) = trace.waiting.unwrap_or_default();
        let relay: VecDeque<_> = (0..seconds)
            .map(|second| Bucket { origin: second as f64 - seconds as f64, entered: 0.0, count: rate })
            .collect();
        Self {
            trace,
            fleet,
            claim_time: policy.claim_time.as_secs(),
            in_flight: policy.in_flight as f64,
            objective: objective.as_secs_f64(),
            now: 0,
            at_relay: rate * seconds as f64,
            relay,
            stream: VecDeque::new(),
            in_stream: 0.0,
            stranded: Vec::new(),
            paused: false,
            last_written: None,
            arriving: 0.0,
            added: 0.0,
            settled: 0.0,
            pods: vec![0; usize::from(policy.bound(fleet.initial))],
        }
    }

    /// Runs the whole trace under a controller.
    pub(crate) fn run(&mut self, controller: &mut dyn Controller) -> Outcome {
        let mut outcome = Outcome::default();
        for (now, arriving) in (0..).zip(&self.trace.arrivals) {
            self.now = now;
            self.step(*arriving);
            let waiting = self.waiting();
            let age = self.age();
            outcome.backlog_seconds += waiting;
            outcome.seconds_over += u64::from(age > self.objective);
            outcome.worker_seconds += self.pods.len() as u64;
            outcome.samples.push(Sample {
                arriving: *arriving as f32,
                workers: self.pods.len() as u16,
                age: age as f32,
            });
            let wanted = controller.tick(now, &View { world: self });
            outcome.actions += u64::from(usize::from(wanted) != self.pods.len());
            self.scale(usize::from(wanted));
        }
        outcome
    }

    fn step(&mut self, arriving: f64) {
        let now = self.now as f64;
        self.arriving = arriving;
        if arriving > 0.0 {
            self.relay.push_back(Bucket { origin: now, entered: now, count: arriving });
            self.at_relay += arriving;
        }
        self.ingest();
        if self.trace.node_fails.contains(&self.now) {
            self.fail();
        }
        self.claim();
        let ready = self.ready() as f64;
        let mut left = (ready * self.fleet.capacity).min(self.fleet.database_limit);
        left = left.min(self.in_stream);
        self.in_stream -= left;
        self.settled += left;
        take(&mut self.stream, left, |_| ());
    }

    fn ingest(&mut self) {
        let length = self.length();
        self.paused = length >= if self.paused { WATERMARKS.1 } else { WATERMARKS.0 };
        if self.paused {
            return;
        }
        let moved = self.at_relay.min(INGEST_RATE.max(self.arriving));
        self.at_relay -= moved;
        self.in_stream += moved;
        self.added += moved;
        let (now, stream, last) = (self.now as f64, &mut self.stream, &mut self.last_written);
        take(&mut self.relay, moved, |bucket| {
            *last = Some(bucket.origin);
            stream.push_back(Bucket { entered: now, ..bucket });
        });
    }

    /// The node fails: what its workers hold is stranded, and they are replaced only after a while.
    fn fail(&mut self) {
        let held = self.in_stream.min(self.ready() as f64 * self.in_flight);
        let mut stranded = Vec::new();
        take(&mut self.stream, held, |bucket| stranded.push(bucket));
        self.in_stream -= held;
        if !stranded.is_empty() {
            self.stranded.push((self.now, stranded));
        }
        let replaced = self.now + EVICTION + self.fleet.start_up.as_secs();
        self.pods.iter_mut().for_each(|ready_at| *ready_at = replaced);
    }

    /// Live workers take over what the dead have held for the claim time.
    fn claim(&mut self) {
        if self.ready() == 0 {
            return;
        }
        let (now, claim_time) = (self.now, self.claim_time);
        for (_, buckets) in self.stranded.extract_if(.., |(since, _)| now >= *since + claim_time) {
            for bucket in buckets.into_iter().rev() {
                self.in_stream += bucket.count;
                self.stream.push_front(bucket);
            }
        }
    }

    fn scale(&mut self, wanted: usize) {
        // Those that are not ready go first, as in Kubernetes.
        self.pods.sort_unstable();
        self.pods.truncate(wanted);
        let ready_at = self.now + 1 + self.fleet.start_up.as_secs();
        self.pods.resize(wanted, ready_at);
    }

    fn ready(&self) -> usize {
        self.pods.iter().filter(|ready_at| **ready_at <= self.now).count()
    }

    fn stranded(&self) -> f64 {
        self.stranded.iter().flat_map(|(_, buckets)| buckets).map(|bucket| bucket.count).sum()
    }

    fn length(&self) -> f64 {
        self.in_stream + self.stranded()
    }

    /// All events there ever were.
    #[cfg(test)]
    pub(crate) fn total(&self) -> f64 {
        self.settled + self.waiting()
    }

    fn waiting(&self) -> f64 {
        self.at_relay + self.length()
    }

    /// How long the oldest event waits.
    fn age(&self) -> f64 {
        let stranded = self.stranded.iter().filter_map(|(_, buckets)| buckets.first());
        let oldest = stranded.chain(self.stream.front()).chain(self.relay.front()).map(|bucket| bucket.origin);
        oldest.reduce(f64::min).map_or(0.0, |oldest| self.now as f64 - oldest)
    }
}

// === impl View ===

impl View<'_> {
    /// Workers asked for, and those of them that are ready.
    pub(crate) fn fleet(&self) -> (u16, u16) {
        (self.world.pods.len() as u16, self.world.ready() as u16)
    }

    /// Entries that no worker was given: workers read ahead as far as they may.
    pub(crate) fn undelivered(&self) -> u64 {
        let held = self.world.ready() as f64 * self.world.in_flight;
        let transit = (self.world.arriving * TRANSIT).max(if self.world.arriving > 0.0 { 1.0 } else { 0.0 });
        (self.world.in_stream - held).max(if self.world.paused { 0.0 } else { transit }).round() as u64
    }

    /// What Redis says of the lag; none where it says nothing.
    pub(crate) fn lag(&self) -> Option<u64> {
        match self.world.trace.lag {
            LagReport::Right => Some(self.undelivered()),
            LagReport::Nil => None,
            LagReport::TooHigh(by) => Some(self.undelivered() + by),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        (self.world.length().round() as u64).max(self.undelivered())
    }

    /// Entries that dead workers hold, and those of them that are so for the claim time.
    pub(crate) fn stranded(&self) -> (u64, u64) {
        let old = |since: u64| self.world.now >= since + self.world.claim_time;
        let count = |buckets: &[Bucket]| buckets.iter().map(|bucket| bucket.count).sum::<f64>();
        let all = &self.world.stranded;
        let claimable: f64 = all.iter().filter(|(since, _)| old(*since)).map(|(_, buckets)| count(buckets)).sum();
        (self.world.stranded().round() as u64, claimable.round() as u64)
    }

    /// Entries ever added, and ever settled.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.world.added.round() as u64, self.world.settled.round() as u64)
    }

    /// When the first entry was written that no worker was given, in seconds from the start.
    pub(crate) fn unread_since(&self) -> f64 {
        let mut held = self.world.ready() as f64 * self.world.in_flight;
        let unread = self.world.stream.iter().find(|bucket| {
            held -= bucket.count;
            held < 0.0
        });
        unread.map_or(self.world.now as f64, |bucket| bucket.entered)
    }

    /// Whether ingest is paused, and when what it wrote last came to the relay.
    pub(crate) fn ingest(&self) -> (bool, Option<f64>) {
        (self.world.paused, self.world.last_written)
    }
}

// === impl FleetModel ===

impl Default for FleetModel {
    fn default() -> Self {
        Self { capacity: 800.0, database_limit: 12_000.0, start_up: Duration::from_secs(15), initial: 1 }
    }
}

/// Takes so many from the front.
fn take(from: &mut VecDeque<Bucket>, mut count: f64, mut give: impl FnMut(Bucket)) {
    while let Some(first) = from.front_mut().filter(|_| count > 1e-6) {
        let taken = first.count.min(count);
        count -= taken;
        first.count -= taken;
        give(Bucket { count: taken, ..*first });
        if first.count <= 1e-6 {
            from.pop_front();
        }
    }
}
