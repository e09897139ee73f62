//! The settings of a pipeline: one typed tree from flags, environment and a YAML file.

mod address;
mod base_path;
mod host_url;
mod layers;
mod listed;
mod network;
mod otel;
mod otlp;
mod pem;
mod postgres;
mod postgres_url;
mod projections;
mod section;
mod unknown;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use thiserror::Error;

pub use address::{RedisKind, RedisUrl, RelayUrl, SUBSCRIBE_REPOS, mask};
pub use base_path::BasePath;
pub use host_url::HostUrl;
pub use layers::{FileError, Layers, Origin, environment_name, without_line_end};
pub use listed::Listed;
pub use network::Network;
pub use otel::IgnoredVariable;
pub use otlp::{OtlpEndpoint, OtlpProtocol, Pairs, Ratio, SecretPairs};
pub use pem::Pem;
pub use postgres_url::{PostgresParts, PostgresServer, PostgresUrl, SslMode, SslRoot, Target};
pub use projections::{Projection, Projections};
pub use section::Field;
pub use unknown::UnknownVariable;
pub use value::{LogFormat, Percent, Secret, Start, Unresolved, Value, Verification};

use crate::filter::{Collections, Dids};
use crate::keys::{KeyPrefix, Keys, Names};
use section::settings;

settings! {
    /// The relay to read.
    pub struct Relay in "relay" {
        /// Relay URLs, comma-separated: the first is read, the others are standbys. A bare host, an `/xrpc` base URL or the full path.
        urls "urls": Vec<RelayUrl> = "wss://bsky.network", env "RELAY_URL";
        /// Where to start if there is neither a cursor nor a checkpoint.
        start "start": Start = "live";
        /// How long a busy relay may send no event, or a quiet one leave a ping unanswered, before the connection is considered dead.
        data_timeout "dataTimeout": Duration = "30s", from "50ms" to "1h";
        /// How often pings are sent.
        ping_interval "pingInterval": Duration = "30s", from "50ms" to "1h";
        /// Connection timeout.
        connect_timeout "connectTimeout": Duration = "10s", from "50ms" to "5m";
        /// Initial reconnect delay; it doubles with each failure, with full jitter.
        backoff_min "backoffMin": Duration = "1s", from "1ms" to "5m";
        /// Maximum reconnect delay; for a relay that cannot be reached it is 4s at most.
        backoff_max "backoffMax": Duration = "30s", from "1ms" to "1h";
        /// How long events must flow before the reconnect delay is reset.
        healthy_after "healthyAfter": Duration = "60s", from "10ms" to "1h";
        /// Number of consecutive failures before failing over to the next relay.
        failover_after "failoverAfter": NonZeroU32 = "3", from "1" to "1000";
        /// How often the head of each standby relay is sampled.
        standby_interval "standbyInterval": Duration = "60s", from "100ms" to "1h";
    }
}

