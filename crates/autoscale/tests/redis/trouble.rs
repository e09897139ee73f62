//! Dead consumers, workers that stand still, and a Redis that is not as it should be.

use std::time::Duration;

use penstock_autoscale::{Acked, Lag, LagGap, ObserveError};
use penstock_core::keys::GROUP;

use crate::rig::{CLAIM_TIME, Rig, STREAM, said};

#[tokio::test]
async fn a_backlog_brings_workers() {
    let mut rig = Rig::new().await;
    rig.make_group("0").await;
    rig.decide(1).await;
    rig.add(1, 10_000).await;
    // 2,000/s arrive, and 10,000 are to be gone within 30 s.
    let decision = rig.decide(1).await;
    assert_eq!((said(&decision), decision.arrival), ((3, "ScaleUp"), Some(2_000.0)), "{decision}");
}

#[tokio::test]
async fn entries_of_dead_consumers_are_stranded_and_keep_a_worker() {
    let mut rig = Rig::new().await;
    rig.policy.min = 0;
    rig.add(1, 1_000).await;
    rig.make_group("0").await;
    rig.read("dead-0", 600).await;
    rig.read("dead-1", 400).await;
    let seen = rig.eventually("stranded", |queue| queue.stranded == Lag::Exact(1_000)).await;
    assert_eq!((seen.undelivered, seen.pending(), seen.consumers.len()), (Lag::Exact(0), 1_000, 2));
    assert!(seen.consumers.iter().all(|consumer| consumer.idle >= CLAIM_TIME));
    rig.decide(1).await;
    let decision = rig.decide(1).await;
    assert_eq!((decision.replicas, decision.backlog), (1, Lag::Exact(1_000)), "{decision}");
    assert_eq!(said(&rig.decide(0).await), (1, "ScaleFromZero"));
}

#[tokio::test]
async fn entries_of_a_dead_consumer_beside_a_live_one_are_told_apart() {
    let mut rig = Rig::new().await;
    // Long enough for a slow machine to read within.
    rig.ask.claim_time = Duration::from_secs(30);
    rig.add(1, 500).await;
    rig.make_group("0").await;
    rig.read("w-0", 100).await;
    rig.read("dead-0", 400).await;
    assert_eq!(rig.seen().await.stranded, Lag::Exact(0));
    for id in 101..=500 {
        rig.command(&format!("XCLAIM {STREAM} {GROUP} dead-0 0 {id}-0 IDLE 60000 JUSTID")).await;
    }
    assert_eq!(rig.seen().await.stranded, Lag::Exact(400));
}

#[tokio::test]
async fn more_stranded_entries_than_are_counted_are_a_lower_bound() {
    let mut rig = Rig::new().await;
    rig.ask.claim_time = Duration::from_secs(30);
    rig.add(1, 1_501).await;
    rig.make_group("0").await;
    rig.read("w-0", 1_501).await;
    let ids: Vec<_> = (1..=1_500).map(|id| format!("{id}-0")).collect();
    rig.command(&format!("XCLAIM {STREAM} {GROUP} w-0 0 {} IDLE 60000 JUSTID", ids.join(" "))).await;
    let seen = rig.seen().await;
    assert_eq!(seen.stranded, Lag::AtLeast(1_000));
    rig.decide(3).await;
    assert_eq!(said(&rig.decide(3).await), (3, "LagAtLeast"));
}

#[tokio::test]
async fn workers_that_hold_entries_and_settle_none_are_stalled() {
    let mut rig = Rig::new().await;
    rig.add(1, 100).await;
    rig.make_group("0").await;
    let mut pending = 0;
    let mut stalled = Vec::new();
    for look in 0..16_u64 {
        rig.read("w-0", 5).await;
        let decision = rig.decide(3).await;
        let seen = rig.seen().await;
        assert!(seen.pending() > pending && decision.replicas == 3, "look {look}: {decision}");
        pending = seen.pending();
        stalled.push((decision.stalled, decision.reason.name()));
    }
    // The second look sees that nothing was settled, and a claim time of 60 s later so it is still.
    assert_eq!(stalled.iter().position(|(stalled, _)| *stalled), Some(13));
    assert_eq!(stalled[13..], [(true, "Stalled"); 3]);
    rig.acknowledge(1, 1).await;
    assert!(!rig.decide(3).await.stalled);
}

#[tokio::test]
async fn without_a_stream_the_number_is_held() {
    let mut rig = Rig::new().await;
    let seen = rig.seen().await;
    assert_eq!((seen.undelivered, seen.added, seen.last_id), (Lag::Unknown(LagGap::StreamMissing), None, None));
    for workers in [4, 1] {
        let decision = rig.decide(workers).await;
        assert_eq!((said(&decision), decision.lag_known), ((workers, "StreamMissing"), false));
    }
    rig.policy.min = 0;
    assert_eq!(said(&rig.decide(0).await), (0, "StreamMissing"));
}

