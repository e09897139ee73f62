//! What an ingest says of itself: whether it is ready that does not write, and what it found of the commits.

use penstock_core::settings::Verification;
use penstock_core::verified::Verified;

use super::*;

/// Replaces the lease in one step, so that nobody takes it in between.
async fn lease(rig: &Rig, script: &str) {
    let script = format!("redis.call('DEL', KEYS[1]) {script} return 1");
    let _: i64 = rig.client.eval(script, "firehose:ingest:lease", "another").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_unless_the_lease_cannot_be_asked_for() {
    let (rig, _frames) = Rig::serving(replay(20)).await;
    lease(&rig, "redis.call('SET', KEYS[1], ARGV[1])").await;
    let running = rig.start();
    eventually("standing by", async || running.health.is_ready()).await;
    // What Redis answers is no lease: no one knows who may write, and this one would not notice when it is free.
    lease(&rig, "redis.call('RPUSH', KEYS[1], ARGV[1])").await;
    eventually("that it is told", async || !running.health.is_ready()).await;
    let told = running.health.failure_of("redis").unwrap_or_default();
    assert!(told.contains("cannot acquire the lease"), "{told}");
    lease(&rig, "redis.call('SET', KEYS[1], ARGV[1])").await;
    eventually("standing by again", async || running.health.is_ready()).await;
    assert_eq!(running.count("penstock_ingest_lease_held"), 0, "the lease is another's");
    assert!(rig.entries().await.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_of_the_commits_stands_beside_the_cursor_and_begins_with_the_process() {
    let (mut rig, frames) = Rig::serving(replay(20)).await;
    let told = async |rig: &Rig| {
        let text: Option<String> = rig.client.hget("firehose:ingest:state", "verified").await.unwrap();
        text.and_then(|text| Verified::read(&text))
    };
    let running = rig.start();
    rig.reaches(20).await;
    eventually("it is told", async || told(&rig).await.is_some()).await;
    let first = told(&rig).await.unwrap();
    assert_eq!((first.mode, first.signatures), (Verification::Count, Verification::Off));
    running.stop().await;
    rig.holds_exactly(&frames).await;
    rig.set("verify.mode", "off");
    let running = rig.start();
    eventually("the next one", async || told(&rig).await.is_some_and(|told| told.since > first.since)).await;
    assert_eq!(told(&rig).await.unwrap().mode, Verification::Off);
    running.stop().await;
}
