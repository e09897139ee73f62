//! Everything around the binary: its servers, its processes, and how to look at what they did.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::{HashesInterface, KeysInterface, StreamsInterface};
use fred::types::Value as RedisValue;
use penstock_core::keys::Keys;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::{TempFolder, TestRedis, fresh_database};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::frames::{Entry, Recording};
use crate::memory::Cage;
use crate::model::{self, IGNORED, TABLES, Tables};
use crate::service::Service;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The group of the other reader, which acknowledges nothing and so keeps the whole stream.
const OTHER_READER: &str = "osprey-consumers";

/// A Redis and a database of the test's own, and what the binary is told of them.
pub(crate) struct Rig {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) pool: PgPool,
    /// The database's address, as the rig itself uses it.
    pub(crate) database: String,
    settings: Box<Settings>,
    environment: BTreeMap<String, String>,
    logs: PathBuf,
    _folder: Option<TempFolder>,
    _redis: Option<TestRedis>,
}

/// A relay that runs until it is dropped.
pub(crate) struct Relay {
    pub(crate) url: String,
    _stop: DropGuard,
}

/// How far the workers have come.
#[derive(Debug, PartialEq)]
pub(crate) struct Group {
    /// The ID of the last entry that any of them was given.
    pub(crate) delivered: String,
    /// How many entries they were given and have not acknowledged.
    pub(crate) pending: u64,
}

/// A dead letter's fields by name.
pub(crate) type DeadLetter = HashMap<String, String>;

/// The binary under test.
pub(crate) fn binary() -> OsString {
    env::var_os("PENSTOCK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_penstock").into())
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A relay that has so many events, and what it says.
pub(crate) async fn relay(total: u64) -> (Relay, Recording) {
    relay_with(penstock_replay::Settings { total: Some(total), ..Default::default() }).await
}

/// A relay, and what it says.
pub(crate) async fn relay_with(settings: penstock_replay::Settings) -> (Relay, Recording) {
    let relay = serve(settings.clone()).await;
    let recording = tokio::task::spawn_blocking(move || Recording::of(&settings)).await.unwrap();
    (relay, recording)
}

/// A relay alone, which may be an endless one.
pub(crate) async fn serve(settings: penstock_replay::Settings) -> Relay {
    let mut relay = penstock_replay::bind(settings).await.unwrap();
    relay.prepared().await.unwrap();
    let (url, cancel) = (format!("ws://{}", relay.local_addr()), CancellationToken::new());
    tokio::spawn(relay.run(cancel.clone()));
    Relay { url, _stop: cancel.drop_guard() }
}

/// An entry as a positional reader sees it.
pub(crate) fn entry((id, fields): (String, Vec<(String, String)>)) -> (String, Entry) {
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["type", "data", "seq"], "in {id}");
    assert!(names[3..].iter().all(|name| ["root", "sync"].contains(&&**name)), "in {id}: {names:?}");
    let data = serde_json::from_str(&fields[1].1).unwrap();
    (id, Entry { kind: fields[0].1.clone(), data, seq: fields[2].1.parse().unwrap() })
}

// === impl Relay ===

impl Relay {
    /// A relay of a test's own making.
    pub(crate) fn of(url: String, serving: impl Future<Output = ()> + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Self { url, _stop: stop.drop_guard() }
    }
}

// === impl Rig ===

impl Rig {
    /// Starts the servers and makes the tables.
    pub(crate) async fn new() -> Self {
        let rig = Self::without_tables().await;
        rig.migrate().await;
        rig
    }

    /// Starts the servers.
    pub(crate) async fn without_tables() -> Self {
        let redis = TestRedis::start().await.unwrap();
        let rig = Self::over(&[("REDIS_URL", &redis.url())]).await;
        Self { _redis: Some(redis), ..rig }
    }

    /// Uses the Redis that these variables name, for itself and for every process.
    pub(crate) async fn over(redis: &[(&str, &str)]) -> Self {
        Self::between(redis, &fresh_database().await.unwrap()).await
    }

    /// Keeps the Redis that it uses for as long as it lives itself.
    pub(crate) fn holding(self, redis: TestRedis) -> Self {
        Self { _redis: Some(redis), ..self }
    }