settings! {
    /// The Redis that holds the stream, and its key names.
    pub struct Redis in "redis" {
        /// Redis URL; takes precedence over host, port and password.
        url "url": Option<RedisUrl> = none, env "REDIS_URL";
        /// Host, used if no URL is set.
        host "host": String = "localhost", env "REDIS_HOST";
        /// Port, used if no URL is set.
        port "port": u16 = "6379", env "REDIS_PORT", from "1" to "65535";
        /// Password, used if no URL is set.
        password "password": Option<Secret> = none, env "REDIS_PASSWORD";
        /// Certificates of the authorities that may vouch for Redis, instead of the system's; for `rediss://`. A PEM file, or its text.
        tls_ca "tls.ca": Option<Pem> = none;
        /// Client certificate for a Redis that asks for one (`tls-auth-clients`), with its chain. A PEM file, which is read anew for each connection, or its text.
        tls_cert "tls.cert": Option<Pem> = none;
        /// Private key of the client certificate, without a passphrase. A PEM file, or its text.
        tls_key "tls.key": Option<Pem> = none;
        /// Prefix of every key and channel; in Redis Cluster it needs a hash tag, such as `{bluesky}:`.
        key_prefix "keyPrefix": Option<String> = none;
        /// Name of the stream, used verbatim. Default: prefix and `firehose:events`.
        stream_key "streamKey": Option<String> = none, env "REDIS_STREAM_KEY";
        /// Name of the cursor key, used verbatim. Default: prefix and `firehose:python_cursor`.
        cursor_key "cursorKey": Option<String> = none, env "REDIS_CURSOR_KEY";
        /// Consumer group of the workers. Default: `firehose-processors`.
        group "group": Option<String> = none, env "REDIS_CONSUMER_GROUP";
        /// Maximum length of the stream, in entries; the watermarks are percentages of it.
        max_stream_len "maxStreamLen": u64 = "500000", env "REDIS_MAX_STREAM_LEN", from "10" to "1000000000";
        /// Command timeout, after which the connection is considered dead.
        command_timeout "commandTimeout": Duration = "5s", from "50ms" to "5m";
        /// Maximum size of the workers' dead letters in bytes; ingest's have the same limit of their own.
        letter_bytes "letterBytes": u64 = "64000000", from "100000" to "10000000000";
        /// Maximum number of the workers' dead letters; ingest's have the same limit of their own. Once full, one repo may use an eighth.
        letter_count "letterCount": u64 = "10000", from "10" to "1000000";
        /// How long the events of each minute are kept for the dashboard's chart; 7 days take about 10,000 small keys, 2 MB.
        activity_retention "activityRetention": Duration = "25h", from "25h" to "90d";
        /// Start even if Redis may evict keys. Eviction loses events: only for a Redis whose policy is about to change.
        allow_eviction "allowEviction": bool = "false";
    }
}

settings! {
    /// The PostgreSQL database to write to.
    pub struct Postgres in "postgres" {
        /// Database URL; takes precedence over host, port, database, user and password.
        url "url": Option<PostgresUrl> = none, env "DATABASE_URL";
        /// URL of the server itself where the other one leads through a pooler; `penstock migrate` then uses this one.
        direct_url "directUrl": Option<PostgresUrl> = none, env "DATABASE_DIRECT_URL";
        /// Host or socket directory, used if no URL is set.
        host "host": Option<String> = none, env "DB_HOST" or "POSTGRES_HOST";
        /// Port, used if no URL is set.
        port "port": u16 = "5432", env "DB_PORT" or "POSTGRES_PORT", from "1" to "65535";
        /// Database name, used if no URL is set.
        database "database": Option<String> = none, env "DB_NAME" or "POSTGRES_DB";
        /// User name, used if no URL is set.
        user "user": Option<String> = none, env "DB_USER" or "POSTGRES_USER";
        /// Password, used if no URL is set.
        password "password": Option<Secret> = none, env "DB_PASSWORD" or "POSTGRES_PASSWORD";
        /// File with the password, read anew for each connection: it may hold a token that changes.
        password_file "passwordFile": Option<String> = none;
        /// Program and arguments, separated by spaces, that print the password; run anew for each connection, without a shell.
        password_command "passwordCommand": Option<String> = none;
        /// Schema with the AppView's tables. Default: the one that `penstock migrate` recorded, else the first of the role's search path
        /// that has them, else the first of it.
        schema "schema": Option<String> = none;
        /// Maximum number of connections per process.
        pool_size "poolSize": NonZeroU32 = "8", env "DB_POOL_SIZE", from "2" to "500";
        /// Statement timeout.
        statement_timeout "statementTimeout": Duration = "60s", from "100ms" to "1h";
        /// Approximate maximum size of dead letters in bytes.
        letter_bytes "letterBytes": u64 = "1000000000", from "100000" to "1000000000000";
        /// Approximate maximum number of dead letters. Once full, one repo may use an eighth.
        letter_count "letterCount": u64 = "100000", from "10" to "100000000";
    }
}

