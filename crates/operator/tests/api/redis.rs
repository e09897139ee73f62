//! A Redis of a test's own, and what the services would write there.

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value};
use penstock_core::keys::Keys;
use penstock_core::permissions::Part;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TestRedis;

pub(crate) struct Redis {
    pub(crate) server: TestRedis,
    client: Client,
}

// === impl Redis ===

impl Redis {
    pub(crate) async fn start() -> Self {
        let server = TestRedis::start().await.unwrap();
        let layers = Layers::default().flag("redis.url", server.url()).flag("redis.commandTimeout", "10s");
        let client = penstock_core::redis::connect(&Settings::load(&layers).unwrap()).await.unwrap();
        Self { server, client }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Makes a user with the operator's rights of the manual, and returns its URL.
    pub(crate) async fn url_of_operator(&self) -> String {
        let rules = Part::Operator.rules(&Keys::default()).join(" ");
        self.command(&format!("ACL SETUSER operator reset on >hunter2 {rules}")).await;
        format!("redis://operator:hunter2@127.0.0.1:{}", self.server.port())
    }

    /// Sends a command; words hold no spaces.
    pub(crate) async fn command(&self, line: &str) -> Value {
        let mut words = line.split_whitespace().map(str::to_owned);
        let command = CustomCommand::new(words.next().unwrap(), None, false);
        self.client.custom(command, words.collect::<Vec<_>>()).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(crate) async fn has(&self, key: &str) -> bool {
        self.command(&format!("EXISTS {key}")).await.as_u64() == Some(1)
    }

    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.command(&format!("GET {key}")).await.into_string()
    }

    /// Writes what an ingest that reads a relay writes, and makes the workers' group.
    pub(crate) async fn flow(&self, prefix: &str) {
        let status = r#"{"connected":true,"url":"wss://relay","currentCursor":"42"}"#;
        self.command(&format!("SET {prefix}firehose:status {status}")).await;
        self.command(&format!("SET {prefix}firehose:python_cursor 42")).await;
        self.command(&format!("XGROUP CREATE {prefix}firehose:events firehose-processors 0 MKSTREAM")).await;
    }

    /// Adds entries to the stream.
    pub(crate) async fn add(&self, prefix: &str, count: usize) {
        let script =
            format!("for i=1,{count} do redis.call('XADD',KEYS[1],'*','type','commit','data','{{}}','seq',i) end");
        let words = [script.as_str(), "1", &format!("{prefix}firehose:events")].map(str::to_owned).to_vec();
        let _: Value = self.client.custom(CustomCommand::new_static("EVAL", None, false), words).await.unwrap();
    }
}
