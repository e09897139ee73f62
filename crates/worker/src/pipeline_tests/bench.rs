//! A Redis and a database for one test, and workers on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{ClientLike, HashesInterface, StreamsInterface};
use fred::types::{CustomCommand, Value};
use penstock_core::redis;
use penstock_core::settings::{Layers, Settings};
use penstock_local::RedisOptions;
use penstock_local::testing::{TestRedis, fresh_database};
use penstock_telemetry::admin::Health;
use penstock_telemetry::metrics::Metrics;
use sqlx::{PgPool, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Progress, WorkerError, run_observed};

/// How long anything in a test may take.
const DEADLINE: Duration = Duration::from_secs(90);

pub(super) struct Bench {
    pub(super) redis: TestRedis,
    pub(super) client: Client,
    pub(super) pool: PgPool,
    pub(super) database: String,
}

pub(super) struct Running {
    pub(super) metrics: Metrics,
    pub(super) health: Health,
    pub(super) progress: Progress,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let database = fresh_database().await.unwrap();
        crate::migrate(&database, true).await.unwrap();
        Self::on(database, RedisOptions::default()).await
    }

    pub(super) async fn on(database: String, redis: RedisOptions) -> Self {
        Self::over(database, TestRedis::start_with(redis).await.unwrap(), &[]).await
    }

    /// Uses a Redis that is reached by other settings than its address.
    pub(super) async fn over(database: String, redis: TestRedis, more: &[(&str, &str)]) -> Self {
        let pool = PgPool::connect_lazy(&database).unwrap();
        let layers = Layers::default().flag("redis.url", redis.url());
        let layers = more.iter().fold(layers, |layers, (name, value)| layers.flag(name, *value));
        let settings = Settings::load(&layers).unwrap();
        let client = redis::connect(&settings).await.unwrap();
        Self { redis, client, pool, database }
    }

    pub(super) fn settings(&self, name: &str, more: &[(&str, &str)]) -> Arc<Settings> {
        let mut layers = Layers::default()
            .flag("redis.url", self.redis.url())
            .flag("redis.commandTimeout", "2s")
            .flag("postgres.url", self.database.clone())
            .flag("postgres.poolSize", "4")
            .flag("worker.consumerId", name)
            .flag("worker.batchDelay", "5ms")
            .flag("worker.claimTime", "60s")
            .flag("worker.publishInterval", "20ms")
            .flag("worker.retryMax", "200ms")
            .flag("worker.deleteGrace", "0s")
            .flag("telemetry.summaryInterval", "0s");
        for (path, value) in more {
            layers = layers.flag(path, *value);
        }
        Arc::new(Settings::load(&layers).unwrap())
    }

    pub(super) fn start(&self, name: &str, more: &[(&str, &str)]) -> Running {
        let (metrics, health, progress) = (Metrics::new(), Health::new(), Progress::default());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(run_observed(
            self.settings(name, more),
            metrics.clone(),
            health.clone(),
            progress.clone(),
            cancel.clone(),
        ));
        Running { metrics, health, progress, cancel, task }
    }

    pub(super) async fn add(&self, kind: &str, data: &str, seq: &str) -> String {
        let fields = vec![("type", kind), ("data", data), ("seq", seq)];
        self.client.xadd("firehose:events", false, None::<()>, "*", fields).await.unwrap()
    }

    /// Adds the likes `from..to`, each of a repo of its own unless `repos` is less.
    pub(super) async fn add_likes(&self, numbers: std::ops::Range<usize>, repos: usize) {
        let pipeline = self.client.pipeline();
        for number in numbers {
            let data = like(number, number % repos);
            let fields = vec![("type", "commit"), ("data", &*data), ("seq", "7")];
            let () = pipeline.xadd("firehose:events", false, None::<()>, "*", fields).await.unwrap();
        }
        let () = pipeline.last().await.unwrap();
    }

    /// Reads entries as another consumer, which then is heard of no more.
    pub(super) async fn strand(&self, consumer: &str, count: usize) -> Vec<String> {
        let command = CustomCommand::new_static("XREADGROUP", None, false);
        let count = count.to_string();
        let arguments = ["GROUP", GROUP, consumer, "COUNT", &count, "STREAMS", STREAM, ">"];
        let answer: Value = self.client.custom(command, arguments.map(str::to_owned).to_vec()).await.unwrap();
        let entries = answer.into_array().pop().unwrap().into_array().pop().unwrap().into_array();
        entries.into_iter().map(|entry| entry.into_array().remove(0).into_string().unwrap()).collect()
    }

    pub(super) async fn make_group(&self) {
        let () = self.client.xgroup_create(STREAM, GROUP, "0", true).await.unwrap();
    }

    pub(super) async fn command(&self, words: &str) -> Value {
        let mut words = words.split(' ').map(str::to_owned);
        let command = CustomCommand::new(words.next().unwrap(), None, false);
        self.client.custom(command, words.collect::<Vec<_>>()).await.unwrap()
    }

    pub(super) async fn pending(&self) -> u64 {
        self.command(&format!("XPENDING {STREAM} {GROUP}")).await.into_array()[0].as_u64().unwrap()
    }

    pub(super) async fn consumers(&self) -> Vec<String> {
        let consumers: Vec<std::collections::HashMap<String, Value>> =
            self.client.xinfo_consumers(STREAM, GROUP).await.unwrap();
        let mut names: Vec<_> = consumers.iter().map(|of| of["name"].as_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(super) async fn counter(&self, key: &str, field: &str) -> i64 {
        let value: Option<i64> = self.client.hget(key, field).await.unwrap();
        value.unwrap_or_default()
    }

    pub(super) async fn total(&self) -> i64 {
        self.counter("cluster:metrics", "totalEvents").await
    }

    pub(super) async fn rows(&self, table: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub(super) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    pub(super) async fn texts(&self, sql: &'static str) -> Vec<String> {
        let rows = sqlx::query(sql).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(0)).collect()
    }

    pub(super) async fn dead_letters(&self) -> Vec<std::collections::HashMap<String, String>> {
        let letters: Vec<(String, std::collections::HashMap<String, String>)> =
            self.client.xrange("firehose:dead-letters", "-", "+", None).await.unwrap();
        letters.into_iter().map(|(_, fields)| fields).collect()
    }
}

impl Running {
    /// Ends it as SIGTERM does, and returns how that went.
    pub(super) async fn stop(self) -> Result<(), WorkerError> {
        self.cancel.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.expect("ends within ten seconds").unwrap()
    }

    /// Ends it as a crash does: whatever it was about stays as it is.
    pub(super) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.encode();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

pub(super) const STREAM: &str = "firehose:events";
pub(super) const GROUP: &str = "firehose-processors";

/// Waits until an expression is true, or fails with what it says.
macro_rules! eventually {
    ($condition:expr) => {
        eventually!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($said:tt)+) => {{
        let deadline = $crate::pipeline_tests::bench::deadline();
        loop {
            let is_so: bool = $condition;
            if is_so {
                break;
            }
            assert!(std::time::Instant::now() < deadline, $($said)+);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }};
}
pub(super) use eventually;

pub(super) fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

/// A commit that creates one like.
pub(super) fn like(number: usize, repo: usize) -> String {
    format!(
        r#"{{"repo":"did:plc:r{repo}","ops":[{}],"rev":"3k{number:011}","time":"2026-07-04T14:38:08.999Z","commit":"bafyc","since":null}}"#,
        like_op(number)
    )
}

pub(super) fn like_op(number: usize) -> String {
    format!(
        r#"{{"action":"create","path":"app.bsky.feed.like/k{number}","cid":"bafyl{number}","record":{{"$type":"app.bsky.feed.like","subject":{{"uri":"at://did:plc:z/app.bsky.feed.post/p{number}","cid":"bafyp"}},"createdAt":"2026-07-04T14:38:08.999Z"}}}}"#
    )
}

/// An op on a record of no known collection, which a test may forbid the database to take.
pub(super) fn custom_op(number: usize, poison: bool) -> String {
    let poison = if poison { r#","poison":true"# } else { "" };
    format!(
        r#"{{"action":"create","path":"com.example.thing/k{number}","cid":"bafyt{number}","record":{{"$type":"com.example.thing"{poison}}}}}"#
    )
}

pub(super) fn commit(repo: &str, rev: &str, ops: &[String]) -> String {
    format!(
        r#"{{"repo":"did:plc:{repo}","ops":[{}],"rev":"{rev}","time":null,"commit":"bafyc","since":null}}"#,
        ops.join(",")
    )
}

/// Makes the database refuse what the worker cannot foresee.
pub(super) const REFUSE_POISON: &str =
    "ALTER TABLE generic_records ADD CONSTRAINT no_poison CHECK (record->>'poison' IS NULL)";
