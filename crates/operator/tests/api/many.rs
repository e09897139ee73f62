//! Many pipelines at once.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::Nodes;
use crate::operator::Process;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, is_ready};

/// How many of them there are, unless `PENSTOCK_PIPELINES` says otherwise; the budget speaks of 200, which take minutes.
const PIPELINES: usize = 20;

/// What they may all take, and how much memory, in kB.
const PATIENCE: Duration = Duration::from_secs(900);
const BUDGET: u64 = 40 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pipelines_are_reconciled_at_once_within_the_budget() {
    let pipelines = std::env::var("PENSTOCK_PIPELINES").map_or(PIPELINES, |many| many.parse().unwrap());
    let Some(rig) = Rig::alone("many").await else { return };
    crate::rig::install(&rig.client).await;
    let (redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    for number in 0..pipelines {
        redis.flow(&format!("p{number}:")).await;
        let redis = json!({ "url": redis.url(), "keyPrefix": format!("p{number}:") });
        rig.create(&format!("p{number}"), json!({ "redis": redis })).await;
    }
    // Intervals as they are by default.
    let times =
        [("operator.scalingInterval", "5s"), ("operator.leaseDuration", "15s"), ("operator.renewDeadline", "10s")];
    let since = Instant::now();
    let process = Process::start(&rig, &times);
    let mut most = 0;
    loop {
        let all = rig.api::<FirehosePipeline>().list(&ListParams::default()).await.unwrap();
        let ready = all.iter().filter(|pipeline| is_ready(pipeline)).count();
        most = most.max(process.resident());
        if ready == pipelines {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{ready} of {pipelines} are ready");
        // Looking at all of them is work too.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = since.elapsed().as_secs_f64();
    let (deployments, jobs) = (rig.api::<Deployment>(), rig.api::<Job>());
    let made = deployments.list_metadata(&ListParams::default()).await.unwrap().items.len();
    assert_eq!(made, 3 * pipelines);
    assert_eq!(jobs.list_metadata(&ListParams::default()).await.unwrap().items.len(), pipelines);
    println!(
        "{pipelines} pipelines ready in {took:.1} s, {:.1} a second; operator: {:.1} MiB at most, {:.1} MiB now",
        pipelines as f64 / took,
        most as f64 / 1024.0,
        process.resident() as f64 / 1024.0,
    );
    // Of a build for production: an unoptimised one is larger by its code alone.
    if std::env::var_os("PENSTOCK_BIN").is_some() {
        assert!(most <= BUDGET, "{most} kB at most");
    }
}
