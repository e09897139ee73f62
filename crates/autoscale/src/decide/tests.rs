//! One claim for each rule.

use std::time::Duration;

use jiff::Timestamp;
use penstock_core::stream::StreamId;

use super::*;
use crate::observation::{Acked, Group, Ingest};

/// A pipeline on which one looks every 5 s.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) policy: Policy,
    pub(super) history: History,
    pub(super) queue: Queue,
    pub(super) fleet: Fleet,
    pub(super) second: u64,
}

impl Stage {
    /// Begins with so many ready workers and an empty queue, and capacity 1,000/s at 100 %, watched for long.
    pub(super) fn new(workers: u16) -> Self {
        let policy = Policy { target_utilisation: 1.0, tolerance: 0.0, ..Policy::default() };
        let id = StreamId { ms: 1_000, seq: 0 };
        let queue = Queue {
            length: 0,
            added: Some(0),
            last_id: Some(id),
            group: Some(Group { last_delivered: id, pending: 0 }),
            undelivered: Lag::Exact(0),
            stranded: Lag::Exact(0),
            consumers: Vec::new(),
            acked: Some(Acked::Read(0)),
            ingest: Ingest::default(),
        };
        let fleet = Fleet { desired: workers, ready: workers, rolling: false };
        Self { policy, history: History::new(at(0)), queue, fleet, second: 3_600 }
    }

    /// Looks without a consequence.
    pub(super) fn decide(&self) -> Decision {
        let seen = Observation { queue: Ok(self.queue.clone()), fleet: self.fleet };
        decide(&seen, &self.history, at(self.second), &self.policy)
    }

    /// Looks, remembers, and follows: all workers asked for are ready at once.
    pub(super) fn follow(&mut self) -> Decision {
        let decision = self.note();
        self.fleet = Fleet { desired: decision.replicas, ready: decision.replicas, ..self.fleet };
        decision
    }

    /// Looks and remembers, and 5 s go by.
    pub(super) fn note(&mut self) -> Decision {
        self.note_of(Ok(self.queue.clone()))
    }

    fn note_of(&mut self, queue: Result<Queue, LagGap>) -> Decision {
        let seen = Observation { queue, fleet: self.fleet };
        let decision = decide(&seen, &self.history, at(self.second), &self.policy);
        self.history.note(&seen, &decision, at(self.second), &self.policy);
        self.second += 5;
        decision
    }

    /// Lets 5 s of events come and others go.
    pub(super) fn flow(&mut self, arrive: u64, settle: u64) {
        self.queue.added = self.queue.added.map(|added| added + arrive);
        if let Some(Acked::Read(read)) = &mut self.queue.acked {
            *read += settle;
        }
        let waiting = self.queue.undelivered.at_least() + arrive - settle;
        self.queue.undelivered = Lag::Exact(waiting);
        self.queue.length = waiting;
    }

    /// Lets the same flow go on for some looks.
    fn go_on(&mut self, looks: usize, arrive: u64, settle: u64) -> Decision {
        for _ in 1..looks {
            self.flow(arrive, settle);
            self.follow();
        }
        self.flow(arrive, settle);
        self.follow()
    }

    fn wait(&mut self, undelivered: u64) {
        self.queue.undelivered = Lag::Exact(undelivered);
        self.queue.length = undelivered + self.queue.pending();
    }

    fn hold(&mut self, pending: u64) {
        let last_delivered = self.queue.last_id.unwrap();
        self.queue.group = Some(Group { last_delivered, pending });
        self.queue.length = self.queue.undelivered.at_least() + pending;
    }
}

pub(super) fn at(second: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + i64::try_from(second).unwrap()).unwrap()
}

fn said(decision: &Decision) -> (u16, &'static str) {
    (decision.replicas, decision.reason.name())
}

#[test]
fn arrivals_and_backlog_together_ask_for_workers() {
    let mut stage = Stage::new(1);
    stage.note();
    stage.flow(5 * 2_000, 5 * 1_000);
    // 2,000/s arrive, and 5,000 are to be gone within 30 s: 2.17 workers.
    let decision = stage.note();
    assert_eq!(said(&decision), (3, "ScaleUp"), "{decision}");
    assert_eq!(
        (decision.arrival, decision.service, decision.backlog),
        (Some(2_000.0), Some(1_000.0), Lag::Exact(5_000))
    );
    assert!((decision.demand - 2.1667).abs() < 0.001, "{decision}");
}

