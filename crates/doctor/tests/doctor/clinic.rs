//! Servers of the test's own, players of the originals, and what the doctor says of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, StreamsInterface};
use fred::types::{CustomCommand, Value};
use penstock_core::settings::{Layers, Settings};
use penstock_doctor::{Level, Report};
use penstock_local::testing::{TestRedis, fresh_database};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// The stream.
pub(crate) const STREAM: &str = "firehose:events";

/// A Redis of its own, a database, and how the doctor is told of them.
pub(crate) struct Clinic {
    pub(crate) client: Client,
    environment: BTreeMap<String, String>,
    _redis: std::sync::Arc<TestRedis>,
}

/// What the doctor says.
#[derive(Debug)]
pub(crate) struct Findings(pub(crate) Report);

// === impl Clinic ===

impl Clinic {
    pub(crate) async fn new() -> Self {
        let redis = TestRedis::start().await.unwrap();
        let url = redis.url();
        let environment = BTreeMap::from([
            ("REDIS_URL".to_owned(), url),
            ("DATABASE_URL".to_owned(), fresh_database().await.unwrap()),
        ]);
        let settings = Settings::load(&Layers::default().environment(environment.clone())).unwrap();
        let client = penstock_core::redis::connect(&settings).await.unwrap();
        Self { client, environment, _redis: redis.into() }
    }

    /// The same with another variable.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut environment = self.environment.clone();
        environment.insert(name.to_owned(), value.to_owned());
        Self { client: self.client.clone(), environment, _redis: self._redis.clone() }
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    pub(crate) fn var(&self, name: &str) -> &str {
        &self.environment[name]
    }

    /// Lets the doctor look.
    pub(crate) async fn examine(&self) -> Findings {
        self.look(Duration::from_millis(200)).await
    }

    async fn look(&self, pause: Duration) -> Findings {
        let settings = Settings::load(&Layers::default().environment(self.environment.clone())).unwrap();
        Findings(penstock_doctor::examine(&settings, pause).await)
    }

    /// Lets the doctor look while somebody does something again and again.
    pub(crate) async fn examine_while(&self, act: impl AsyncFnMut(u64)) -> Findings {
        self.examine_for(Duration::from_millis(200), act).await
    }

    /// The same with so long between the two looks.
    pub(crate) async fn examine_for(&self, pause: Duration, mut act: impl AsyncFnMut(u64)) -> Findings {
        let acting = async {
            for at in 0.. {
                act(at).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            findings = self.look(pause) => findings,
            () = acting => panic!("it never ends"),
        }
    }

    /// Does one command.
    pub(crate) async fn redis(&self, command: &[&str]) -> Value {
        let (name, arguments) = command.split_first().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.client.custom(CustomCommand::new((*name).to_owned(), None, false), arguments).await.unwrap()
    }

    /// A field of INFO.
    pub(crate) async fn info(&self, field: &str) -> String {
        let info: String = self.client.info(None).await.unwrap();
        info.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap().to_owned()
    }

    async fn add(&self, kind: &str, data: &str, seq: &str) {
        let entry = vec![("type", kind), ("data", data), ("seq", seq)];
        let _: String = self.client.xadd(STREAM, false, ("MAXLEN", "~", 500_000), "*", entry).await.unwrap();
    }

    /// The Python consumer: spaces in its JSON, a cursor that it writes before the entry, now and then.
    pub(crate) async fn python(&self, seqs: Range<u64>) {
        for seq in seqs {
            if seq % 500 == 0 {
                let _: () =
                    self.client.set("firehose:python_cursor", seq.to_string(), None, None, false).await.unwrap();
            }
            let data = r#"{"repo": "did:plc:a", "ops": [{"action": "delete", "path": "app.bsky.feed.like/3k"}]}"#;
            self.add("commit", data, &seq.to_string()).await;
        }
    }

    /// The TypeScript ingestion.
    pub(crate) async fn typescript(&self, seqs: Range<u64>) {
        for seq in seqs {
            let data = r#"{"repo":"did:plc:a","ops":[{"action":"delete","path":"app.bsky.feed.like/3k"}]}"#;
            self.add("commit", data, &seq.to_string()).await;
        }
    }

    /// Our ingest, as far as the stream shows it.
    pub(crate) async fn penstock(&self, seqs: Range<u64>) {
        for seq in seqs {
            let data =
                r#"{"repo":"did:plc:a","ops":[],"rev":"3k","time":"2026-07-04T14:38:08Z","commit":"c","since":null}"#;
            self.add("commit", data, &seq.to_string()).await;
        }
    }

    /// Makes a group that begins at the oldest entry.
    pub(crate) async fn group(&self, name: &str) {
        let () = self.client.xgroup_create(STREAM, name, "0", true).await.unwrap();
    }

    /// A worker of theirs that was given so many entries, and ends.
    pub(crate) async fn read(&self, group: &str, consumer: &str, count: u64) {
        self.redis(&["XREADGROUP", "GROUP", group, consumer, "COUNT", &count.to_string(), "STREAMS", STREAM, ">"])
            .await;
    }

    pub(crate) async fn sql(&self, sql: &str) {
        let mut conn = PgConnection::connect(self.var("DATABASE_URL")).await.unwrap();
        conn.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        conn.close().await.unwrap();
    }
}

// === impl Findings ===

impl Findings {
    /// Holds that a check says this.
    #[track_caller]
    pub(crate) fn says(&self, level: Level, check: &str, found: &str) {
        let all: Vec<_> = self.0.findings.iter().filter(|finding| finding.check == check).collect();
        let fits = all.iter().any(|finding| finding.level == level && finding.found.contains(found));
        assert!(fits, "{check} should be {level:?} with {found:?}: {all:#?}\n{}", self.0.to_text());
    }

    /// The level of the one finding of a check.
    #[track_caller]
    pub(crate) fn level(&self, check: &str) -> Level {
        let mut all = self.0.findings.iter().filter(|finding| finding.check == check);
        all.next().unwrap_or_else(|| panic!("no {check} in {}", self.0.to_text())).level
    }

    pub(crate) fn has(&self, check: &str) -> bool {
        self.0.findings.iter().any(|finding| finding.check == check)
    }
}
