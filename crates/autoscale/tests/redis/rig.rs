//! A Redis with a stream, and what is decided on it.

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value};
use jiff::Timestamp;
use penstock_autoscale::{Ask, Decision, Fleet, History, Observation, ObserveError, Policy, Queue, decide, observe};
use penstock_core::keys::{GROUP, Keys};
use penstock_core::settings::{Layers, Settings};
use penstock_local::RedisOptions;
use penstock_local::testing::TestRedis;

pub(super) const STREAM: &str = "firehose:events";

/// The claim time of these tests: entries that lie for longer are stranded.
pub(super) const CLAIM_TIME: Duration = Duration::from_millis(200);

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct Rig {
    pub(super) redis: TestRedis,
    pub(super) client: Client,
    pub(super) ask: Ask,
    pub(super) policy: Policy,
    pub(super) history: History,
    pub(super) now: Timestamp,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::over(RedisOptions::default()).await
    }

    pub(super) async fn over(options: RedisOptions) -> Self {
        let redis = TestRedis::start_with(options).await.unwrap();
        let layers = Layers::default().flag("redis.url", redis.url()).flag("redis.commandTimeout", "10s");
        let settings = Settings::load(&layers).unwrap();
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        let ask = Ask { claim_time: CLAIM_TIME, timeout: Duration::from_secs(10) };
        let policy = Policy { target_utilisation: 1.0, tolerance: 0.0, ..Policy::default() };
        // Watched for long, so that nothing but what is seen speaks against fewer workers.
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        Self { redis, client, ask, policy, history: History::new(now - Duration::from_secs(3_600)), now }
    }

    /// Sends a command as it would be typed.
    pub(super) async fn command(&self, line: &str) -> Value {
        let mut words = line.split_whitespace().map(str::to_owned);
        let name = words.next().unwrap();
        let command = CustomCommand::new(name, None, false);
        self.client.custom(command, words.collect::<Vec<_>>()).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Restarts Redis, and waits for the connection.
    pub(super) async fn restart(&mut self) {
        self.redis.restart().await.unwrap();
        let end = std::time::Instant::now() + DEADLINE;
        while self.client.ping::<String>(None).await.is_err() {
            assert!(std::time::Instant::now() < end, "no connection after a restart");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds entries `first-0` to `last-0`.
    pub(super) async fn add(&self, first: u64, last: u64) {
        for ids in (first..=last).collect::<Vec<_>>().chunks(500) {
            let pipeline = self.client.pipeline();
            for id in ids {
                let words = [STREAM, &format!("{id}-0"), "type", "commit", "data", "{}", "seq", &id.to_string()];
                let () = pipeline
                    .custom(CustomCommand::new_static("XADD", None, false), words.map(str::to_owned).to_vec())
                    .await
                    .unwrap();
            }
            let _: Vec<Value> = pipeline.all().await.unwrap();
        }
    }

    pub(super) async fn make_group(&self, from: &str) {
        self.command(&format!("XGROUP CREATE {STREAM} {GROUP} {from} MKSTREAM")).await;
    }

    /// Reads so many new entries, and keeps them.
    pub(super) async fn read(&self, consumer: &str, count: u64) {
        self.command(&format!("XREADGROUP GROUP {GROUP} {consumer} COUNT {count} STREAMS {STREAM} >")).await;
    }

    pub(super) async fn acknowledge(&self, first: u64, last: u64) {
        for id in first..=last {
            self.command(&format!("XACK {STREAM} {GROUP} {id}-0")).await;
        }
    }

    pub(super) async fn observe(&self) -> Result<Queue, ObserveError> {
        observe(&self.client, &Keys::default(), &self.ask).await
    }

    pub(super) async fn seen(&self) -> Queue {
        self.observe().await.unwrap()
    }

    /// What Redis itself says of the lag.
    pub(super) async fn told_lag(&self) -> Option<u64> {
        let groups = self.command(&format!("XINFO GROUPS {STREAM}")).await.into_array();
        let fields = groups.into_iter().next().unwrap().into_array();
        let at = fields.iter().position(|field| field.as_str().as_deref() == Some("lag")).unwrap();
        fields[at + 1].as_u64()
    }

    /// Looks, decides for so many ready workers, and remembers; 5 s go by.
    pub(super) async fn decide(&mut self, workers: u16) -> Decision {
        let queue = self.observe().await.map_err(|error| error.gap());
        let seen = Observation { queue, fleet: Fleet { desired: workers, ready: workers, rolling: false } };
        let decision = decide(&seen, &self.history, self.now, &self.policy);
        self.history.note(&seen, &decision, self.now, &self.policy);
        self.now += Duration::from_secs(5);
        decision
    }

    /// Waits until something is seen.
    pub(super) async fn eventually(&self, what: &str, holds: impl Fn(&Queue) -> bool) -> Queue {
        let end = std::time::Instant::now() + DEADLINE;
        loop {
            let queue = self.seen().await;
            if holds(&queue) {
                return queue;
            }
            assert!(std::time::Instant::now() < end, "{what}: {queue:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(super) fn said(decision: &Decision) -> (u16, &'static str) {
    (decision.replicas, decision.reason.name())
}
