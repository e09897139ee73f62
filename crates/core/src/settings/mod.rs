//! The settings of a pipeline: one typed tree from flags, environment and a YAML file.

mod address;
mod layers;
mod otlp;
mod postgres;
mod projections;
mod section;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use thiserror::Error;

pub use address::{PostgresUrl, RedisKind, RedisUrl, RelayUrl, SUBSCRIBE_REPOS, mask};
pub use layers::{FileError, Layers, Origin, environment_name};
pub use otlp::{OtlpEndpoint, OtlpProtocol, Pairs, Ratio, SecretPairs};
pub use projections::{Projection, Projections};
pub use section::Field;
pub use value::{LogFormat, Percent, Secret, Start, Value};

use crate::keys::{KeyPrefix, Keys, Names};
use section::settings;

settings! {
    /// The relay that is read.
    pub struct Relay in "relay" {
        /// The relays, comma-separated: the first is read, the others stand by. A bare host, an `/xrpc` base or the full path.
        urls "urls": Vec<RelayUrl> = "wss://bsky.network", env "RELAY_URL";
        /// Where to start when there is neither cursor nor checkpoint.
        start "start": Start = "live";
        /// How long the relay may send no event before the connection counts as dead.
        data_timeout "dataTimeout": Duration = "30s", from "50ms" to "1h";
        /// How often a ping is sent.
        ping_interval "pingInterval": Duration = "30s", from "50ms" to "1h";
        /// How long connecting may take.
        connect_timeout "connectTimeout": Duration = "10s", from "50ms" to "5m";
        /// The first pause after a failure; it doubles from there, with full jitter.
        backoff_min "backoffMin": Duration = "1s", from "1ms" to "5m";
        /// The longest pause after a failure.
        backoff_max "backoffMax": Duration = "30s", from "1ms" to "1h";
        /// How long events must have come before the pauses start again from the first.
        healthy_after "healthyAfter": Duration = "60s", from "10ms" to "1h";
        /// After how many failures in a row the next relay is read.
        failover_after "failoverAfter": NonZeroU32 = "3", from "1" to "1000";
        /// How often the head of each relay that stands by is sampled.
        standby_interval "standbyInterval": Duration = "60s", from "100ms" to "1h";
    }
}

settings! {
    /// The Redis that holds the stream, and the names in it.
    pub struct Redis in "redis" {
        /// The address; goes before host, port and password.
        url "url": Option<RedisUrl> = none, env "REDIS_URL";
        /// The host, where no address is given.
        host "host": String = "localhost", env "REDIS_HOST";
        /// The port, where no address is given.
        port "port": u16 = "6379", env "REDIS_PORT", from "1" to "65535";
        /// The password, where no address is given.
        password "password": Option<Secret> = none, env "REDIS_PASSWORD";
        /// What goes before every key and channel; in Redis Cluster with a hash tag, such as `{bluesky}:`.
        key_prefix "keyPrefix": Option<String> = none;
        /// The stream's name, taken as it is. Default: prefix and `firehose:events`.
        stream_key "streamKey": Option<String> = none, env "REDIS_STREAM_KEY";
        /// The cursor's name, taken as it is. Default: prefix and `firehose:python_cursor`.
        cursor_key "cursorKey": Option<String> = none, env "REDIS_CURSOR_KEY";
        /// The consumer group of the workers. Default: `firehose-processors`.
        group "group": Option<String> = none, env "REDIS_CONSUMER_GROUP";
        /// The cap of the stream, in entries, from which the watermarks are counted.
        max_stream_len "maxStreamLen": u64 = "500000", env "REDIS_MAX_STREAM_LEN", from "10" to "1000000000";
        /// How long a command may take before its connection counts as dead.
        command_timeout "commandTimeout": Duration = "5s", from "50ms" to "5m";
        /// Whether to start although Redis may evict keys. It would lose events: only for a Redis that is about to change.
        allow_eviction "allowEviction": bool = "false";
    }
}

