//! Workers that we replace: they ask for what is new, and leave what they held.

use super::*;

const STREAM: &str = "firehose:events";
const GROUP: &str = "firehose-processors";
const REQUEUED: &str = "penstock_ingest_requeued_entries_total";

type Fields = Vec<(String, Bytes)>;

impl Rig {
    /// Gives entries that nobody was given yet to a consumer, which acknowledges nothing by itself.
    async fn read(&self, consumer: &str, count: u64) -> Vec<(String, Fields)> {
        type Reply = Option<Vec<(String, Vec<(String, Fields)>)>>;
        let reply: Reply =
            self.client.xreadgroup(GROUP, consumer, Some(count), None, false, STREAM, ">").await.unwrap();
        reply.into_iter().flatten().flat_map(|(_, entries)| entries).collect()
    }

    async fn acknowledge(&self, id: &str) {
        let _: u64 = self.client.xack(STREAM, GROUP, id).await.unwrap();
    }

    /// Adds an event that says nothing, as something always comes.
    async fn trickle(&self) {
        let fields = vec![("type", "account"), ("data", r#"{"did":"did:plc:trickle","active":true}"#), ("seq", "")];
        let _: String = self.client.xadd(STREAM, false, None, "*", fields).await.unwrap();
    }

    async fn letters(&self) -> Vec<(String, Fields)> {
        self.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap()
    }

    async fn pending(&self) -> u64 {
        let (count, _, _, _): (u64, Option<String>, Option<String>, fred::types::Value) =
            self.client.xpending(STREAM, GROUP, ()).await.unwrap();
        count
    }
}

fn field(fields: &Fields, name: &str) -> String {
    let found = fields.iter().find(|(field, _)| field == name);
    String::from_utf8(found.map(|(_, value)| value.to_vec()).unwrap_or_default()).unwrap()
}

/// Has 40 events in the stream, of which a consumer that is no more holds ten, and no relay.
async fn held() -> (Rig, Vec<(String, Fields)>) {
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    rig.set("worker.claimTime", "400ms");
    rig.add(&frames(&replay(40))).await;
    let _: () = rig.client.xgroup_create(STREAM, GROUP, "0", true).await.unwrap();
    let held = rig.read("python-worker-0", 10).await;
    assert_eq!(held.len(), 10);
    (rig, held)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replaced_worker_held_is_read_once_more_and_goes() {
    let (rig, held) = held().await;
    let total = rig.client.xlen::<usize, _>(STREAM).await.unwrap();
    let running = rig.start();
    let mut again = Vec::new();
    let mut others = 0;
    eventually("everything is read", async || {
        for (id, fields) in rig.read("python-worker-1", 100).await {
            rig.acknowledge(&id).await;
            if field(&fields, "origId").is_empty() { others += 1 } else { again.push(fields) }
        }
        others + again.len() == total
    })
    .await;
    for ((id, before), after) in held.iter().zip(&again) {
        let names: Vec<_> = after.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["type", "data", "seq", "origId", "requeued"], "positional readers depend on the order");
        assert_eq!(after[..3], before[..3]);
        assert_eq!((field(after, "origId"), field(after, "requeued")), (id.clone(), "1".to_owned()));
    }
    eventually("all is trimmed", async || rig.client.xlen::<u64, _>(STREAM).await.unwrap() == 0).await;
    assert_eq!((running.count(REQUEUED), rig.pending().await), (10, 0));
    assert!(running.health.is_ready() || running.count("penstock_ingest_lease_held") == 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_nobody_ever_acknowledges_is_a_dead_letter_in_the_end() {
    let (rig, held) = held().await;
    let running = rig.start();
    let poison = held[3].0.clone();
    let mut readings = 0;
    eventually("the dead letter", async || {
        rig.trickle().await;
        for (id, fields) in rig.read("python-worker-1", 100).await {
            if field(&fields, "origId") == poison {
                readings += 1;
                assert_eq!(field(&fields, "requeued"), readings.to_string());
            } else {
                rig.acknowledge(&id).await;
            }
        }
        rig.client.xlen::<u64, _>("firehose:dead-letters:raw").await.unwrap() == 1
    })
    .await;
    assert_eq!(readings, 5);
    let letters: Vec<(String, Fields)> = rig.client.xrange("firehose:dead-letters:raw", "-", "+", None).await.unwrap();
    let letter = &letters[0].1;
    let names: Vec<_> = letter.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["type", "data", "seq", "origId", "deliveries", "error", "consumer", "repo"]);
    assert_eq!(letter[..3], held[3].1[..3]);
    assert_eq!((field(letter, "origId"), field(letter, "consumer")), (poison, "python-worker-1".to_owned()));
    eventually("all is trimmed", async || rig.client.xlen::<u64, _>(STREAM).await.unwrap() == 0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_ours_that_lives_or_will_be_back_claims_by_itself() {
    for key in ["alive", "applied"] {
        let (rig, _) = held().await;
        rig.read("ours-0", 1).await;
        let key = format!("firehose:consumer:ours-0:{key}");
        let _: () = rig.client.set(&key, "1", None, None, false).await.unwrap();
        let running = rig.start();
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            assert_eq!(rig.pending().await, 11);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.stop().await;
        // It was never there, as far as the next one knows.
        let _: u64 = rig.client.del(&key).await.unwrap();
        let running = rig.start();
        eventually("the requeue", async || running.count(REQUEUED) == 11).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_was_trimmed_away_while_it_was_held_is_told_as_lost() {
    let (rig, held) = held().await;
    let cap = (fred::types::streams::XCapKind::MinID, fred::types::streams::XCapTrim::Exact, held[4].0.clone());
    let _: u64 = rig.client.xtrim(STREAM, cap).await.unwrap();
    let running = rig.start();
    eventually("the loss", async || running.count("penstock_ingest_pending_lost_total") == 4).await;
    eventually("the requeue", async || running.count(REQUEUED) == 6).await;
    assert_eq!(rig.pending().await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_bounds_what_is_settled_until_it_is_settled_itself() {
    let (rig, held) = held().await;
    let running = rig.start();
    eventually("the requeue", async || running.count(REQUEUED) == 10).await;
    let least = events(&frames(&replay(40)))[0].seq;
    assert_eq!(rig.state("requeuedSeq").await, Some(least.to_string()));
    assert_eq!(rig.state("requeuedOrder").await, Some(held[0].0.clone()));
    let last: Vec<(String, Fields)> = rig.client.xrevrange(STREAM, "+", "-", Some(1)).await.unwrap();
    assert_eq!(rig.state("requeued").await.as_ref(), Some(&last[0].0));
    // All are settled but one: the bound stays. Once that one is, too, what comes next bounds by itself.
    eventually("all but one are read", async || {
        for (id, fields) in rig.read("python-worker-1", 100).await {
            if field(&fields, "origId") != held[7].0 {
                rig.acknowledge(&id).await;
            }
        }
        running.count(REQUEUED) >= 12
    })
    .await;
    assert_eq!(rig.state("requeuedOrder").await, Some(held[0].0.clone()));
    eventually("all is settled", async || {
        for (id, _) in rig.read("python-worker-1", 100).await {
            rig.acknowledge(&id).await;
        }
        rig.pending().await == 0 && rig.client.xlen::<u64, _>(STREAM).await.unwrap() == 0
    })
    .await;
    rig.add(&frames(&replay(41))[40..]).await;
    let next = rig.read("python-worker-1", 100).await;
    eventually("the next is put back", async || rig.state("requeuedOrder").await.as_ref() == Some(&next[0].0)).await;
    assert_eq!(rig.state("requeuedSeq").await.as_deref(), Some("41"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_full_redis_what_was_let_lie_is_put_back_too() {
    let (rig, _) = held().await;
    rig.fill_up().await;
    let running = rig.start();
    eventually("the requeue", async || running.count(REQUEUED) == 10).await;
    assert_eq!(rig.pending().await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_beside_an_entry_that_kills_is_no_dead_letter() {
    let (rig, held) = held().await;
    let running = rig.start();
    let poison = held[3].0.clone();
    let mut deaths = 0;
    eventually("the dead letter, and nothing else is pending", async || {
        rig.trickle().await;
        let batch = rig.read(&format!("python-worker-{}", deaths + 1), 100).await;
        if batch.iter().any(|(_, fields)| field(fields, "origId") == poison) {
            deaths += 1;
        } else {
            for (id, _) in batch {
                rig.acknowledge(&id).await;
            }
        }
        !rig.letters().await.is_empty() && rig.pending().await == 0
    })
    .await;
    let letters: Vec<_> = rig.letters().await.iter().map(|(_, fields)| field(fields, "origId")).collect();
    assert_eq!(letters, [poison]);
    assert!(deaths >= 5, "{deaths}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_acknowledges_anything_no_try_counts() {
    let (rig, _) = held().await;
    for (id, _) in rig.read("python-worker-0", 100).await {
        rig.acknowledge(&id).await;
    }
    let running = rig.start();
    // Their database is away: they read, and acknowledge nothing.
    eventually("many tries", async || {
        for (_, fields) in rig.read("python-worker-1", 100).await {
            assert_eq!(field(&fields, "requeued"), "1");
        }
        running.count(REQUEUED) > 60
    })
    .await;
    eventually("all is acknowledged", async || {
        for (id, _) in rig.read("python-worker-1", 100).await {
            rig.acknowledge(&id).await;
        }
        rig.pending().await == 0
    })
    .await;
    assert_eq!(rig.letters().await.len(), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_reading_is_paused_all_is_put_back_at_once() {
    let mut rig = Rig::with(TestRedis::start().await.unwrap(), "ws://127.0.0.1:1").await;
    rig.set("worker.claimTime", "60s");
    rig.set("redis.maxStreamLen", "1000");
    rig.add(&frames(&replay(3_000))).await;
    let _: () = rig.client.xgroup_create(STREAM, GROUP, "0", true).await.unwrap();
    let ids: Vec<String> = rig.read("python-worker-0", 3_000).await.into_iter().map(|(id, _)| id).collect();
    let count = ids.len() as u64;
    let _: fred::types::Value = rig
        .client
        .xclaim(STREAM, GROUP, "python-worker-0", 0, ids, Some(120_000), None, None, false, true)
        .await
        .unwrap();
    let began = Instant::now();
    let running = rig.start();
    eventually("the requeue", async || running.count(REQUEUED) == count).await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_id_in_the_state_stops_nothing() {
    let (rig, _) = held().await;
    for field in ["newest", "requeued", "requeuedSeq", "requeuedOrder", "requeuedThrough", "requeuedAgain"] {
        let _: u64 = rig.client.hset("firehose:ingest:state", (field, "rubbish")).await.unwrap();
    }
    let running = rig.start();
    eventually("all is put back, acknowledged and trimmed", async || {
        for (id, _) in rig.read("python-worker-1", 100).await {
            rig.acknowledge(&id).await;
        }
        rig.client.xlen::<u64, _>(STREAM).await.unwrap() == 0
    })
    .await;
    assert_eq!(running.count(REQUEUED), 10);
    running.stop().await;
}