    /// Uses these servers, for itself and for every process.
    pub(crate) async fn between(redis: &[(&str, &str)], database: &str) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut environment: BTreeMap<_, _> = redis.iter().map(owned).collect();
        // The rig looks at whole streams, on machines that have much else to do.
        let layers = Layers::default().environment(environment.clone()).flag("redis.commandTimeout", "1m");
        let settings = Box::new(Settings::load(&layers).unwrap());
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        let others = [
            ("DATABASE_URL", database.to_owned()),
            ("ADMIN_ADDRESS", "127.0.0.1:0".to_owned()),
            ("DASHBOARD_ADDRESS", "127.0.0.1:0".to_owned()),
            ("PENSTOCK_TELEMETRY_LOG_FORMAT", "json".to_owned()),
            ("PENSTOCK_RELAY_START", "oldest".to_owned()),
            ("PENSTOCK_WORKER_DELETE_GRACE", "0s".to_owned()),
        ];
        environment.extend(others.map(|(name, value)| (name.to_owned(), value)));
        let folder = TempFolder::new().unwrap();
        Self {
            client,
            keys: settings.keys.clone(),
            pool: PgPool::connect(database).await.unwrap(),
            database: database.to_owned(),
            settings,
            environment,
            logs: folder.path().to_owned(),
            _folder: Some(folder),
            _redis: None,
        }
    }

    /// Connects the rig itself anew, after the servers changed their places.
    pub(crate) async fn reconnect(&mut self) {
        self.client = penstock_core::redis::connect(&self.settings).await.unwrap();
    }

    /// Sets a variable for every process that is started from here on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// What every process is told.
    pub(crate) fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// Keeps what processes say in this folder, beyond the end of the test.
    pub(crate) fn keep_logs(&mut self, folder: PathBuf) {
        (self.logs, self._folder) = (folder, None);
    }

    pub(crate) async fn migrate(&self) {
        let done = self.run(&["migrate"]).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Lets another group hold the stream, so that it can be read from end to end.
    pub(crate) async fn keep_stream(&self) {
        let () = self.client.xgroup_create(self.keys.stream(), OTHER_READER, "0", true).await.unwrap();
    }

    /// The same where the stream is there already; says whether it is.
    pub(crate) async fn keep_stream_if_there(&self) -> bool {
        let kept: Result<(), _> = self.client.xgroup_create(self.keys.stream(), OTHER_READER, "0", false).await;
        kept.is_ok_and(|()| true)
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        timeout(PATIENCE, self.command(arguments).output()).await.unwrap().unwrap()
    }

    /// Starts a service.
    pub(crate) fn start(&self, arguments: &[&str]) -> Service {
        self.start_as(&format!("{}-{:x}", arguments[0], rand::random::<u32>()), arguments)
    }

    /// Starts a service that goes on in the log of this name.
    pub(crate) fn start_as(&self, log: &str, arguments: &[&str]) -> Service {
        Service::spawn(self.command(arguments), self.logs.join(log))
    }

    /// Starts a service in a bounded memory.
    pub(crate) fn start_in(&self, cage: &Cage, arguments: &[&str]) -> Service {
        let Some(entrance) = cage.entrance() else { return self.start(arguments) };
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(entrance).arg(binary()).args(arguments);
        command.env_clear().envs(&self.environment).stdin(Stdio::null()).kill_on_drop(true);
        Service::spawn(command, self.logs.join(format!("{}-{:x}", arguments[0], rand::random::<u32>())))
    }

    pub(crate) fn ingest(&self, relay: &Relay) -> Service {
        self.start(&["ingest", "--set", &format!("relay.urls={}", relay.url)])
    }

    pub(crate) fn worker(&self, name: &str) -> Service {
        self.start(&["worker", "--set", &format!("worker.consumerId={name}")])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().envs(&self.environment).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Waits until ingest has written everything up to this number.
    pub(crate) async fn ingested(&self, seq: u64) {
        eventually("ingest reads everything", async || self.cursor().await == Some(seq)).await;
    }

    /// Waits until the workers have nothing left to do: all entries acknowledged, all deleted accounts swept.
    pub(crate) async fn settled(&self) {
        eventually("every entry is acknowledged", async || self.left().await == Some((0, 0))).await;
        eventually("the rows of deleted accounts go", async || self.unswept().await == 0).await;
    }

    /// How many entries of each stream are unread or not acknowledged, the second one's where there is one; none without a
    /// group.
    pub(crate) async fn left(&self) -> Option<(u64, u64)> {
        let bulk = if self.client.exists::<u64, _>(self.keys.bulk()).await.unwrap() == 1 {
            self.left_in(self.keys.bulk()).await?
        } else {
            0
        };
        // In this order: ingest moves entries from the second to the first.
        Some((self.left_in(self.keys.stream()).await?, bulk))
    }

    async fn left_in(&self, stream: &str) -> Option<u64> {
        let Group { delivered, pending } = self.group_of(stream).await?;
        let unread: Vec<RedisValue> =
            self.client.xrange(stream, format!("({delivered}"), "+", Some(100)).await.unwrap();
        Some(pending + unread.len() as u64)
    }

    /// How many deleted accounts still have rows.
    pub(crate) async fn unswept(&self) -> i64 {
        let unswept = "SELECT count(*) FROM penstock.repos WHERE deleted_through > coalesce(swept_through, '')";
        sqlx::query_scalar(unswept).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn cursor(&self) -> Option<u64> {
        self.client.get(self.keys.cursor()).await.unwrap()
    }

    /// Whether Redis lost the cursor after everything up to this number was settled: ingest goes on from the checkpoint in PostgreSQL,
    /// and writes a cursor with the next event, which a relay that has said all may never send.
    pub(crate) async fn rests_at(&self, seq: u64) -> bool {
        let checkpoint = sqlx::query_scalar("SELECT seq FROM penstock.checkpoint").fetch_optional(&self.pool).await;
        let checkpoint: Option<i64> = checkpoint.unwrap_or_default();
        checkpoint == Some(seq.cast_signed()) && matches!(self.client.exists(self.keys.cursor()).await, Ok(0_i64))
    }

    /// The token of the ingest that holds the lease.
    pub(crate) async fn lease(&self) -> Option<String> {
        self.client.get(self.keys.ingest_lease()).await.unwrap()
    }

    /// The workers' group, once a worker has made it.
    pub(crate) async fn group(&self) -> Option<Group> {
        self.group_of(self.keys.stream()).await
    }

    async fn group_of(&self, stream: &str) -> Option<Group> {
        let groups: Vec<HashMap<String, RedisValue>> = self.client.xinfo_groups(stream).await.unwrap_or_default();
        let ours = groups.into_iter().find(|group| group["name"].as_str().as_deref() == Some(self.keys.group()))?;
        Some(Group { delivered: ours["last-delivered-id"].as_string()?, pending: ours["pending"].as_u64()? })
    }

    /// Has the whole stream delivered once more.
    pub(crate) async fn redeliver_all(&self) {
        let () = self.client.xgroup_setid(self.keys.stream(), self.keys.group(), "0").await.unwrap();
    }

    /// The names of the workers in the group.
    pub(crate) async fn consumers(&self) -> Vec<String> {
        let consumers: Vec<HashMap<String, RedisValue>> =
            self.client.xinfo_consumers(self.keys.stream(), self.keys.group()).await.unwrap();
        consumers.into_iter().map(|consumer| consumer["name"].as_string().unwrap()).collect()
    }

    /// The last ID that the stream gave.
    pub(crate) async fn last_id(&self) -> String {
        let stream: HashMap<String, RedisValue> =
            self.client.xinfo_stream(self.keys.stream(), false, None).await.unwrap();
        stream["last-generated-id"].as_string().unwrap()
    }

    /// How many entries the stream has.
    pub(crate) async fn length(&self) -> u64 {
        self.client.xlen(self.keys.stream()).await.unwrap()
    }

    /// The number of the first entry that is still there.
    pub(crate) async fn first_seq(&self) -> Option<u64> {
        let first: Vec<(String, Vec<(String, String)>)> =
            self.client.xrange(self.keys.stream(), "-", "+", Some(1)).await.unwrap();
        first.into_iter().next().map(|first| entry(first).1.seq)
    }

    /// Adds an entry as a producer does.
    pub(crate) async fn add(&self, kind: &str, data: &str, seq: &str) -> String {
        let fields = vec![("type", kind), ("data", data), ("seq", seq)];
        self.client.xadd(self.keys.stream(), false, None::<()>, "*", fields).await.unwrap()
    }

    /// The stream from end to end: IDs, and entries as a positional reader sees them.
    pub(crate) async fn stream(&self) -> Vec<(String, Entry)> {
        let found: Vec<(String, Vec<(String, String)>)> =
            self.client.xrange(self.keys.stream(), "-", "+", None).await.unwrap();
        found.into_iter().map(entry).collect()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetter> {
        let found: Vec<(String, Vec<(String, String)>)> =
            self.client.xrange(self.keys.dead_letters(), "-", "+", None).await.unwrap();
        let letter = |(id, fields): (String, Vec<(String, String)>)| {
            let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
            let (known, more) = names.split_at(7);
            assert_eq!(known, ["type", "data", "seq", "origId", "deliveries", "error", "consumer"], "in {id}");
            assert!(matches!(more, [] | ["repo"]), "{more:?} in {id}");
            fields.into_iter().collect()
        };
        found.into_iter().map(letter).collect()
    }

    pub(crate) async fn hash(&self, key: &str) -> BTreeMap<String, i64> {
        self.client.hgetall(key).await.unwrap()
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&self.pool).await.unwrap()
    }

    /// Every row of every table.
    pub(crate) async fn tables(&self) -> Tables {
        self.tables_of(None).await
    }

    /// The rows that belong to these DIDs, in every table.
    pub(crate) async fn tables_of(&self, dids: Option<&[String]>) -> Tables {
        let mut tables = Tables::new();
        for (table, key) in TABLES {
            let whose = format!("$1 IS NULL OR {key} = ANY($1) OR split_part({key}, '/', 3) = ANY($1)");
            let rows = format!("SELECT to_jsonb(t) FROM {table} AS t WHERE {whose}");
            let rows = sqlx::query_scalar(AssertSqlSafe(rows)).bind(dids);
            let rows: Vec<Value> = rows.fetch_all(&self.pool).await.unwrap();
            let rows = rows.into_iter().map(|mut row| {
                // When a count, or an account without a profile, was first seen is not said by the events either.
                if table == "post_aggregations" {
                    row.as_object_mut().unwrap().remove("created_at");
                } else if table == "users" && row["created_at"] == row["indexed_at"] {
                    row["created_at"] = Value::Null;
                }
                // Of the stamp only the relay's number follows from the events.
                for column in ["commit_seq", "entry_id"] {
                    if let Some(stamp) = row[column].as_str() {
                        row[column] = stamp.split_once(':').map_or(Value::Null, |(_, number)| number.into());
                    }
                }
                if table == "penstock.records" {
                    row.as_object_mut().unwrap().remove("key");
                }
                row.as_object_mut().unwrap().retain(|column, _| !IGNORED.contains(&column.as_str()));
                (row[key].as_str().unwrap().to_owned(), row)
            });
            tables.insert(table, rows.collect());
        }
        tables
    }

    /// Asserts that the stream is exactly these entries, in this order.
    pub(crate) async fn assert_stream_is(&self, expected: &[Entry]) {
        let found = self.stream().await;
        for ((id, found), expected) in found.iter().zip(expected) {
            assert!(
                found == expected,
                "{id} must be {:.600}, is {:.600}",
                format!("{expected:?}"),
                format!("{found:?}")
            );
        }
        assert_eq!(found.len(), expected.len(), "entries in the stream");
    }

    /// Asserts that rows and counts are those of these entries, each delivered so many times, and that none failed.
    pub(crate) async fn assert_result_is(&self, entries: &[Entry], times: i64) {
        self.assert_rows_are(entries).await;
        let expected = model::tables(entries);
        assert_eq!(self.hash(&self.keys.record_counts()).await, model::record_counts(&expected));
        assert_eq!(self.hash(&self.keys.cluster_metrics()).await, model::event_counts(entries, times));
        assert_eq!(self.dead_letters().await, [], "dead letters in redis");
        assert_eq!(self.kept_dead_letters().await, BTreeSet::new(), "dead letters in postgresql");
    }

    /// Asserts that the rows are those of these entries, however often they were delivered.
    pub(crate) async fn assert_rows_are(&self, entries: &[Entry]) {
        let (expected, found) = (model::tables(entries), self.tables().await);
        let differences = model::differences(&expected, &found);
        assert!(differences.is_empty(), "rows are not as the model says\n{differences}");
    }

    /// The numbers of the dead letters in PostgreSQL.
    pub(crate) async fn kept_dead_letters(&self) -> BTreeSet<u64> {
        let kept: Vec<String> =
            sqlx::query_scalar("SELECT seq FROM penstock.dead_letters").fetch_all(&self.pool).await.unwrap();
        // A frame that cannot be read has none.
        kept.iter().filter(|seq| !seq.is_empty()).map(|seq| seq.parse().unwrap()).collect()
    }

    /// The numbers of what ingest set aside, in order; of what has none, nothing.
    pub(crate) async fn set_aside(&self) -> Vec<u64> {
        let found: Vec<(String, HashMap<String, String>)> =
            self.client.xrange(self.keys.raw_letters(), "-", "+", None).await.unwrap();
        found.iter().filter_map(|(_, fields)| fields["seq"].parse().ok()).collect()
    }

    /// The repos that are known to have more than their rows say.
    pub(crate) async fn lacking(&self) -> BTreeSet<String> {
        let dids: Vec<String> =
            sqlx::query_scalar("SELECT did FROM penstock.repairs").fetch_all(&self.pool).await.unwrap();
        dids.into_iter().collect()
    }

    /// The repos that are known to have missed something.
    pub(crate) async fn marked(&self) -> BTreeSet<String> {
        let marked = sqlx::query_scalar("SELECT did FROM penstock.repos WHERE sync IS NOT NULL");
        let dids: Vec<String> = marked.fetch_all(&self.pool).await.unwrap();
        dids.into_iter().collect()
    }
}