settings! {
    /// The PostgreSQL that is written.
    pub struct Postgres in "postgres" {
        /// The address of the database; goes before host, port, database, user and password.
        url "url": Option<PostgresUrl> = none, env "DATABASE_URL";
        /// The host, or the directory of a socket, where no address is given.
        host "host": Option<String> = none, env "DB_HOST" or "POSTGRES_HOST";
        /// The port, where no address is given.
        port "port": u16 = "5432", env "DB_PORT" or "POSTGRES_PORT", from "1" to "65535";
        /// The name of the database, where no address is given.
        database "database": Option<String> = none, env "DB_NAME" or "POSTGRES_DB";
        /// The name to log in with, where no address is given.
        user "user": Option<String> = none, env "DB_USER" or "POSTGRES_USER";
        /// The password, where no address is given.
        password "password": Option<Secret> = none, env "DB_PASSWORD" or "POSTGRES_PASSWORD";
        /// How many connections a process holds at most.
        pool_size "poolSize": NonZeroU32 = "8", env "DB_POOL_SIZE", from "2" to "500";
        /// How long one statement may take.
        statement_timeout "statementTimeout": Duration = "60s", from "100ms" to "1h";
    }
}

settings! {
    /// How events get from the relay into the stream.
    pub struct Ingest in "ingest" {
        /// The most entries of one batch.
        batch_events "batchEvents": usize = "500", from "1" to "5000";
        /// The most bytes of one batch.
        batch_bytes "batchBytes": usize = "2000000", from "1000" to "50000000";
        /// How long an event waits for others of its batch.
        batch_delay "batchDelay": Duration = "1ms", from "0ms" to "10s";
        /// How many batches may be on their way to Redis at once.
        batches_in_flight "batchesInFlight": usize = "4", from "1" to "64";
        /// The most bytes of frames received and not yet written.
        buffer_bytes "bufferBytes": usize = "8000000", from "6000000" to "1000000000";
        /// How long the lease of the one writer lasts without renewal.
        lease_time "leaseTime": Duration = "6s", from "100ms" to "5m";
        /// How often the stream is trimmed and the watermarks are checked.
        trim_interval "trimInterval": Duration = "1s", from "10ms" to "1m";
        /// At which share of the stream's cap, or of Redis' memory, reading stops.
        high_watermark "highWatermark": Percent = "80%";
        /// Below which share reading goes on.
        low_watermark "lowWatermark": Percent = "50%";
        /// How long another group that shows no sign of life still holds its entries.
        foreign_group_hold "foreignGroupHold": Duration = "1h", from "100ms" to "30d";
        /// How long another program that wrote into the stream must have written nothing before it is taken over from. The Python
        /// consumer writes its cursor every 5 s.
        foreign_quiet "foreignQuiet": Duration = "12s", from "50ms" to "10m";
        /// Whether another producer may write the same stream at the same time; give ingest a `redis.cursorKey` of its own then.
        shared_stream "sharedStream": bool = "false";
        /// Whether the row of the AppView's own ingestion in `firehose_cursor` is kept current, so that it could go on.
        appview_cursor "appviewCursor": bool = "false";
        /// How often status and recent events are written on a quiet relay.
        status_interval "statusInterval": Duration = "5s", from "50ms" to "9s";
        /// The most live events a second that are broadcast; above it they are sampled.
        broadcast_rate "broadcastRate": NonZeroU32 = "2000", from "1" to "1000000";
    }
}

settings! {
    /// How entries get from the stream into PostgreSQL.
    pub struct Worker in "worker" {
        /// The consumer's name, one per process. Default: host name and process id.
        consumer_id "consumerId": Option<String> = none, env "CONSUMER_ID";
        /// The most entries of one batch.
        batch_size "batchSize": usize = "1000", from "1" to "10000";
        /// How long an entry waits for others of its batch.
        batch_delay "batchDelay": Duration = "50ms", from "1ms" to "10s";
        /// After how long without a sign of life an entry is taken from its consumer.
        claim_time "claimTime": Duration = "60s", from "50ms" to "1h";
        /// How often counters are published.
        publish_interval "publishInterval": Duration = "500ms", from "10ms" to "1m";
        /// How often PostgreSQL is told up to which event everything is settled, should Redis be lost.
        checkpoint_interval "checkpointInterval": Duration = "5s", from "50ms" to "1h";
        /// The first pause before a failed transaction is tried again; it doubles from there, with full jitter.
        retry_min "retryMin": Duration = "50ms", from "1ms" to "1m";
        /// The longest pause before a failed transaction is tried again.
        retry_max "retryMax": Duration = "10s", from "1ms" to "10m";
        /// How many times an entry may be the only one at hand when its process died before it is given up.
        crash_limit "crashLimit": u64 = "3", from "1" to "100";
        /// How long the traces of deletes are kept at least: the relay's replay window.
        tombstone_retention "tombstoneRetention": Duration = "72h", from "1s" to "365d";
        /// The most rows of a deleted account that one transaction removes.
        delete_batch "deleteBatch": u32 = "1000", from "1" to "100000";
        /// How often the AppView's `user_settings` are looked at for accounts that opted out or came back.
        opt_out_interval "optOutInterval": Duration = "1m", from "10ms" to "5m";
        /// Whether the text search columns of users and posts are filled.
        search_vector "searchVector": bool = "false";
        /// What is derived from records for an AppView besides: each table by its name, and `cache`, its cache in Redis. `auto`: where the table is there.
        projections "projections": Projections = "auto";
    }
}