settings! {
    /// How events get from the relay into the stream.
    pub struct Ingest in "ingest" {
        /// Maximum entries per batch.
        batch_events "batchEvents": usize = "500", from "1" to "5000";
        /// Maximum bytes per batch.
        batch_bytes "batchBytes": usize = "2000000", from "1000" to "50000000";
        /// How long an event waits for its batch to fill, while another batch is being written or where many came together.
        batch_delay "batchDelay": Duration = "1ms", from "0ms" to "10s";
        /// Maximum number of batches being written to Redis at once.
        batches_in_flight "batchesInFlight": usize = "4", from "1" to "64";
        /// Maximum memory in bytes for decoded events that are not yet written, as JSON and as Redis commands.
        /// An event that needs more is processed alone.
        buffer_bytes "bufferBytes": usize = "16000000", from "6000000" to "1000000000";
        /// How long the single writer's lease lasts without renewal.
        lease_time "leaseTime": Duration = "6s", from "100ms" to "5m";
        /// How often the stream is trimmed and the watermarks are checked.
        trim_interval "trimInterval": Duration = "1s", from "10ms" to "1m";
        /// Fill level of the stream, or of Redis' memory, at which reading stops.
        high_watermark "highWatermark": Percent = "80%";
        /// Fill level below which reading resumes.
        low_watermark "lowWatermark": Percent = "50%";
        /// How long entries are kept for another consumer group that shows no activity.
        foreign_group_hold "foreignGroupHold": Duration = "1h", from "100ms" to "30d";
        /// How long another program that wrote to the stream must be quiet before ingest takes over. The Python
        /// consumer writes its cursor every 5 s.
        foreign_quiet "foreignQuiet": Duration = "12s", from "50ms" to "10m";
        /// Events per minute that one repo may send before it is diverted to the second stream, which workers read when the first is
        /// empty; each op of a commit counts as one. 0: unlimited.
        repo_events "repoEvents": u64 = "1200", from "0" to "1000000000";
        /// Bytes of entries per minute that one repo may send before it is diverted to the second stream. 0: unlimited.
        repo_bytes "repoBytes": u64 = "20000000", from "0" to "1000000000000";
        /// Allow another producer to write the same stream at the same time; ingest then needs its own `redis.cursorKey`.
        shared_stream "sharedStream": bool = "false";
        /// Keep the row of the AppView's own ingestion in `firehose_cursor` up to date, so that it can resume from there.
        appview_cursor "appviewCursor": bool = "false";
        /// How often status and recent events are written while the relay is quiet.
        status_interval "statusInterval": Duration = "5s", from "50ms" to "9s";
        /// Maximum live events broadcast per second; above that they are sampled.
        broadcast_rate "broadcastRate": NonZeroU32 = "2000", from "1" to "1000000";
    }
}

settings! {
    /// How entries get from the stream into PostgreSQL.
    pub struct Worker in "worker" {
        /// Consumer name, unique per process. Default: host name and process ID.
        consumer_id "consumerId": Option<String> = none, env "CONSUMER_ID";
        /// Maximum entries per batch.
        batch_size "batchSize": usize = "1000", from "1" to "10000";
        /// Maximum ops per transaction; one entry may have hundreds. Halved when a statement times out, until
        /// statements succeed again.
        batch_ops "batchOps": usize = "4000", from "1" to "100000";
        /// Maximum memory in bytes of one decoded batch. A larger entry is written alone, in parts.
        batch_bytes "batchBytes": usize = "8000000", from "100000" to "1000000000";
        /// How long an entry waits for its batch to fill.
        batch_delay "batchDelay": Duration = "50ms", from "1ms" to "10s";
        /// How long a consumer may be silent before its entries are taken over.
        claim_time "claimTime": Duration = "60s", from "50ms" to "1h";
        /// How often counters are published.
        publish_interval "publishInterval": Duration = "500ms", from "10ms" to "1m";
        /// How often the checkpoint (the event up to which everything is settled) is saved in PostgreSQL, in case Redis is lost.
        checkpoint_interval "checkpointInterval": Duration = "5s", from "50ms" to "1h";
        /// Initial delay before a failed transaction is retried; it doubles each time, with full jitter.
        retry_min "retryMin": Duration = "50ms", from "1ms" to "1m";
        /// Maximum delay before a failed transaction is retried.
        retry_max "retryMax": Duration = "10s", from "1ms" to "10m";
        /// How often an entry, tried alone, may crash a worker before it is dead-lettered.
        crash_limit "crashLimit": u64 = "3", from "1" to "100";
        /// Minimum time tombstones of deletes are kept: the relay's replay window.
        tombstone_retention "tombstoneRetention": Duration = "72h", from "1s" to "365d";
        /// How long after its event a dead letter may be replayed; tombstones are kept that long too.
        letter_hold "letterHold": Duration = "7d", from "1s" to "365d";
        /// How long the rows of a deleted account are kept: until then it is only marked, and an event that says it is active undoes the
        /// deletion. 0s: they are removed at once.
        delete_grace "deleteGrace": Duration = "24h", from "0s" to "30d";
        /// Maximum rows of a deleted account removed per transaction.
        delete_batch "deleteBatch": u32 = "1000", from "1" to "100000";
        /// How often the AppView's `user_settings` is checked for accounts that opted out or back in.
        opt_out_interval "optOutInterval": Duration = "1m", from "10ms" to "5m";
        /// Fill the text search columns of users and posts.
        search_vector "searchVector": bool = "false";
        /// Record the CIDs of records whose table has no column for them: with all of a repo, its root can be computed from the database.
        record_cids "recordCids": bool = "false";
        /// Additional data derived from records for an AppView: tables by name, and `cache`, its cache in Redis. `auto`: every table that exists.
        projections "projections": Projections = "auto";
    }
}

