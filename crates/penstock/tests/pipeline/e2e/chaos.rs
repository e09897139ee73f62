//! Everything that a cluster does to a pipeline, one after another while events flow: pods deleted without end, the operator away, the API
//! server killed, changes in a row, and hands on what the operator made. `make chaos` brings the cluster; EVENTS and SEED say how much.

use std::env;
use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::json;
use tokio::time::sleep;

use super::cluster::{Cluster, Part};
use super::control_plane::ControlPlane;
use super::drained;
use super::stage::{Relay, Stage};
use crate::rig::{PATIENCE, Rig};

/// How many events the relay has, where EVENTS says nothing else.
const EVENTS: u64 = 400_000;

/// How long events flow, at least: longer than everything else takes on a machine that has much else to do.
const FLOW: Duration = Duration::from_secs(480);

/// How long the operator is away.
const AWAY: Duration = Duration::from_secs(120);

/// How long there is no API server.
const DOWN: Duration = Duration::from_secs(10);

/// How many changes are made in a row.
const CHANGES: usize = 50;

/// Whose pods are deleted, the workers' most often.
const PARTS: [Part; 6] = [Part::Worker, Part::Worker, Part::Worker, Part::Ingest, Part::Dashboard, Part::Operator];

/// What a person does to what the operator made, and what is so again once it is mended.
const HANDS: [(&str, &str, &str); 10] = [
    ("delete deployment bluesky-worker --wait=false", "deployment bluesky-worker", ".metadata.uid"),
    ("delete deployment bluesky-dashboard --wait=false", "deployment bluesky-dashboard", ".metadata.uid"),
    ("delete service bluesky-dashboard", "service bluesky-dashboard", ".metadata.uid"),
    ("delete configmap bluesky-settings", "configmap bluesky-settings", ".metadata.uid"),
    ("delete networkpolicy bluesky-ingest", "networkpolicy bluesky-ingest", ".metadata.uid"),
    ("delete poddisruptionbudget bluesky-worker", "poddisruptionbudget bluesky-worker", ".metadata.uid"),
    (
        r#"patch configmap bluesky-settings --type=merge --patch={"data":{"settings.yaml":"spoiled"}}"#,
        "configmap bluesky-settings",
        ".data.settings\\.yaml",
    ),
    (
        r#"patch service bluesky-dashboard --type=merge --patch={"spec":{"selector":{"app.kubernetes.io/component":"none"}}}"#,
        "service bluesky-dashboard",
        ".spec.selector.app\\.kubernetes\\.io/component",
    ),
    (
        r#"patch deployment bluesky-worker --type=json --patch=[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"localhost/none:1"}]"#,
        "deployment bluesky-worker",
        ".spec.template.spec.containers[0].image",
    ),
    ("label deployment bluesky-ingest app.kubernetes.io/managed-by-", "deployment bluesky-ingest", ".metadata.labels"),
];

/// What was done, for the verdict.
#[derive(Default)]
struct Tally {
    pods: usize,
    changes: usize,
    hands: usize,
    slowest: Duration,
    api_server: Option<Duration>,
}