settings! {
    /// The message buffer: `POST /messages` of the dashboard, written to PostgreSQL by the workers.
    pub struct MessageBuffer in "messageBuffer" {
        /// Whether the dashboard takes messages and workers write them.
        enabled "enabled": bool = "false";
        /// The most messages of one batch.
        batch_size "batchSize": usize = "50", env "BATCH_SIZE", from "1" to "10000";
        /// How long a message waits for others of its batch. `BATCH_TIMEOUT` is a number of seconds.
        batch_delay "batchDelay": Duration = "2s", env "BATCH_TIMEOUT", from "1ms" to "1m";
        /// How often the statistics are told.
        stats_interval "statsInterval": Duration = "500ms", from "50ms" to "1m";
        /// The most messages that wait in Redis; while there are as many, new ones are refused.
        max_queue "maxQueue": u64 = "100000", from "1" to "10000000";
        /// After how long without a sign of life a worker's messages are taken from it.
        dead_after "deadAfter": Duration = "10s", from "200ms" to "1h";
        /// Whether `/simulate` and `/reset` are open without the admin token. Not beside a read token.
        open_admin "openAdmin": bool = "false";
    }
}

settings! {
    /// The dashboard's HTTP service.
    pub struct Dashboard in "dashboard" {
        /// The address it serves on.
        address "address": SocketAddr = "0.0.0.0:8000", env "DASHBOARD_ADDRESS";
        /// Further addresses, comma-separated.
        extra_addresses "extraAddresses": Vec<SocketAddr> = "";
        /// The origins that may call from a browser, comma-separated.
        allowed_origins "allowedOrigins": Vec<String> = "http://localhost:3000,http://127.0.0.1:3000";
        /// The token for reading, as a bearer token or to sign in. Absent: reading is open.
        read_token "readToken": Option<Secret> = none;
        /// The token for administration, which may read as well. Absent: administration is closed.
        admin_token "adminToken": Option<Secret> = none;
        /// How often the live streams carry the metrics.
        metrics_interval "metricsInterval": Duration = "2s", from "50ms" to "1m";
        /// How many sendings are kept for live clients that are behind or come back; one gathers the events of at least 25 ms.
        client_buffer "clientBuffer": usize = "2048", from "16" to "100000";
        /// How many requests that change something one client address may send a second, and at once.
        post_rate "postRate": NonZeroU32 = "1000", from "1" to "1000000";
    }
}

