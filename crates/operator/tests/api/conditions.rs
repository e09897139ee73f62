//! What the status says of trouble.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::Nodes;
use crate::operator::Operator;
use crate::redis::Redis;
use crate::rig::{FirehosePipeline, Rig, eventually, is_ready, message, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_the_conditions_say_so_and_the_workers_stay() {
    let Some(rig) = Rig::new("away").await else { return };
    let (mut redis, _nodes) = (Redis::start().await, Nodes::start(&rig));
    let _operator = Operator::start(&rig).await;
    redis.flow("").await;
    let scaling = json!({ "minReplicas": 1, "maxReplicas": 4, "drainTarget": "1s", "capacityPerWorker": 1 });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": { "autoscaling": scaling } })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    redis.add("", 1_000).await;
    let four = |deployment: &Deployment| deployment.spec.as_ref().unwrap().replicas == Some(4);
    rig.until::<Deployment>("p-worker", "scaled up", four).await;
    redis.server.kill();
    let said =
        rig.until::<FirehosePipeline>("p", "without redis", |p| reason(p, "Ready") == Some("RedisUnreachable")).await;
    assert_eq!(reason(&said, "LagKnown"), Some("RedisUnreachable"));
    assert_eq!(reason(&said, "IngestConnected"), Some("RedisUnreachable"));
    assert!(four(&rig.api::<Deployment>().get("p-worker").await.unwrap()));
    // Back and empty: what waits is not known, which is no reason to take workers away.
    redis.server.restart().await.unwrap();
    let said =
        rig.until::<FirehosePipeline>("p", "with redis", |p| reason(p, "LagKnown") == Some("StreamMissing")).await;
    assert_eq!(said.status.unwrap().workers.unwrap().backlog.as_deref(), Some("unknown"));
    assert!(four(&rig.api::<Deployment>().get("p-worker").await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_that_belongs_to_another_pipeline_is_said() {
    let Some(rig) = Rig::new("shared").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    redis.command(r#"SET firehose:pipeline {"pipeline":"other/theirs","incarnation":"x"}"#).await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let said = rig.until::<FirehosePipeline>("p", "refused", |p| reason(p, "Ready") == Some("RedisShared")).await;
    assert!(said.status.unwrap().conditions[0].message.contains("other/theirs"));
    redis.command("DEL firehose:pipeline").await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ingest_tells_in_redis_becomes_conditions_and_events_on_change_only() {
    let Some(rig) = Rig::new("ingest").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    rig.create("p", json!({ "redis": { "url": redis.url() } })).await;
    let ready = rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    assert_eq!(reason(&ready, "DataLoss"), Some("NoneKnown"));
    redis.command(r#"SET firehose:status {"connected":false,"url":"wss://relay","currentCursor":"42"}"#).await;
    let said = rig.until::<FirehosePipeline>("p", "disconnected", |p| reason(p, "Ready") == Some("Disconnected")).await;
    assert!(said.status.unwrap().conditions[0].message.contains("kubectl logs deployment/p-ingest"));
    redis.command("HSET firehose:ingest:state dataLoss 2").await;
    let said = rig.until::<FirehosePipeline>("p", "with a loss", |p| reason(p, "DataLoss") == Some("EventsLost")).await;
    let lost = message(&said, "DataLoss");
    assert!(lost.contains("2 times") && lost.contains("firehose:ingest:state"), "{lost}");
    let verified = |mode: &str, rest: &str| {
        format!(
            r#"HSET firehose:ingest:state verified {{"mode":"{mode}","signatures":"off","since":"2026-07-04T12:00:00Z"{rest}}}"#
        )
    };
    assert_eq!(reason(&said, "Verified"), Some("NotReported"));
    let now = jiff::Timestamp::now();
    let failed = format!(
        r#","verified":7,"failed":{{"inversion":2}},"lastFailed":{{"at":"{now}","did":"did:plc:a","reason":"inversion"}}"#
    );
    redis.command(&verified("count", &failed)).await;
    let said = rig.until::<FirehosePipeline>("p", "unproven", |p| reason(p, "Verified") == Some("CommitsFailed")).await;
    let wrong = message(&said, "Verified");
    assert!(wrong.starts_with("2 commits of 9 failed") && wrong.contains("inversion 2"), "{wrong}");
    redis.command(&verified("off", "")).await;
    rig.until::<FirehosePipeline>("p", "not verified", |p| reason(p, "Verified") == Some("Off")).await;
    redis.command("DEL firehose:status").await;
    rig.until::<FirehosePipeline>("p", "silent", |p| reason(p, "IngestConnected") == Some("NoIngest")).await;

    let told = async |reason: &str| {
        let events = rig.api::<Event>().list(&ListParams::default()).await.unwrap();
        let of = events.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        of.map(|event| event.series.map_or(1, |series| series.count)).sum::<i32>()
    };
    for reason in ["Disconnected", "EventsLost", "CommitsFailed", "NoIngest"] {
        eventually(&format!("{reason} is told"), async || told(reason).await > 0).await;
        assert_eq!(told(reason).await, 1, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_settle_nothing_are_told_and_get_no_company() {
    let Some(rig) = Rig::new("stalled").await else { return };
    let (redis, _nodes, _operator) = (Redis::start().await, Nodes::start(&rig), Operator::start(&rig).await);
    redis.flow("").await;
    let workers =
        json!({ "claimTime": "1s", "autoscaling": { "maxReplicas": 2, "drainTarget": "1s", "capacityPerWorker": 1 } });
    rig.create("p", json!({ "redis": { "url": redis.url() }, "workers": workers })).await;
    rig.until::<FirehosePipeline>("p", "ready", is_ready).await;
    redis.add("", 500).await;
    // What a worker does whose database takes nothing.
    redis.command("XREADGROUP GROUP firehose-processors w COUNT 10 STREAMS firehose:events >").await;
    let said =
        rig.until::<FirehosePipeline>("p", "stalled", |p| reason(p, "Progressing") == Some("NothingSettled")).await;
    assert!(message(&said, "Progressing").contains("kubectl logs deployment/p-worker"));
    rig.change("p", json!({ "workers": { "autoscaling": { "maxReplicas": 10 } } })).await;
    let generation = rig.api::<FirehosePipeline>().get("p").await.unwrap().metadata.generation;
    let seen = rig
        .until::<FirehosePipeline>("p", "looked at again", |p| {
            let status = p.status.as_ref().unwrap();
            status.observed_generation == generation
                && status.workers.as_ref().unwrap().reason.as_deref() == Some("Stalled")
        })
        .await;
    assert!(seen.status.unwrap().workers.unwrap().replicas <= 2);
}