#[test]
fn a_backlog_counts_before_any_rate_is_known() {
    let mut stage = Stage::new(1);
    stage.wait(120_000);
    let decision = stage.decide();
    assert_eq!((decision.arrival, said(&decision)), (None, (4, "ScaleUp")));
}

#[test]
fn target_utilisation_leaves_room() {
    let mut stage = Stage::new(1);
    stage.policy.target_utilisation = 0.5;
    stage.note();
    stage.flow(5_000, 5_000);
    assert_eq!(said(&stage.note()), (2, "ScaleUp"));
}

#[test]
fn a_little_more_than_there_is_room_for_is_tolerated() {
    let mut stage = Stage::new(2);
    stage.policy.tolerance = 0.05;
    stage.note();
    // 400 wait in the end, which ask for 1.3 % of a worker: 2.093 are asked for.
    stage.flow(5 * 2_080, 5 * 2_000);
    assert_eq!(said(&stage.note()), (2, "AtTarget"));
    stage.flow(5 * 2_110, 5 * 2_000);
    assert_eq!(said(&stage.note()), (3, "ScaleUp"));
}

#[test]
fn bounds_and_step_are_kept() {
    let mut stage = Stage::new(1);
    stage.wait(10_000_000);
    assert_eq!(said(&stage.decide()), (10, "ScaleUp"));
    stage.policy.step_up = 3;
    assert_eq!(said(&stage.decide()), (4, "ScaleUp"));
    stage.fleet = Fleet { desired: 10, ready: 10, rolling: false };
    assert_eq!(said(&stage.decide()), (10, "AtMaximum"));
    stage.policy.max = 6;
    assert_eq!(said(&stage.decide()), (6, "Bounds"));
    let mut idle = Stage::new(3);
    idle.policy.min = 3;
    idle.note();
    assert_eq!(said(&idle.note()), (3, "AtMinimum"));
}

#[test]
fn fewer_come_only_after_a_window_in_which_fewer_were_enough() {
    let mut stage = Stage::new(6);
    assert_eq!(said(&stage.go_on(3, 30_000, 30_000)).0, 6);
    let calm = stage.go_on(58, 10_000, 10_000);
    assert_eq!(said(&calm), (6, "Stabilising"), "{calm}");
    let numbers: Vec<_> = (0..8).map(|_| stage.go_on(1, 10_000, 10_000).replicas).collect();
    assert!(numbers.is_sorted_by(|before, after| before >= after) && numbers.ends_with(&[2, 2]), "{numbers:?}");
}

#[test]
fn one_busy_moment_in_the_window_keeps_what_it_needed() {
    let mut stage = Stage::new(6);
    stage.go_on(3, 30_000, 30_000);
    stage.go_on(40, 10_000, 10_000);
    stage.go_on(2, 20_000, 20_000);
    let numbers: Vec<_> = (0..40).map(|_| stage.go_on(1, 10_000, 10_000).replicas).collect();
    assert!(numbers.starts_with(&[6]) && numbers.ends_with(&[4, 4]), "four were needed since: {numbers:?}");
}

#[test]
fn a_restart_never_scales_down_within_a_window() {
    let mut stage = Stage::new(8);
    stage.history = History::new(at(3_600));
    stage.note();
    for _ in 0..59 {
        assert_eq!(said(&stage.note()), (8, "Restarted"));
    }
    assert_eq!(said(&stage.note()), (4, "ScaleDown"));
}

#[test]
fn unknown_lag_never_scales_down() {
    use LagGap as Gap;
    for gap in
        [Gap::RedisUnreachable, Gap::KeyOfWrongType, Gap::AnswerUnreadable, Gap::StreamMissing, Gap::GroupMissing]
    {
        let mut stage = Stage::new(5);
        for _ in 0..200 {
            let decision = stage.note_of(Err(gap));
            assert_eq!(said(&decision), (5, gap.name()));
            assert!(!decision.lag_known && !decision.stalled && decision.backlog == Lag::Unknown(gap));
        }
        // What was held counts for a window: a silence is no proof that fewer would do.
        let after: Vec<_> = (0..62).map(|_| stage.note().replicas).collect();
        assert!(after[..60].iter().all(|replicas| *replicas == 5) && after[61] == 1, "{gap}: {after:?}");
    }
}

