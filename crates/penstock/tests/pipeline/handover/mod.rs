//! Both systems in turn on one stream and one database: nothing is missing, and ours doubles nothing.
//!
//! The other side is played by small programs that do to Redis and PostgreSQL what the originals do. A run is decided by
//! its seed: `make handover SEED=n ROUNDS=200`.

mod dialect;
mod event;
mod guide;
mod migration;
mod plan;
mod player;
mod processor;
mod python;
mod reader;
mod report;
mod resp;
mod run;
mod side;
mod stage;
mod typescript;
mod verdict;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fred::interfaces::KeysInterface;

use crate::rig::eventually;
use plan::Plan;
use stage::Stage;

/// Where what ours say is kept.
const LOGS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/handover");

/// Ours at the pace of the players, which are twenty times as fast as the originals.
const SETTINGS: [(&str, &str); 11] = [
    ("PENSTOCK_RELAY_BACKOFF_MIN", "20ms"),
    ("PENSTOCK_RELAY_BACKOFF_MAX", "300ms"),
    ("PENSTOCK_INGEST_LEASE_TIME", "500ms"),
    ("PENSTOCK_INGEST_TRIM_INTERVAL", "50ms"),
    ("PENSTOCK_INGEST_STATUS_INTERVAL", "250ms"),
    ("PENSTOCK_INGEST_FOREIGN_QUIET", "700ms"),
    ("PENSTOCK_INGEST_APPVIEW_CURSOR", "true"),
    ("PENSTOCK_WORKER_BATCH_SIZE", "100"),
    ("PENSTOCK_WORKER_CLAIM_TIME", "400ms"),
    ("PENSTOCK_WORKER_CHECKPOINT_INTERVAL", "250ms"),
    ("PENSTOCK_WORKER_PUBLISH_INTERVAL", "100ms"),
];

/// The ten rounds of this seed have every kind of turn in them, on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn handing_over_loses_nothing_and_ours_doubles_nothing() {
    let logs = Path::new(LOGS).join("short");
    let outcome = Box::pin(run::run(&Plan::of(261, 10), &logs)).await;
    println!("{}", outcome.verdict);
    assert!(outcome.verdict.wrong.is_empty(), "{}, see {}", outcome.verdict, logs.display());
    std::fs::remove_dir_all(logs).unwrap();
}

/// Its entries are trimmed before the relay is there, and then nothing but its cursor tells how far it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_ended_in_order_is_gone_on_from_however_late_the_relay_is() {
    let logs = Path::new(LOGS).join("late");
    let stage = Box::pin(stage::set(&logs, 200, 20_000)).await;
    let Stage { rig, relay, theirs, reader, .. } = &stage;
    rig.migrate().await;
    let worker = rig.worker("w-1");
    let writes = async |ours: bool| {
        let from = reader.last();
        eventually("entries come", async || {
            reader.seen().range(from.unwrap_or_default()..).filter(|(_, seen)| seen.ours == ours).count() > 100
        })
        .await;
    };
    let ingest = rig.start(&["ingest"]);
    writes(true).await;
    ingest.stop().await;
    let python = python::start(theirs);
    writes(false).await;
    python.terminate().await;
    let newest = reader.seen().values().filter_map(|seen| seen.seq).max().unwrap();
    let () = rig.client.set(rig.keys.cursor(), newest, None, None, false).await.unwrap();
    relay.inject(penstock_replay::Fault::Refuse(Duration::from_secs(2))).await.unwrap();
    let ingest = rig.start(&["ingest"]);
    writes(true).await;
    ingest.stop().await;
    worker.stop().await;
    let seqs: Vec<u64> = reader.seen().values().filter_map(|seen| seen.seq).collect();
    let numbers: BTreeSet<&u64> = seqs.iter().collect();
    assert_eq!(numbers.len(), seqs.len(), "how many numbers there are, and how many entries");
    std::fs::remove_dir_all(logs).unwrap();
}

/// `make handover`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make handover"]
async fn handover_suite() {
    Box::pin(report::suite(Path::new(LOGS))).await;
}
