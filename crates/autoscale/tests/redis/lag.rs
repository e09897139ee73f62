//! What Redis says of the lag, and what is made of it: Redis 7.0.

use penstock_autoscale::Lag;
use penstock_core::keys::GROUP;

use crate::rig::{Rig, STREAM, said};

#[tokio::test]
async fn a_lag_that_redis_knows_is_exact() {
    let rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("0").await;
    rig.read("w-0", 300).await;
    rig.acknowledge(1, 100).await;
    let seen = rig.seen().await;
    assert_eq!((seen.length, seen.added, seen.pending()), (1_000, Some(1_000), 200));
    assert_eq!(seen.undelivered, Lag::Exact(700));
    assert_eq!(seen.acked, Some(penstock_autoscale::Acked::Read(100)));
    assert_eq!(seen.last_id.map(|id| id.ms), Some(1_000));
    assert_eq!(seen.group.map(|group| group.last_delivered.ms), Some(300));
    assert_eq!((seen.consumers.len(), seen.consumers[0].name.as_str(), seen.consumers[0].pending), (1, "w-0", 200));
    rig.read("w-0", 650).await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(50));
    rig.read("w-0", 650).await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(0));
}

#[tokio::test]
async fn an_empty_stream_has_no_lag() {
    let mut rig = Rig::new().await;
    rig.make_group("0").await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(0));
    rig.decide(1).await;
    assert_eq!(said(&rig.decide(1).await), (1, "AtMinimum"));
    rig.policy.min = 0;
    assert_eq!(said(&rig.decide(0).await), (0, "AtTarget"));
}

/// Redis tells no lag: what is counted is certain, fewer workers never come, and none at all are woken.
async fn assert_unknown_to_redis(rig: &mut Rig, expected: Lag) {
    assert_eq!(rig.told_lag().await, None, "Redis knows it");
    assert_eq!(rig.seen().await.undelivered, expected);
    rig.decide(4).await;
    let decision = rig.decide(4).await;
    assert!(decision.lag_known, "{decision}");
    assert_eq!(decision.replicas, 4, "{decision}");
    rig.policy.min = 0;
    assert_eq!(said(&rig.decide(0).await), (1, "ScaleFromZero"));
}

#[tokio::test]
async fn nil_lag_after_a_deletion_ahead_of_the_group() {
    let mut rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("0").await;
    rig.read("w-0", 1).await;
    rig.command(&format!("XDEL {STREAM} 500-0")).await;
    // Of what was delivered one entry is left: all others are unread.
    assert_unknown_to_redis(&mut rig, Lag::Exact(998)).await;
}

#[tokio::test]
async fn nil_lag_of_a_group_made_at_the_end() {
    let mut rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("$").await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(0));
    rig.add(1_001, 1_030).await;
    assert_unknown_to_redis(&mut rig, Lag::Exact(30)).await;
}

#[tokio::test]
async fn nil_lag_of_a_group_made_mid_stream() {
    let mut rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("400-0").await;
    assert_unknown_to_redis(&mut rig, Lag::AtLeast(200)).await;
}

#[tokio::test]
async fn nil_lag_of_few_entries_is_counted_whole() {
    let mut rig = Rig::new().await;
    rig.add(1, 1_000).await;
    rig.make_group("801-0").await;
    assert_unknown_to_redis(&mut rig, Lag::Exact(199)).await;
}

#[tokio::test]
async fn unread_entries_that_were_trimmed_do_not_count() {
    // As measured on 7.0.15: of 10 one is read, 3 are left.
    let mut rig = Rig::new().await;
    rig.add(1, 10).await;
    rig.make_group("0").await;
    rig.read("w-0", 1).await;
    rig.command(&format!("XTRIM {STREAM} MAXLEN 3")).await;
    assert_eq!(rig.told_lag().await, Some(9), "Redis still counts them");
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(3));
    rig.read("w-0", 1).await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(2));
    rig.read("w-0", 10).await;
    assert_eq!(rig.told_lag().await, Some(6), "Redis counts them for good");
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(0));
    // And once others come, the few that are unread are counted, whatever lies before them.
    rig.add(11, 40).await;
    rig.read("w-0", 25).await;
    assert_eq!((rig.told_lag().await, rig.seen().await.undelivered), (Some(11), Lag::Exact(5)));
    assert_eq!(said(&rig.decide(1).await), (1, "AtTarget"));
}