#[test]
fn a_lower_bound_never_scales_down_and_scales_up() {
    let mut stage = Stage::new(5);
    stage.note();
    for settled in 1..100 {
        stage.queue.undelivered = Lag::AtLeast(200);
        stage.queue.acked = Some(Acked::Read(1_000 * settled));
        assert_eq!(said(&stage.note()), (5, "LagAtLeast"));
    }
    stage.queue.acked = Some(Acked::Read(100_000));
    stage.queue.undelivered = Lag::AtLeast(300_000);
    assert_eq!(said(&stage.note()), (10, "ScaleUp"));
}

#[test]
fn above_a_lower_bound_the_time_behind_tells_how_much_waits() {
    let mut stage = Stage::new(1);
    stage.note();
    stage.flow(5_000, 5_000);
    stage.queue.undelivered = Lag::AtLeast(200);
    stage.queue.length = 1_000_000;
    stage.queue.last_id = Some(StreamId { ms: 61_000, seq: 0 });
    // A minute behind at 1,000/s: 60,000 to be gone within 30 s, besides what arrives.
    assert_eq!(said(&stage.decide()), (3, "ScaleUp"));
    stage.queue.length = 30_000;
    assert_eq!(said(&stage.decide()), (2, "ScaleUp"), "never more than the stream holds");
}

#[test]
fn an_unknown_arrival_rate_never_scales_down() {
    let mut stage = Stage::new(5);
    stage.queue.added = None;
    for _ in 0..100 {
        assert_eq!(said(&stage.note()), (5, "ArrivalUnknown"));
    }
    stage.wait(300_000);
    assert_eq!(said(&stage.note()), (10, "ScaleUp"));
}

#[test]
fn a_counter_that_went_back_is_unknown() {
    let mut stage = Stage::new(2);
    stage.queue.added = Some(1_000_000);
    stage.queue.acked = Some(Acked::Read(1_000_000));
    stage.note();
    stage.queue.added = Some(10);
    stage.queue.acked = Some(Acked::Read(10));
    let decision = stage.decide();
    assert_eq!((decision.arrival, decision.service), (None, None));
    stage.queue.added = Some(2_000_000);
    stage.queue.last_id = Some(StreamId { ms: 1, seq: 0 });
    assert_eq!(stage.decide().arrival, None, "another stream");
}

#[test]
fn counts_of_different_sources_do_not_compare() {
    let mut stage = Stage::new(2);
    stage.note();
    stage.queue.acked = Some(Acked::Counted(500));
    assert_eq!(stage.decide().service, None);
}

#[test]
fn more_settled_than_there_was_is_unknown() {
    let mut stage = Stage::new(2);
    stage.wait(100);
    stage.note();
    stage.queue.acked = Some(Acked::Read(101));
    assert_eq!(stage.decide().service, None);
    stage.queue.acked = Some(Acked::Read(100));
    assert_eq!(stage.decide().service, Some(20.0));
}

#[test]
fn while_ingest_is_paused_the_lag_behind_the_relay_counts() {
    let mut stage = Stage::new(1);
    stage.policy.max = 100;
    stage.policy.step_up = 100;
    stage.go_on(4, 2_500, 2_500);
    stage.queue.ingest = Ingest { paused: true, event_time: Some(at(stage.second - 600)) };
    // 500/s for ten minutes wait at the relay: 300,000 within 30 s, and 500/s go on.
    let decision = stage.note();
    assert_eq!((decision.arrival, decision.relay_lag), (None, Some(600.0)));
    assert_eq!(said(&decision), (11, "ScaleUp"), "{decision}");
}

#[test]
fn while_ingest_is_paused_nothing_scales_down() {
    let mut stage = Stage::new(5);
    stage.go_on(2, 5_000, 5_000);
    stage.queue.ingest = Ingest { paused: true, event_time: Some(at(stage.second)) };
    for _ in 0..100 {
        stage.queue.ingest.event_time = Some(at(stage.second));
        assert_eq!(said(&stage.note()), (5, "IngestPaused"));
    }
}

