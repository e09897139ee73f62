//! The chart, the operator and a pipeline with running pods: everything is deleted while events flow, and nothing is missing.
//!
//! `make e2e` brings the cluster. What a person sees with kubectl at telling moments is kept in `target/tmp/e2e`.

mod backfill;
mod causes;
mod chaos;
mod cluster;
mod control_plane;
mod release;
mod stage;

use fred::interfaces::KeysInterface;
use serde_json::json;

use crate::frames::Recording;
use crate::model;
use crate::rig::eventually;
use cluster::Part;
use stage::{Relay, Stage};

/// By how many events the relay gets ahead while nothing runs.
const AHEAD: u64 = 40_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with running pods: make e2e"]
async fn on_a_cluster_nothing_is_lost_or_doubled() {
    let stage = Stage::set().await;
    let cluster = &stage.cluster;
    cluster.helm("install", &stage.operator_values()).await;
    cluster.keep("0-installed").await;
    let relay = stage.relay().await;
    cluster.apply(&stage.pipeline(&relay.url, "Retain")).await;
    cluster.is_ready().await;
    cluster.keep("1-running").await;
    stage.assert_every_pod_has_our_user().await;

    all_pods_are_deleted(&stage, &relay).await;
    the_operator_is_upgraded(&stage).await;
    suspended_and_resumed(&stage, &relay).await;
    a_backlog_scales_up(&stage).await;

    let recording = relay.said().await;
    drained(&stage, &recording).await;
    retained(&stage, &recording).await;
    removed(&stage, &relay, &recording).await;
    release::a_release_waits_for_its_pipeline(&stage).await;
    uninstalled(&stage).await;
}

/// Workers and ingest are killed, the operator is asked to end; others take their places.
async fn all_pods_are_deleted(stage: &Stage, relay: &Relay) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    cluster.until("a worker is ready", async || !cluster.ready_pods(Part::Worker).await.is_empty()).await;
    let parts = [Part::Worker, Part::Ingest, Part::Operator];
    let mut before = Vec::new();
    for part in parts {
        before.push(cluster.pods(part).await);
    }
    let cursor = rig.cursor().await;
    assert!(cursor < Some(relay.total), "everything was read before the pods were deleted: give more EVENTS");
    cluster.delete_pods(Part::Worker, true).await;
    cluster.delete_pods(Part::Ingest, true).await;
    cluster.delete_pods(Part::Operator, false).await;
    cluster.keep("2-pods-deleted").await;
    for (part, before) in parts.into_iter().zip(before) {
        let others = async || cluster.ready_pods(part).await.iter().any(|pod| !before.contains(pod));
        cluster.until(&format!("another pod of {part:?} is ready"), others).await;
    }
    eventually("ingest goes on", async || rig.cursor().await > cursor).await;
}

/// A new setting rolls the operator, and nothing else.
async fn the_operator_is_upgraded(stage: &Stage) {
    let cluster = &stage.cluster;
    let (operator, ingest) = (cluster.pods(Part::Operator).await, cluster.pods(Part::Ingest).await);
    cluster.helm("upgrade", &["--set", "operator.scalingInterval=4s"]).await;
    cluster
        .until("the operator is another one", async || {
            let now = cluster.ready_pods(Part::Operator).await;
            !now.is_empty() && now.iter().all(|pod| !operator.contains(pod))
        })
        .await;
    assert_eq!(cluster.pods(Part::Ingest).await, ingest, "the operator's setting is none of ingest's business");
    cluster.keep("3-upgraded").await;
}