settings! {
    /// What is verified of the commits that a relay sends.
    pub struct Verify in "verify" {
        /// Check that a commit's ops follow from the tree before it, that the frame says what the signed commit says, and that it
        /// follows the repo's last one. `count` counts failures; `enforce` also makes a dead letter of a commit that proves wrong.
        mode "mode": Verification = "count";
        /// Check signatures against the accounts' keys, which needs `identity.enabled`: `off`, `count` or `enforce`.
        signatures "signatures": Verification = "off";
        /// What becomes of a commit whose account's key cannot be had, as while the directory is away: `pass` writes and counts it, `hold`
        /// waits as for a full stream.
        unresolved "unresolved": Unresolved = "pass";
        /// Memory in bytes for the last state of recent repos, 24 bytes each; that of others is read from PostgreSQL.
        memory "memory": u64 = "67108864", from "65536" to "17179869184";
    }
}

settings! {
    /// Which records are carried, of those that a relay sends. `@/path` reads a list from a file, one entry a line, and again whenever it changes.
    pub struct Filter in "filter" {
        /// Collections to carry: `app.bsky.feed.post`, `app.bsky.*` for all below, `!app.bsky.feed.like` to leave one out. The most specific one
        /// that fits decides. Default: all.
        collections "collections": Listed<Collections> = "";
        /// DIDs of the repos to carry. Default: all.
        repos "repos": Listed<Dids> = "";
        /// DIDs of the repos to leave out.
        exclude_repos "excludeRepos": Listed<Dids> = "";
    }
}

settings! {
    /// Where accounts' keys, hosts and handles come from.
    pub struct Identity in "identity" {
        /// Resolve DIDs and handles over the network.
        enabled "enabled": bool = "false";
        /// URL of the directory of did:plc; a mirror will do.
        plc_url "plcUrl": String = "https://plc.directory";
        /// Maximum requests per second to the directory, and to each other host.
        rate "rate": NonZeroU32 = "20", from "1" to "10000";
        /// Timeout of a request.
        timeout "timeout": Duration = "10s", from "50ms" to "2m";
        /// How long what was resolved is trusted without a word of change.
        max_age "maxAge": Duration = "24h", from "1s" to "90d";
        /// How long after a failure it is not tried again; it doubles with each failure, up to 64 times.
        retry_after "retryAfter": Duration = "1m", from "50ms" to "1d";
        /// Memory in bytes for resolved identities, about 250 bytes each; others are read from PostgreSQL.
        memory "memory": u64 = "33554432", from "65536" to "17179869184";
        /// Private networks that may be asked, comma-separated; plain HTTP is allowed there too. By default none is: anyone can write any address into a DID document.
        allowed_networks "allowedNetworks": Vec<Network> = "";
        /// DNS server to ask for handles instead of the system's, as address and port.
        dns_server "dnsServer": Option<SocketAddr> = none;
    }
}