// === impl Tally ===

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pods deleted, the operator away for {} s, ", self.pods, AWAY.as_secs())?;
        match self.api_server {
            Some(down) => write!(f, "the api server killed and away for {} s, ", down.as_secs())?,
            None => write!(f, "the api server left alone (it is not ours), ")?,
        }
        write!(
            f,
            "{} changes in a row, {} hands on children, mended after {:.1} s at most",
            self.changes,
            self.hands,
            self.slowest.as_secs_f64()
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with running pods, and takes many minutes: make chaos"]
async fn nothing_is_lost_or_doubled_whatever_the_cluster_does() {
    let seed = env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let (mut tally, started) = (Tally::default(), Instant::now());
    let stage = Stage::set().await;
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    cluster.helm("install", &stage.operator_values()).await;
    let total = env::var("EVENTS").map_or(EVENTS, |events| events.parse().unwrap());
    let rate = u32::try_from(total / FLOW.as_secs()).ok().and_then(NonZeroU32::new).unwrap();
    let relay = stage.relay_of(total, rate).await;
    cluster.apply(&stage.pipeline(&relay.url, "Retain")).await;
    // Another group holds the stream, which is compared whole in the end.
    cluster.patch(&json!({"spec": {"redis": {"maxStreamLength": 10 * relay.total}}})).await;
    cluster.is_ready().await;

    pods_are_deleted(cluster, &mut random, &mut tally, 12).await;
    the_operator_is_away(&stage, &relay, &mut random, &mut tally).await;
    the_api_server_is_killed(cluster, rig, &mut tally).await;
    changes_in_a_row(cluster, &mut tally).await;
    hands_on_children(cluster, &mut tally).await;
    while !is_read(rig, &relay).await {
        pods_are_deleted(cluster, &mut random, &mut tally, 3).await;
    }

    caught_up(rig).await;
    let recording = relay.said().await;
    drained(&stage, &recording).await;
    println!(
        "chaos: {} events, {tally}: 0 lost, 0 doubled, in {} s (SEED={seed})",
        recording.seqs.len(),
        started.elapsed().as_secs()
    );
    cluster.kubectl("delete fhp bluesky --timeout=180s").await;
    cluster.helm("uninstall", &[""; 0]).await;
}

/// Whether ingest has read all that the relay will ever have.
async fn is_read(rig: &Rig, relay: &Relay) -> bool {
    rig.cursor().await.is_some_and(|cursor| cursor >= relay.total)
}

/// Waits until everything is settled, for as long as it goes on.
async fn caught_up(rig: &Rig) {
    let (mut last, mut since) = (None, Instant::now());
    while rig.left().await != Some((0, 0)) {
        let group = rig.group().await.map(|group| (group.delivered, group.pending));
        if group != last {
            (last, since) = (group, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "the workers settle nothing more, at {last:?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Deletes the pods of one part after another, by force or by asking, some seconds apart.
async fn pods_are_deleted(cluster: &Cluster, random: &mut StdRng, tally: &mut Tally, times: usize) {
    for _ in 0..times {
        let part = PARTS[random.random_range(0..PARTS.len())];
        tally.pods += cluster.ready_pods(part).await.len();
        cluster.delete_pods(part, random.random_bool(0.5)).await;
        sleep(Duration::from_millis(random.random_range(1_000..5_000))).await;
    }
}

/// While nobody reconciles, Kubernetes alone replaces pods.
async fn the_operator_is_away(stage: &Stage, relay: &Relay, random: &mut StdRng, tally: &mut Tally) {
    let (cluster, rig) = (&stage.cluster, &stage.rig);
    let since = Instant::now();
    cluster.scale_operator(0).await;
    cluster.until("the operator is away", async || cluster.pods(Part::Operator).await.is_empty()).await;
    while since.elapsed() < AWAY {
        let part = [Part::Worker, Part::Ingest][random.random_range(0..2)];
        tally.pods += cluster.ready_pods(part).await.len();
        cluster.delete_pods(part, random.random_bool(0.5)).await;
        sleep(Duration::from_secs(10)).await;
    }
    let cursor = rig.cursor().await;
    assert!(
        cursor < Some(relay.total),
        "everything is read already: more EVENTS last no longer, look for what took so long"
    );
    cluster.until("ingest goes on without an operator", async || rig.cursor().await > cursor).await;
    cluster.scale_operator(1).await;
    cluster.until("the operator is back", async || !cluster.ready_pods(Part::Operator).await.is_empty()).await;
}

/// Pods go on without an API server, and the operator finds its way back.
async fn the_api_server_is_killed(cluster: &Cluster, rig: &Rig, tally: &mut Tally) {
    let Some(plane) = ControlPlane::ours() else {
        println!("chaos: skipped killing the API server: this cluster is not ours");
        return;
    };
    let server = plane.kill_api_server();
    let cursor = rig.cursor().await;
    sleep(DOWN).await;
    assert!(rig.cursor().await > cursor, "ingest stands still without an API server");
    plane.start_api_server(&server);
    cluster.until("the API server answers", async || cluster.answers().await).await;
    tally.api_server = Some(DOWN);
    cluster.is_ready().await;
}

/// The last of many changes counts, and no event suffers from those before.
async fn changes_in_a_row(cluster: &Cluster, tally: &mut Tally) {
    for change in 0..CHANGES {
        cluster.patch(&json!({"spec": {"workers": {"batchSize": 500 + change}}})).await;
        tally.changes += 1;
    }
    let last = format!("batchSize: {}", 500 + CHANGES - 1);
    let told = "configmap bluesky-settings --output=jsonpath={.data}";
    cluster
        .until("the last of the changes counts", async || cluster.kubectl(&format!("get {told}")).await.contains(&last))
        .await;
    cluster.is_ready().await;
}

/// What somebody deletes or spoils is as it was before anybody misses it.
async fn hands_on_children(cluster: &Cluster, tally: &mut Tally) {
    for (hand, object, path) in HANDS {
        let look = format!("get {object} --ignore-not-found --output=jsonpath={{{path}}}");
        let before = cluster.kubectl(&look).await;
        assert!(!before.is_empty(), "{object} has no {path}");
        let since = Instant::now();
        cluster.kubectl(hand).await;
        let deleted = hand.starts_with("delete");
        let is_mended = async || {
            let now = cluster.kubectl(&look).await;
            if deleted { !now.is_empty() && now != before } else { now == before }
        };
        cluster.until(&format!("mended: {}", hand.split(" --").next().unwrap_or(hand)), is_mended).await;
        tally.slowest = tally.slowest.max(since.elapsed());
        tally.hands += 1;
    }
    cluster.is_ready().await;
}
