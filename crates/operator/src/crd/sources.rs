//! Where events come from and go to: the relay, Redis, PostgreSQL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Time;

/// The relay that is read.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Relay {
    /// The relays, 1 to 8: the first is read, the others stand by and are read in turn when it fails. `wss://host` or `ws://host:port`;
    /// an `/xrpc` base or the full path are fine. Default: `wss://bsky.network`.
    #[schemars(length(min = 1, max = 8), inner(length(max = 1024)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(u, u.matches('^wss?://[A-Za-z0-9.\\\\[\\\\]:_-]+(/.*)?$'))", "message": "each of relay.urls is wss://host or ws://host:port, such as wss://bsky.network" }, { "rule": "self.all(u, self.exists_one(v, v == u))", "message": "relay.urls names a relay twice: name each once" }]))]
    pub urls: Vec<String>,
    /// Where to start when there is neither a cursor nor a checkpoint: `live` (default) with the next event, `oldest` with the oldest that
    /// the relay still has.
    pub start: Start,
    /// How long the relay may send no event before the connection counts as dead, 50ms to 1h. A small host is quiet: give it more.
    /// Default: 30s.
    pub data_timeout: Time,
}

/// Where to start when there is neither a cursor nor a checkpoint.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// With the next event.
    #[default]
    Live,
    /// With the oldest that the relay still has.
    Oldest,
}

/// The Redis that holds the stream.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "has(self.url) != has(self.urlSecret)", "message": "give exactly one of redis.url (without a password) and redis.urlSecret (name and key of a Secret)" }]))]
pub struct Redis {
    /// The address where it holds no secret: `redis://host:port/database`, `rediss://` for TLS, `redis-sentinel://host:port?sentinelServiceName=name`,
    /// `redis-cluster://host:port`. With a password use `urlSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^rediss?(-sentinel|-cluster)?://[^@ ]+$')", "message": "redis.url is redis://host:port, rediss://, redis-sentinel:// or redis-cluster://, without user and password: an address with a password belongs into a Secret, see redis.urlSecret" }]))]
    pub url: Option<String>,
    /// The key of a Secret in the same namespace that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret: Option<SecretKey>,
    /// What goes before every key and channel, so that several pipelines share one Redis; in Redis Cluster with a hash tag, such as
    /// `{bluesky}:`. It cannot be changed: the stream would be another one. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self == oldSelf", "message": "redis.keyPrefix cannot be changed: the stream and the cursor stand under it. Delete the pipeline and apply a new one" }]))]
    pub key_prefix: String,
    /// The name of the stream, taken as it is. Default: the prefix and `firehose:events`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub stream_key: Option<String>,
    /// The name of the cursor, taken as it is: another one lets ingest run beside an older writer. Default: the prefix and
    /// `firehose:python_cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cursor_key: Option<String>,
    /// The consumer group of the workers. Default: `firehose-processors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub group: Option<String>,
    /// The cap of the stream, in entries, from which the watermarks are counted; 10 to 1,000,000,000. Default: 500000.
    #[serde(default = "max_stream_length")]
    #[schemars(range(min = 10, max = 1_000_000_000))]
    pub max_stream_length: i64,
}

/// The PostgreSQL that is written.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "has(self.url) != has(self.urlSecret)", "message": "give exactly one of postgres.url (without a password) and postgres.urlSecret (name and key of a Secret)" }]))]
pub struct Postgres {
    /// The address where it holds no secret: `postgres://user@host:port/database`. With a password use `urlSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^postgres(ql)?://([^:@/ ]+@)?[^@ ]+$')", "message": "postgres.url is postgres://user@host:port/database without a password: an address with a password belongs into a Secret, see postgres.urlSecret" }]))]
    pub url: Option<String>,
    /// The key of a Secret in the same namespace that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret: Option<SecretKey>,
    /// How many connections a process holds at most, 2 to 500. Default: 8.
    #[serde(default = "pool_size")]
    #[schemars(range(min = 2, max = 500))]
    pub pool_size: i32,
    /// Whether a Job makes or completes the tables before the workers of a new version start. Where it is false, run `penstock migrate`
    /// yourself: workers wait for the tables. Default: true.
    #[serde(default = "yes")]
    pub migrate: bool,
}

/// One key of a Secret in the pipeline's namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

// === impl Relay ===

impl Default for Relay {
    fn default() -> Self {
        Self { urls: vec!["wss://bsky.network".to_owned()], start: Start::Live, data_timeout: "30s".into() }
    }
}

const fn max_stream_length() -> i64 {
    500_000
}

const fn pool_size() -> i32 {
    8
}

pub(super) const fn yes() -> bool {
    true
}
