//! Entries of others, and who is in the group.

use std::time::Duration;

use fred::interfaces::HashesInterface;
use jiff::Timestamp;
use penstock_core::data::EventKind;

use super::bench::{Bench, GROUP, STREAM, commit, custom_op, eventually, like};
use crate::consumer::{Acknowledgement, Burial, Consumer};

const SOON: &[(&str, &str)] = &[("worker.claimTime", "200ms")];

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_dead_consumer_are_claimed_and_the_consumer_is_removed() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..250, 10).await;
    assert_eq!(bench.strand("dead-1", 250).await.len(), 250);
    let worker = bench.start("w-0", SOON);
    eventually!(bench.total().await == 250);
    assert_eq!(bench.rows("likes").await, 250);
    assert!(worker.metric("penstock_worker_entries_claimed_total") >= 250.0);
    eventually!(bench.consumers().await == ["w-0"]);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_wait_for_the_first_entry_are_listed_and_stay_so() {
    let bench = Bench::new().await;
    bench.make_group().await;
    // On a busy machine a worker may say late that it lives.
    let unhurried = &[("worker.claimTime", "1s")];
    let workers = [bench.start("w-0", unhurried), bench.start("w-1", unhurried)];
    eventually!(bench.consumers().await == ["w-0", "w-1"]);
    bench.command(&format!("XGROUP CREATECONSUMER {STREAM} {GROUP} gone")).await;
    eventually!(bench.consumers().await == ["w-0", "w-1"]);
    // Before Redis 7.2 they are idle all the time, for longer than the one that went.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(bench.consumers().await, ["w-0", "w-1"]);
    for worker in workers {
        worker.stop().await.unwrap();
    }
    assert_eq!(bench.consumers().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_whose_delivery_never_arrived_are_claimed_from_our_own_name() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..20, 10).await;
    let worker = bench.start("w-0", SOON);
    // As if the worker had read them, and the reply was lost.
    let lost = bench.strand("w-0", 20).await.len();
    eventually!(bench.total().await == 20, "{lost} were lost");
    worker.stop().await.unwrap();
    assert_eq!(bench.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_held_are_not_claimed_however_long_they_take() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..50, 10).await;
    let mut lock = bench.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE likes IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let holder = bench.start("w-0", SOON);
    eventually!(bench.pending().await == 50);
    let other = bench.start("w-1", SOON);
    let mut idle = 0;
    let mut refreshed = 0;
    // Three times each claim time the holder says that they are held.
    eventually!({
        let entries = bench.command(&format!("XPENDING {STREAM} {GROUP} - + 100 w-0")).await.into_array();
        assert_eq!(entries.len(), 50, "they are still the holder's");
        let now = entries[0].clone().into_array()[2].as_u64().unwrap();
        refreshed += u32::from(now < std::mem::replace(&mut idle, now));
        refreshed > 12
    });
    lock.rollback().await.unwrap();
    eventually!(bench.total().await == 50);
    assert_eq!(other.metric("penstock_worker_entries_claimed_total"), 0.0);
    assert_eq!(holder.metric("penstock_worker_entries_claimed_total"), 0.0);
    assert_eq!(holder.metric("penstock_worker_entries_acked_total"), 50.0);
    other.stop().await.unwrap();
    holder.stop().await.unwrap();
    assert_eq!(bench.consumers().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_settled_in_time_is_handed_back_unharmed() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..50, 10).await;
    let mut lock = bench.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE likes IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let stuck = bench.start("w-0", &[]);
    eventually!(bench.pending().await == 50);
    stuck.stop().await.unwrap();
    assert_eq!((bench.pending().await, bench.total().await), (50, 0));
    lock.rollback().await.unwrap();
    // The claim time is a minute: only because they were handed back are they claimed at once.
    let other = bench.start("w-1", &[]);
    eventually!(bench.total().await == 50);
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_another_reader_gave_up_for_good_is_tried_and_holds_up_no_other() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..5, 10).await;
    let ids = bench.strand("dead-1", 5).await;
    // As XNACK … FATAL leaves it: delivered as often as there is a number for.
    let most = i64::MAX;
    bench.command(&format!("XCLAIM {STREAM} {GROUP} dead-1 0 {} RETRYCOUNT {most} JUSTID", ids[2])).await;
    let worker = bench.start("w-0", SOON);
    eventually!(bench.total().await == 5);
    assert_eq!((bench.rows("likes").await, bench.pending().await), (5, 0));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_trimmed_while_pending_are_counted_as_lost() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..30, 10).await;
    bench.strand("dead-1", 30).await;
    bench.command(&format!("XTRIM {STREAM} MAXLEN 10")).await;
    let worker = bench.start("w-0", SOON);
    eventually!(bench.total().await == 10);
    eventually!(worker.metric("penstock_worker_entries_deleted_total") == 20.0);
    assert_eq!(bench.pending().await, 0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_alone_crashed_its_worker_too_often_is_given_up_and_others_are_not() {
    let bench = Bench::new().await;
    bench.make_group().await;
    let poison = bench.add("commit", &like(1, 1), "1").await;
    let bystander = bench.add("commit", &like(2, 2), "2").await;
    let accused = bench.add("commit", &like(3, 3), "3").await;
    let faulty = bench.add("commit", &commit("x", "3kx", &[custom_op(1, true)]), "4").await;
    bench.execute(super::REFUSE_POISON).await;
    bench.strand("dead-1", 4).await;
    for id in [&poison, &bystander, &accused, &faulty] {
        bench.command(&format!("XCLAIM {STREAM} {GROUP} dead-1 0 {id} RETRYCOUNT 40 JUSTID")).await;
    }
    let () = bench.client.hset("firehose:suspects", (&poison, 3)).await.unwrap();
    let () = bench.client.hset("firehose:suspects", (&accused, 2)).await.unwrap();
    let worker = bench.start("w-0", SOON);
    eventually!(bench.total().await == 2 && bench.dead_letters().await.len() == 2);
    let letters = bench.dead_letters().await;
    let letter = |id: &str| letters.iter().find(|letter| letter["origId"] == id).unwrap();
    assert_eq!(letter(&poison)["error"], "crashed its worker 3 times when tried alone");
    assert_eq!(letter(&poison)["deliveries"], "41");
    assert!(letter(&faulty)["error"].contains("23514"));
    eventually!(bench.command("HLEN firehose:suspects").await.as_u64() == Some(0));
    worker.stop().await.unwrap();
    assert_eq!(bench.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_same_name_that_lives_is_noticed() {
    let bench = Bench::new().await;
    let named = |name: &str| Consumer::new(bench.client.clone(), &bench.settings(name, &[]), name);
    let (mine, other) = (named("w-0"), named("w-1"));
    let valid = Duration::from_secs(60);
    assert_eq!(mine.announce("a", valid).await.unwrap(), None);
    assert_eq!(other.announce("b", valid).await.unwrap(), None);
    assert_eq!(mine.announce("c", valid).await.unwrap().as_deref(), Some("a"));
    let worker = bench.start("w-0", SOON);
    // The worker was there first, then somebody else, and the worker again.
    eventually!(mine.announce("c", valid).await.unwrap().as_deref() != Some("c"));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_or_buried_again_is_counted_once() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_likes(0..2500, 10).await;
    let ids: Vec<_> = bench.strand("w-0", 2500).await.iter().map(|id| id.parse().unwrap()).collect();
    let consumer = Consumer::new(bench.client.clone(), &bench.settings("w-0", &[]), "w-0");
    let (poison, good) = ids.split_first().unwrap();
    let mut acknowledgement = Acknowledgement::default();
    for id in good {
        acknowledgement.add(EventKind::Commit, *id);
    }
    let now = Timestamp::now();
    assert_eq!(consumer.acknowledge(&acknowledgement, now).await.unwrap(), 2499);
    assert_eq!(consumer.acknowledge(&acknowledgement, now).await.unwrap(), 0);
    let burial = Burial {
        id: *poison,
        applied: None,
        kind: b"commit",
        data: b"{",
        seq: b"",
        order: *poison,
        deliveries: 1,
        error: "torn",
        repo: "",
    };
    assert!(!consumer.leave().await.unwrap(), "an entry is still pending");
    assert!(consumer.bury(&burial).await.unwrap());
    assert!(!consumer.bury(&burial).await.unwrap());
    assert_eq!((bench.total().await, bench.counter("cluster:metrics", "errors").await), (2499, 1));
    assert_eq!(bench.dead_letters().await.len(), 1);
    assert!(consumer.leave().await.unwrap());
}
