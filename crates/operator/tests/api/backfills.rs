//! Backfills, with healers of the test's own.

use data_encoding::HEXLOWER;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use penstock_core::backfill::{BackfillState, BackfillStatus, Backlog, Scope};
use penstock_operator::crd::{BackfillPhase, ConditionStatus};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::cluster::Nodes;
use crate::healer::Healer;
use crate::operator::Operator;
use crate::rig::{FirehoseBackfill, Rig, eventually};

/// Makes a backfill of everything, and what `changes` says of the spec.
pub(crate) async fn create(rig: &Rig, name: &str, changes: Value) -> FirehoseBackfill {
    let mut spec = json!({ "pipeline": "p", "scope": { "all": true } });
    for (field, value) in changes.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "FirehoseBackfill", "metadata": { "name": name }, "spec": spec,
    });
    let object: FirehoseBackfill = serde_json::from_value(object).unwrap();
    rig.api::<FirehoseBackfill>().create(&PostParams::default(), &object).await.unwrap()
}

async fn change(rig: &Rig, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    rig.api::<FirehoseBackfill>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn operator(rig: &Rig, healer: &Healer) -> Operator {
    Operator::start_with(rig, &[("operator.healUrl", &healer.url)]).await
}

fn phase(object: &FirehoseBackfill) -> Option<BackfillPhase> {
    object.status.as_ref()?.phase
}

/// Returns status, reason and message of a condition.
fn condition(object: &FirehoseBackfill, kind: &str) -> (Option<ConditionStatus>, String, String) {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    let found = conditions.rfind(|condition| condition.kind == kind);
    found.map_or_else(Default::default, |one| (Some(one.status), one.reason.clone(), one.message.clone()))
}

async fn until(rig: &Rig, name: &str, what: &str, holds: impl Fn(&FirehoseBackfill) -> bool) -> FirehoseBackfill {
    rig.until::<FirehoseBackfill>(name, what, holds).await
}

pub(crate) async fn until_phase(rig: &Rig, name: &str, wanted: BackfillPhase) -> FirehoseBackfill {
    until(rig, name, &format!("in the phase {wanted:?}"), |object| phase(object) == Some(wanted)).await
}

fn under_way(report: &mut BackfillStatus) {
    report.state = BackfillState::Running;
    (report.listed, report.total, report.done, report.failed) = (2_000, Some(2_000), 1_200, 0);
    (report.waiting, report.running, report.records, report.records_per_second) = (800, 8, 345_678, 4_312.0);
    report.ends_at = Some((jiff::Timestamp::now() + jiff::SignedDuration::from_hours(3)).to_string());
}

pub(crate) fn complete(report: &mut BackfillStatus) {
    report.state = BackfillState::Complete;
    (report.listed, report.total, report.done, report.failed) = (2_000, Some(2_000), 1_998, 2);
    (report.waiting, report.running) = (0, 0);
    report.finished_at = Some(jiff::Timestamp::now().to_string());
    report.error = Some("did:plc:a: no such repo".to_owned());
}

/// Lists the reasons of the Events about a backfill.
async fn told(rig: &Rig, name: &str) -> Vec<String> {
    let events = rig.api::<Event>().list(&ListParams::default()).await.unwrap();
    let about = |event: &Event| {
        event
            .regarding
            .as_ref()
            .is_some_and(|of| of.name.as_deref() == Some(name) && of.kind.as_deref() == Some("FirehoseBackfill"))
    };
    events.into_iter().filter(about).filter_map(|event| event.reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_is_told_to_the_healers_followed_and_completed() {
    let Some(rig) = Rig::new("backfill-way").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let operator = operator(&rig, &healer).await;
    rig.create("p", json!({})).await;
    rig.until::<Deployment>("p-ingest", "made", |_| true).await;
    assert!(rig.api::<Deployment>().get_opt("p-heal").await.unwrap().is_none(), "nothing asks for healers");
    create(&rig, "posts", json!({ "scope": { "collection": "app.bsky.feed.post" }, "rate": 20, "order": "First" }))
        .await;
    let made = rig.until::<Deployment>("p-heal", "made", |_| true).await;
    rig.until::<Service>("p-heal", "made", |_| true).await;
    until_phase(&rig, "posts", BackfillPhase::Running).await;
    let (name, request) = healer.puts().remove(0);
    assert!(name.starts_with("posts-") && request.scope == Scope::Collection("app.bsky.feed.post".to_owned()));
    assert_eq!((request.rate, request.priority, request.suspend), (Some(20.0), 100, false));
    // The pods know the token by its hash alone.
    let container = &made.spec.unwrap().template.spec.unwrap().containers[0];
    let mut variables = container.env.iter().flatten();
    let hash = variables.rfind(|variable| variable.name == "PENSTOCK_HEAL_ADMIN_TOKEN_HASH");
    let hash = hash.and_then(|hash| hash.value.clone()).unwrap();
    let tokens = healer.tokens();
    assert!(tokens.len() > 1 && tokens.iter().all(|token| HEXLOWER.encode(&Sha256::digest(token.as_bytes())) == hash));

    healer.report(under_way);
    let seen = until(&rig, "posts", "counted", |object| {
        object.status.as_ref().is_some_and(|status| status.done == Some(1_200))
    })
    .await;
    let status = seen.status.unwrap();
    assert_eq!(
        (status.total, status.failed, status.running, status.records),
        (Some(2_000), Some(0), Some(8), Some(345_678))
    );
    assert_eq!((status.progress.as_deref(), status.records_per_second.as_deref()), (Some("1200/2000"), Some("4310")));
    assert!(status.left.is_some() && status.estimated_end.is_some() && status.start_time.is_some());
    assert_eq!(status.observed_generation, seen.metadata.generation);

    healer.report(complete);
    let seen = until_phase(&rig, "posts", BackfillPhase::Complete).await;
    assert_eq!(condition(&seen, "Complete").0, Some(ConditionStatus::True));
    let (degraded, reason, message) = condition(&seen, "Degraded");
    assert_eq!((degraded, reason.as_str()), (Some(ConditionStatus::True), "ReposFailed"));
    assert!(message.contains("2 repos were given up") && message.contains("no such repo"), "{message}");
    // Back to none, and the resource stays.
    rig.until_gone::<Deployment>("p-heal").await;
    rig.until_gone::<Service>("p-heal").await;
    until(&rig, "posts", "released", |object| object.metadata.finalizers.is_none()).await;
    eventually("its beginning and its end are told", async || {
        let told = told(&rig, "posts").await;
        ["Listing", "Complete", "ReposFailed"].iter().all(|reason| told.iter().any(|told| told == reason))
    })
    .await;
    assert_eq!(healer.puts().len(), 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_goes_on_with_the_next_operator_and_is_registered_once() {
    let Some(rig) = Rig::new("backfill-restart").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let first = operator(&rig, &healer).await;
    rig.create("p", json!({})).await;
    create(&rig, "all", json!({})).await;
    until_phase(&rig, "all", BackfillPhase::Running).await;
    let uid = rig.until::<Deployment>("p-heal", "made", |_| true).await.metadata.uid;
    first.stop().await;
    healer.report(under_way);
    let second = operator(&rig, &healer).await;
    until(&rig, "all", "counted", |object| object.status.as_ref().is_some_and(|status| status.done == Some(1_200)))
        .await;
    assert_eq!(rig.api::<Deployment>().get("p-heal").await.unwrap().metadata.uid, uid, "the healers were left alone");
    assert_eq!(healer.puts().len(), 1);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_is_suspended_needs_no_healers_until_it_is_resumed() {
    let Some(rig) = Rig::new("backfill-pause").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let operator = operator(&rig, &healer).await;
    rig.create("p", json!({})).await;
    create(&rig, "all", json!({})).await;
    until_phase(&rig, "all", BackfillPhase::Running).await;
    change(&rig, "all", json!({ "suspend": true, "parallelism": 3 })).await;
    until_phase(&rig, "all", BackfillPhase::Suspended).await;
    let last = healer.puts().pop().unwrap().1;
    assert_eq!((last.suspend, last.parallelism), (true, Some(3)));
    rig.until_gone::<Deployment>("p-heal").await;
    change(&rig, "all", json!({ "suspend": false })).await;
    until_phase(&rig, "all", BackfillPhase::Running).await;
    assert!(!healer.puts().pop().unwrap().1.suspend);
    rig.until::<Deployment>("p-heal", "made again", |_| true).await;
    // Of a pipeline that is suspended no healer is asked.
    rig.change("p", json!({ "suspend": true })).await;
    let seen = until_phase(&rig, "all", BackfillPhase::Suspended).await;
    assert_eq!(condition(&seen, "Progressing").1, "PipelineSuspended");
    rig.until::<Deployment>("p-heal", "without pods", |heal| heal.spec.as_ref().unwrap().replicas == Some(0)).await;
    rig.change("p", json!({ "suspend": false })).await;
    until_phase(&rig, "all", BackfillPhase::Running).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_as_many_healers_as_what_is_left_asks_for() {
    let Some(rig) = Rig::new("backfill-scale").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let operator = operator(&rig, &healer).await;
    let heal = json!({ "enabled": true, "maxReplicas": 3, "parallelism": 2 });
    rig.create("p", json!({ "heal": heal })).await;
    let pipeline = rig.until::<crate::rig::FirehosePipeline>("p", "healed", |pipeline| {
        crate::rig::reason(pipeline, "Healed") == Some("NothingWaits")
    });
    pipeline.await;
    healer.set_backlog(Backlog { waiting: 500, due: 41, running: 0, backfills: 0 });
    let replicas = |wanted| move |heal: &Deployment| heal.spec.as_ref().unwrap().replicas == Some(wanted);
    rig.until::<Deployment>("p-heal", "two", replicas(2)).await;
    healer.set_backlog(Backlog { waiting: 50_000, due: 50_000, running: 6, backfills: 1 });
    let scaled = rig.until::<Deployment>("p-heal", "three", replicas(3)).await;
    let owner = scaled.metadata.managed_fields.into_iter().flatten().find(|field| {
        field.subresource.as_deref() == Some("scale") && field.manager.as_deref() == Some("penstock-autoscaler")
    });
    assert!(owner.is_some(), "the number has its owner");
    rig.until::<crate::rig::FirehosePipeline>("p", "backfilling", |pipeline| {
        crate::rig::reason(pipeline, "Healed") == Some("Backfilling")
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_in_sentences_and_mended_by_itself() {
    let Some(rig) = Rig::new("backfill-wrong").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let operator = operator(&rig, &healer).await;
    create(&rig, "all", json!({})).await;
    let degraded = async |reason: &str, message: &str| {
        let seen = until(&rig, "all", reason, |object| condition(object, "Degraded").1 == reason).await;
        let (status, _, said) = condition(&seen, "Degraded");
        assert!(status == Some(ConditionStatus::True) && said.contains(message), "{said}");
        assert!(seen.status.unwrap().conditions.iter().all(|condition| condition.kind != "Stalled"));
    };
    degraded("PipelineMissing", "There is no FirehosePipeline p in this namespace").await;
    healer.refuse(Some("there is a backfill all with another scope: choose another name, or delete it"));
    rig.create("p", json!({})).await;
    degraded("Refused", "there is a backfill all with another scope").await;
    healer.set_away(true);
    degraded("HealerUnreachable", "the database did not answer").await;
    healer.set_away(false);
    healer.refuse(None);
    let seen = until_phase(&rig, "all", BackfillPhase::Running).await;
    assert_eq!(condition(&seen, "Degraded").0, Some(ConditionStatus::False));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_is_deleted_is_taken_from_the_healers() {
    let Some(rig) = Rig::new("backfill-deleted").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let settings = [("operator.healUrl", healer.url.as_str()), ("operator.deletionDeadline", "5s")];
    let operator = Operator::start_with(&rig, &settings).await;
    rig.create("p", json!({})).await;
    for (name, away) in [("told", false), ("late", true)] {
        create(&rig, name, json!({})).await;
        until_phase(&rig, name, BackfillPhase::Running).await;
        healer.set_away(away);
        rig.api::<FirehoseBackfill>().delete(name, &DeleteParams::default()).await.unwrap();
        rig.until_gone::<FirehoseBackfill>(name).await;
        let deleted = healer.deletes().iter().any(|deleted| deleted.starts_with(&format!("{name}-")));
        assert_eq!(deleted, !away, "{name}");
    }
    eventually("it is told that healers do not know", async || {
        told(&rig, "late").await.contains(&"BackfillNotRemoved".to_owned())
    })
    .await;
    rig.until_gone::<Deployment>("p-heal").await;
    // With its pipeline gone, one is released at once.
    healer.set_away(false);
    create(&rig, "orphan", json!({})).await;
    until_phase(&rig, "orphan", BackfillPhase::Running).await;
    rig.raw().delete("p", &DeleteParams::default()).await.unwrap();
    let seen = until(&rig, "orphan", "alone", |object| condition(object, "Degraded").1 == "PipelineMissing").await;
    assert_eq!(condition(&seen, "Complete").0, Some(ConditionStatus::False));
    rig.api::<FirehoseBackfill>().delete("orphan", &DeleteParams::default()).await.unwrap();
    rig.until_gone::<FirehoseBackfill>("orphan").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_goes_when_its_time_after_the_end_is_over() {
    let Some(rig) = Rig::new("backfill-ttl").await else { return };
    let (healer, _nodes) = (Healer::start().await, Nodes::start(&rig));
    let operator = operator(&rig, &healer).await;
    rig.create("p", json!({})).await;
    create(&rig, "kept", json!({})).await;
    create(&rig, "gone", json!({ "ttlAfterFinished": "1s" })).await;
    for name in ["kept", "gone"] {
        until_phase(&rig, name, BackfillPhase::Running).await;
    }
    healer.report(complete);
    rig.until_gone::<FirehoseBackfill>("gone").await;
    until_phase(&rig, "kept", BackfillPhase::Complete).await;
    // A change after the end is seen, and changes nothing.
    change(&rig, "kept", json!({ "rate": 7 })).await;
    let seen = until(&rig, "kept", "seen", |object| {
        object.status.as_ref().and_then(|status| status.observed_generation) == object.metadata.generation
    })
    .await;
    assert_eq!(phase(&seen), Some(BackfillPhase::Complete));
    assert!(healer.deletes().is_empty(), "what is complete stays where healers keep it");
    operator.stop().await;
}
