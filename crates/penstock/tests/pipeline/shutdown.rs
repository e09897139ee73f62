//! SIGTERM while everything flows.

use crate::http::LiveStream;
use crate::model::{self, Tables};
use crate::rig::{Group, Rig, eventually, relay};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_at_full_load_leaves_nothing_half_done() {
    let (relay, recording) = relay(24_000).await;
    let mut rig = Rig::new().await;
    rig.set("PENSTOCK_WORKER_BATCH_SIZE", "500");
    rig.keep_stream().await;
    let (ingest, worker, dashboard) = (rig.ingest(&relay), rig.worker("w-1"), rig.start(&["dashboard"]));
    let mut client = LiveStream::open(dashboard.dashboard().await).await;
    client.wait_for("event").await;
    // Each in the midst of its work, however fast the others are.
    let end_ingest = async {
        eventually("a part is read", async || rig.cursor().await > Some(8_000)).await;
        ingest.terminate();
        ingest.ended().await;
    };
    let end_worker = async {
        let applied = async || rig.hash(&rig.keys.cluster_metrics()).await.get("totalEvents").copied();
        eventually("a part is applied", async || applied().await > Some(2_000)).await;
        worker.terminate();
        worker.ended().await;
    };
    let end_dashboard = async {
        client.wait_for("metrics").await;
        dashboard.terminate();
        dashboard.ended().await;
    };
    tokio::join!(end_ingest, end_worker, end_dashboard);
    client.end().await;

    let cursor = rig.cursor().await.unwrap();
    assert!(cursor < recording.last, "ingest was told to end after it had read everything");
    let read = recording.entries.partition_point(|entry| entry.seq <= cursor);
    rig.assert_stream_is(&recording.entries[..read]).await;

    let Group { delivered, pending } = rig.group().await.unwrap();
    assert_eq!(pending, 0, "entries that the worker was given and did not acknowledge");
    assert!(rig.consumers().await.is_empty(), "the worker has left the group");
    let applied = rig.stream().await.iter().position(|(id, _)| *id == delivered).unwrap() + 1;
    assert!(applied < read, "the worker was told to end after it had applied everything");
    let acknowledged = &recording.entries[..applied];
    assert_eq!(rig.hash(&rig.keys.cluster_metrics()).await, model::event_counts(acknowledged, 1));
    // What a deleted account leaves goes later, and with it counts.
    let deleted: Vec<_> = acknowledged.iter().filter(|entry| entry.data["status"] == "deleted").collect();
    let is_whole = |table: &str, key: &str| {
        !["post_aggregations", "penstock.waiting_counts"].contains(&table)
            && !deleted.iter().any(|entry| key.contains(entry.did()))
    };
    let whole = |mut tables: Tables| {
        tables.iter_mut().for_each(|(table, rows)| rows.retain(|key, _| is_whole(table, key)));
        tables
    };
    let differences = model::differences(&whole(model::tables(acknowledged)), &whole(rig.tables().await));
    assert!(differences.is_empty(), "what is written is not what is acknowledged\n{differences}");

    let (ingest, workers) = (rig.ingest(&relay), [rig.worker("w-1"), rig.worker("w-2")]);
    rig.ingested(recording.last).await;
    rig.settled().await;
    for service in workers.into_iter().chain([ingest]) {
        service.stop().await;
    }
    rig.assert_stream_is(&recording.entries).await;
    rig.assert_result_is(&recording.entries, 1).await;
}
