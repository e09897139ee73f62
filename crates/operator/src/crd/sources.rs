//! Where events come from and go to: the relay, Redis, PostgreSQL.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Time;

/// The relay to read from.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Relay {
    /// Relay URLs, 1 to 8: the first is used, the others in turn if it fails. `wss://host` or `ws://host:port`, optionally with an
    /// `/xrpc` base or the full path. Default: `wss://bsky.network`.
    #[schemars(length(min = 1, max = 8), inner(length(max = 1024)))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.all(u, u.matches('^wss?://[A-Za-z0-9.\\\\[\\\\]:_-]+(/.*)?$'))", "message": "each of relay.urls must be wss://host or ws://host:port, such as wss://bsky.network" }, { "rule": "self.all(u, self.exists_one(v, v == u))", "message": "relay.urls must not contain duplicates" }]))]
    pub urls: Vec<String>,
    /// Where to start if there is neither a cursor nor a checkpoint: `live` (default) at the next event, `oldest` at the oldest event that
    /// the relay still has.
    pub start: Start,
    /// How long a busy relay may send no event, or a quiet one not answer a ping, before ingest reconnects, 50ms to 1h. Default: 30s.
    pub data_timeout: Time,
}

/// Where to start if there is neither a cursor nor a checkpoint.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// At the next event.
    #[default]
    Live,
    /// At the oldest event that the relay still has.
    Oldest,
}

/// The Redis that holds the stream.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "has(self.url) != has(self.urlSecret)", "message": "set exactly one of redis.url (without a password) and redis.urlSecret (name and key of a Secret)" }]))]
pub struct Redis {
    /// URL without a password: `redis://host:port/database`, `rediss://` for TLS, `redis-sentinel://host:port?sentinelServiceName=name`,
    /// `redis-cluster://host:port`. With a password, or a `sentinelPassword`, use `urlSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^rediss?(-sentinel|-cluster)?://[^@ ]+$')", "message": "redis.url must be redis://host:port, rediss://, redis-sentinel:// or redis-cluster://, without user and password: put a URL with a password into a Secret, see redis.urlSecret" }]))]
    pub url: Option<String>,
    /// The key of a Secret in the same namespace that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret: Option<SecretKey>,
    /// Certificates for `rediss://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// Prefix of every key and channel, so that several pipelines can share one Redis. With Redis Cluster it needs a hash tag, such as
    /// `{bluesky}:`. Immutable: a different prefix would be a different stream. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self == oldSelf", "message": "redis.keyPrefix is immutable, because it names the stream and the cursor: delete the pipeline and create a new one" }]))]
    pub key_prefix: String,
    /// Full name of the stream; the prefix is not added. Default: the prefix and `firehose:events`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub stream_key: Option<String>,
    /// Full name of the cursor; the prefix is not added. A different name lets ingest run alongside an older writer. Default: the prefix
    /// and `firehose:python_cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cursor_key: Option<String>,
    /// The consumer group of the workers. Default: `firehose-processors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub group: Option<String>,
    /// Maximum length of the stream, in entries; the watermarks are shares of it. 10 to 1,000,000,000. Default: 500000.
    #[serde(default = "max_stream_length")]
    #[schemars(range(min = 10, max = 1_000_000_000))]
    pub max_stream_length: i64,
}

/// Certificates for `rediss://`: keys of Secrets in the same namespace that hold PEM.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "has(self.certSecret) == has(self.keySecret)", "message": "set redis.tls.certSecret and redis.tls.keySecret together: a client certificate needs its key" }]))]
pub struct RedisTls {
    /// Certificates of the authorities that may vouch for Redis, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretKey>,
    /// Client certificate, with its chain, for a Redis that asks for one (`tls-auth-clients`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret: Option<SecretKey>,
    /// Private key of the client certificate, without a passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<SecretKey>,
}

/// The PostgreSQL to write to.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "rule": "has(self.url) != has(self.urlSecret)", "message": "set exactly one of postgres.url (without a password) and postgres.urlSecret (name and key of a Secret)" }, { "rule": "!has(self.passwordFile) || !has(self.passwordCommand)", "message": "set at most one of postgres.passwordFile and postgres.passwordCommand: one of them says the password" }]))]
pub struct Postgres {
    /// URL without a password: `postgres://user@host:port/database`; of several hosts, `postgres://user@a,b/database?target_session_attrs=read-write`.
    /// With a password, use `urlSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[schemars(extend("x-kubernetes-validations" = [{ "rule": "self.matches('^postgres(ql)?://([^:@/ ]+@)?[^@ ]+$') && !self.matches('[?&]password=')", "message": "postgres.url must be postgres://user@host:port/database without a password: put a URL with a password into a Secret, see postgres.urlSecret" }]))]
    pub url: Option<String>,
    /// The key of a Secret in the same namespace that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret: Option<SecretKey>,
    /// The key of a Secret in the same namespace that holds a URL of the server itself, where the other one leads through a pooler such
    /// as PgBouncer. The migration uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_url_secret: Option<SecretKey>,
    /// File in the pods with the password, read anew for each connection: it may hold a token that changes. Mount it with
    /// `extraVolumes` and `extraVolumeMounts` of the pods; the URL then holds no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub password_file: Option<String>,
    /// Program in the image and its arguments, separated by spaces, that print the password; run anew for each connection, without a
    /// shell. The URL then holds no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub password_command: Option<String>,
    /// Schema with the AppView's tables. Default: the one that the migration recorded, else the first of the role's search path that has
    /// them, else the first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
    /// Maximum number of connections per process, 2 to 500. Default: 8.
    #[serde(default = "pool_size")]
    #[schemars(range(min = 2, max = 500))]
    pub pool_size: i32,
    /// Whether a Job creates or migrates the tables before the workers of a new version start. If false, run `penstock migrate` yourself:
    /// workers wait for the tables. Default: true.
    #[serde(default = "yes")]
    pub migrate: bool,
    /// Labels and annotations of that Job and its pod. What else there is of the pod follows `workers.pod`.
    #[serde(default)]
    pub migration_job: MigrationJob,
}

/// Labels and annotations of the Job that migrates, such as those that keep a mesh's sidecar out of it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationJob {
    /// Annotations of the Job.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pod, over those of `workers.pod`.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of its pod, over those of `workers.pod`.
    pub pod_annotations: BTreeMap<String, String>,
}

/// One key of a Secret in the pipeline's namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

// === impl Redis ===

impl Redis {
    /// Lists the Secrets with certificates: the variable that carries each, the field that names it, and which one.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&'static str, &'static str, &SecretKey)> {
        let tls = self.tls.iter().flat_map(|tls| {
            [
                ("PENSTOCK_REDIS_TLS_CA", "redis.tls.caSecret", tls.ca_secret.as_ref()),
                ("PENSTOCK_REDIS_TLS_CERT", "redis.tls.certSecret", tls.cert_secret.as_ref()),
                ("PENSTOCK_REDIS_TLS_KEY", "redis.tls.keySecret", tls.key_secret.as_ref()),
            ]
        });
        tls.filter_map(|(variable, field, secret)| Some((variable, field, secret?)))
    }
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
