//! Tells the healers of each pipeline which backfills there are, tells the backfills how far they are, and sets the number of healers.
//!
//! In: the backfills that the watch reported and the pipelines that were planned, every few seconds. Out: what a healer is asked for over
//! HTTP, the status of each backfill, and how many healers there are.
//! The way of one backfill is [`tend_backfill`]: look → tell the healer → judge → status. Nothing is remembered that matters: whoever
//! takes over goes by the resource and by what the healer says.

mod client;
mod judge;
mod replicas;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use kube::ResourceExt;
use penstock_core::backfill::{BackfillRequest, BackfillState, BackfillStatus as Report, Scope};
use penstock_core::causes::chain;
use penstock_core::settings::Value as _;
use penstock_telemetry::admin::Heartbeat;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::context::Context;
use crate::crd::{BackfillPhase, FirehoseBackfill};
use crate::name::Name;
use crate::plan::Part;
use crate::recorder::Note;
use crate::scaling::patch_replicas;
use crate::state::{Healers, Pipeline, pipeline_of, priority};
use crate::status::HealFacts;

use client::{AskError, Healer};
use judge::Seen;
use replicas::Wanted;

/// How many backfills or healers are asked at once.
const AT_ONCE: usize = 16;

/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Goes round all backfills and all healers, again and again.
pub(crate) async fn run(context: Arc<Context>, heartbeat: Heartbeat) {
    let mut ticks = interval(context.settings.operator.scaling_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut wanted: HashMap<Name, Wanted> = HashMap::new();
    loop {
        ticks.tick().await;
        heartbeat.beat();
        let all = context.backfills.all();
        let tended = stream::iter(&all).for_each_concurrent(AT_ONCE, |object| async {
            // What takes longer is cut, and begun anew in the next round.
            let _ = timeout(PATIENCE, tend_backfill(&context, object)).await;
            heartbeat.beat();
        });
        tended.await;
        let pipelines = context.pipelines.all();
        wanted.retain(|name, _| pipelines.iter().any(|pipeline| pipeline.name == *name));
        let mut asked: Vec<(Arc<Pipeline>, Wanted)> = Vec::new();
        for pipeline in pipelines {
            let history = wanted.remove(&pipeline.name).unwrap_or_default();
            asked.push((pipeline, history));
        }
        let scaled = stream::iter(asked).map(|(pipeline, mut history)| {
            let context = &context;
            async move {
                let _ = timeout(PATIENCE, tend_healers(context, &pipeline, &mut history)).await;
                (pipeline.name.clone(), history)
            }
        });
        wanted = scaled.buffer_unordered(AT_ONCE).collect().await;
    }
}

/// Takes one backfill a step further, and writes its status.
async fn tend_backfill(context: &Context, object: &FirehoseBackfill) {
    let name = Name::of(object);
    let is_over = matches!(phase(object), Some(BackfillPhase::Complete | BackfillPhase::Failed));
    let seen = if object.metadata.deletion_timestamp.is_some() {
        delete(context, object, is_over).await
    } else if is_over {
        end(context, object).await
    } else {
        look(context, object).await
    };
    match seen {
        Ok(Some(seen)) => status::publish(context, object, &seen).await,
        Ok(None) => {}
        // The API server refuses or does not answer: it is tried again in the next round.
        Err(error) => context.events.backfill_refused(&name, &error),
    }
}

/// Lets the healer know of a backfill, and sees how far it is.
async fn look(context: &Context, object: &FirehoseBackfill) -> Result<Option<Seen>, kube::Error> {
    let name = pipeline_of(object);
    match context.pipelines.exists(&name) {
        Some(true) => {}
        Some(false) => return Ok(Some(Seen::NoPipeline)),
        None => return Ok(None),
    }
    let starts = |why: &str| {
        Ok(Some(Seen::NoHealers(format!("The healers of the pipeline {} are being started: {why}", name.name))))
    };
    // One that cannot be planned says why in its own status.
    let Some(pipeline) = context.pipelines.get(&name) else {
        return starts("see kubectl describe fhp, if that takes long");
    };
    let (healers, suspended, deleting) = {
        let state = pipeline.state();
        (state.healers.clone(), state.facts.suspend, state.facts.deleting)
    };
    if deleting {
        return Ok(Some(Seen::NoHealers(format!("The pipeline {} is being deleted", name.name))));
    }
    if suspended {
        return Ok(Some(Seen::PipelineSuspended));
    }
    let Some(healer) = healers.as_ref().and_then(|healers| healer(context, &pipeline, healers)) else {
        return starts("see kubectl describe fhp, if that takes long");
    };
    if !has_healer(context, &pipeline) {
        let why = pipeline.state().facts.trouble_of(Part::Heal.component()).map(|trouble| trouble.message.clone());
        return starts(why.as_deref().unwrap_or("no pod of them is ready yet"));
    }
    if !status::keep_finalizer(context, object, true).await? {
        // It was changed meanwhile: the watch reports it.
        return Ok(None);
    }
    Ok(Some(match tell(&healer, object).await {
        Ok(report) => Seen::Report(Box::new(report)),
        Err(AskError::Refused { words }) => Seen::Refused(words),
        Err(error) => Seen::Unreachable(capitalized(&chain(&error))),
    }))
}

/// Registers a backfill, changes its pace where the resource says another one, and returns how far it is.
async fn tell(healer: &Healer, object: &FirehoseBackfill) -> Result<Report, AskError> {
    let (name, request) = (registered(object), request(object));
    for _ in 0..2 {
        match healer.backfill(&name).await? {
            Some(report) if is_told(&report, &request) => return Ok(report),
            _ => healer.put(&name, &request).await?,
        }
    }
    let report = healer.backfill(&name).await?;
    report.ok_or_else(|| AskError::Refused { words: format!("it forgot the backfill {name} that it took") })
}

/// Lets the healers know that a backfill that is being deleted is not wanted any more, and releases it.
async fn delete(context: &Context, object: &FirehoseBackfill, is_over: bool) -> Result<Option<Seen>, kube::Error> {
    if !status::has_finalizer(object) {
        return Ok(None);
    }
    let name = pipeline_of(object);
    let Some(exists) = context.pipelines.exists(&name) else { return Ok(None) };
    let why = match context.pipelines.get(&name) {
        // With the pipeline its healers are gone.
        _ if is_over || !exists => None,
        None => Some("The pipeline has not been reconciled yet".to_owned()),
        Some(pipeline) => {
            let healers = pipeline.state().healers.clone();
            match healers.as_ref().and_then(|healers| healer(context, &pipeline, healers)) {
                None => Some("The pipeline has no healers".to_owned()),
                Some(healer) => healer.delete(&registered(object)).await.err().map(|error| capitalized(&chain(&error))),
            }
        }
    };
    let Some(why) = why else {
        status::keep_finalizer(context, object, false).await?;
        return Ok(None);
    };
    let deadline = context.settings.operator.deletion_deadline;
    if status::since(object.metadata.deletion_timestamp.as_ref()) < deadline {
        return Ok(Some(Seen::Deleting(format!("The healers are told that it is not wanted any more. {why}"))));
    }
    let text = format!(
        "The deletion reached its deadline; healers that come back go on with it: remove it with DELETE /backfills/{} there. {why}",
        registered(object)
    );
    context.events.backfill_given_up(&Name::of(object), &why);
    let note = Note { warning: true, reason: "BackfillNotRemoved".to_owned(), text, action: "Delete".to_owned() };
    context.record_event(note, &status::reference(object)).await;
    status::keep_finalizer(context, object, false).await?;
    Ok(None)
}

/// Keeps one that is over, until its time is.
async fn end(context: &Context, object: &FirehoseBackfill) -> Result<Option<Seen>, kube::Error> {
    if status::has_finalizer(object) {
        status::keep_finalizer(context, object, false).await?;
        return Ok(None);
    }
    let kept = object.spec.ttl_after_finished.as_ref().and_then(|time| Duration::parse(time.as_str()));
    let ended = object.status.as_ref().and_then(|status| status.completion_time.as_ref());
    if let (Some(kept), Some(ended)) = (kept, ended)
        && status::since(Some(ended)) >= kept
    {
        status::remove(context, object).await?;
        context.events.backfill_expired(&Name::of(object));
        return Ok(None);
    }
    // What was changed after the end changes nothing; whoever waits for the change to be seen sees that.
    status::acknowledge(context, object).await?;
    Ok(None)
}

/// Asks the healers of a pipeline what waits, and sets their number.
async fn tend_healers(context: &Context, pipeline: &Pipeline, history: &mut Wanted) {
    let (healers, left_alone) = {
        let state = pipeline.state();
        (state.healers.clone(), state.facts.paused || state.facts.deleting || state.facts.suspend)
    };
    let Some(healers) = healers else {
        pipeline.state().facts.heal = HealFacts::default();
        return;
    };
    let rollout = context.index.rollout(pipeline, Part::Heal);
    if left_alone || !has_healer(context, pipeline) {
        let mut state = pipeline.state();
        state.facts.heal = HealFacts { enabled: true, starting: true, ..HealFacts::default() };
        return;
    }
    let Some(healer) = healer(context, pipeline, &healers) else { return };
    let backlog = match healer.backlog().await {
        Ok(backlog) => backlog,
        Err(error) => {
            let why = capitalized(&chain(&error));
            context.events.healer_away(&pipeline.name, &why);
            pipeline.state().facts.heal = HealFacts { enabled: true, unreachable: Some(why), ..HealFacts::default() };
            return;
        }
    };
    context.events.healer_back(&pipeline.name);
    pipeline.state().facts.heal = HealFacts { enabled: true, backlog: Some(backlog), ..HealFacts::default() };
    let wanted = history.decide(backlog, &healers, Instant::now());
    let Some(now) = rollout.map(|rollout| rollout.fleet().desired).filter(|now| *now != wanted) else { return };
    match patch_replicas(context, &healers.deployment, wanted).await {
        Ok(()) => context.events.healers_scaled(&pipeline.name, i32::from(now), i32::from(wanted)),
        Err(error) => context.events.scale_refused(&healers.deployment, &error),
    }
}

/// Says whether a pod of the healers is ready.
fn has_healer(context: &Context, pipeline: &Pipeline) -> bool {
    context.index.rollout(pipeline, Part::Heal).is_some_and(|rollout| rollout.fleet().ready > 0)
}

fn healer(context: &Context, pipeline: &Pipeline, healers: &Healers) -> Option<Healer> {
    // The plan of the pipeline has asked for the key, so it is there.
    let key = context.hash_key.get()?;
    Some(Healer::new(&healers.url, key.heal_token(&pipeline.uid)))
}

/// Returns the name of a backfill where healers keep it. A resource that was made anew is another backfill.
fn registered(object: &FirehoseBackfill) -> String {
    let uid: String = object.uid().unwrap_or_default().chars().take(8).collect();
    format!("{}-{uid}", object.name_any())
}

/// Returns what a healer is to do.
fn request(object: &FirehoseBackfill) -> BackfillRequest {
    let spec = &object.spec;
    let scope = match (&spec.scope.repos, &spec.scope.collection) {
        (Some(repos), _) => Scope::Repos(repos.clone()),
        (None, Some(collection)) => Scope::Collection(collection.clone()),
        (None, None) => Scope::All(spec.scope.all.unwrap_or_default()),
    };
    BackfillRequest {
        relay: spec.relay.clone(),
        rate: spec.rate.map(f64::from),
        parallelism: spec.parallelism.and_then(|many| u32::try_from(many).ok()),
        priority: priority(spec.order),
        suspend: spec.suspend,
        verify: spec.verify,
        ..BackfillRequest::new(scope)
    }
}

/// Says whether a healer does already what it is to do.
fn is_told(report: &Report, request: &BackfillRequest) -> bool {
    report.rate == request.rate
        && report.parallelism == request.parallelism
        && report.priority == request.priority
        && report.verify == request.verify
        && (report.state.is_over() || (report.state == BackfillState::Paused) == request.suspend)
}

fn phase(object: &FirehoseBackfill) -> Option<BackfillPhase> {
    object.status.as_ref().and_then(|status| status.phase)
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backfill(spec: &Value) -> FirehoseBackfill {
        let mut object = json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehoseBackfill",
            "metadata": { "name": "posts", "namespace": "ns", "uid": "0123456789abcdef" },
            "spec": { "pipeline": "p" },
        });
        for (name, value) in spec.as_object().unwrap() {
            object["spec"][name] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_healer_is_asked_for_what_is_written_and_takes_it() {
        for spec in [
            json!({ "scope": { "repos": ["did:plc:a", "did:web:b.example"] } }),
            json!({ "scope": { "collection": "app.bsky.feed.post" }, "relay": "wss://relay.example", "order": "First" }),
            json!({ "scope": { "all": true }, "rate": 20, "parallelism": 4, "suspend": true }),
        ] {
            let object = backfill(&spec);
            assert_eq!(registered(&object), "posts-01234567");
            assert!(penstock_core::backfill::is_name(&registered(&object)));
            let asked = serde_json::to_value(request(&object)).unwrap();
            assert_eq!(asked["scope"], spec["scope"]);
            assert_eq!(asked["relay"], spec["relay"]);
            assert_eq!(
                (asked["rate"].as_f64(), asked["suspend"].as_bool()),
                (spec["rate"].as_f64(), Some(spec["suspend"] == true))
            );
            assert_eq!(asked["priority"], if spec["order"] == "First" { 100 } else { 0 });
            request(&object).checked().unwrap();
        }
    }
}