settings! {
    /// How repos are read from their hosts, and the database is brought to what they hold.
    pub struct Heal in "heal" {
        /// Read repos again that are known to be incomplete, and do the backfills that ingest registers. If false, the healer does backfills that somebody asked for and what is asked for by hand, and nothing else.
        enabled "enabled": bool = "true";
        /// Number of repos that one healer reads and writes at once.
        parallelism "parallelism": NonZeroU32 = "8", from "1" to "256";
        /// How long a repo stays reserved for a healer that does not renew its lease.
        lease_time "leaseTime": Duration = "60s", from "500ms" to "1h";
        /// Initial delay before a repo that could not be read is tried again; it doubles each time, with jitter.
        retry_min "retryMin": Duration = "10s", from "10ms" to "1h";
        /// Maximum delay before a repo that could not be read is tried again.
        retry_max "retryMax": Duration = "6h", from "10ms" to "30d";
        /// Number of failed attempts after which a repo of a backfill or an audit is given up. Repos known to be incomplete are tried until they are read, or their host says that there is no such repo.
        attempts "attempts": NonZeroU32 = "8", from "1" to "1000";
        /// Repos per hour that are compared with their hosts, those that were proven longest ago first, and repaired where they differ. 0: none.
        audit_rate "auditRate": u32 = "0", from "0" to "1000000";
        /// Token for the healer's routes on the admin address, as a bearer token. If unset, they are closed.
        admin_token "adminToken": Option<Secret> = none;
        /// SHA-256 of that token in hexadecimal, in its place: who reads it cannot show the token. The operator sets it.
        admin_token_hash "adminTokenHash": Option<String> = none;
        /// Maximum number of connections to one host at once.
        of_host "ofHost": NonZeroU32 = "2", from "1" to "64";
        /// Maximum requests per second to one host. Hosts that state limits of their own are asked within those.
        host_rate "hostRate": NonZeroU32 = "10", from "1" to "10000";
        /// Memory in bytes for repos while they are read, of all together; what does not fit lies in a file of `heal.folder`.
        spill "spill": u64 = "67108864", from "65536" to "17179869184";
        /// Folder for repos that do not fit into memory while they are read. The files have no name and are gone with the process. Default: the system's folder for temporary files.
        folder "folder": Option<String> = none;
        /// Maximum size of one repo in bytes; a larger one is refused.
        repo_bytes "repoBytes": u64 = "4294967296", from "65536" to "1099511627776";
        /// Hosts that are asked for a repo where its own does not answer, comma-separated, in their order. What they send is verified all the same.
        mirrors "mirrors": Vec<HostUrl> = "";
    }
}

settings! {
    /// The message buffer: `POST /messages` of the dashboard, written to PostgreSQL by the workers.
    pub struct MessageBuffer in "messageBuffer" {
        /// Accept messages in the dashboard and write them in the workers.
        enabled "enabled": bool = "false";
        /// Maximum messages per batch.
        batch_size "batchSize": usize = "50", env "BATCH_SIZE", from "1" to "10000";
        /// How long a message waits for its batch to fill. `BATCH_TIMEOUT` is in seconds.
        batch_delay "batchDelay": Duration = "2s", env "BATCH_TIMEOUT", from "1ms" to "1m";
        /// How often statistics are published.
        stats_interval "statsInterval": Duration = "500ms", from "50ms" to "1m";
        /// Maximum messages waiting in Redis; beyond that, new ones are rejected.
        max_queue "maxQueue": u64 = "100000", from "1" to "10000000";
        /// How long a worker may be silent before its messages are taken over.
        dead_after "deadAfter": Duration = "10s", from "200ms" to "1h";
        /// Allow `/simulate` and `/reset` without the admin token. Cannot be combined with a read token.
        open_admin "openAdmin": bool = "false";
    }
}