/// Nothing runs, the cursor stays, and the relay gets ahead.
async fn suspended_and_resumed(stage: &Stage, relay: &Relay) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    cluster.patch(&json!({"spec": {"suspend": true}})).await;
    cluster
        .until("nothing runs", async || {
            cluster.pods(Part::Ingest).await.is_empty()
                && cluster.pods(Part::Worker).await.is_empty()
                && cluster.pods(Part::Dashboard).await.is_empty()
        })
        .await;
    let cursor = rig.cursor().await.unwrap();
    assert!(cursor + AHEAD <= relay.total, "suspended too late, at {cursor}: give more EVENTS");
    relay.has_served(cursor + AHEAD).await;
    assert_eq!(rig.cursor().await, Some(cursor), "somebody wrote while the pipeline was suspended");
    cluster.keep("4-suspended").await;
    cluster.patch(&json!({"spec": {"suspend": false}})).await;
}

async fn a_backlog_scales_up(stage: &Stage) {
    let cluster = &stage.cluster;
    cluster.until("the backlog scales the workers up", async || cluster.wanted_workers().await >= 2).await;
    cluster.keep("5-scaled-up").await;
}

/// The workers settle everything, all but one go, and every row is as the model says.
async fn drained(stage: &Stage, recording: &Recording) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    rig.ingested(recording.last).await;
    rig.settled().await;
    cluster.until("the workers are scaled down", async || cluster.wanted_workers().await == 1).await;
    cluster.is_ready().await;
    cluster.keep("6-drained").await;
    rig.assert_stream_is(&recording.entries).await;
    // Counts are published every now and then.
    let events = model::event_counts(&recording.entries, 1);
    let metrics = rig.keys.cluster_metrics();
    eventually("all events are counted", async || rig.hash(&metrics).await == events).await;
    let records = model::record_counts(&model::tables(&recording.entries));
    let counts = rig.keys.record_counts();
    eventually("all records are counted", async || rig.hash(&counts).await == records).await;
    rig.assert_result_is(&recording.entries, 1).await;
    let rows: i64 = records.values().sum();
    println!("e2e: {} entries of the stream compared, 0 lost, 0 doubled, {rows} rows as the model says", {
        recording.entries.len()
    });
}

/// Deleted with the policy Retain, everything stays but the pods and the claim.
async fn retained(stage: &Stage, recording: &Recording) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    let length = rig.length().await;
    cluster.kubectl("delete fhp bluesky --timeout=120s").await;
    cluster.until("all children are gone", async || cluster.children().await.is_empty()).await;
    cluster.keep("7-deleted-retain").await;
    eventually("the claim is released", async || rig.client.exists(rig.keys.pipeline()).await == Ok(0_i64)).await;
    assert_eq!((rig.cursor().await, rig.length().await), (Some(recording.last), length));
    assert!(rig.group().await.is_some(), "the group stays");
}

/// Deleted with the policy Delete, its keys go, but not a stream that another group reads.
async fn removed(stage: &Stage, relay: &Relay, recording: &Recording) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    let (length, likes) = (rig.length().await, rig.count("likes").await);
    cluster.apply(&stage.pipeline(&relay.url, "Delete")).await;
    cluster.is_ready().await;
    assert_eq!(rig.cursor().await, Some(recording.last), "applied again it goes on where it ended");
    cluster.kubectl("delete fhp bluesky --timeout=180s").await;
    cluster.until("all children are gone", async || cluster.children().await.is_empty()).await;
    cluster.keep("8-deleted-delete").await;
    assert_eq!((rig.cursor().await, rig.length().await), (None, length), "another group reads the stream, which stays");
    assert!(rig.group().await.is_none(), "the group goes");
    assert_eq!(rig.client.exists(rig.keys.pipeline()).await, Ok(0_i64), "the claim goes");
    assert_eq!(rig.count("likes").await, likes, "postgresql is never touched");
}

async fn uninstalled(stage: &Stage) {
    let cluster = &stage.cluster;
    cluster.helm("uninstall", &[""; 0]).await;
    cluster.until("the operator is gone", async || cluster.pods(Part::Operator).await.is_empty()).await;
    cluster.kubectl("get crd firehosepipelines.penstock.dev").await;
    cluster.kubectl("get secret penstock-dev-redis penstock-dev-postgres").await;
    cluster.keep("13-uninstalled").await;
}