settings! {
    /// Logs, metrics, traces and the admin server.
    pub struct Telemetry in "telemetry" {
        /// The address of `/healthz`, `/readyz` and `/metrics`.
        admin_address "adminAddress": SocketAddr = "0.0.0.0:9464", env "ADMIN_ADDRESS";
        /// The least level that is logged, or a filter such as `info,penstock_ingest=debug`.
        log_level "logLevel": String = "info", env "LOG_LEVEL";
        /// How log lines look.
        log_format "logFormat": LogFormat = "auto";
        /// How often a summary line is logged; 0s for never.
        summary_interval "summaryInterval": Duration = "10s", from "0s" to "1d";
        /// The OpenTelemetry collector that is sent traces, and metrics where they are wanted. Absent: nothing is traced.
        otlp_endpoint "otlpEndpoint": Option<OtlpEndpoint> = none, env "OTEL_EXPORTER_OTLP_ENDPOINT";
        /// How the collector is spoken to.
        otlp_protocol "otlpProtocol": OtlpProtocol = "grpc", env "OTEL_EXPORTER_OTLP_PROTOCOL";
        /// Headers for the collector, such as `authorization=Bearer%20…`.
        otlp_headers "otlpHeaders": Option<SecretPairs> = none, env "OTEL_EXPORTER_OTLP_HEADERS";
        /// How long the collector may take to answer.
        otlp_timeout "otlpTimeout": Duration = "5s", from "10ms" to "1m";
        /// Whether metrics are sent to the collector too.
        otlp_metrics "otlpMetrics": bool = "false";
        /// How often metrics are sent.
        otlp_metrics_interval "otlpMetricsInterval": Duration = "30s", from "50ms" to "1h";
        /// The share of events, and of HTTP requests, that is traced; errors and what is slow are traced always.
        sample_ratio "sampleRatio": Ratio = "0.001", env "OTEL_TRACES_SAMPLER_ARG";
        /// From which time on a batch, a transaction or a request is slow.
        slow_span "slowSpan": Duration = "1s", from "1ms" to "1h";
        /// How long a process that ends may take to send the last traces and metrics.
        flush_timeout "flushTimeout": Duration = "2s", from "0s" to "1m";
        /// How traces and metrics name the service. Default: `penstock-` and the command.
        service_name "serviceName": Option<String> = none, env "OTEL_SERVICE_NAME";
        /// What else is told of the process, such as `deployment.environment.name=test`.
        resource_attributes "resourceAttributes": Pairs = "", env "OTEL_RESOURCE_ATTRIBUTES";
    }
}

settings! {
    /// The pipeline as a whole.
    pub struct Pipeline in "pipeline" {
        /// Whose the Redis prefix is: `namespace/name` in a cluster.
        name "name": String = "default";
    }
}

settings! {
    /// The operator.
    pub struct Operator in "operator" {
        /// The address of the recommendations that KEDA reads.
        address "address": SocketAddr = "0.0.0.0:8080";
        /// Where KEDA reaches that address, such as `http://penstock-operator.penstock.svc:8080`. Absent: no ScaledObject is made.
        recommendation_url "recommendationUrl": Option<String> = none;
        /// The namespaces whose pipelines are carried out, comma-separated. Default: all.
        watch_namespaces "watchNamespaces": Vec<String> = "";
        /// The name of this pod, by which the leader is known. Default: host name and process id.
        pod_name "podName": Option<String> = none, env "POD_NAME";
        /// The namespace of the lease.
        namespace "namespace": String = "default", env "POD_NAMESPACE";
        /// The image of pipelines that name none.
        image "image": Option<String> = none, env "PENSTOCK_IMAGE";
        /// The name of the lease by which one of several operators leads.
        lease_name "leaseName": String = "penstock-operator";
        /// How long others wait for a leader that does not renew the lease; whole seconds.
        lease_duration "leaseDuration": Duration = "15s", from "1s" to "10m";
        /// How long the leader tries to renew the lease before it ends.
        renew_deadline "renewDeadline": Duration = "10s", from "100ms" to "10m";
        /// How often the lease is renewed, or asked for.
        retry_period "retryPeriod": Duration = "2s", from "50ms" to "1m";
        /// How often the number of workers is decided.
        scaling_interval "scalingInterval": Duration = "5s", from "100ms" to "1m";
        /// How long a deleted pipeline waits for its pods and its Redis at most.
        deletion_deadline "deletionDeadline": Duration = "2m", from "1s" to "1h";
    }
}

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The relay.
    pub relay: Relay,
    /// Redis; `url` is always there once loaded.
    pub redis: Redis,
    /// PostgreSQL; `url` is there once loaded where it was given in parts.
    pub postgres: Postgres,
    /// Ingest.
    pub ingest: Ingest,
    /// Worker.
    pub worker: Worker,
    /// Message buffer.
    pub message_buffer: MessageBuffer,
    /// Dashboard.
    pub dashboard: Dashboard,
    /// Telemetry.
    pub telemetry: Telemetry,
    /// Pipeline.
    pub pipeline: Pipeline,
    /// Operator.
    pub operator: Operator,
    /// The resolved names in Redis.
    pub keys: Keys,
    /// The resolved address of Redis.
    pub redis_url: RedisUrl,
}