settings! {
    /// The dashboard's HTTP service.
    pub struct Dashboard in "dashboard" {
        /// Listen address.
        address "address": SocketAddr = "[::]:8000", env "DASHBOARD_ADDRESS";
        /// Additional listen addresses, comma-separated.
        extra_addresses "extraAddresses": Vec<SocketAddr> = "";
        /// Path under which a reverse proxy offers the dashboard. The proxy may strip it or pass it on.
        base_path "basePath": BasePath = "/";
        /// How long an idle HTTP connection is kept open. Must be longer than a load balancer keeps it, which otherwise answers 502 now and then.
        keep_alive "keepAlive": Duration = "150s", from "1s" to "1h";
        /// Origins that may call the API from a browser, comma-separated.
        allowed_origins "allowedOrigins": Vec<String> = "http://localhost:3000,http://127.0.0.1:3000";
        /// Token for read access, as a bearer token or to sign in. If unset, reading is open to everyone.
        read_token "readToken": Option<Secret> = none;
        /// Token for admin access, which includes reading. If unset, admin routes are closed; `penstock run` makes one.
        admin_token "adminToken": Option<Secret> = none;
        /// How often metrics are sent on the live streams.
        metrics_interval "metricsInterval": Duration = "2s", from "50ms" to "1m";
        /// Number of event batches (of at least 25 ms each) kept so that slow or reconnecting live clients can catch up.
        client_buffer "clientBuffer": usize = "2048", from "16" to "100000";
        /// Write requests per second allowed per client address; also the burst size.
        post_rate "postRate": NonZeroU32 = "1000", from "1" to "1000000";
        /// Maximum number of open connections. The system's limit of open files lowers it.
        max_connections "maxConnections": usize = "12000", from "16" to "1000000";
        /// Maximum number of open connections per peer address; `dashboard.trustedProxies` are exempt.
        max_connections_per_peer "maxConnectionsPerPeer": usize = "6000", from "1" to "1000000";
        /// Reverse proxies whose `X-Forwarded-For` is believed, as addresses or networks, comma-separated: limits per client then count the clients behind them.
        trusted_proxies "trustedProxies": Vec<Network> = "";
    }
}

settings! {
    /// Logs, metrics, traces and the admin server.
    pub struct Telemetry in "telemetry" {
        /// Listen address of `/healthz`, `/readyz` and `/metrics`.
        admin_address "adminAddress": SocketAddr = "[::]:9464", env "ADMIN_ADDRESS";
        /// Minimum level that is logged, or a filter such as `info,penstock_ingest=debug`.
        log_level "logLevel": String = "info", env "LOG_LEVEL";
        /// Log format; `auto` is pretty on a terminal and JSON elsewhere.
        log_format "logFormat": LogFormat = "auto";
        /// How often a summary line is logged; 0s disables it.
        summary_interval "summaryInterval": Duration = "10s", from "0s" to "1d";
        /// Send nothing to a collector, whatever else is set.
        otlp_disabled "otlpDisabled": bool = "false", env "OTEL_SDK_DISABLED";
        /// OpenTelemetry collector to send traces to, and metrics if enabled. If unset, nothing is traced.
        otlp_endpoint "otlpEndpoint": Option<OtlpEndpoint> = none, env "OTEL_EXPORTER_OTLP_ENDPOINT";
        /// Collector for traces, if not `telemetry.otlpEndpoint`. With http/protobuf it is the whole URL: no path is appended.
        otlp_traces_endpoint "otlpTracesEndpoint": Option<OtlpEndpoint> = none, env "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        /// Collector for metrics, if not `telemetry.otlpEndpoint`. With http/protobuf it is the whole URL: no path is appended.
        otlp_metrics_endpoint "otlpMetricsEndpoint": Option<OtlpEndpoint> = none, env "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        /// Protocol used to reach the collector.
        otlp_protocol "otlpProtocol": OtlpProtocol = "grpc", env "OTEL_EXPORTER_OTLP_PROTOCOL";
        /// Protocol for traces, if not `telemetry.otlpProtocol`.
        otlp_traces_protocol "otlpTracesProtocol": Option<OtlpProtocol> = none, env "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
        /// Protocol for metrics, if not `telemetry.otlpProtocol`.
        otlp_metrics_protocol "otlpMetricsProtocol": Option<OtlpProtocol> = none, env "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL";
        /// Headers for the collector, such as `authorization=Bearer%20…`.
        otlp_headers "otlpHeaders": Option<SecretPairs> = none, env "OTEL_EXPORTER_OTLP_HEADERS";
        /// Headers sent with traces, in place of `telemetry.otlpHeaders`.
        otlp_traces_headers "otlpTracesHeaders": Option<SecretPairs> = none, env "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
        /// Headers sent with metrics, in place of `telemetry.otlpHeaders`.
        otlp_metrics_headers "otlpMetricsHeaders": Option<SecretPairs> = none, env "OTEL_EXPORTER_OTLP_METRICS_HEADERS";
        /// Timeout of requests to the collector.
        otlp_timeout "otlpTimeout": Duration = "5s", from "10ms" to "1m";
        /// Send traces to the collector; `OTEL_TRACES_EXPORTER=none` turns them off.
        otlp_traces "otlpTraces": bool = "true", env "OTEL_TRACES_EXPORTER";
        /// Send metrics to the collector too; `OTEL_METRICS_EXPORTER=otlp` turns them on.
        otlp_metrics "otlpMetrics": bool = "false", env "OTEL_METRICS_EXPORTER";
        /// How often metrics are sent.
        otlp_metrics_interval "otlpMetricsInterval": Duration = "30s", from "50ms" to "1h";
        /// Fraction of events and HTTP requests that is traced; errors and slow operations are always traced.
        sample_ratio "sampleRatio": Ratio = "0.001", env "OTEL_TRACES_SAMPLER_ARG";
        /// Duration above which a batch, transaction or request is considered slow.
        slow_span "slowSpan": Duration = "1s", from "1ms" to "1h";
        /// How long a terminating process may take to send its last traces and metrics.
        flush_timeout "flushTimeout": Duration = "2s", from "0s" to "1m";
        /// Service name in traces and metrics. Default: `penstock-` and the command.
        service_name "serviceName": Option<String> = none, env "OTEL_SERVICE_NAME";
        /// Additional OpenTelemetry resource attributes, such as `deployment.environment.name=test`.
        resource_attributes "resourceAttributes": Pairs = "", env "OTEL_RESOURCE_ATTRIBUTES";
    }
}

