//! Looks at every pipeline each few seconds: what Redis shows, how many workers there are to be, and what the status says.

mod clients;
mod look;
mod target;
mod turns;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use penstock_autoscale::{Ask, Decision, Fleet, LagGap, Observation, Queue, decide, observe};
use penstock_telemetry::admin::Heartbeat;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::context::{Context, SCALER};
use crate::error::chain;
use crate::events::Sum;
use crate::pipelines::{Name, Pipeline};
use crate::plan::Part;
use crate::status::{self, Look, Pulse};

use clients::Absent;
pub(crate) use clients::Clients;
pub(crate) use target::{Hand, Target};
use turns::Turns;

/// How many pipelines are looked at at once: a question to Redis costs little, and one that hangs must not hold up the rest.
const AT_ONCE: usize = 64;

/// How long one look at a pipeline may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often one looks whether a connection has come about.
const CONNECTING: Duration = Duration::from_millis(50);

/// Looks at every pipeline again and again. One whose Redis hangs delays no other: it is left out until it has answered.
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
                let addresses: HashSet<&str> =
                    targets.iter().map(|target| target.settings.redis_url.expose()).collect();
                context.clients.keep(&addresses).await;
                context.telemetry.now(&sum(&pipelines));
                turns.round(pipelines.iter().map(|pipeline| pipeline.name.clone()));
            }
            Some(name) = under_way.next() => turns.over(&name),
        }
        while let Some(name) = turns.next(AT_ONCE) {
            under_way.push(look_at(&context, name));
        }
    }
}

/// Looks at one pipeline, for a bounded time, and says which one it was.
async fn look_at(context: &Context, name: Name) -> Name {
    // One that was deleted while it waited is not looked at.
    if let Some(pipeline) = context.pipelines.get(&name) {
        let started = Instant::now();
        // What takes longer is cut, and looked at anew.
        let _ = timeout(PATIENCE, tend(context, &pipeline)).await;
        context.telemetry.looked(started.elapsed());
    }
    name
}

/// Looks at one pipeline, scales its workers and writes its status.
async fn tend(context: &Context, pipeline: &Pipeline) {
    let (target, deleting) = {
        let state = pipeline.state();
        (state.target.clone(), state.facts.deleting)
    };
    let Some(target) = target.filter(|_| !deleting) else {
        // Nothing is to be looked at; but what the Deployments do may have changed.
        return status::publish(context, pipeline).await;
    };
    let (queue, look) = Box::pin(ask(context, &target)).await;
    let rollout = context.index.rollout(pipeline, Part::Worker);
    let fleet = rollout.as_ref().map(|rollout| rollout.fleet()).unwrap_or_default();
    let decision = note(pipeline, &target, queue, look, fleet);
    context.telemetry.decided(&pipeline.name, &decision);
    // A Deployment that is not there is made with one pod, and seen in the next round.
    if rollout.is_some()
        && let Some(wanted) = target.wanted(decision.replicas)
        && wanted != fleet.desired
    {
        // Signed: the bridge to traces writes unsigned numbers as text.
        let span = info_span!(
            "operator.scale",
            pipeline = %pipeline.name,
            penstock.decision.reason = decision.reason.name(),
            penstock.decision.text = %decision,
            penstock.workers.before = i64::from(fleet.desired),
            penstock.workers.after = i64::from(wanted),
            penstock.backlog = decision.backlog.at_least().cast_signed(),
            penstock.rate.arrival = decision.arrival,
            penstock.rate.service = decision.service,
            otel.status_code = Empty,
        );
        scale(context, pipeline, &target, &decision, fleet.desired, wanted).instrument(span).await;
    }
    status::publish(context, pipeline).await;
}

/// Asks Redis for everything.
async fn ask(context: &Context, target: &Target) -> (Result<Queue, LagGap>, Look) {
    let settings = &target.settings;
    let patience = settings.redis.command_timeout;
    let client = match connected(context, target, patience).await {
        Ok(client) => client,
        Err(why) => return (Err(LagGap::RedisUnreachable), Look::Away(why)),
    };
    let ask = Ask { claim_time: settings.worker.claim_time, timeout: patience };
    let (queue, pulse) = tokio::join!(
        observe(&client, &settings.keys, &ask),
        look::look(&client, &settings.keys, &settings.pipeline.name, patience),
    );
    let shown = settings.redis_url.to_string();
    let look = match pulse {
        Ok(pulse) => {
            context.telemetry.redis_back(&shown);
            Look::Seen(Box::new(pulse))
        }
        Err(error) => {
            let why = format!("{shown}: {}", chain(&error));
            context.telemetry.redis_away(&shown, &why);
            Look::Away(why)
        }
    };
    match (&queue, &look) {
        // It answers, but not this: a permission, or a key of another type.
        (Err(error), Look::Seen(_)) => context.telemetry.backlog_refused(&target.deployment, &chain(error)),
        (Err(_), Look::Away(_)) => {}
        (Ok(_), _) => context.telemetry.backlog_told(&target.deployment),
    }
    (queue.map_err(|error| error.gap()), look)
}

