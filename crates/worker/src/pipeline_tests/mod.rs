//! A whole worker, on a real Redis and a real PostgreSQL.

mod authority;
mod bench;
mod bounds;
mod bulk;
mod cache;
mod checkpoint;
mod counts;
mod faults;
mod growth;
mod handles;
mod letters;
mod messages;
mod opt_outs;
mod poison;
mod pooled;
mod roster;
mod sweeps;
mod totals;
mod web;

use std::time::Instant;

use bench::{Bench, GROUP, REFUSE_POISON, STREAM, commit, custom_op, eventually, like, like_op};
use fred::interfaces::HashesInterface;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn three_dialects_in_one_stream_give_right_rows() {
    let bench = Bench::new().await;
    bench.add("commit", &like(1, 1), "11").await;
    let python = r#"{"repo": "did:plc:py", "ops": [{"action": "create", "path": "app.bsky.feed.like/3m", "cid": "bafyrei", "record": {"created_at": "2026-07-04T14:38:08.999Z", "subject": {"cid": "bafyrei", "uri": "at://did:plc:z/app.bsky.feed.post/p2", "py_type": "com.atproto.repo.strongRef"}, "via": null, "py_type": "app.bsky.feed.like", "$type": "app.bsky.feed.like"}}]}"#;
    bench.add("commit", python, "12").await;
    let backfill = r#"{"repo":"did:plc:bf","ops":[{"action":"create","path":"app.bsky.graph.follow/3f","cid":"bafyf","record":{"$type":"app.bsky.graph.follow","subject":"did:plc:z","createdAt":"2026-07-04T14:38:08.999Z"}}]}"#;
    bench.add("commit", backfill, "").await;
    bench.add("identity", r#"{"did":"did:plc:r1","handle":"one.test"}"#, "13").await;
    bench.add("account", r#"{"did":"did:plc:py","active":true}"#, "14").await;

    let worker = bench.start("w-0", &[]);
    eventually!(bench.total().await == 5);
    let likes = bench.texts("SELECT user_did || ' ' || post_uri FROM likes ORDER BY 1").await;
    let liked = |did: &str, post: &str| format!("did:plc:{did} at://did:plc:z/app.bsky.feed.post/{post}");
    assert_eq!(likes, [liked("py", "p2"), liked("r1", "p1")]);
    let follows = bench.texts("SELECT follower_did || ' ' || following_did FROM follows").await;
    assert_eq!(follows, ["did:plc:bf did:plc:z"]);
    assert_eq!(bench.texts("SELECT handle FROM users WHERE did = 'did:plc:r1'").await, ["one.test"]);

    for (field, count) in [("#commit", 3), ("#identity", 1), ("#account", 1), ("errors", 0)] {
        assert_eq!(bench.counter("cluster:metrics", field).await, count, "{field}");
    }
    let minutes: Vec<String> = bench.command("KEYS firehose:activity:*").await.convert().unwrap();
    let ttl = bench.command(&format!("TTL {}", minutes[0])).await.as_u64().unwrap();
    assert!((89_000..=90_000).contains(&ttl), "{ttl}");
    let starts: Vec<String> = bench.command("LRANGE firehose:starts 0 -1").await.convert().unwrap();
    assert_eq!(penstock_core::starts::read(&starts)[0].service, "worker");
    let mut commits = 0;
    for minute in &minutes {
        commits += bench.counter(minute, "commit").await;
    }
    assert_eq!(commits, 3);
    eventually!(bench.counter("db:record_counts", "likes").await == 2);
    eventually!(bench.counter("db:record_counts", "follows").await == 1);
    assert_eq!(worker.progress.snapshot().applied, 5);
    assert!(worker.progress.snapshot().rows >= 3);
    assert!(worker.health.is_ready());
    worker.stop().await.unwrap();
    assert_eq!(bench.pending().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_entry_becomes_a_dead_letter_and_its_neighbours_are_written() {
    let bench = Bench::new().await;
    bench.execute(REFUSE_POISON).await;
    bench.make_group().await;
    bench.add_likes(0..40, 40).await;
    let torn = bench.add("commit", r#"{"repo":"did:plc:a","ops":["#, "50").await;
    let poisoned = commit("b", "3kb", &[custom_op(1, false), custom_op(2, true), custom_op(3, false)]);
    let refused = bench.add("commit", &poisoned, "51").await;
    let subjectless =
        r#"{"action":"create","path":"app.bsky.feed.like/kx","cid":"bafyx","record":{"$type":"app.bsky.feed.like"}}"#;
    let unfit = commit("c", "3kc", &[like_op(100), subjectless.to_owned()]);
    let rejected = bench.add("commit", &unfit, "52").await;
    let alone = bench.add("commit", &commit("d", "3kd", &[custom_op(9, true)]), "53").await;
    bench.add_likes(40..80, 40).await;

    let worker = bench.start("w-0", &[]);
    eventually!(bench.pending().await == 0 && bench.dead_letters().await.len() == 4);
    eventually!(bench.total().await == 82, "80 likes, and two of which a part was applied");
    assert_eq!(bench.rows("likes").await, 81);
    assert_eq!(bench.texts("SELECT uri FROM generic_records ORDER BY 1").await.len(), 2);
    assert_eq!(bench.counter("cluster:metrics", "errors").await, 4);

    let letters = bench.dead_letters().await;
    let letter = |id: &str| letters.iter().find(|letter| letter["origId"] == id).unwrap();
    assert_eq!(letter(&torn)["error"].split(':').next(), Some("data is not the json of an entry of type commit"));
    assert_eq!(letter(&torn)["data"], r#"{"repo":"did:plc:a","ops":["#);
    let ops = |id: &str| serde_json::from_str::<Value>(&letter(id)["data"]).unwrap()["ops"].clone();
    assert!(letter(&refused)["error"].contains("23514"), "{}", letter(&refused)["error"]);
    assert_eq!(ops(&refused), serde_json::from_str::<Value>(&format!("[{}]", custom_op(2, true))).unwrap());
    assert_eq!(ops(&rejected), serde_json::from_str::<Value>(&format!("[{subjectless}]")).unwrap());
    assert!(letter(&rejected)["error"].starts_with("op 1: "), "{}", letter(&rejected)["error"]);
    assert_eq!(letter(&alone)["data"], commit("d", "3kd", &[custom_op(9, true)]));
    assert_eq!((&*letter(&alone)["deliveries"], &*letter(&alone)["seq"]), ("1", "53"));
    assert_eq!(letter(&alone)["consumer"], "w-0");
    let kept = bench.texts("SELECT orig_id FROM penstock.dead_letters").await.len();
    assert_eq!(kept, 4);
    assert_eq!(worker.metric("penstock_dead_letters_total{"), 4.0);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_dead_letter_writes_what_failed_before() {
    let bench = Bench::new().await;
    bench.execute(REFUSE_POISON).await;
    let worker = bench.start("w-0", &[]);
    let poisoned = commit("b", "3kb", &[custom_op(1, false), custom_op(2, true)]);
    let first = bench.add("commit", &poisoned, "51").await;
    eventually!(bench.dead_letters().await.len() == 1);
    bench.execute("ALTER TABLE generic_records DROP CONSTRAINT no_poison").await;
    let letter = bench.dead_letters().await.remove(0);
    let fields = ["type", "data", "seq", "origId"].map(|name| (name, letter[name].clone())).to_vec();
    use fred::interfaces::StreamsInterface;
    let () = bench.client.xadd(STREAM, false, None::<()>, "*", fields).await.unwrap();
    eventually!(bench.rows("generic_records").await == 2);
    assert_eq!(letter["origId"], first);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_at_full_load_leaves_nothing_half_done() {
    let bench = Bench::new().await;
    bench.add_likes(0..6000, 300).await;
    let worker = bench.start("w-0", &[("worker.batchSize", "200")]);
    eventually!(bench.total().await > 0 && bench.command("EXISTS db:record_counts").await.as_u64() == Some(1));
    let asked = Instant::now();
    worker.stop().await.unwrap();
    assert!(asked.elapsed().as_secs() < 10);

    let total = bench.total().await;
    assert_eq!(bench.pending().await, 0, "what was read is settled");
    assert_eq!(bench.rows("likes").await, total, "what is committed is acknowledged, and nothing else");
    assert_eq!(bench.counter("db:record_counts", "likes").await, total, "and published");
    assert_eq!(bench.consumers().await, [""; 0], "the consumer is gone");
    let unread = 6000 - total;
    assert!(unread > 0, "it was told to stop before it was through");

    let worker = bench.start("w-1", &[]);
    eventually!(bench.total().await == 6000);
    eventually!(bench.counter("db:record_counts", "likes").await == 6000);
    assert_eq!(bench.rows("likes").await, 6000);
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_published_once_across_a_crash_between_commit_and_publication() {
    let bench = Bench::new().await;
    bench.add_likes(0..100, 10).await;
    let worker = bench.start("w-0", &[("worker.publishInterval", "1m"), ("worker.batchDelay", "500ms")]);
    eventually!(bench.total().await == 100);
    worker.crash().await;
    assert!(bench.counter("db:record_counts", "likes").await < 100, "more than there were at its start");

    // What the first one's last read may still bring is claimed.
    let worker = bench.start("w-1", &[("worker.claimTime", "200ms")]);
    eventually!(bench.counter("db:record_counts", "likes").await == 100);
    bench.add_likes(100..130, 10).await;
    eventually!(bench.counter("db:record_counts", "likes").await == 130);
    // Whoever else counts is not overwritten.
    let () = bench.client.hincrby("db:record_counts", "likes", 1000).await.unwrap();
    bench.add("commit", &like(500, 1), "9").await;
    eventually!(bench.counter("db:record_counts", "likes").await == 1131);
    worker.stop().await.unwrap();
    assert_eq!(bench.counter("db:record_counts", "users").await, bench.rows("users").await);
    assert_eq!(bench.command(&format!("XINFO GROUPS {STREAM}")).await.array_len(), Some(1), "{GROUP}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_deleted_account_are_removed_soon() {
    let bench = Bench::new().await;
    bench.add_likes(0..30, 2).await;
    let worker = bench.start("w-0", &[("worker.deleteBatch", "4")]);
    eventually!(bench.rows("likes").await == 30);
    bench.add("account", r#"{"did":"did:plc:r1","active":false,"status":"deleted"}"#, "99").await;
    eventually!(bench.rows("likes").await == 15);
    eventually!(bench.counter("db:record_counts", "likes").await == 15);
    worker.stop().await.unwrap();
}