#[test]
fn pending_beyond_what_ready_workers_hold_is_backlog() {
    let mut stage = Stage::new(2);
    stage.hold(8_000);
    assert_eq!(stage.decide().backlog, Lag::Exact(0));
    stage.hold(68_000);
    assert_eq!(said(&stage.decide()), (2, "AtTarget"));
    stage.hold(8_000 + 120_000);
    let decision = stage.decide();
    assert_eq!((decision.backlog, decision.replicas), (Lag::Exact(120_000), 4));
}

#[test]
fn stranded_entries_are_backlog() {
    let mut stage = Stage::new(1);
    stage.hold(60_000);
    stage.queue.stranded = Lag::Exact(60_000);
    let decision = stage.decide();
    assert_eq!((decision.backlog, decision.replicas), (Lag::Exact(60_000), 2));
    stage.queue.stranded = Lag::AtLeast(1_000);
    assert_eq!(stage.decide().backlog, Lag::AtLeast(1_000 + 55_000));
}

#[test]
fn entries_in_flight_only_veto_the_scale_to_zero() {
    let mut stage = Stage::new(2);
    stage.policy.min = 0;
    stage.hold(1);
    let mut settled = 0;
    let mut numbers: Vec<_> = (0..70)
        .map(|_| {
            // Others come and go: the workers do not stand still.
            settled += 1;
            stage.queue.added = Some(settled);
            stage.queue.acked = Some(Acked::Read(settled));
            stage.follow().replicas
        })
        .collect();
    numbers.dedup();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(stage.decide().reason, Reason::AtTarget, "something arrives");
    stage.hold(0);
    stage.queue.undelivered = Lag::Exact(0);
    let mut reasons: Vec<_> = (0..70).map(|_| said(&stage.follow())).collect();
    reasons.dedup();
    assert_eq!(reasons, [(1, "AtTarget"), (1, "Stabilising"), (0, "ScaleToZero"), (0, "AtTarget")]);
    stage.hold(1);
    assert_eq!(said(&stage.decide()), (1, "ScaleFromZero"));
}

#[test]
fn the_first_entry_wakes_a_pipeline_without_workers() {
    let mut stage = Stage::new(0);
    stage.policy.min = 0;
    assert_eq!(said(&stage.note()), (0, "AtTarget"));
    for undelivered in [Lag::Exact(1), Lag::AtLeast(200)] {
        stage.queue.undelivered = undelivered;
        assert_eq!(said(&stage.decide()), (1, "ScaleFromZero"));
    }
}

#[test]
fn a_missing_group_wakes_a_worker_to_make_it() {
    let mut stage = Stage::new(0);
    stage.policy.min = 0;
    stage.queue.group = None;
    stage.queue.undelivered = Lag::Unknown(LagGap::GroupMissing);
    stage.queue.stranded = stage.queue.undelivered;
    assert_eq!(said(&stage.decide()), (0, "GroupMissing"), "nothing is there to be read");
    stage.queue.length = 10;
    let decision = stage.decide();
    assert_eq!((said(&decision), decision.lag_known), ((1, "ScaleFromZero"), false));
    stage.fleet = Fleet { desired: 4, ready: 4, rolling: false };
    assert_eq!(said(&stage.decide()), (4, "GroupMissing"));
}

#[test]
fn capacity_is_learnt_from_busy_workers_only() {
    let mut stage = Stage::new(2);
    stage.go_on(5, 1_000, 1_000);
    assert_eq!(stage.history.learnt_capacity(), None, "they waited for entries");
    stage.wait(500_000);
    stage.policy.max = 2;
    stage.go_on(10, 1_000, 5_000);
    assert_eq!(stage.history.learnt_capacity(), Some(500.0));
    stage.go_on(30, 1_000, 10_000);
    let learnt = stage.history.learnt_capacity().unwrap();
    assert!((990.0..=1_000.0).contains(&learnt), "{learnt}");
}

#[test]
fn slow_times_are_forgotten_once_workers_keep_up() {
    let mut stage = Stage::new(2);
    stage.policy.max = 2;
    stage.wait(500_000);
    stage.go_on(10, 1_000, 10);
    assert_eq!(stage.history.learnt_capacity(), Some(1.0));
    stage.wait(0);
    stage.go_on(120, 1_000, 1_000);
    let learnt = stage.history.learnt_capacity().unwrap();
    assert!((98.0..=100.0).contains(&learnt), "{learnt}");
}

