//! The checkpoint, and whose this Redis is.

use fred::interfaces::KeysInterface;
use penstock_core::live::Claim;

use super::bench::{Bench, GROUP, Running, STREAM, eventually, like};
use crate::consumer::{Consumer, JoinError, Joined, StandstillReason};
use crate::store::{Checkpoint, Store, StoreSettings};

const OFTEN: &[(&str, &str)] = &[("worker.checkpointInterval", "50ms")];

impl Bench {
    /// Adds one like for each number of a host's sequence; returns the IDs.
    async fn add_numbered(&self, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
        let mut ids = Vec::new();
        for number in numbers {
            let repo = usize::try_from(number).unwrap();
            ids.push(self.add("commit", &like(repo, repo), &number.to_string()).await);
        }
        ids
    }

    /// Says what ingest says with its entries: how far it has come, on which host, and since which entry.
    async fn say(&self, cursor: u64, host: &str, first_id: &str) {
        let source = format!(r#"{{"host":"{host}","firstId":"{first_id}"}}"#);
        let pairs = vec![("firehose:python_cursor", cursor.to_string()), ("firehose:ingest:source", source)];
        let () = self.client.mset(pairs).await.unwrap();
    }

    async fn checkpoint(&self, host: &str) -> Option<(i64, String)> {
        let sql = "SELECT seq, stream_id FROM penstock.checkpoint WHERE host = $1";
        sqlx::query_as(sql).bind(host).fetch_optional(&self.pool).await.unwrap()
    }

    async fn get(&self, key: &str) -> Option<String> {
        self.client.get(key).await.unwrap()
    }

    async fn last_id(&self) -> String {
        let last = self.command(&format!("XREVRANGE {STREAM} + - COUNT 1")).await.into_array().remove(0);
        last.into_array().remove(0).into_string().unwrap()
    }

    fn consumer(&self, name: &str) -> Consumer {
        Consumer::new(self.client.clone(), &self.settings(name, &[]), name)
    }

    async fn store(&self) -> Store {
        Store::connect(&StoreSettings { pool_size: 2, ..StoreSettings::new(&self.database) }).await.unwrap()
    }

    /// What a pipeline with this database writes into the claim.
    async fn claim(&self, pipeline: &str) -> Claim {
        let incarnation = self.store().await.incarnation().await.unwrap();
        Claim { pipeline: pipeline.to_owned(), incarnation }
    }

    /// What the checkpoint would be made of now.
    async fn settled(&self) -> Result<u64, StandstillReason> {
        let survey = self.consumer("surveyor").survey().await.unwrap();
        survey.checkpoint(&self.claim("default").await.incarnation).map(|checkpoint| checkpoint.seq)
    }

    async fn stop(&self, workers: impl IntoIterator<Item = Running>) {
        for worker in workers {
            worker.stop().await.unwrap();
        }
        assert_eq!(self.dead_letters().await.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_follows_the_cursor_when_all_is_settled_even_back() {
    let bench = Bench::new().await;
    let ids = bench.add_numbered(101..=110).await;
    // A #sync moved the cursor and wrote no entry.
    bench.say(112, "a.test", &ids[0]).await;
    let worker = bench.start("w-0", OFTEN);
    eventually!(bench.checkpoint("a.test").await == Some((112, ids[9].clone())));
    assert_eq!(bench.total().await, 10);
    eventually!(worker.metric("penstock_worker_checkpoint ") == 112.0);

    // The host's sequence begins again.
    let ids = bench.add_numbered(3..=5).await;
    bench.say(5, "a.test", &ids[0]).await;
    eventually!(bench.checkpoint("a.test").await == Some((5, ids[2].clone())));
    bench.stop([worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_entry_stuck_pending_bounds_the_checkpoint_though_all_others_are_acknowledged() {
    let bench = Bench::new().await;
    bench.make_group().await;
    let ids = bench.add_numbered(101..=150).await;
    bench.say(150, "a.test", &ids[0]).await;
    for id in bench.strand("stuck", 10).await {
        if id != ids[4] {
            bench.command(&format!("XACK {STREAM} {GROUP} {id}")).await;
        }
    }
    let worker = bench.start("w-0", OFTEN);
    eventually!(bench.total().await == 40);
    eventually!(bench.checkpoint("a.test").await == Some((104, ids[49].clone())));
    let more = bench.add_numbered(151..=160).await;
    bench.say(160, "a.test", &ids[0]).await;
    eventually!(bench.total().await == 50);
    // Seen anew since, and still bounded.
    eventually!(bench.checkpoint("a.test").await == Some((104, more[9].clone())));

    bench.command(&format!("XACK {STREAM} {GROUP} {}", ids[4])).await;
    eventually!(bench.checkpoint("a.test").await == Some((160, more[9].clone())));
    bench.stop([worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_ingest_put_back_bounds_the_checkpoint_by_its_old_number() {
    let bench = Bench::new().await;
    let consumer = bench.consumer("w-0");
    assert_eq!(consumer.join(&bench.claim("default").await).await.unwrap(), Joined::Made);
    let ids = bench.add_numbered(101..=150).await;
    bench.say(150, "a.test", &ids[0]).await;
    bench.strand("gone", 50).await;
    for id in &ids {
        bench.command(&format!("XACK {STREAM} {GROUP} {id}")).await;
    }
    assert_eq!(bench.settled().await, Ok(150));
    // 105 was never settled: it stands at the tail now, behind what came since.
    bench.add_numbered(151..=152).await;
    bench.say(152, "a.test", &ids[0]).await;
    bench.command(&format!("XADD {STREAM} * type commit data {{}} seq 105 origId {} requeued 1", ids[4])).await;
    let back = bench.last_id().await;
    bench
        .command(&format!("HSET firehose:ingest:state requeued {back} requeuedSeq 105 requeuedOrder {}", ids[4]))
        .await;
    assert_eq!(bench.settled().await, Ok(104));
    let settled_below = async || consumer.settled_below().await.unwrap().unwrap();
    assert_eq!(settled_below().await, ids[4].parse().unwrap(), "what it deletes needs its tombstones until then");
    for id in bench.strand("w-0", 3).await {
        assert_eq!(bench.settled().await, Ok(104), "until the group is past it");
        bench.command(&format!("XACK {STREAM} {GROUP} {id}")).await;
    }
    assert_eq!(bench.settled().await, Ok(152));
    assert!(settled_below().await > back.parse().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_stays_while_entries_of_the_host_before_are_pending() {
    let bench = Bench::new().await;
    bench.make_group().await;
    bench.add_numbered(1001..=1005).await;
    let before = bench.strand("slow", 5).await;
    let ids = bench.add_numbered(11..=20).await;
    bench.say(20, "b.test", &ids[0]).await;
    let worker = bench.start("w-0", OFTEN);
    eventually!(bench.total().await == 10);
    assert_eq!(bench.settled().await, Err(StandstillReason::HostBefore));
    assert_eq!(bench.checkpoint("b.test").await, None);
    bench.command(&format!("XACK {STREAM} {GROUP} {}", before.join(" "))).await;
    eventually!(bench.checkpoint("b.test").await == Some((20, ids[9].clone())));
    bench.stop([worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_without_a_number_are_bounded_by_those_after_them() {
    let bench = Bench::new().await;
    let consumer = bench.consumer("w-0");
    assert_eq!(consumer.join(&bench.claim("default").await).await.unwrap(), Joined::Made);
    let filled = bench.add("commit", &like(1, 1), "").await;
    bench.say(70, "a.test", &filled).await;
    assert_eq!(bench.settled().await, Ok(70), "no number follows");
    bench.strand("w-0", 1).await;
    assert_eq!(bench.settled().await, Ok(70));
    // A dead letter that is replayed has an old number, and is settled.
    bench.command(&format!("XADD {STREAM} * type commit data {{}} seq 3 origId 5-1")).await;
    bench.add("commit", &like(2, 2), "57").await;
    assert_eq!(bench.settled().await, Ok(56));
    let last = bench.last_id().await;
    bench.strand("w-0", 2).await;
    bench.command(&format!("XTRIM {STREAM} MINID {last}")).await;
    assert_eq!(bench.settled().await, Err(StandstillReason::Trimmed));
    bench.command(&format!("XACK {STREAM} {GROUP} {filled}")).await;
    bench.command(&format!("XACK {STREAM} {GROUP} {last}")).await;
    for number in 0..100 {
        bench.add("commit", &like(number, number), "").await;
    }
    bench.add("commit", &like(2, 2), "58").await;
    bench.command(&format!("XGROUP SETID {STREAM} {GROUP} {last}")).await;
    let pending = bench.command(&format!("XPENDING {STREAM} {GROUP} - + 10")).await.into_array();
    for entry in pending {
        bench.command(&format!("XACK {STREAM} {GROUP} {}", entry.into_array()[0].as_str().unwrap())).await;
    }
    assert_eq!(bench.settled().await, Err(StandstillReason::NoNumber));
    let () = bench.client.del("firehose:ingest:source").await.unwrap();
    assert_eq!(bench.settled().await, Err(StandstillReason::NoSource));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_at_a_time_keeps_the_checkpoint() {
    let bench = Bench::new().await;
    let store = bench.store().await;
    let (sender, asked) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let checkpoint = |seq| Some(Checkpoint { host: "a.test".to_owned(), seq, stream_id: "9-9".parse().unwrap() });
    let first = {
        let store = store.clone();
        let found = checkpoint(7);
        tokio::spawn(async move {
            let compute = async |incarnation: String| {
                sender.send(incarnation).unwrap();
                gone.await.unwrap();
                found
            };
            store.checkpoint(compute).await.unwrap()
        })
    };
    assert_eq!(asked.await.unwrap(), store.incarnation().await.unwrap());
    let second = store.checkpoint(|_| async { panic!("not its turn") }).await.unwrap();
    assert_eq!(second, None);
    go.send(()).unwrap();
    assert_eq!(first.await.unwrap(), checkpoint(7));
    assert_eq!(bench.checkpoint("a.test").await, Some((7, "9-9".to_owned())));
    assert_eq!(store.checkpoint(|_| async { None }).await.unwrap(), None);
    assert_eq!(store.checkpoint(|_| async { checkpoint(2) }).await.unwrap(), checkpoint(2), "the turn was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipeline_on_one_redis_is_refused_until_the_claim_goes() {
    let bench = Bench::new().await;
    bench.say(7, "a.test", "").await;
    let one = bench.start("w-0", &[("pipeline.name", "one")]);
    bench.add_numbered(1..=5).await;
    eventually!(bench.total().await == 5);
    let claim = bench.claim("one").await;
    let held = format!(r#"{{"pipeline":"one","incarnation":"{}"}}"#, claim.incarnation);
    assert_eq!(bench.get("firehose:pipeline").await.as_ref(), Some(&held));

    // Taken again by itself.
    bench.command("FLUSHALL").await;
    eventually!(bench.get("firehose:pipeline").await.as_ref() == Some(&held));
    assert_eq!(bench.get("firehose:incarnation").await.as_ref(), Some(&claim.incarnation));

    let stranger = bench.consumer("w-1");
    for other in [bench.claim("two").await, Claim { incarnation: "other".to_owned(), ..claim.clone() }] {
        let error = stranger.join(&other).await.unwrap_err();
        assert!(matches!(error, JoinError::Shared { .. }));
        let said = error.to_string();
        for part in ["RedisShared", "firehose:pipeline", "redis.keyPrefix", "pipeline one", &other.pipeline] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    let two = bench.start("w-1", &[("pipeline.name", "two")]);
    bench.add_numbered(6..=9).await;
    eventually!(bench.total().await == 4);
    eventually!(one.health.is_ready() && !two.health.is_ready());
    assert_eq!(bench.get("firehose:pipeline").await.as_ref(), Some(&held));
    bench.stop([one]).await;
    bench.command("DEL firehose:pipeline").await;
    bench.add_numbered(10..=12).await;
    eventually!(bench.total().await == 7);
    eventually!(two.health.is_ready());
    bench.stop([two]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_takes_the_incarnation_with_it_and_the_group_is_made_again() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", OFTEN);
    let ids = bench.add_numbered(1..=20).await;
    bench.say(20, "a.test", &ids[0]).await;
    eventually!(bench.checkpoint("a.test").await == Some((20, ids[19].clone())));
    assert!(bench.get("firehose:incarnation").await.is_some());

    let mut applied = 20;
    for delete in [
        "redis.call('DEL', KEYS[1])",
        // As ingest does that did not notice.
        "redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '*', 'type', 'x', 'data', '', 'seq', '50')",
        "redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])",
    ] {
        let incarnation = bench.claim("default").await.incarnation;
        let () = bench.client.set("firehose:incarnation", &incarnation, None, None, false).await.unwrap();
        let () = fred::interfaces::LuaInterface::eval(&bench.client, delete, STREAM, GROUP).await.unwrap();
        eventually!(bench.get("firehose:incarnation").await.is_none(), "after {delete}");
        assert_eq!(bench.settled().await, Err(StandstillReason::OtherIncarnation));
        bench.add_numbered(21..=25).await;
        applied += 5;
        eventually!(bench.total().await >= applied, "read on after {delete}");
        applied = bench.total().await;
        // Who joins now must not say that all is well.
        let other = bench.consumer("w-1");
        assert_eq!(other.join(&bench.claim("default").await).await.unwrap(), Joined::There);
        assert_eq!(bench.get("firehose:incarnation").await, None);
    }
    assert_eq!(bench.checkpoint("a.test").await.map(|(seq, _)| seq), Some(20), "it stayed");
    worker.stop().await.unwrap();

    // A group alone that was removed takes nothing with it, as long as the stream is whole.
    let first = bench.add_numbered(30..=30).await;
    bench.say(30, "a.test", &first[0]).await;
    let claim = bench.claim("default").await;
    let () = bench.client.set("firehose:incarnation", &claim.incarnation, None, None, false).await.unwrap();
    bench.command(&format!("XGROUP DESTROY {STREAM} {GROUP}")).await;
    assert_eq!(bench.consumer("w-1").join(&claim).await.unwrap(), Joined::Made);
    assert_eq!(bench.get("firehose:incarnation").await, Some(claim.incarnation));
}
