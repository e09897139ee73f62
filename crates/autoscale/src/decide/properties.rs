//! What holds whatever is seen.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest::{collection, option};

use super::tests::{Stage, at};
use super::*;
use crate::observation::{Acked, Group, Ingest};
use penstock_core::stream::StreamId;
use std::time::Duration;

fn hold<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value) -> Result<(), String>)
where
    S::Value: Clone,
{
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
        config.rng_seed = RngSeed::Fixed(1);
    }
    match TestRunner::new(config).run(&strategy, |case| property(case).map_err(TestCaseError::fail)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => panic!("{reason}\nof {case:#?}"),
        Err(error) => panic!("{error}"),
    }
}

fn check(holds: bool, claim: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(claim()) }
}

fn gaps() -> impl Strategy<Value = LagGap> {
    prop_oneof![
        Just(LagGap::RedisUnreachable),
        Just(LagGap::StreamMissing),
        Just(LagGap::GroupMissing),
        Just(LagGap::KeyOfWrongType),
        Just(LagGap::AnswerUnreadable),
    ]
}

fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0_u64), 0..100_u64, 0..1_000_000_u64, any::<u64>()]
}

fn lags() -> impl Strategy<Value = Lag> {
    prop_oneof![
        6 => counts().prop_map(Lag::Exact),
        2 => counts().prop_map(Lag::AtLeast),
        1 => gaps().prop_map(Lag::Unknown),
    ]
}

fn queues() -> impl Strategy<Value = Queue> {
    let acked = option::of(prop_oneof![counts().prop_map(Acked::Read), counts().prop_map(Acked::Counted)]);
    let numbers = (counts(), option::of(counts()), option::of(counts()), option::of(counts()));
    let ingest = (any::<bool>(), option::of(0..10_000_u64));
    (numbers, lags(), lags(), acked, ingest).prop_map(|(numbers, undelivered, stranded, acked, (paused, event))| {
        let (length, added, last, pending) = numbers;
        Queue {
            length,
            added,
            last_id: last.map(|ms| StreamId { ms, seq: 0 }),
            group: pending.map(|pending| Group { last_delivered: StreamId { ms: pending / 2, seq: 0 }, pending }),
            undelivered,
            stranded,
            consumers: Vec::new(),
            acked,
            ingest: Ingest { paused, event_time: event.map(at) },
        }
    })
}

fn observations() -> impl Strategy<Value = Observation> {
    let queue = prop_oneof![9 => queues().prop_map(Ok), 1 => gaps().prop_map(Err)];
    (queue, 0..40_u16, 0..40_u16, any::<bool>())
        .prop_map(|(queue, desired, ready, rolling)| Observation { queue, fleet: Fleet { desired, ready, rolling } })
}

fn policies() -> impl Strategy<Value = Policy> {
    let steps = (0..30_u16, 0..30_u16, 0..20_u16, 0..20_u16);
    let aims = (0..120_u64, 0.0..1.5_f64, 0.0..5_000.0_f64, 0.0..0.5_f64);
    (steps, aims, 0..600_u64, 0..120_u64, counts()).prop_map(|(steps, aims, window, claim, in_flight)| Policy {
        min: steps.0,
        max: steps.1,
        step_up: steps.2,
        step_down: steps.3,
        drain_target: Duration::from_secs(aims.0),
        target_utilisation: aims.1,
        capacity_prior: aims.2,
        tolerance: aims.3,
        stabilisation_window: Duration::from_secs(window),
        claim_time: Duration::from_secs(claim),
        in_flight,
    })
}

/// Plays a history of arbitrary looks; after each, the property is asked.
fn play(
    policy: &Policy,
    looks: &[(u64, Observation)],
    property: impl Fn(&Observation, &Decision, &History, u64) -> Result<(), String>,
) -> Result<(), String> {
    let mut history = History::new(at(0));
    let mut second = 0;
    for (pause, seen) in looks {
        second += pause;
        let decision = decide(seen, &history, at(second), policy);
        property(seen, &decision, &history, second)?;
        history.note(seen, &decision, at(second), policy);
    }
    Ok(())
}

fn histories() -> impl Strategy<Value = (Policy, Vec<(u64, Observation)>)> {
    (policies(), collection::vec((0..120_u64, observations()), 1..30))
}

#[test]
fn bounds_and_steps_are_kept_whatever_is_seen() {
    hold(400, histories(), |(policy, looks)| {
        play(&policy, &looks, |seen, decision, _, _| {
            let (from, to) = (seen.fleet.desired, decision.replicas);
            check(policy.bound(to) == to, || format!("out of bounds: {decision}"))?;
            check(policy.bound(decision.recommended) == decision.recommended, || format!("recommended: {decision:?}"))?;
            check(decision.demand >= 0.0 && decision.demand.is_finite(), || format!("demand: {decision:?}"))?;
            let at_most = policy.bound(from).max(from).saturating_add(policy.step_up.max(1));
            check(to <= at_most, || format!("too large a step up: {decision}"))?;
            let at_least = policy.bound(from).min(from).saturating_sub(policy.step_down.max(1));
            check(to >= at_least, || format!("too large a step down: {decision}"))?;
            check(!decision.to_string().is_empty(), String::new)
        })
    });
}

#[test]
fn what_is_not_known_never_scales_down() {
    hold(400, histories(), |(policy, looks)| {
        play(&policy, &looks, |seen, decision, _, _| {
            let exact =
                seen.queue.as_ref().is_ok_and(|queue| queue.undelivered.is_exact() && queue.stranded.is_exact());
            let known = exact && decision.arrival.is_some();
            let least = policy.bound(seen.fleet.desired);
            check(known || decision.replicas >= least, || format!("scaled down: {decision}"))?;
            check(decision.lag_known || !exact, || format!("known: {decision:?}"))
        })
    });
}

