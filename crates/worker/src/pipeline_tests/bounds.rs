//! What is held is bounded, whatever comes; and what takes too long is tried in smaller and smaller parts.

use std::time::Duration;

use penstock_core::redis;
use serde_json::Value;

use super::bench::{Bench, GROUP, REFUSE_POISON, STREAM, commit, custom_op, eventually, like};
use crate::consumer::{Consumer, Delivery};

/// A record of that many numbers.
fn zeros(number: usize, count: usize) -> String {
    let zeros = vec!["0"; count].join(",");
    format!(r#"{{"action":"create","path":"com.example.thing/z{number}","cid":"bafyz","record":{{"x":[{zeros}]}}}}"#)
}

impl Bench {
    async fn connected(&self, name: &str) -> Consumer {
        let settings = self.settings(name, &[]);
        Consumer::new(redis::connect(&settings).await.unwrap(), &settings, name)
    }
}

fn size(deliveries: &[Delivery]) -> usize {
    deliveries.iter().map(Delivery::size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_brings_more_than_its_bound_and_two_entries() {
    const LARGE: usize = 1_500_000;
    let bench = Bench::new().await;
    bench.make_group().await;
    let mut ids = Vec::new();
    for number in 0..1_200 {
        // Small ones for long, then large ones all at once, and one among small ones.
        let is_large = (600..620).contains(&number) || number == 1_000;
        let data = if is_large { "x".repeat(LARGE) } else { like(number, number) };
        ids.push(bench.add("commit", &data, "7").await);
    }
    let consumer = bench.connected("w-0").await;
    let bound = 2 * 1024 * 1024 + 2 * (LARGE + 10);
    let (mut read, mut answers) = (Vec::new(), 0);
    while read.len() < ids.len() {
        let answer = consumer.read(500).await.unwrap();
        assert!(answer.len() <= 500 && size(&answer) <= bound, "{} bytes", size(&answer));
        read.extend(answer.into_iter().map(|delivery| delivery.raw.id.to_string()));
        answers += 1;
    }
    assert_eq!(read, ids);
    assert!(answers < 25, "{answers} answers");
    assert!(consumer.read(500).await.unwrap().is_empty());

    let heir = bench.connected("w-1").await;
    let (mut from, mut claimed) = (Some(penstock_core::stream::StreamId::MIN), Vec::new());
    tokio::time::sleep(Duration::from_millis(20)).await;
    while let Some(start) = from {
        let answer = heir.claim(Duration::from_millis(10), start, 100).await.unwrap();
        assert!(answer.entries.len() <= 100 && size(&answer.entries) <= bound, "{} bytes", size(&answer.entries));
        claimed.extend(answer.entries.into_iter().map(|delivery| delivery.raw.id.to_string()));
        from = answer.next;
        if claimed.len() >= ids.len() {
            break;
        }
    }
    assert_eq!(claimed, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_as_trees_is_written_in_parts_and_its_neighbours_beside_it() {
    let bench = Bench::new().await;
    bench.execute(REFUSE_POISON).await;
    // 40 times 2.4 MB as trees, 4 MB of text.
    let mut ops: Vec<String> = (0..40).map(|number| zeros(number, 50_000)).collect();
    bench.add("commit", &commit("a", "3ka", &ops), "1").await;
    bench.add_likes(0..100, 100).await;
    // One that no memory is for, one that the database refuses, one that is no op.
    let maps = vec![r#"{"":0}"#; 90_000].join(",");
    ops.push(format!(
        r#"{{"action":"create","path":"com.example.thing/maps","cid":"bafym","record":{{"x":[{maps}]}}}}"#
    ));
    ops.push(custom_op(1, true));
    ops.push(r#"{"action":"delete","path":"com.example.thing"}"#.to_owned());
    let spoilt = bench.add("commit", &commit("b", "3kb", &ops), "2").await;

    let worker = bench.start("w-0", &[]);
    eventually!(bench.total().await == 102 && bench.pending().await == 0);
    assert_eq!(bench.rows("likes").await, 100);
    let whose = bench.texts("SELECT author_did || ' ' || count(*) FROM generic_records GROUP BY author_did ORDER BY 1");
    assert_eq!(whose.await.join(" "), "did:plc:a 40 did:plc:b 40");
    let lengths = bench.texts("SELECT DISTINCT jsonb_array_length(record->'x')::text FROM generic_records");
    assert_eq!(lengths.await, ["50000"]);
    let letters = bench.dead_letters().await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter["origId"], spoilt);
    for reason in ["op 40: its record would take", "op 41: ", "23514", "op 42: path"] {
        assert!(letter["error"].contains(reason), "{}", letter["error"]);
    }
    let left = serde_json::from_str::<Value>(&letter["data"]).unwrap()["ops"].as_array().unwrap().len();
    assert_eq!(left, 3);
    assert_eq!(worker.metric("penstock_worker_entries_alone_total"), 2.0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_cancelled_for_its_time_is_halved_and_one_repo_that_is_locked_holds_nobody_else() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[("postgres.statementTimeout", "200ms"), ("worker.batchDelay", "200ms")]);
    bench.add("commit", &like(1_000, 5), "1").await;
    eventually!(bench.total().await == 1);
    let mut lock = bench.pool.begin().await.unwrap();
    let locked = "SELECT FROM penstock.repos WHERE did = 'did:plc:r5' FOR UPDATE";
    sqlx::query(locked).execute(&mut *lock).await.unwrap();
    bench.add_likes(0..64, 64).await;
    eventually!(bench.total().await == 64, "all but one");
    assert_eq!(bench.pending().await, 1);
    assert!(worker.metric("penstock_worker_retries_total{reason=\"statement cancelled\"}") >= 6.0);
    // Others go on while it is tried again and again.
    bench.add_likes(2_000..2_050, 4).await;
    eventually!(bench.total().await == 114);
    assert_eq!(bench.pending().await, 1);
    lock.rollback().await.unwrap();
    eventually!(bench.total().await == 115 && bench.pending().await == 0);
    assert_eq!((bench.rows("likes").await, bench.dead_letters().await.len()), (115, 0));
    eventually!(worker.health.is_ready());
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_op_that_takes_too_long_comes_last_and_is_no_dead_letter() {
    let bench = Bench::new().await;
    let mut other = bench.pool.begin().await.unwrap();
    let meanwhile = "INSERT INTO generic_records (uri, cid, author_did, record_type, record, created_at)
                     VALUES ('at://did:plc:a/com.example.thing/k7', 'x', 'did:plc:a', 'x', '{}', now())";
    sqlx::query(meanwhile).execute(&mut *other).await.unwrap();
    let worker = bench.start("w-0", &[("postgres.statementTimeout", "200ms")]);
    let ops: Vec<String> = (0..16).map(|number| custom_op(number, false)).collect();
    bench.add("commit", &commit("a", "3ka", &ops), "1").await;
    eventually!(bench.rows("generic_records").await == 15, "all ops but the one");
    bench.add_likes(0..20, 20).await;
    eventually!(bench.total().await == 20);
    assert_eq!(bench.pending().await, 1);
    other.rollback().await.unwrap();
    eventually!(bench.total().await == 21 && bench.pending().await == 0);
    assert_eq!((bench.rows("generic_records").await, bench.dead_letters().await.len()), (16, 0));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_at_its_ops_and_at_its_bytes() {
    let bench = Bench::new().await;
    bench.make_group().await;
    for entry in 0..30 {
        let ops: Vec<String> = (0..100).map(|number| custom_op(entry * 100 + number, false)).collect();
        bench.add("commit", &commit(&format!("o{entry}"), "3ka", &ops), "1").await;
    }
    let slow = [("worker.batchOps", "300"), ("worker.batchDelay", "2s")];
    let worker = bench.start("w-0", &slow);
    eventually!(bench.total().await == 30);
    assert!(worker.metric("penstock_worker_batch_entries_count") >= 10.0, "three entries a transaction");
    worker.stop().await.unwrap();
    for entry in 0..10 {
        bench.add("commit", &commit(&format!("z{entry}"), "3ka", &[zeros(entry, 5_000)]), "1").await;
    }
    let worker = bench.start("w-1", &[("worker.batchBytes", "500000"), ("worker.batchDelay", "2s")]);
    eventually!(bench.total().await == 40);
    assert!(worker.metric("penstock_worker_batch_entries_count") >= 5.0, "two entries a transaction");
    worker.stop().await.unwrap();
    assert_eq!(bench.command(&format!("XPENDING {STREAM} {GROUP}")).await.into_array()[0].as_u64(), Some(0));
}