#[tokio::test]
async fn a_hundred_left_of_two_thousand_bring_one_worker() {
    let mut rig = Rig::new().await;
    rig.add(1, 2_000).await;
    rig.make_group("0").await;
    rig.read("w-0", 1).await;
    rig.acknowledge(1, 1).await;
    rig.command(&format!("XTRIM {STREAM} MAXLEN 100")).await;
    assert_eq!(rig.told_lag().await, Some(1_999));
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(100));
    assert_eq!(rig.decide(1).await.replicas, 1);
}

#[tokio::test]
async fn a_stream_of_which_nothing_was_delivered_is_unread_as_a_whole() {
    let rig = Rig::new().await;
    rig.add(1, 2_000).await;
    rig.make_group("300-0").await;
    rig.command(&format!("XTRIM {STREAM} MAXLEN 500")).await;
    assert_eq!(rig.seen().await.undelivered, Lag::Exact(500));
}

#[tokio::test]
async fn trimming_what_was_acknowledged_changes_nothing() {
    // What ingest does each second.
    let rig = Rig::new().await;
    rig.add(1, 2_000).await;
    rig.make_group("0").await;
    rig.read("w-0", 1_200).await;
    rig.acknowledge(1, 700).await;
    let before = rig.seen().await;
    rig.command(&format!("XTRIM {STREAM} MINID 701-0")).await;
    let after = rig.seen().await;
    assert_eq!((before.undelivered, after.undelivered), (Lag::Exact(800), Lag::Exact(800)));
    assert_eq!((before.acked, after.acked, after.length), (after.acked, before.acked, 1_300));
}

#[tokio::test]
async fn what_waits_in_the_second_stream_counts_too() {
    let mut rig = Rig::new().await;
    let bulk = "firehose:events:bulk";
    rig.add(1, 100).await;
    rig.make_group("0").await;
    rig.read("w-0", 100).await;
    rig.acknowledge(1, 90).await;
    for id in 1..=500 {
        rig.command(&format!("XADD {bulk} {id}-0 type commit data {{}} seq {id}")).await;
    }
    // Before any worker has made its group, all of it is unread.
    assert_eq!((rig.seen().await.undelivered, rig.seen().await.pending()), (Lag::Exact(500), 10));
    rig.command(&format!("XGROUP CREATE {bulk} {GROUP} 0")).await;
    rig.command(&format!("XREADGROUP GROUP {GROUP} w-0 COUNT 40 STREAMS {bulk} >")).await;
    rig.command(&format!("XREADGROUP GROUP {GROUP} w-1 COUNT 5 STREAMS {bulk} >")).await;
    rig.command(&format!("XACK {bulk} {GROUP} 1-0 2-0 3-0")).await;
    let seen = rig.seen().await;
    assert_eq!((seen.length, seen.added, seen.pending()), (600, Some(600), 52));
    assert_eq!((seen.undelivered, seen.acked), (Lag::Exact(455), Some(penstock_autoscale::Acked::Read(93))));
    let held: Vec<_> = seen.consumers.iter().map(|consumer| (&*consumer.name, consumer.pending)).collect();
    assert_eq!(held, [("w-0", 47), ("w-1", 5)]);
    let seen = rig.eventually("stranded", |seen| seen.stranded == Lag::Exact(52)).await;
    assert_eq!(seen.undelivered, Lag::Exact(455));
    rig.policy.min = 0;
    rig.decide(0).await;
    assert_eq!(said(&rig.decide(0).await), (1, "ScaleFromZero"));
}

#[tokio::test]
async fn another_group_is_not_ours() {
    let rig = Rig::new().await;
    rig.add(1, 10).await;
    rig.command(&format!("XGROUP CREATE {STREAM} osprey-consumers $")).await;
    rig.make_group("0").await;
    rig.command(&format!("XREADGROUP GROUP osprey-consumers o-0 COUNT 5 STREAMS {STREAM} >")).await;
    let seen = rig.seen().await;
    assert_eq!((seen.undelivered, seen.pending(), seen.consumers.len()), (Lag::Exact(10), 0, 0));
    assert_ne!(GROUP, "osprey-consumers");
}