#[test]
fn capacity_is_not_learnt_while_workers_come_and_go() {
    let mut stage = Stage::new(4);
    stage.policy.max = 4;
    stage.wait(500_000);
    for ready in [1, 2, 3, 2, 1, 3] {
        stage.fleet.ready = ready;
        stage.flow(0, 5_000);
        stage.note();
    }
    assert_eq!(stage.history.learnt_capacity(), None);
}

#[test]
fn no_step_up_mid_rollout_or_while_workers_are_missing() {
    let mut stage = Stage::new(2);
    stage.wait(300_000);
    stage.fleet.rolling = true;
    assert_eq!(said(&stage.decide()), (2, "RollingOut"));
    stage.fleet = Fleet { desired: 2, ready: 1, rolling: false };
    assert_eq!(said(&stage.decide()), (2, "AwaitingReady"));
    stage.fleet.ready = 2;
    assert_eq!(said(&stage.decide()).1, "ScaleUp");
}

/// Two busy workers that settle 1,000/s, and then four of them that settle so many.
fn raised(settled: u64) -> Stage {
    let mut stage = Stage::new(2);
    stage.policy.step_up = 2;
    stage.wait(3_000_000);
    stage.fleet.rolling = true;
    stage.go_on(4, 1_000, 5_000);
    stage.fleet.rolling = false;
    stage.flow(1_000, 5_000);
    assert_eq!(said(&stage.follow()), (4, "ScaleUp"));
    stage.flow(1_000, settled);
    stage
}

#[test]
fn workers_that_bring_nothing_are_the_last_that_are_added() {
    let mut stage = raised(5_400);
    let mut reasons = Vec::new();
    for _ in 0..100 {
        reasons.push(said(&stage.follow()));
        stage.flow(1_000, 5_400);
    }
    // A window of 15 s from when all were seen ready, at the first of these looks.
    assert_eq!(reasons[..3], [(4, "Judging"); 3]);
    assert!(reasons[3..].iter().all(|said| *said == (4, "Saturated")), "{reasons:?}");
    // The database recovers.
    stage.go_on(1, 1_000, 9_000);
    assert_ne!(stage.fleet.desired, 4, "the next were allowed");
}

#[test]
fn workers_that_bring_a_tenth_more_are_followed_by_others_at_once() {
    assert_eq!(said(&raised(5_600).note()), (6, "ScaleUp"));
}

#[test]
fn saturation_ends_with_the_backlog() {
    let mut stage = raised(5_000);
    assert_eq!(stage.go_on(5, 1_000, 5_000).reason, Reason::Saturated);
    stage.wait(0);
    stage.flow(0, 0);
    stage.queue.acked = Some(Acked::Read(0));
    assert_ne!(stage.follow().reason, Reason::Saturated);
}

#[test]
fn a_backlog_of_which_nothing_is_settled_is_stalled_after_a_claim_time() {
    let mut stage = Stage::new(3);
    stage.wait(60_000);
    stage.follow();
    for _ in 0..12 {
        stage.flow(5_000, 0);
        let decision = stage.follow();
        assert!(!decision.stalled, "{decision}");
    }
    let workers = stage.fleet.desired;
    for _ in 0..100 {
        stage.flow(5_000, 0);
        let decision = stage.follow();
        assert!(decision.stalled && decision.lag_known);
        assert_eq!(said(&decision), (workers, "Stalled"));
    }
    stage.flow(0, 10);
    assert!(!stage.follow().stalled, "one batch is a sign of life");
}

#[test]
fn workers_that_hold_everything_and_settle_nothing_are_stalled_too() {
    let mut stage = Stage::new(3);
    stage.hold(9_000);
    let stalled: Vec<_> = (0..30).map(|_| stage.follow().stalled).collect();
    // Twice the claim time: what a dead worker holds is taken over only after one.
    assert_eq!(stalled.iter().position(|stalled| *stalled), Some(25));
}

#[test]
fn nobody_is_stalled_without_work_or_without_workers() {
    let mut idle = Stage::new(3);
    assert!((0..40).all(|_| !idle.follow().stalled));
    let mut starting = Stage::new(3);
    starting.wait(50_000);
    starting.fleet.ready = 0;
    assert!((0..40).all(|_| !starting.note().stalled));
}