settings! {
    /// The pipeline as a whole.
    pub struct Pipeline in "pipeline" {
        /// Name that claims the Redis prefix; `namespace/name` in a cluster.
        name "name": String = "default";
    }
}

settings! {
    /// The operator.
    pub struct Operator in "operator" {
        /// Listen address of the scaling recommendations for KEDA.
        address "address": SocketAddr = "[::]:8080";
        /// URL at which KEDA reaches that address, such as `http://penstock-operator.penstock.svc:8080`. If unset, no ScaledObject is created.
        recommendation_url "recommendationUrl": Option<String> = none;
        /// URL at which the healers of a pipeline are reached, `{namespace}` and `{name}` being those of the pipeline; for an operator that runs outside the cluster. Default: their Service.
        heal_url "healUrl": Option<String> = none;
        /// Namespaces whose pipelines are reconciled, comma-separated. Default: all.
        watch_namespaces "watchNamespaces": Vec<String> = "";
        /// Name of this pod, the holder identity in leader election. Default: host name and process ID.
        pod_name "podName": Option<String> = none, env "POD_NAME";
        /// Namespace of the lease.
        namespace "namespace": String = "default", env "POD_NAMESPACE";
        /// Image of pipelines that do not set one.
        image "image": Option<String> = none, env "PENSTOCK_IMAGE";
        /// Name of the leader election lease.
        lease_name "leaseName": String = "penstock-operator";
        /// How long other replicas wait for a leader that does not renew its lease; whole seconds.
        lease_duration "leaseDuration": Duration = "15s", from "1s" to "10m";
        /// How long the leader tries to renew its lease before it exits.
        renew_deadline "renewDeadline": Duration = "10s", from "100ms" to "10m";
        /// How often the lease is renewed or requested.
        retry_period "retryPeriod": Duration = "2s", from "50ms" to "1m";
        /// How often the number of workers is evaluated.
        scaling_interval "scalingInterval": Duration = "5s", from "100ms" to "1m";
        /// Maximum time a deleted pipeline waits for its pods and its Redis; for a Redis that does not answer, at most 20s.
        deletion_deadline "deletionDeadline": Duration = "2m", from "1s" to "1h";
        /// Base URL of the runbooks that the alerts of `telemetry.prometheusRule` link to, each as `<url>/<alert>.md`.
        runbooks_url "runbooksUrl": String = "https://github.com/penstock/penstock/blob/main/docs/runbooks";
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
    /// Verification of commits.
    pub verify: Verify,
    /// Which records are carried.
    pub filter: Filter,
    /// Identities.
    pub identity: Identity,
    /// Healing.
    pub heal: Heal,
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
    /// Variables of the environment that begin like settings and are none.
    pub unknown_variables: Vec<UnknownVariable>,
    /// Variables of OpenTelemetry that say what cannot be used.
    pub ignored_variables: Vec<IgnoredVariable>,
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
        let (layers, ignored_variables) = otel::settle(&postgres::settle(layers));
        let layers = &layers;
        let mut errors = unknown(layers);
        let sections = (
            Relay::load(layers, &mut errors),
            Redis::load(layers, &mut errors),
            Postgres::load(layers, &mut errors),
            Ingest::load(layers, &mut errors),
            Worker::load(layers, &mut errors),
            Verify::load(layers, &mut errors),
            Filter::load(layers, &mut errors),
            Identity::load(layers, &mut errors),
            Heal::load(layers, &mut errors),
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
            Some(verify),
            Some(filter),
            Some(identity),
            Some(heal),
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
        let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some(hash) = heal.admin_token_hash.clone().filter(|hash| !is_hash(hash)) {
            refuse("heal.adminTokenHash", hash, "64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints them");
        }
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
                "less than operator.leaseDuration: the old leader must stop before a new one starts",
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
            let why = "false while dashboard.readToken is set: clients that may not read must not be able to delete everything";
            refuse("messageBuffer.openAdmin", message_buffer.open_admin.to_string(), why);
        }
        if verify.signatures != Verification::Off && !identity.enabled {
            let why =
                "off while identity.enabled is false: signatures are checked against keys that have to be resolved";
            refuse("verify.signatures", verify.signatures.to_string(), why);
        }
        if verify.signatures != Verification::Off && verify.mode == Verification::Off {
            let why = "off while verify.mode is off: a signature is over the commit that verify.mode checks";
            refuse("verify.signatures", verify.signatures.to_string(), why);
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
        if redis.tls_cert.is_some() != redis.tls_key.is_some() {
            let (set, missing) = if redis.tls_cert.is_some() {
                ("redis.tls.cert", "redis.tls.key")
            } else {
                ("redis.tls.key", "redis.tls.cert")
            };
            refuse(missing, String::new(), &format!("{} (required because {set} is set)", Pem::ALLOWED));
        }
        let certificates = [("redis.tls.ca", &redis.tls_ca), ("redis.tls.cert", &redis.tls_cert)];
        if let Some((field, pem)) = certificates.into_iter().find_map(|(field, pem)| Some((field, pem.as_ref()?)))
            && !redis_url.uses_tls()
        {
            let allowed =
                format!("unset while redis.url is not rediss:// ({redis_url}): without TLS nobody would look at it");
            refuse(field, pem.to_string(), &allowed);
        }
        if redis_url.kind() == RedisKind::Cluster
            && let Some(key) = keys.outside_hash_slot()
        {
            let why = "in Redis Cluster all keys of a pipeline must share a hash slot, because each batch is written by one script: \
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
            verify,
            filter,
            identity,
            heal,
            message_buffer,
            dashboard,
            telemetry,
            pipeline,
            operator,
            keys,
            redis_url,
            unknown_variables: layers.unknown_variables(),
            ignored_variables,
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
            Verify::fields(),
            Filter::fields(),
            Identity::fields(),
            Heal::fields(),
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
            allowed: format!("a known setting; did you mean {}?", nearest(path, &known)),
        })
        .collect()
}

/// Finds the path that the fewest keys were missed of.
fn nearest<'a>(path: &str, known: &[&'a str]) -> &'a str {
    known.iter().copied().min_by_key(|other| strsim::damerau_levenshtein(path, other)).unwrap_or_default()
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
             dashboard.readToken is set: clients that may not read must not be able to delete everything"
        );
    }

    #[test]
    fn a_bad_value_names_field_source_value_and_what_is_allowed() {
        let said = |variables: &[(&str, &str)]| Settings::load(&environment(variables)).unwrap_err().to_string();
        assert_eq!(
            said(&[("DB_POOL_SIZE", "many")]),
            "postgres.poolSize (DB_POOL_SIZE): \"many\" is not allowed; allowed: a positive integer from 2 to 500"
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
            error.contains("ingest.batchEvent (s.yaml)") && error.contains("did you mean ingest.batchEvents?"),
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