/// One setting that is wrong.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field} ({origin}): {value:?} is not allowed; allowed: {allowed}")]
pub struct SettingError {
    /// The setting's path.
    pub field: String,
    /// Where the value came from.
    pub origin: Origin,
    /// The value, secrets masked.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub Vec<SettingError>);

// === impl Settings ===

impl Settings {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// Lists every setting that is wrong, with where it came from and what is allowed.
    pub fn load(layers: &Layers) -> Result<Self, SettingsError> {
        let layers = &postgres::settle(layers);
        let mut errors = unknown(layers);
        let sections = (
            Relay::load(layers, &mut errors),
            Redis::load(layers, &mut errors),
            Postgres::load(layers, &mut errors),
            Ingest::load(layers, &mut errors),
            Worker::load(layers, &mut errors),
            MessageBuffer::load(layers, &mut errors),
            Dashboard::load(layers, &mut errors),
            Telemetry::load(layers, &mut errors),
            Pipeline::load(layers, &mut errors),
            Operator::load(layers, &mut errors),
        );
        let (
            Some(relay),
            Some(redis),
            Some(postgres),
            Some(ingest),
            Some(worker),
            Some(message_buffer),
            Some(dashboard),
            Some(telemetry),
            Some(pipeline),
            Some(operator),
        ) = sections
        else {
            return Err(SettingsError(errors));
        };
        let postgres = Postgres { url: postgres::address(&postgres, layers, &mut errors), ..postgres };
        let mut refuse = |field: &str, value: String, allowed: &str| {
            let known = Self::catalog().into_iter().find(|known| known.path == field);
            let older_names = known.map_or(&[][..], |known| known.older_names);
            let origin = layers.find(field, older_names).map_or(Origin::Default, |(_, origin)| origin);
            errors.push(SettingError { field: field.to_owned(), origin, value, allowed: allowed.to_owned() });
        };
        if relay.urls.is_empty() {
            refuse("relay.urls", String::new(), RelayUrl::ALLOWED);
        }
        if relay.backoff_min > relay.backoff_max {
            refuse("relay.backoffMin", format!("{:?}", relay.backoff_min), "at most relay.backoffMax");
        }
        if worker.retry_min > worker.retry_max {
            refuse("worker.retryMin", format!("{:?}", worker.retry_min), "at most worker.retryMax");
        }
        if operator.renew_deadline >= operator.lease_duration {
            refuse(
                "operator.renewDeadline",
                format!("{:?}", operator.renew_deadline),
                "less than operator.leaseDuration: the old leader must end before another one begins",
            );
        }
        if operator.retry_period >= operator.renew_deadline {
            let value = format!("{:?}", operator.retry_period);
            refuse("operator.retryPeriod", value, "less than operator.renewDeadline");
        }
        if ingest.low_watermark >= ingest.high_watermark {
            refuse("ingest.lowWatermark", ingest.low_watermark.to_string(), "less than ingest.highWatermark");
        }
        if message_buffer.open_admin && dashboard.read_token.is_some() {
            let why = "false while dashboard.readToken is set: who may not even read must not remove everything";
            refuse("messageBuffer.openAdmin", message_buffer.open_admin.to_string(), why);
        }
        let prefix = KeyPrefix::new(redis.key_prefix.as_deref().unwrap_or_default()).unwrap_or_else(|error| {
            refuse("redis.keyPrefix", redis.key_prefix.clone().unwrap_or_default(), &error.to_string());
            KeyPrefix::default()
        });
        let names =
            Names { stream: redis.stream_key.clone(), cursor: redis.cursor_key.clone(), group: redis.group.clone() };
        let keys = Keys::new(prefix, names);
        let redis_url = redis
            .url
            .clone()
            .or_else(|| RedisUrl::from_parts(&redis.host, redis.port, redis.password.as_ref().map(Secret::expose)));
        let Some(redis_url) = redis_url else {
            refuse("redis.host", mask(&redis.host), "a host name or an IP address");
            return Err(SettingsError(errors));
        };
        if redis_url.kind() == RedisKind::Cluster
            && let Some(key) = keys.outside_hash_slot()
        {
            let why = "in Redis Cluster all keys of a pipeline must share a slot, because a batch writes them in one script: \
                set redis.keyPrefix with a hash tag, such as {bluesky}:, and explicit names with the same tag";
            refuse("redis.keyPrefix", key.to_owned(), why);
        }
        if !errors.is_empty() {
            return Err(SettingsError(errors));
        }
        Ok(Self {
            relay,
            redis,
            postgres,
            ingest,
            worker,
            message_buffer,
            dashboard,
            telemetry,
            pipeline,
            operator,
            keys,
            redis_url,
        })
    }

