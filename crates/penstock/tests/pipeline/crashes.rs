//! Ingest killed at any moment.

use std::env;
use std::time::{Duration, Instant};

use penstock_replay::Settings;
use tokio::time::sleep;

use crate::audit::Audit;
use crate::rig::{Rig, eventually, serve};

/// How often ingest is killed where `PENSTOCK_KILLS` does not say.
const KILLS: u32 = 12;

/// The latest moment of a kill, after ingest began to write.
const WRITING: u64 = 150_000;

/// The latest moment of a kill that may come before, after the start of the process.
const STARTING: u64 = 300_000;

#[tokio::test(flavor = "multi_thread")]
async fn cursor_and_stream_agree_whenever_ingest_is_killed() {
    let kills = env::var("PENSTOCK_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    // Endless, and as fast as it is read.
    let settings = Settings::default();
    let relay = serve(settings.clone()).await;
    let mut rig = Rig::new().await;
    rig.set("REDIS_MAX_STREAM_LEN", "1000000000");
    rig.set("PENSTOCK_INGEST_LEASE_TIME", "100ms");
    let mut audit = Audit::new(&settings);
    let (started, mut while_it_wrote) = (Instant::now(), 0);
    for kill in 0..kills {
        let ingest = rig.ingest(&relay);
        let latest = if kill % 4 == 3 { STARTING } else { WRITING };
        if latest == WRITING {
            eventually("ingest writes", async || rig.cursor().await > Some(audit.cursor())).await;
        }
        sleep(Duration::from_micros(rand::random_range(0..latest))).await;
        ingest.kill().await;
        let before = audit.cursor();
        audit.look(&rig).await;
        while_it_wrote += u32::from(audit.cursor() > before);
    }
    assert!(while_it_wrote >= kills / 2, "ingest had written before {while_it_wrote} of {kills} kills only");
    let ingest = rig.ingest(&relay);
    eventually("ingest writes", async || rig.cursor().await > Some(audit.cursor())).await;
    ingest.stop().await;
    audit.look(&rig).await;
    println!(
        "{kills} kills, {while_it_wrote} of them after writes, {} entries, {:.1?}",
        audit.entries(),
        started.elapsed()
    );
    audit.end(&rig).await;
}