#[tokio::test]
async fn without_a_group_the_number_is_held_and_none_becomes_one() {
    let mut rig = Rig::new().await;
    rig.add(1, 50).await;
    let seen = rig.seen().await;
    assert_eq!((seen.undelivered, seen.length, seen.group), (Lag::Unknown(LagGap::GroupMissing), 50, None));
    assert_eq!(said(&rig.decide(4).await), (4, "GroupMissing"));
    rig.policy.min = 0;
    assert_eq!(said(&rig.decide(0).await), (1, "ScaleFromZero"));
}

#[tokio::test]
async fn a_key_of_another_type_is_named_and_the_number_is_held() {
    for (command, named) in [
        ("SET firehose:events x", "firehose:events has type string"),
        ("SADD firehose:ingest:state x", "firehose:ingest:state has type set"),
        ("RPUSH cluster:metrics x", "cluster:metrics has type list"),
    ] {
        let mut rig = Rig::new().await;
        rig.command(command).await;
        let error = rig.observe().await.unwrap_err();
        assert!(matches!(error, ObserveError::WrongType { .. }) && error.to_string().starts_with(named), "{error}");
        assert_eq!(said(&rig.decide(4).await), (4, "KeyOfWrongType"));
    }
}

#[tokio::test]
async fn a_redis_that_is_away_is_unknown_and_the_number_is_held() {
    let mut rig = Rig::new().await;
    rig.add(1, 10).await;
    rig.make_group("0").await;
    rig.decide(4).await;
    rig.redis.kill();
    for _ in 0..3 {
        let decision = rig.decide(4).await;
        assert_eq!((said(&decision), decision.lag_known), ((4, "RedisUnreachable"), false));
    }
    rig.redis.restart().await.unwrap();
    // It comes back empty: what was is not forgotten for that.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let decision = rig.decide(4).await;
        assert_eq!(decision.replicas, 4, "{decision}");
        if decision.reason.name() == "StreamMissing" {
            break;
        }
        assert!(std::time::Instant::now() < end, "{decision}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stream_made_anew_has_no_rates() {
    let mut rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("0").await;
    rig.read("w-0", 900).await;
    rig.acknowledge(1, 900).await;
    rig.decide(2).await;
    rig.command(&format!("DEL {STREAM}")).await;
    rig.add(1, 10).await;
    rig.make_group("0").await;
    let decision = rig.decide(2).await;
    assert_eq!((decision.arrival, decision.service), (None, None), "{decision}");
    assert_eq!(decision.replicas, 2);
}

#[tokio::test]
async fn what_was_settled_is_counted_by_the_workers_where_redis_does_not_know() {
    let rig = Rig::new().await;
    rig.add(1, 100).await;
    rig.make_group("50-0").await;
    assert_eq!(rig.seen().await.acked, None);
    rig.command("HSET cluster:metrics totalEvents 40 errors 2").await;
    assert_eq!(rig.seen().await.acked, Some(Acked::Counted(42)));
    rig.command("HSET cluster:metrics totalEvents nonsense").await;
    assert_eq!(rig.seen().await.acked, None);
}

#[tokio::test]
async fn ingest_says_whether_it_is_paused_and_how_far_it_is() {
    let rig = Rig::new().await;
    rig.add(1, 10).await;
    assert!(!rig.seen().await.ingest.paused);
    rig.command("HSET firehose:ingest:state paused 1 eventTime 2026-07-04T14:38:08.123456Z gaps 0").await;
    // What an ingest left that is gone says nothing of the one to come.
    assert!(!rig.seen().await.ingest.paused);
    rig.command("SET firehose:status {}").await;
    let ingest = rig.seen().await.ingest;
    assert!(ingest.paused);
    assert_eq!(ingest.event_time, penstock_core::time::parse("2026-07-04T14:38:08.123456Z"));
    rig.command("HSET firehose:ingest:state paused 0 eventTime yesterday").await;
    assert_eq!(rig.seen().await.ingest, Default::default());
}

#[tokio::test]
async fn looking_changes_nothing() {
    let rig = Rig::new().await;
    rig.add(1, 500).await;
    rig.make_group("0").await;
    rig.read("w-0", 100).await;
    let before = [
        rig.command(&format!("XINFO GROUPS {STREAM}")).await,
        rig.command(&format!("XPENDING {STREAM} {GROUP}")).await,
    ];
    for _ in 0..5 {
        rig.seen().await;
    }
    let after = [
        rig.command(&format!("XINFO GROUPS {STREAM}")).await,
        rig.command(&format!("XPENDING {STREAM} {GROUP}")).await,
    ];
    assert_eq!(before, after);
}