/// Returns the connection to Redis. The first time one waits a little: a Redis that was not asked yet is not away.
async fn connected(context: &Context, target: &Target, patience: Duration) -> Result<Client, String> {
    let until = Instant::now() + patience;
    loop {
        match context.clients.get(target, &context.telemetry) {
            Ok(client) => return Ok(client),
            Err(Absent::Away(why)) => return Err(why),
            Err(Absent::Connecting) if Instant::now() < until => sleep(CONNECTING).await,
            Err(Absent::Connecting) => return Err(format!("{} does not answer", target.settings.redis_url)),
        }
    }
}

/// Decides, and remembers.
fn note(pipeline: &Pipeline, target: &Target, queue: Result<Queue, LagGap>, look: Look, fleet: Fleet) -> Decision {
    let now = Timestamp::now();
    let seen = Observation { queue, fleet };
    let mut state = pipeline.state();
    let mut decision = decide(&seen, &state.history, now, &target.policy);
    state.history.note(&seen, &decision, now, &target.policy);
    if let Hand::Fixed(replicas) = target.hand {
        decision.replicas = replicas;
    }
    state.facts.pending = seen.queue.as_ref().ok().filter(|queue| queue.group.is_some()).map(Queue::pending);
    state.facts.stranded = seen.queue.as_ref().map_or(0, |queue| queue.stranded.at_least());
    state.facts.look = Some(steady(look, state.facts.look.take()));
    state.decision = Some(decision.clone());
    decision
}

/// Keeps the words of an outage while it lasts: each try may fail in another way.
fn steady(now: Look, before: Option<Look>) -> Look {
    match (now, before) {
        (Look::Away(_), Some(before @ Look::Away(_))) => before,
        (now, _) => now,
    }
}

async fn scale(context: &Context, pipeline: &Pipeline, target: &Target, decision: &Decision, from: u16, to: u16) {
    let place = &target.deployment;
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), &place.namespace);
    // Applied, the number has an owner that managedFields show; a merge patch of the subresource leaves none.
    let patch = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": { "name": place.name, "namespace": place.namespace },
        "spec": { "replicas": to },
    });
    let params = PatchParams::apply(SCALER).force();
    match api.patch_scale(&place.name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => {
            context.index.note_scale(place, i32::from(to));
            pipeline.state().scaled = Some(Timestamp::now());
            context.telemetry.scaled(&pipeline.name, i32::from(from), i32::from(to));
        }
        Err(error) => {
            Span::current().record("otel.status_code", "error");
            context.telemetry.scale_refused(&pipeline.name, &error);
            return;
        }
    }
    let note = match target.hand {
        Hand::Fixed(_) => format!("{from} to {to} workers, as the resource says"),
        _ => decision.to_string(),
    };
    let event = Event {
        type_: EventType::Normal,
        reason: "Scaled".to_owned(),
        note: Some(note),
        // One Event for each number: the same is counted, another one is told.
        action: format!("ScaleTo{to}"),
        secondary: None,
    };
    context.tell(event, &pipeline.reference).await;
}

fn sum(pipelines: &[Arc<Pipeline>]) -> Sum {
    let mut sum = Sum::default();
    for pipeline in pipelines {
        // Somebody who writes right now is counted in the next round.
        if let Ok(written) = pipeline.written.try_lock() {
            sum.phases.extend(written.phase());
        }
        let state = pipeline.state();
        sum.ready += state.facts.workers.rollout.as_ref().map_or(0, |rollout| i64::from(rollout.ready));
        let lag = state.facts.pulse().and_then(|pulse: &Pulse| pulse.lag(Timestamp::now()));
        sum.stranded = sum.stranded.saturating_add(state.facts.stranded);
        sum.lag_seconds = sum.lag_seconds.max(lag.unwrap_or(0));
        if let Some(decision) = &state.decision {
            sum.lag_unknown += u64::from(!decision.lag_known);
            sum.backlog = sum.backlog.saturating_add(decision.backlog.at_least());
            sum.desired += i64::from(decision.replicas);
        }
    }
    sum
}
