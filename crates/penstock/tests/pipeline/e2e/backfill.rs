//! A backfill on the cluster: its healers and the operator are killed while it runs, and every record is there once.

use std::net::IpAddr;

use penstock_repo::testing::{MadeRepo, World, did};
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, Part};
use super::stage::Stage;

/// How many repos there are, and how many posts each has.
const REPOS: u64 = 400;
const POSTS: u64 = 25;

/// The rev of every repo.
const REV: &str = "3kabcdefghi22";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with running pods: make e2e"]
async fn a_backfill_survives_its_pods() {
    let stage = Stage::set().await;
    let cluster = &stage.cluster;
    let world = World::start().await.unwrap();
    for n in 0..REPOS {
        world.put(MadeRepo::of_posts(&did(n), REV, POSTS));
    }
    let (address, _way) = let_pods_in(&world, stage.host()).await;
    world.host_at(&format!("http://{address}"));
    cluster.helm("install", &stage.operator_values()).await;
    cluster.apply(&pipeline(&stage, &address)).await;
    cluster.is_ready().await;
    assert_eq!(stage.rig.count("posts").await, 0);

    cluster
        .apply(
            "apiVersion: penstock.dev/v1alpha1\nkind: FirehoseBackfill\nmetadata: {name: everything}\n\
             spec: {pipeline: bluesky, scope: {all: true}, rate: 8}\n",
        )
        .await;
    let done = async || status(cluster).await["done"].as_u64().unwrap_or(0);
    for round in 1..=3_u64 {
        let some = REPOS / 5 * round;
        cluster.until(&format!("{some} repos are done"), async || done().await >= some).await;
        cluster.keep_backfill(&format!("14-backfill-{round}")).await;
        cluster.delete_pods(Part::Heal, true).await;
        if round == 2 {
            cluster.delete_pods(Part::Operator, true).await;
        }
    }
    cluster.until("the backfill is complete", async || status(cluster).await["phase"] == "Complete").await;
    cluster.keep_backfill("15-backfill-complete").await;
    let status = status(cluster).await;
    assert_eq!((status["done"].as_u64(), status["failed"].as_u64()), (Some(REPOS), Some(0)), "{status}");
    assert_eq!(stage.rig.count("posts").await, i64::try_from(REPOS * POSTS).unwrap());
    let fetched: usize = (0..REPOS).map(|n| world.hits("com.atproto.sync.getRepo", &did(n))).sum();
    println!("e2e: {REPOS} repos, fetched {fetched} times, with every pod of the healers killed three times");
    assert!(fetched as u64 <= REPOS * 3 / 2, "{fetched}");
    cluster.until("the healers are gone", async || cluster.pods(Part::Heal).await.is_empty()).await;
    cluster.kubectl("delete fhb everything --timeout=60s").await;
    cluster.kubectl("delete fhp bluesky --timeout=120s").await;
    cluster.until("all children are gone", async || cluster.children().await.is_empty()).await;
    cluster.helm("uninstall", &[""; 0]).await;
}

/// Lets pods reach a server that listens on loopback; returns where.
async fn let_pods_in(world: &World, host: IpAddr) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind((host, 0)).await.unwrap();
    let (address, server) = (listener.local_addr().unwrap().to_string(), world.server.address);
    let way = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(server).await.unwrap();
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (address, way)
}

/// One without a relay to read: what it has, it has from its healers.
fn pipeline(stage: &Stage, address: &str) -> String {
    let sample = stage.pipeline(&format!("ws://{address}"), "Retain");
    let host = stage.host();
    let sample = sample.replace("  ingest: {pod:", "  ingest: {enabled: false, pod:");
    format!(
        "{sample}  identity: {{enabled: true, plcUrl: \"http://{address}\", rate: 1000, allowedNetworks: [\"{host}\"]}}\n  \
         heal: {{maxReplicas: 2, parallelism: 4, hostRate: 1000, pod: {{securityContext: {{runAsUser: {}}}, resources: {{requests: {{cpu: 50m}}}}}}}}\n",
        stage.user()
    )
}

async fn status(cluster: &Cluster) -> Value {
    cluster.get("fhb everything").await["status"].clone()
}
