//! From the relay's frames to the dashboard's numbers.

use std::collections::BTreeMap;
use std::path::Path;

use penstock_replay::Settings;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::frames::Entry;
use crate::http;
use crate::model;
use crate::rig::{Rig, eventually, relay, relay_with};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_events_end_as_the_model_says() {
    let (relay, recording) = relay(20_000).await;
    let rig = Rig::new().await;
    rig.keep_stream().await;
    let dashboard = rig.start(&["dashboard"]);
    let (ingest, workers) = (rig.ingest(&relay), [rig.worker("w-1"), rig.worker("w-2")]);
    rig.ingested(recording.last).await;
    rig.settled().await;
    // Counts are published every now and then, and at the end.
    for worker in workers {
        worker.stop().await;
    }
    rig.assert_stream_is(&recording.entries).await;
    assert_eq!(rig.cursor().await, Some(recording.last));
    rig.assert_result_is(&recording.entries, 1).await;

    let rows = model::record_counts(&model::tables(&recording.entries));
    let mut events = model::event_counts(&recording.entries, 1);
    let total = events.remove("totalEvents").unwrap();
    let address = dashboard.dashboard().await;
    let shown = async || http::json(address, "/api/metrics").await;
    eventually("the dashboard has looked again", async || {
        let shown = shown().await;
        // Each part of it is looked at on its own, and the status is told once a second.
        shown["firehoseStatus"]["queueDepth"] == 0
            && shown["firehoseStatus"]["currentCursor"] == json!(recording.last.to_string())
            && shown["eventsProcessed"] == json!(total)
            && shown["stats"]["totalLikes"] == rows["likes"]
            && shown["stats"]["totalUsers"] == rows["users"]
    })
    .await;
    let shown = shown().await;
    let stats = json!({
        "totalUsers": rows["users"], "totalPosts": rows["posts"], "totalLikes": rows["likes"],
        "totalReposts": rows["reposts"], "totalFollows": rows["follows"], "totalBlocks": rows["blocks"],
    });
    assert_eq!(shown["stats"], stats);
    assert_eq!((&shown["eventsProcessed"], &shown["eventCounts"]), (&json!(total), &json!(events)));
    assert_eq!((shown["errorRate"].as_f64(), &shown["firehoseStatus"]["deadLetterLength"]), (Some(0.0), &json!(0)));
    assert_eq!(shown["firehoseStatus"]["connected"], true);
    ingest.stop().await;
    dashboard.stop().await;
}

/// The public relay's frames are of real people: a failure names numbers and tables, never what they wrote.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_the_public_relay_end_as_the_model_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/fixtures/bsky-2026-07-04/frames.bin");
    if !Path::new(path).exists() {
        return;
    }
    let settings =
        Settings { recording: penstock_replay::Recording::File(path.into()), total: Some(150), ..Settings::default() };
    let (relay, recording) = relay_with(settings).await;
    let rig = Rig::new().await;
    rig.keep_stream().await;
    let (ingest, worker) = (rig.ingest(&relay), rig.worker("w-1"));
    rig.ingested(recording.last).await;
    rig.settled().await;
    ingest.stop().await;
    worker.stop().await;
    let stream: Vec<Entry> = rig.stream().await.into_iter().map(|(_, entry)| entry).collect();
    let seqs = |entries: &[Entry]| entries.iter().map(|entry| entry.seq).collect::<Vec<_>>();
    assert_eq!(seqs(&stream), seqs(&recording.entries));
    let wrong = stream.iter().zip(&recording.entries).filter(|(found, expected)| found != expected);
    assert_eq!(wrong.map(|(found, _)| found.seq).collect::<Vec<_>>(), [0; 0], "entries that differ");
    let (expected, found) = (model::tables(&recording.entries), rig.tables().await);
    let wrong: Vec<_> =
        expected.iter().filter(|(table, rows)| found[*table] != **rows).map(|(table, _)| table).collect();
    assert!(wrong.is_empty(), "tables that differ: {wrong:?}");
    assert_eq!(rig.hash(&rig.keys.cluster_metrics()).await, model::event_counts(&recording.entries, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_and_reordered_stream_ends_the_same() {
    let (_relay, recording) = relay(1_500).await;
    let mut rig = Rig::new().await;
    // Small batches, and entries that are taken from whoever is slow.
    rig.set("PENSTOCK_WORKER_BATCH_SIZE", "70");
    rig.set("PENSTOCK_WORKER_CLAIM_TIME", "400ms");
    rig.keep_stream().await;
    let mut random = StdRng::seed_from_u64(20_260_704);
    for _ in 0..2 {
        for entry in reordered(&recording.entries, &mut random) {
            rig.add(&entry.kind, &entry.data.to_string(), &entry.seq.to_string()).await;
        }
    }
    let workers = [rig.worker("w-1"), rig.worker("w-2")];
    eventually("a worker makes the group", async || rig.group().await.is_some()).await;
    rig.settled().await;
    rig.redeliver_all().await;
    rig.settled().await;
    for worker in workers {
        worker.stop().await;
    }
    rig.assert_result_is(&recording.entries, 4).await;
}

/// Shuffles entries as far as their order means nothing: repos among each other, and the commits between two identity
/// or account events of a repo, whose revs say which is the later one.
fn reordered(entries: &[Entry], random: &mut StdRng) -> Vec<Entry> {
    let mut repos = BTreeMap::<&str, Vec<Vec<&Entry>>>::new();
    for entry in entries {
        let runs = repos.entry(entry.did()).or_default();
        match runs.last_mut() {
            Some(run) if entry.kind == "commit" && run[0].kind == "commit" => run.push(entry),
            _ => runs.push(vec![entry]),
        }
    }
    let mut queues: Vec<Vec<&Entry>> = Vec::new();
    for mut runs in repos.into_values() {
        runs.iter_mut().for_each(|run| run.shuffle(random));
        let mut queue = runs.concat();
        queue.reverse();
        queues.push(queue);
    }
    let mut shuffled = Vec::with_capacity(entries.len());
    while !queues.is_empty() {
        let at = random.random_range(0..queues.len());
        shuffled.extend(queues[at].pop().cloned());
        if queues[at].is_empty() {
            queues.swap_remove(at);
        }
    }
    shuffled
}
