//! Scales the workers of every pipeline.
//!
//! In: the pipelines that were planned, every few seconds. Out: a decision for each, the number of workers it asks for, and the status.
//! The way of one pipeline is [`scale_pipeline`]: look at pods → read Redis → decide → apply → status.

mod claim;
mod pods;
mod redis;
mod scale;
mod turns;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use penstock_autoscale::{Decision, Fleet, LagGap, Observation, Queue, decide};
use penstock_telemetry::admin::Heartbeat;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::context::Context;
use crate::events::Totals;
use crate::name::Name;
use crate::plan::Part;
use crate::report;
use crate::state::{ObjectKey, Pipeline, ScaledBy, Target};
use crate::status::{Reading, Snapshot};

pub(crate) use scale::patch_replicas;
use turns::Turns;

/// How many pipelines are scaled at once: a question to Redis costs little, and one that hangs must not hold up the rest.
const AT_ONCE: usize = 64;

/// How long one pipeline may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Scales every pipeline again and again. One whose Redis hangs delays no other: it is left out until it has answered.
pub(crate) async fn run(context: Arc<Context>, heartbeat: Heartbeat) {
    let mut ticks = interval(context.settings.operator.scaling_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turns = Turns::default();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                heartbeat.beat();
                let pipelines = context.pipelines.all();
                let targets: Vec<_> =
                    pipelines.iter().filter_map(|pipeline| pipeline.state().target.clone()).collect();
                let addresses: HashSet<String> =
                    targets.iter().map(|target| penstock_core::redis::connection_key(&target.settings)).collect();
                context.clients.keep(&addresses).await;
                let shown = targets.iter().map(|target| target.settings.redis_url.to_string()).collect();
                context.events.keep_redis(&shown);
                context.events.totals(&totals(&pipelines));
                turns.round(pipelines.iter().map(|pipeline| pipeline.name.clone()));
            }
            Some(name) = under_way.next() => turns.over(&name),
        }
        while let Some(name) = turns.next(AT_ONCE) {
            under_way.push(take_turn(&context, name));
        }
    }
}

/// Gives one pipeline its turn, for a bounded time, and returns its name.
async fn take_turn(context: &Context, name: Name) -> Name {
    // One that was deleted while it waited has none.
    if let Some(pipeline) = context.pipelines.get(&name) {
        let started = Instant::now();
        // What takes longer is cut, and begun anew at the next turn.
        let _ = timeout(PATIENCE, scale_pipeline(context, &pipeline)).await;
        context.events.turn_took(started.elapsed());
    }
    name
}

/// Scales the workers of one pipeline, and writes its status.
async fn scale_pipeline(context: &Context, pipeline: &Pipeline) {
    let (target, deleting, paused) = {
        let state = pipeline.state();
        (state.target.clone(), state.facts.deleting, state.facts.paused)
    };
    if !deleting {
        pods::look(context, pipeline).await;
    }
    let Some(target) = target.filter(|_| !deleting) else {
        // There is nothing to decide; but what the Deployments do may have changed.
        return report::publish(context, pipeline).await;
    };
    let (queue, reading) = Box::pin(redis::read(context, &target)).await;
    let rollout = context.index.rollout(pipeline, Part::Worker);
    let fleet = rollout.as_ref().map(|rollout| rollout.fleet()).unwrap_or_default();
    if matches!(reading, Reading::Read(_)) && !paused {
        claim::tend(context, pipeline, &target, fleet.ready > 0).await;
    }
    let decision = record_decision(pipeline, &target, queue, reading, fleet);
    context.events.decided(&pipeline.name, &decision);
    // A Deployment that is not there is made with one pod, and seen in the next round.
    let is_left = paused || context.index.get(&deployment_key(&target)).is_some_and(|seen| seen.paused);
    if rollout.is_some()
        && !is_left
        && let Some(wanted) = target.wanted(decision.replicas)
        && wanted != fleet.desired
    {
        scale::apply_scale(context, pipeline, &target, &decision, fleet.desired, wanted).await;
    }
    report::publish(context, pipeline).await;
}

fn deployment_key(target: &Target) -> ObjectKey {
    let Name { namespace, name } = target.deployment.clone();
    ObjectKey { group: "apps".to_owned(), kind: "Deployment".to_owned(), namespace, name }
}

/// Decides, and records the decision with what it was made from.
fn record_decision(
    pipeline: &Pipeline,
    target: &Target,
    queue: Result<Queue, LagGap>,
    reading: Reading,
    fleet: Fleet,
) -> Decision {
    let now = Timestamp::now();
    let seen = Observation { queue, fleet };
    let mut state = pipeline.state();
    let mut decision = decide(&seen, &state.history, now, &target.policy);
    state.history.note(&seen, &decision, now, &target.policy);
    if let ScaledBy::Fixed(replicas) = target.scaled_by {
        decision.replicas = replicas;
    }
    state.facts.pending = seen.queue.as_ref().ok().filter(|queue| queue.group.is_some()).map(Queue::pending);
    state.facts.stranded = seen.queue.as_ref().map_or(0, |queue| queue.stranded.at_least());
    state.facts.redis = Some(steady(reading, state.facts.redis.take()));
    state.decision = Some(decision.clone());
    decision
}

/// Keeps the words of an outage while it lasts: each try may fail in another way.
fn steady(now: Reading, before: Option<Reading>) -> Reading {
    match (now, before) {
        (Reading::Unreachable(_), Some(before @ Reading::Unreachable(_))) => before,
        (now, _) => now,
    }
}

/// Adds up all pipelines.
fn totals(pipelines: &[Arc<Pipeline>]) -> Totals {
    let mut totals = Totals::default();
    for pipeline in pipelines {
        // One whose status is being written right now is counted in the next round.
        if let Ok(written) = pipeline.written.try_lock() {
            totals.phases.extend(written.phase());
        }
        let state = pipeline.state();
        totals.ready += state.facts.workers.rollout.as_ref().map_or(0, |rollout| i64::from(rollout.ready));
        let lag = state.facts.snapshot().and_then(|snapshot: &Snapshot| snapshot.lag(Timestamp::now()));
        totals.stranded = totals.stranded.saturating_add(state.facts.stranded);
        totals.lag_seconds = totals.lag_seconds.max(lag.unwrap_or(0));
        if let Some(decision) = &state.decision {
            totals.lag_unknown += u64::from(!decision.lag_known);
            totals.backlog = totals.backlog.saturating_add(decision.backlog.at_least());
            totals.desired += i64::from(decision.replicas);
        }
    }
    totals
}
