//! Dead letters in Redis and PostgreSQL: whoever floods pushes out its own, and what stands nowhere else is copied once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fred::interfaces::{HashesInterface, LuaInterface, SortedSetsInterface, StreamsInterface};
use fred::types::Value;
use penstock_core::dead_letter::{self, Author, Bounds};
use penstock_core::keys::Keys;
use penstock_core::stream::StreamId;

use super::bench::{Bench, GROUP, STREAM, commit, eventually};
use crate::consumer::{Consumer, Retention};

const ADD: &str = "dead_letter(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], '1', 'why', 'c', ARGV[5])";
const REMOVE: &str = "letter_remove(KEYS[1], ARGV[1], redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1][2])";

/// A letter as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    id: StreamId,
    repo: usize,
    weight: u64,
}

impl Bench {
    async fn letter_script(&self, author: Author, bounds: Bounds, script: &str, arguments: Vec<String>) {
        let keys = Keys::default();
        let mut touched = vec![keys.letters_of(author)];
        touched.extend(keys.beside_letters(author));
        let script = format!("{}{script}", dead_letter::script(author, bounds));
        let _: Value = self.client.eval(script, touched, arguments).await.unwrap();
    }

    async fn add_letter(&self, author: Author, bounds: Bounds, kind: &str, data: &str, orig: &str, repo: &str) {
        let arguments = [kind, data, "7", orig, repo].map(str::to_owned).to_vec();
        self.letter_script(author, bounds, ADD, arguments).await;
    }

    async fn letters_of(&self, author: Author) -> Vec<(StreamId, HashMap<String, String>)> {
        let found: Vec<(String, HashMap<String, String>)> =
            self.client.xrange(Keys::default().letters_of(author), "-", "+", None).await.unwrap();
        found.into_iter().map(|(id, fields)| (id.parse().unwrap(), fields)).collect()
    }

    /// Asserts that what is counted of the letters is what they are, and returns their weight.
    async fn assert_counted(&self, author: Author, bounds: Bounds) -> u64 {
        let [index, shares, held] = Keys::default().beside_letters(author);
        let letters = self.letters_of(author).await;
        let weigh = |fields: &HashMap<String, String>| {
            let bytes = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            (bytes as u64).max(bounds.least())
        };
        let total: u64 = letters.iter().map(|(_, fields)| weigh(fields)).sum();
        let counted: Option<u64> = self.client.hget(&held, "weight").await.unwrap();
        let marks: usize = self.client.zcard(&index).await.unwrap();
        assert_eq!((counted.unwrap_or_default(), marks), (total, letters.len()));
        let shares: Vec<(String, f64)> = self.client.zrange(&shares, 0, -1, None, false, None, true).await.unwrap();
        assert_eq!(shares.iter().map(|(_, weight)| *weight as u64).sum::<u64>(), total);
        total
    }
}

/// Pushes out of the model what the rule says.
fn push_out(letters: &mut Vec<Held>, adder: usize, bounds: Bounds) {
    let added = letters.last().unwrap().id;
    while letters.iter().map(|held| held.weight).sum::<u64>() > bounds.bytes {
        let of = |repo| letters.iter().filter(|held| held.repo == repo).map(|held| held.weight).sum::<u64>();
        let most = letters.iter().map(|held| of(held.repo)).max().unwrap();
        let from = if of(adder) > bounds.share() {
            Some(adder)
        } else if most > bounds.share() {
            // Two that hold as much would be a toss: the test has none.
            letters.iter().map(|held| held.repo).find(|repo| of(*repo) == most)
        } else {
            None
        };
        let oldest = letters.iter().position(|held| from.is_none_or(|repo| held.repo == repo)).unwrap();
        let oldest = if letters[oldest].id == added { 0 } else { oldest };
        if letters[oldest].id == added {
            return;
        }
        letters.remove(oldest);
    }
}