#[test]
fn what_nobody_settles_is_overdue_after_a_claim_time_though_no_worker_is_ready() {
    let mut stage = Stage::new(3);
    stage.wait(60_000);
    stage.follow();
    stage.fleet.ready = 0;
    let seen: Vec<_> = (0..20).map(|_| stage.note()).collect();
    let since = seen[0].unsettled_since.unwrap();
    assert!(seen.iter().all(|decision| !decision.stalled && decision.unsettled_since == Some(since)));
    assert_eq!(seen.iter().position(|decision| decision.overdue), Some(12));
    // Workers that become ready do not end it, but the first entry that is settled does.
    stage.fleet.ready = 3;
    let decision = stage.follow();
    assert_eq!((decision.unsettled_since, decision.overdue), (Some(since), true));
    stage.flow(0, 10);
    let decision = stage.follow();
    assert_eq!((decision.unsettled_since, decision.overdue), (None, false));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut stage = Stage::new(1);
    stage.policy.stabilisation_window = Duration::from_secs(86_400);
    for look in 0..5_000_u64 {
        stage.wait(look * 7_919 % 300_000);
        stage.note();
        stage.second -= 4;
    }
    let size = format!("{:?}", stage.history).len();
    assert!(size < 30_000, "{size}");
}

#[test]
fn capacity_is_learnt_although_only_a_lower_bound_is_known() {
    let mut stage = Stage::new(2);
    stage.policy.max = 2;
    stage.queue.length = 1_000_000;
    for look in 0..8 {
        stage.queue.undelivered = Lag::AtLeast(200);
        stage.queue.last_id = Some(StreamId { ms: 61_000 + 5_000 * look, seq: 0 });
        stage.queue.acked = Some(Acked::Read(3_000 * look));
        stage.follow();
    }
    assert_eq!(stage.history.learnt_capacity(), Some(300.0));
}

#[test]
fn what_a_worker_was_seen_to_settle_counts_and_not_the_prior() {
    // As seen on a cluster: one worker settled 8,051/s, and by the prior of 1,000 ten were asked for.
    let mut stage = Stage::new(1);
    stage.policy = Policy::default();
    stage.wait(300_000);
    stage.note();
    stage.flow(0, 5 * 8_051);
    let decision = stage.note();
    assert!((decision.capacity - 8_051.0).abs() < 0.1, "{decision}");
    // 259,745 in 30 s, by workers of which each is given 80 % of that.
    assert_eq!(said(&decision), (2, "ScaleUp"), "{decision}");
    // Idle again, it is not forgotten.
    stage.wait(0);
    stage.second += 60;
    stage.note();
    stage.wait(250_000);
    let decision = stage.decide();
    assert!((decision.capacity - 8_051.0).abs() < 0.1, "{decision}");
    assert_eq!(decision.replicas, 2, "{decision}");
}

#[test]
fn what_was_held_before_proves_nothing_of_what_a_worker_can_settle() {
    let mut stage = Stage::new(1);
    stage.hold(10_000);
    stage.note();
    stage.note();
    // All of it acknowledged at once, after the database was locked.
    stage.hold(0);
    stage.wait(200_000);
    stage.queue.added = stage.queue.added.map(|added| added + 200_000);
    stage.queue.acked = Some(Acked::Read(10_000));
    let decision = stage.decide();
    assert!((decision.capacity - 1_000.0).abs() < 0.1, "{decision}");
}

#[test]
fn what_was_seen_before_a_restart_counts_until_something_is_learnt() {
    let decide_with = |each: Option<f64>| {
        let mut stage = Stage::new(1);
        stage.policy = Policy::default();
        stage.history = History::new(at(3_600)).inherit(each);
        stage.wait(300_000);
        stage.decide()
    };
    // 300,000 in 30 s: ten by the prior of 1,000, two by what the operator before saw.
    assert_eq!(said(&decide_with(None)), (10, "ScaleUp"));
    assert_eq!(said(&decide_with(Some(8_051.0))), (2, "ScaleUp"));
    // What was settled while little came proves nothing.
    assert_eq!(said(&decide_with(Some(12.0))), (10, "ScaleUp"));
}
