//! The totals of workers that no longer exist: folded into one, nothing lost or doubled wherever that is interrupted.

use std::collections::HashMap;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{HashesInterface, KeysInterface};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use sqlx::PgPool;
use tokio::runtime::{Builder, Runtime};

use super::bench::{Bench, eventually};
use crate::consumer::Consumer;
use crate::store::{CountTotal, Store, StoreSettings};
use crate::upkeep::publish_counts::with_those_gone;

const FIELDS: [&str; 2] = ["likes", "posts"];
const KEYS: [&str; 2] = ["db:record_counts", "firehose:counts:published"];

/// What the public counts begin with: somebody else counted so many.
const BASE: i64 = 1_000;

/// What happens, a transaction or a script each.
#[derive(Clone, Debug)]
enum Step {
    /// A worker writes.
    Write(u8, usize, i64),
    /// A worker publishes its own totals.
    Own(u8),
    /// Some worker reads the totals of all, and keeps them in a place.
    Read(usize),
    /// Some worker publishes what it kept there, however long ago, or is ended before the last of it.
    Publish(usize, usize),
    /// Totals of so many workers are folded: whether they live does not matter.
    Fold(u32),
    /// Redis writes a file.
    Save,
    /// Redis begins anew with that file.
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u8, 0..FIELDS.len(), -3..9_i64).prop_map(|(worker, field, more)| Step::Write(worker, field, more)),
        2 => (0..5_u8).prop_map(Step::Own),
        3 => (0..2_usize).prop_map(Step::Read),
        3 => (0..2_usize, 1..12_usize).prop_map(|(place, most)| Step::Publish(place, most)),
        2 => (1..4_u32).prop_map(Step::Fold),
        1 => Just(Step::Save),
        1 => Just(Step::Load),
    ]
}

/// What a case works on.
struct Counts {
    runtime: Runtime,
    bench: Bench,
    store: Store,
    consumer: Consumer,
}

type Hashes = [HashMap<String, String>; 2];

async fn hashes(client: &Client) -> Hashes {
    [client.hgetall(KEYS[0]).await.unwrap(), client.hgetall(KEYS[1]).await.unwrap()]
}

async fn write(pool: &PgPool, worker: u8, field: usize, more: i64) {
    let tally = "INSERT INTO penstock.counts AS c (worker, field, total) VALUES ($1, $2, $3) \
                 ON CONFLICT (worker, field) DO UPDATE SET total = c.total + excluded.total, written_at = excluded.written_at";
    let query = sqlx::query(tally).bind(format!("w/{worker}")).bind(FIELDS[field]).bind(more);
    query.execute(pool).await.unwrap();
}

impl Counts {
    fn new() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (bench, store, consumer) = runtime.block_on(async {
            let bench = Bench::new().await;
            let store = Store::connect(&StoreSettings::new(&bench.database)).await.unwrap();
            let consumer = Consumer::new(bench.client.clone(), &bench.settings("w", &[]), "w");
            (bench, store, consumer)
        });
        Self { runtime, bench, store, consumer }
    }

    async fn read(&self) -> Vec<CountTotal> {
        let published = self.consumer.published_totals().await.unwrap();
        with_those_gone(published, self.store.counts().await.unwrap())
    }

    async fn take(&self, step: &Step, read: &mut [Vec<CountTotal>; 2], saved: &mut Hashes) {
        match step {
            Step::Write(worker, field, more) => write(&self.bench.pool, *worker, *field, *more).await,
            Step::Own(worker) => {
                let totals = self.store.counts_of(&format!("w/{worker}")).await.unwrap();
                self.consumer.publish(&totals).await.unwrap().unwrap();
            }
            Step::Read(place) => read[*place] = self.read().await,
            Step::Publish(place, most) => {
                let totals = &read[*place];
                self.consumer.publish(&totals[..totals.len().min(*most)]).await.unwrap().unwrap();
            }
            Step::Fold(limit) => drop(self.store.fold_counts(Duration::ZERO, *limit).await.unwrap()),
            Step::Save => *saved = hashes(&self.bench.client).await,
            Step::Load => {
                let client = &self.bench.client;
                let () = client.del(KEYS.to_vec()).await.unwrap();
                for (key, hash) in KEYS.into_iter().zip(saved.clone()) {
                    let () = client.hset(key, hash).await.unwrap();
                }
            }
        }
    }

    /// Takes steps, and says what is wrong once everybody published.
    async fn run(&self, steps: &[Step]) -> Result<(), String> {
        let client = &self.bench.client;
        let () = client.del(KEYS.to_vec()).await.unwrap();
        let () = client.hset(KEYS[0], FIELDS.map(|field| (field, BASE)).to_vec()).await.unwrap();
        self.consumer.accept_counts().await.unwrap();
        self.bench.execute("DELETE FROM penstock.counts").await;
        let (mut read, mut saved) = (<[Vec<CountTotal>; 2]>::default(), hashes(client).await);
        let mut expected = [BASE; 2];
        for step in steps {
            self.take(step, &mut read, &mut saved).await;
            if let Step::Write(_, field, more) = step {
                expected[*field] += more;
            }
        }
        self.store.fold_counts(Duration::ZERO, 40).await.unwrap();
        self.consumer.publish(&self.read().await).await.unwrap().unwrap();
        let [public, published] = hashes(client).await;
        let public = FIELDS.map(|field| public[field].parse::<i64>().unwrap());
        if public != expected {
            return Err(format!("{public:?} are shown in the place of {expected:?}; published {published:?}"));
        }
        // The note, and the totals of those that no longer exist.
        let workers = self.store.counts().await.unwrap();
        if published.len() > 1 + FIELDS.len() || workers.iter().any(|total| !total.worker.is_empty()) {
            return Err(format!("more is kept than of one worker: {published:?} {workers:?}"));
        }
        Ok(())
    }
}

/// `PROPTEST_CASES` runs more, other ones each time.
#[test]
fn totals_of_gone_workers_are_folded_and_no_count_is_lost_or_doubled() {
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        (config.cases, config.rng_seed) = (100, RngSeed::Fixed(1));
    }
    let counts = Counts::new();
    let outcome = TestRunner::new(config)
        .run(&vec(step(), 0..40), |steps| counts.runtime.block_on(counts.run(&steps)).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_under_a_name_that_was_folded_counts_on() {
    let bench = Bench::new().await;
    let worker = bench.start("w-0", &[("worker.claimTime", "200ms")]);
    bench.add_likes(0..20, 3).await;
    eventually!(bench.counter(KEYS[0], "likes").await == 20);
    worker.crash().await;
    let store = Store::connect(&StoreSettings::new(&bench.database)).await.unwrap();
    assert_eq!(store.fold_counts(Duration::from_secs(60), 40).await.unwrap(), 0, "it may live");
    assert_eq!(store.fold_counts(Duration::ZERO, 40).await.unwrap(), 1);
    // Nobody published since.
    let worker = bench.start("w-0", &[("worker.claimTime", "200ms")]);
    bench.add_likes(20..25, 3).await;
    eventually!(bench.counter(KEYS[0], "likes").await == 25);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((bench.counter(KEYS[0], "likes").await, bench.counter(KEYS[0], "users").await), (25, 3));
    worker.stop().await.unwrap();
}