fn cases(least: u64) -> u64 {
    std::env::var("PENSTOCK_LETTER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(least)
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_go_as_the_rule_says_whoever_adds_them() {
    let bench = Bench::new().await;
    let bounds = Bounds { bytes: 40_000, count: 100 };
    for seed in 0..cases(20) {
        let _: Value = bench.command("FLUSHALL").await;
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let author = if seed % 2 == 0 { Author::Worker } else { Author::Ingest };
        let mut model: Vec<Held> = Vec::new();
        for step in 0..250 {
            if draw(10) == 0 && !model.is_empty() {
                let gone = model.remove(draw(model.len() as u64) as usize);
                bench.letter_script(author, bounds, REMOVE, vec![gone.id.to_string()]).await;
                continue;
            }
            let repo = if draw(3) == 0 { 0 } else { draw(30) as usize };
            // Each size once: no two repos hold as much.
            let data = "x".repeat(if draw(8) == 0 { 9_000 } else { 500 } + step * 3 + draw(3) as usize);
            bench.add_letter(author, bounds, "commit", &data, "1-1", &format!("did:plc:{repo:03}")).await;
            let letters = bench.letters_of(author).await;
            let (id, fields) = letters.last().unwrap();
            let weight = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() as u64;
            model.push(Held { id: *id, repo, weight: weight.max(bounds.least()) });
            push_out(&mut model, repo, bounds);
            let ids: Vec<_> = letters.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, model.iter().map(|held| held.id).collect::<Vec<_>>(), "seed {seed}, step {step}");
            assert!(ids.iter().all(|id| (id.seq >= dead_letter::OURS) == (author == Author::Ingest)), "{ids:?}");
        }
        assert!(bench.assert_counted(author, bounds).await <= bounds.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_repo_that_floods_pushes_out_no_letter_of_others_and_none_of_ingest() {
    let bench = Bench::new().await;
    let bounds = Bounds { bytes: 2_000_000, count: 1_000 };
    let others = |of: &[(StreamId, HashMap<String, String>)]| {
        of.iter().filter(|(_, fields)| fields.get("repo").is_none_or(|repo| repo != "did:plc:flood")).count()
    };
    for at in 0..300 {
        bench.add_letter(Author::Worker, bounds, "commit", "{}", "1-1", &format!("did:plc:o{}", at % 20)).await;
    }
    bench.add_letter(Author::Worker, bounds, "message", "{}", "", "").await;
    for at in 0..50 {
        bench.add_letter(Author::Ingest, bounds, "raw", &format!("AA{at}"), "", &format!("did:plc:o{at}")).await;
    }
    for at in 0..3_000_usize {
        let data = "y".repeat(if at % 100 == 0 { 300_000 } else { 20 });
        bench.add_letter(Author::Worker, bounds, "commit", &data, "1-1", "did:plc:flood").await;
    }
    let letters = bench.letters_of(Author::Worker).await;
    assert_eq!(others(&letters), 301);
    assert!(letters.len() <= 1_000 && letters.len() > 400, "{}", letters.len());
    assert!(bench.assert_counted(Author::Worker, bounds).await <= bounds.bytes);
    assert_eq!(bench.letters_of(Author::Ingest).await.len(), 50);
    let used = bench.command("MEMORY USAGE firehose:dead-letters SAMPLES 0").await.as_u64().unwrap();
    assert!(used < 2 * bounds.bytes, "{used} bytes in redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_add_and_remove_is_counted_in_the_end() {
    let bench = Bench::new().await;
    let bounds = Bounds { bytes: 400_000, count: 200 };
    // They stood there before anything was counted.
    for at in 0..1_000 {
        bench.command(&format!("XADD firehose:dead-letters * type commit data {at} seq 1 origId 5-{at}")).await;
    }
    for round in 0..60 {
        bench.add_letter(Author::Worker, bounds, "commit", "{}", "1-1", &format!("did:plc:o{round}")).await;
    }
    assert!(bench.letters_of(Author::Worker).await.len() <= 200);
    assert!(bench.assert_counted(Author::Worker, bounds).await <= bounds.bytes);
    bench.command("XTRIM firehose:dead-letters MAXLEN 150").await;
    for round in 0..120 {
        bench.add_letter(Author::Worker, bounds, "commit", "{}", "1-1", &format!("did:plc:p{round}")).await;
    }
    assert!(bench.letters_of(Author::Worker).await.len() <= 200);
    assert!(bench.assert_counted(Author::Worker, bounds).await <= bounds.bytes);
    bench.command("DEL firehose:dead-letters").await;
    bench.add_letter(Author::Worker, bounds, "commit", "{}", "1-1", "did:plc:a").await;
    bench.assert_counted(Author::Worker, bounds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_ingest_are_copied_once_over_crashes_and_a_redis_that_was_lost() {
    let bench = Bench::new().await;
    let bounds = Bounds { bytes: 64_000_000, count: 10_000 };
    let add = async |numbers: std::ops::Range<usize>| {
        for at in numbers {
            // One in ten has been in the stream, and was put back too often.
            let (kind, orig) =
                if at % 10 == 0 { ("commit", format!("1700000000000-{at}")) } else { ("raw", String::new()) };
            bench.add_letter(Author::Ingest, bounds, kind, &format!("AA{at}"), &orig, "did:plc:a").await;
        }
    };
    add(0..700).await;
    let copies = "SELECT orig_id FROM penstock.dead_letters";
    for name in ["w-0", "w-1"] {
        let worker = bench.start(name, &[]);
        let before = bench.texts(copies).await.len();
        eventually!(bench.texts(copies).await.len() > before);
        worker.crash().await;
        // Whoever comes next waits for the turn of the dead one.
        let () = bench.client.hdel("firehose:dead-letters:raw:held", "copierUntil").await.unwrap();
    }
    let workers = [bench.start("w-2", &[]), bench.start("w-3", &[])];
    eventually!(bench.texts(copies).await.len() == 700);
    add(700..800).await;
    eventually!(bench.texts(copies).await.len() == 800);
    let kinds =
        "SELECT kind || ' ' || count(*) || ' ' || min(repo) FROM penstock.dead_letters GROUP BY kind ORDER BY 1";
    let expected = ["commit 80 did:plc:a", "raw 720 did:plc:a"];
    assert_eq!(bench.texts(kinds).await, expected);

    // The same frames are read and set aside once more.
    bench.command("FLUSHALL").await;
    add(0..800).await;
    let newest = bench.letters_of(Author::Ingest).await.last().unwrap().0.to_string();
    eventually!({
        let copied: Option<String> = bench.client.hget("firehose:dead-letters:raw:held", "copied").await.unwrap();
        copied.as_ref() == Some(&newest)
    });
    assert_eq!(bench.texts(kinds).await, expected);
    for worker in workers {
        worker.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_holds_the_traces_of_deletes_for_its_time_and_no_longer() {
    let bench = Bench::new().await;
    let delete = r#"{"action":"delete","path":"app.bsky.feed.like/gone"}"#.to_owned();
    let entry = bench.add("commit", &commit("a", "3ka", &[delete]), "1").await;
    let settings = [("worker.tombstoneRetention", "1s"), ("worker.letterHold", "6s")];
    let began = Instant::now();
    bench
        .command(&format!("XADD firehose:dead-letters * type commit data {{}} seq 1 origId {entry} deliveries 1"))
        .await;
    // This one is too old to be replayed, and holds nothing.
    bench.command("XADD firehose:dead-letters * type commit data {} seq 1 origId 5-1 deliveries 1").await;
    let worker = bench.start("w-0", &settings);
    eventually!(bench.rows("penstock.tombstones").await == 1);
    while began.elapsed() < Duration::from_millis(4500) {
        assert_eq!(bench.rows("penstock.tombstones").await, 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually!(bench.rows("penstock.tombstones").await == 0);
    assert!(began.elapsed() >= Duration::from_millis(5900), "{:?}", began.elapsed());
    assert_eq!(bench.dead_letters().await.len(), 2);
    let below: String = bench.client.hget("firehose:dead-letters:held", "below").await.unwrap();
    let below: StreamId = below.parse().unwrap();
    assert!(below > entry.parse().unwrap(), "what is older than {below} is refused");
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_holds_the_traces_until_it_is_settled_however_long_it_waits() {
    let bench = Bench::new().await;
    let keep = Retention { tombstones: Duration::from_millis(1), letters: Duration::from_secs(3600) };
    let consumer = Consumer::new(bench.client.clone(), &bench.settings("w-0", &[]), "w-0");
    bench.make_group().await;
    bench.command(&format!("XGROUP CREATE firehose:events:bulk {GROUP} 0 MKSTREAM")).await;
    let first = bench.add("account", r#"{"did":"did:plc:a","active":true}"#, "1").await;
    let ids = bench.strand("w-0", 10).await;
    let acknowledge = async |id: &str| bench.command(&format!("XACK {STREAM} {GROUP} {id}")).await;
    acknowledge(&ids[0]).await;
    let first: StreamId = first.parse().unwrap();
    eventually!(consumer.tombstones_needed_from(keep).await.unwrap() > first);

    // A replay, as the dashboard's script does it: it waits, is read, and is settled.
    let replayed = bench.add("account", r#"{"did":"did:plc:a","active":true}"#, "1").await;
    let stamps = [("replayed", replayed.clone()), ("replayedOrder", first.to_string())];
    let () = bench.client.hset("firehose:dead-letters:held", stamps.to_vec()).await.unwrap();
    assert_eq!(consumer.tombstones_needed_from(keep).await.unwrap(), first);
    bench.strand("w-0", 10).await;
    assert_eq!(consumer.tombstones_needed_from(keep).await.unwrap(), first);
    acknowledge(&replayed).await;
    eventually!(consumer.tombstones_needed_from(keep).await.unwrap() > first);
    assert_eq!(bench.command("HEXISTS firehose:dead-letters:held replayed").await.as_u64(), Some(0));

    // Rubbish holds everything or nothing, and stops nothing.
    for (field, value) in [("replayed", "x"), ("replayedOrder", "x"), ("below", "x"), ("hold", "x")] {
        let () = bench.client.hset("firehose:dead-letters:held", (field, value)).await.unwrap();
    }
    eventually!(consumer.tombstones_needed_from(keep).await.unwrap() > first);
}