    /// Lists every setting there is, for documentation.
    #[must_use]
    pub fn catalog() -> Vec<Field> {
        let sections = [
            Relay::fields(),
            Redis::fields(),
            Postgres::fields(),
            Ingest::fields(),
            Worker::fields(),
            MessageBuffer::fields(),
            Dashboard::fields(),
            Telemetry::fields(),
            Pipeline::fields(),
            Operator::fields(),
        ];
        sections.into_iter().flatten().collect()
    }
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsError {}

fn unknown(layers: &Layers) -> Vec<SettingError> {
    let catalog = Settings::catalog();
    let known: Vec<_> = catalog.iter().map(|field| field.path).collect();
    layers
        .named()
        .filter(|(path, _)| !known.contains(path))
        .map(|(path, origin)| SettingError {
            field: path.to_owned(),
            origin,
            value: String::new(),
            allowed: format!("a setting that exists; nearest: {}", nearest(path, &known)),
        })
        .collect()
}

/// Finds the name that shares the longest beginning and end with what was written.
fn nearest<'a>(path: &str, known: &[&'a str]) -> &'a str {
    let alike = |other: &str| {
        let same = |(a, b): &(char, char)| a.eq_ignore_ascii_case(b);
        path.chars().zip(other.chars()).take_while(same).count()
            + path.chars().rev().zip(other.chars().rev()).take_while(same).count()
    };
    known.iter().copied().max_by_key(|other| alike(other)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Layers {
        Layers::default().environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn the_defaults_are_those_of_the_system_before() {
        let settings = Settings::load(&Layers::default()).unwrap();
        assert_eq!(settings.relay.urls[0].to_string(), "wss://bsky.network");
        assert_eq!(settings.redis_url.expose(), "redis://localhost:6379");
        assert_eq!(settings.redis.max_stream_len, 500_000);
        assert_eq!(settings.dashboard.address.port(), 8000);
        assert_eq!(settings.keys, Keys::default());
    }

    #[test]
    fn every_name_of_the_system_before_works_as_it_is() {
        let settings = Settings::load(&environment(&[
            ("RELAY_URL", "relay1.example, wss://relay2.example/xrpc"),
            ("REDIS_URL", "redis://:p@r:1"),
            ("REDIS_HOST", "ignored"),
            ("REDIS_STREAM_KEY", "s"),
            ("REDIS_CURSOR_KEY", "c"),
            ("REDIS_MAX_STREAM_LEN", "1000"),
            ("REDIS_CONSUMER_GROUP", "g"),
            ("CONSUMER_ID", "w-0"),
            ("DATABASE_URL", "postgresql://u:p@h/d"),
            ("DB_POOL_SIZE", "20"),
            ("LOG_LEVEL", "WARNING"),
            ("ADMIN_ADDRESS", "127.0.0.1:0"),
            ("DASHBOARD_ADDRESS", "localhost:0"),
        ]))
        .unwrap();
        let hosts: Vec<_> = settings.relay.urls.iter().map(RelayUrl::host).collect();
        assert_eq!(hosts, ["relay1.example", "relay2.example"]);
        assert_eq!(settings.redis_url.to_string(), "redis://:***@r:1");
        assert_eq!((settings.keys.stream(), settings.keys.cursor(), settings.keys.group()), ("s", "c", "g"));
        assert_eq!(settings.redis.max_stream_len, 1000);
        assert_eq!(settings.worker.consumer_id.as_deref(), Some("w-0"));
        assert_eq!(settings.postgres.pool_size.get(), 20);
        assert_eq!(settings.telemetry.log_level, "WARNING");
        assert_eq!((settings.telemetry.admin_address.port(), settings.dashboard.address.port()), (0, 0));
        let parts = [("REDIS_HOST", "h"), ("REDIS_PORT", "7"), ("REDIS_PASSWORD", "secret")];
        assert_eq!(Settings::load(&environment(&parts)).unwrap().redis_url.expose(), "redis://:secret@h:7");
    }

    #[test]
    fn the_batch_of_the_message_system_before_is_the_message_buffers_and_no_other() {
        let settings = Settings::load(&environment(&[("BATCH_SIZE", "25"), ("BATCH_TIMEOUT", "0.25")])).unwrap();
        assert_eq!(settings.message_buffer.batch_size, 25);
        assert_eq!(settings.message_buffer.batch_delay, Duration::from_millis(250));
        let defaults = Settings::load(&Layers::default()).unwrap();
        assert_eq!((settings.worker, settings.ingest), (defaults.worker, defaults.ingest));
        let delay =
            |text| Settings::load(&environment(&[("BATCH_TIMEOUT", text)])).map(|set| set.message_buffer.batch_delay);
        assert_eq!(delay("30.0").unwrap(), Duration::from_secs(30));
        assert_eq!(delay(" 2 ").unwrap(), Duration::from_secs(2));
        assert_eq!(delay("500ms").unwrap(), Duration::from_millis(500));
        for bad in ["-1", "0", "inf", "NaN", "two", "61"] {
            let said = delay(bad).unwrap_err().to_string();
            assert!(said.starts_with("messageBuffer.batchDelay (BATCH_TIMEOUT): "), "{said}");
        }
        let ours =
            [("BATCH_SIZE", "25"), ("PENSTOCK_MESSAGE_BUFFER_BATCH_SIZE", "7"), ("PENSTOCK_WORKER_BATCH_SIZE", "9")];
        let settings = Settings::load(&environment(&ours)).unwrap();
        assert_eq!((settings.message_buffer.batch_size, settings.worker.batch_size), (7, 9));
    }

    #[test]
    fn who_may_not_read_may_not_reset() {
        let open = environment(&[("PENSTOCK_MESSAGE_BUFFER_OPEN_ADMIN", "true")]);
        assert!(Settings::load(&open).unwrap().message_buffer.open_admin);
        assert!(Settings::load(&open.clone().flag("dashboard.adminToken", "a")).is_ok());
        let said = Settings::load(&open.flag("dashboard.readToken", "hunter2")).unwrap_err().to_string();
        assert_eq!(
            said,
            "messageBuffer.openAdmin (PENSTOCK_MESSAGE_BUFFER_OPEN_ADMIN): \"true\" is not allowed; allowed: false while \
             dashboard.readToken is set: who may not even read must not remove everything"
        );
    }

    #[test]
    fn a_bad_value_names_field_source_value_and_what_is_allowed() {
        let said = |variables: &[(&str, &str)]| Settings::load(&environment(variables)).unwrap_err().to_string();
        assert_eq!(
            said(&[("DB_POOL_SIZE", "many")]),
            "postgres.poolSize (DB_POOL_SIZE): \"many\" is not allowed; allowed: a whole number above 0, 2 to 500"
        );
        let redis = said(&[("REDIS_URL", "http://u:hunter2@h")]);
        assert!(redis.starts_with("redis.url (REDIS_URL): \"http://u:***@h\" is not allowed"), "{redis}");
        let host = said(&[("REDIS_HOST", "redis://u:hunter2@h")]);
        assert!(host.starts_with("redis.host (REDIS_HOST): \"redis://u:***@h\" is not allowed"), "{host}");
        let both = said(&[("DB_POOL_SIZE", "501"), ("RELAY_URL", "ftp://x")]);
        assert_eq!(both.lines().count(), 2, "{both}");
        let low = said(&[("PENSTOCK_INGEST_LOW_WATERMARK", "90%")]);
        assert!(low.contains("ingest.lowWatermark") && low.contains("less than ingest.highWatermark"), "{low}");
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused_with_the_nearest_name() {
        let layers = Layers::default().file("s.yaml", "ingest: {batchEvent: 5}").unwrap();
        let error = Settings::load(&layers).unwrap_err().to_string();
        assert!(
            error.contains("ingest.batchEvent (s.yaml)") && error.contains("nearest: ingest.batchEvents"),
            "{error}"
        );
    }

    #[test]
    fn cluster_needs_a_hash_tag() {
        let cluster = [("REDIS_URL", "redis-cluster://a:7000")];
        let error = Settings::load(&environment(&cluster)).unwrap_err().to_string();
        assert!(error.contains("redis.keyPrefix") && error.contains("{bluesky}:"), "{error}");
        let layers = environment(&cluster).flag("redis.keyPrefix", "{b}:");
        assert!(Settings::load(&layers).is_ok());
    }

    #[test]
    fn every_default_is_itself_allowed_and_documented() {
        for field in Settings::catalog() {
            assert!(!field.doc.is_empty(), "{}", field.path);
        }
        assert!(Settings::load(&Layers::default()).is_ok());
    }
}