#[test]
fn a_restart_scales_nothing_down_for_a_window() {
    hold(400, histories(), |(policy, looks)| {
        play(&policy, &looks, |seen, decision, _, second| {
            let least = policy.bound(seen.fleet.desired);
            let young = second < policy.stabilisation_window.as_secs();
            check(!young || decision.replicas >= least, || format!("scaled down after {second} s: {decision}"))
        })
    });
}

#[test]
fn fewer_never_come_than_were_recommended_within_the_window() {
    hold(400, histories(), |(policy, looks)| {
        let mut seen_before: Vec<(u64, u16)> = Vec::new();
        let mut history = History::new(at(0));
        let mut second = 0;
        for (pause, seen) in &looks {
            second += pause;
            let decision = decide(seen, &history, at(second), &policy);
            let window = policy.stabilisation_window.as_secs();
            let recent = seen_before.iter().filter(|(at, _)| second - at < window).map(|(_, replicas)| *replicas);
            let least = policy.bound(recent.max().unwrap_or(0)).min(policy.bound(seen.fleet.desired));
            check(decision.replicas >= least, || format!("below {least} at {second}: {decision}"))?;
            seen_before.push((second, decision.recommended));
            history.note(seen, &decision, at(second), &policy);
        }
        Ok(())
    });
}

#[test]
fn more_backlog_never_asks_for_fewer_workers() {
    let strategy = (histories(), counts(), counts());
    hold(400, strategy, |((policy, looks), one, other)| {
        let (less, more) = (one.min(other), one.max(other));
        let last = looks.last().map(|(_, seen)| seen.clone()).unwrap();
        let mut history = History::new(at(0));
        let mut second = 0;
        for (pause, seen) in &looks[..looks.len() - 1] {
            second += pause;
            let decision = decide(seen, &history, at(second), &policy);
            history.note(seen, &decision, at(second), &policy);
        }
        let Ok(queue) = last.queue else { return Ok(()) };
        let with = |undelivered| {
            let queue = Queue { undelivered: Lag::Exact(undelivered), ..queue.clone() };
            decide(&Observation { queue: Ok(queue), fleet: last.fleet }, &history, at(second + 5), &policy)
        };
        let (few, many) = (with(less), with(more));
        check(few.recommended <= many.recommended, || format!("{less}: {few}\n{more}: {many}"))?;
        // What was added in vain, and workers that stand still, speak against more on purpose.
        let vetoed = [&few, &many]
            .iter()
            .any(|decision| decision.stalled || matches!(decision.reason, Reason::Saturated | Reason::Judging));
        check(vetoed || few.replicas <= many.replicas, || format!("{less}: {few}\n{more}: {many}"))
    });
}

/// A fleet that follows: each worker settles `capacity` a second, and is ready at the look after.
fn settle(stage: &mut Stage, rate: u64, capacity: u64) -> u16 {
    let waiting = stage.queue.undelivered.at_least();
    let arrive = 5 * rate;
    let settled = (waiting + arrive).min(5 * capacity * u64::from(stage.fleet.ready));
    stage.flow(arrive, settled);
    stage.follow().replicas
}

fn loads() -> impl Strategy<Value = (u64, u64, Vec<i8>)> {
    (50..8_000_u64, 500..3_000_u64, collection::vec(-5..=5_i8, 360))
}

#[test]
fn a_steady_load_with_noise_does_not_flap() {
    hold(60, loads(), |(rate, capacity, noise)| {
        let mut stage = Stage::new(1);
        stage.policy = Policy { max: 50, ..Policy::default() };
        // A quarter of an hour to settle and to learn, then an hour.
        let noisy = |percent: i8| (rate as i64 * (100 + i64::from(percent)) / 100) as u64;
        for percent in noise.iter().take(180) {
            settle(&mut stage, noisy(*percent), capacity);
        }
        let numbers: Vec<_> =
            noise.iter().cycle().take(720).map(|percent| settle(&mut stage, noisy(*percent), capacity)).collect();
        let changes = numbers.windows(2).filter(|pair| pair[0] != pair[1]).count();
        check(changes <= 2, || format!("{changes} changes in an hour: {numbers:?}"))
    });
}

#[test]
fn after_a_spike_all_is_drained_and_the_number_returns() {
    let strategy = (200..2_000_u64, 2..8_u64, 500..3_000_u64, 1..120_usize);
    hold(60, strategy, |(rate, times, capacity, length)| {
        let mut stage = Stage::new(1);
        stage.policy = Policy { max: 60, ..Policy::default() };
        for _ in 0..240 {
            settle(&mut stage, rate, capacity);
        }
        let before = stage.fleet.desired;
        for _ in 0..length {
            settle(&mut stage, rate * times, capacity);
        }
        let mut looks = 0;
        while stage.queue.undelivered.at_least() > 0 {
            settle(&mut stage, rate, capacity);
            looks += 1;
            check(looks < 60, || format!("not drained after 5 min: {:?}", stage.queue.undelivered))?;
        }
        for _ in 0..180 {
            settle(&mut stage, rate, capacity);
        }
        let after = stage.fleet.desired;
        // It may have learnt better what a worker settles.
        let fits =
            u64::from(after) * capacity >= rate && (after <= before + 1 || u64::from(after) * capacity <= 3 * rate);
        check(fits, || format!("{before} before, {after} after"))
    });
}
