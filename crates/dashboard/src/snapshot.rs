//! A reading in the shapes that clients read, serialised once for all of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use jiff::Timestamp;
use penstock_core::time;
use schemars::JsonSchema;
use serde::Serialize;

use crate::filter::Filter;
use crate::reading::{Reading, RedisMemory};
use crate::rows::{FlowFigures, Rows};
use crate::system::SystemHealth;
use crate::verification::Verification;

/// What is known of the pipeline right now.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// Redis answered the last look.
    Clear {
        /// To ask for more.
        client: Client,
        /// What was seen.
        snapshot: Arc<Snapshot>,
    },
    /// It did not; the log says why.
    Away,
    /// It was not asked yet.
    Starting,
}

/// One reading and its JSON.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What was read.
    pub(crate) reading: Reading,
    /// How far PostgreSQL is, and who writes.
    pub(crate) rows: Rows,
    /// Memory in use, in percent.
    pub(crate) memory: u8,
    /// The body of `/api/metrics`.
    pub(crate) metrics: Bytes,
    /// The body of `/api/ingest`.
    pub(crate) ingest: Bytes,
}

/// The shape of `/api/metrics`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metrics<'r> {
    events_processed: u64,
    /// The sum of `stats`, for clients that show one number.
    db_records: u64,
    api_requests_per_minute: u64,
    stats: Stats,
    event_counts: EventCounts,
    system_health: &'r SystemHealth,
    firehose_status: FirehoseStatus<'r>,
    error_rate: f64,
    /// How far PostgreSQL is behind the relay, in seconds: the age of the oldest event that is not in it, or of the newest event
    /// where nothing waits. Null: unknown.
    rows_age_seconds: Option<f64>,
    flow: &'r FlowFigures,
    /// Memory of the Redis server that holds the stream. Null: it does not tell.
    redis: Option<RedisMemory>,
    /// What the Redis user of the dashboard, or of ingest, may not do although it should, as a sentence. Null: nothing.
    redis_lacking: Option<&'r str>,
    last_update: String,
}

/// Row counts.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    total_users: u64,
    total_posts: u64,
    total_likes: u64,
    total_reposts: u64,
    total_follows: u64,
    total_blocks: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct EventCounts {
    #[serde(rename = "#commit")]
    commit: u64,
    #[serde(rename = "#identity")]
    identity: u64,
    #[serde(rename = "#account")]
    account: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct FirehoseStatus<'r> {
    connected: bool,
    is_connected: bool,
    /// Empty while no ingest is running: only ingest knows which relay it reads.
    url: &'r str,
    current_cursor: Option<&'r str>,
    /// Entries that workers have read and not acknowledged.
    queue_depth: u64,
    /// The same.
    active_processing: u64,
    /// Initial reconnect delay of ingest, in ms.
    reconnect_delay: u64,
    stream_length: u64,
    dead_letter_length: u64,
}

/// The shape of `/api/ingest`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ingest<'r> {
    event_time: Option<&'r str>,
    /// Age of the newest event in the stream, in seconds; null if unknown.
    lag_seconds: Option<f64>,
    paused: bool,
    gaps: u64,
    resets: u64,
    data_loss: u64,
    /// Entries in the second stream, from repos above their rate; workers read them when the first is empty.
    bulk_length: u64,
    /// The cap of the stream, in entries: `redis.maxStreamLen`.
    stream_cap: u64,
    /// What ingest found of the commits that it verified; null if no ingest reports.
    verification: Option<Verification<'r>>,
    /// Which records are carried, and what was left out; null if no ingest reports.
    filter: Option<Filter<'r>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Serialises a reading.
    ///
    /// # Errors
    /// A value cannot be written as JSON; none of these types has one.
    pub(crate) fn new(
        reading: Reading,
        rows: Rows,
        system: &SystemHealth,
        requests: u64,
        reconnect_delay: Duration,
        stream_cap: u64,
        now: Timestamp,
    ) -> Result<Self, serde_json::Error> {
        let metrics = metrics(&reading, &rows, system, requests, reconnect_delay, now);
        let metrics = Bytes::from(serde_json::to_vec(&metrics)?);
        let ingest = Bytes::from(serde_json::to_vec(&ingest(&reading, stream_cap, now))?);
        Ok(Self { reading, rows, memory: system.memory, metrics, ingest })
    }
}

// === impl Stats ===

impl Stats {
    pub(crate) fn of(reading: &Reading) -> Self {
        let [total_users, total_posts, total_likes, total_reposts, total_follows, total_blocks, ..] = reading.rows;
        Self { total_users, total_posts, total_likes, total_reposts, total_follows, total_blocks }
    }

    fn sum(&self) -> u64 {
        let Self { total_users, total_posts, total_likes, total_reposts, total_follows, total_blocks } = *self;
        let all = [total_users, total_posts, total_likes, total_reposts, total_follows, total_blocks];
        all.into_iter().fold(0, u64::saturating_add)
    }
}

fn metrics<'r>(
    reading: &'r Reading,
    rows: &'r Rows,
    system: &'r SystemHealth,
    requests: u64,
    reconnect_delay: Duration,
    now: Timestamp,
) -> Metrics<'r> {
    let stats = Stats::of(reading);
    let connected = reading.connected();
    let status = reading.status.as_ref();
    Metrics {
        events_processed: reading.total,
        db_records: stats.sum(),
        api_requests_per_minute: requests,
        stats,
        event_counts: EventCounts { commit: reading.commits, identity: reading.identities, account: reading.accounts },
        system_health: system,
        firehose_status: FirehoseStatus {
            connected,
            is_connected: connected,
            url: status.map_or("", |status| &status.url),
            current_cursor: status.and_then(|status| status.current_cursor.as_deref()).or(reading.cursor.as_deref()),
            queue_depth: reading.pending,
            active_processing: reading.pending,
            reconnect_delay: u64::try_from(reconnect_delay.as_millis()).unwrap_or(u64::MAX),
            stream_length: reading.stream_length,
            dead_letter_length: reading.dead_letters,
        },
        error_rate: error_rate(reading.errors, reading.total),
        rows_age_seconds: rows.age,
        flow: &rows.shown,
        redis: reading.memory,
        redis_lacking: reading.lacking.as_deref(),
        last_update: time::format(now),
    }
}

fn ingest(reading: &Reading, stream_cap: u64, now: Timestamp) -> Ingest<'_> {
    let state = &reading.ingest;
    let event_time = state.event_time.as_deref();
    let age = event_time.and_then(time::parse).map(|event| now.duration_since(event).as_secs_f64());
    Ingest {
        event_time,
        // Clocks differ: an event of the future has no lag.
        lag_seconds: age.map(|age| (age.max(0.0) * 10.0).round() / 10.0),
        paused: state.paused,
        gaps: state.gaps,
        resets: state.resets,
        data_loss: state.data_loss,
        bulk_length: reading.bulk_length,
        stream_cap,
        // Without a status there is no ingest, and the rest is what the last one left.
        verification: reading.status.as_ref().and(state.verified.as_ref()).map(Verification::of),
        filter: reading.status.as_ref().map(|_| Filter::of(&state.filter, state.left_out.as_ref())),
    }
}

fn error_rate(errors: u64, total: u64) -> f64 {
    match total {
        0 => 0.0,
        total => errors as f64 / total as f64 * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::live::Status;
    use serde_json::{Value, json};

    use super::*;
    use crate::reading::IngestState;

    fn shapes(reading: Reading, rows: Rows) -> (Value, Value) {
        let system = SystemHealth { cpu: 1, memory: 2, disk: 3, network: "↓ 0 B/s ↑ 0 B/s".into() };
        let now = time::parse("2026-07-04T14:38:08.5Z").unwrap();
        let snapshot = Snapshot::new(reading, rows, &system, 7, Duration::from_millis(1500), 500_000, now).unwrap();
        (serde_json::from_slice(&snapshot.metrics).unwrap(), serde_json::from_slice(&snapshot.ingest).unwrap())
    }

    #[test]
    fn the_shape_of_an_empty_pipeline_is_whole() {
        let (metrics, ingest) = shapes(Reading::default(), Rows::default());
        let expected = json!({
            "eventsProcessed": 0, "dbRecords": 0, "apiRequestsPerMinute": 7,
            "stats": {"totalUsers": 0, "totalPosts": 0, "totalLikes": 0, "totalReposts": 0, "totalFollows": 0, "totalBlocks": 0},
            "eventCounts": {"#commit": 0, "#identity": 0, "#account": 0},
            "systemHealth": {"cpu": 1, "memory": 2, "disk": 3, "network": "↓ 0 B/s ↑ 0 B/s"},
            "firehoseStatus": {
                "connected": false, "isConnected": false, "url": "", "currentCursor": null,
                "queueDepth": 0, "activeProcessing": 0, "reconnectDelay": 1500, "streamLength": 0, "deadLetterLength": 0,
            },
            "errorRate": 0.0, "rowsAgeSeconds": null,
            "flow": {
                "waiting": null, "waitingExact": false, "quietSeconds": null, "stalledSeconds": 0.0, "entriesAdded": null, "incomingPerSecond": null, "writtenPerSecond": null,
                "drainSeconds": null, "streamFullSeconds": null, "streamCap": 0, "workersAlive": null, "database": "unknown",
            },
            "redis": null, "redisLacking": null,
            "lastUpdate": "2026-07-04T14:38:08.500Z",
        });
        assert_eq!(metrics, expected);
        let expected = json!({
            "eventTime": null, "lagSeconds": null, "paused": false, "gaps": 0, "resets": 0, "dataLoss": 0,
            "bulkLength": 0, "streamCap": 500_000, "verification": null, "filter": null,
        });
        assert_eq!(ingest, expected);
    }

    #[test]
    fn numbers_stand_where_readers_look_for_them() {
        let rows = Rows { age: Some(2.7), ..Rows::default() };
        let reading = Reading {
            status: Some(Status { connected: true, url: "wss://relay.test".into(), current_cursor: None }),
            cursor: Some("42".into()),
            total: 8,
            commits: 5,
            identities: 2,
            accounts: 1,
            errors: 2,
            rows: [1, 2, 3, 4, 5, 6, 700, 800],
            pending: 9,
            stream_length: 10,
            bulk_length: 13,
            dead_letters: 11,
            messages: 12,
            memory: Some(RedisMemory { used_bytes: 5, max_bytes: None }),
            ingest: IngestState { event_time: Some("2026-07-04T14:38:06Z".into()), paused: true, ..Default::default() },
            lacking: None,
        };
        let (metrics, ingest) = shapes(reading, rows);
        assert_eq!(metrics["rowsAgeSeconds"], 2.7);
        assert_eq!(metrics["dbRecords"], 21);
        assert_eq!(metrics["stats"]["totalBlocks"], 6);
        assert_eq!(metrics["errorRate"], 25.0);
        assert_eq!(metrics["redis"], json!({"usedBytes": 5, "maxBytes": null}));
        assert_eq!(metrics["eventCounts"], json!({"#commit": 5, "#identity": 2, "#account": 1}));
        let status = json!({
            "connected": true, "isConnected": true, "url": "wss://relay.test", "currentCursor": "42",
            "queueDepth": 9, "activeProcessing": 9, "reconnectDelay": 1500, "streamLength": 10, "deadLetterLength": 11,
        });
        assert_eq!(metrics["firehoseStatus"], status);
        assert_eq!((&ingest["lagSeconds"], &ingest["paused"]), (&json!(2.5), &json!(true)));
        assert_eq!(ingest["bulkLength"], 13);
    }

    #[test]
    fn the_error_rate_is_finite() {
        assert_eq!([error_rate(0, 0), error_rate(5, 0), error_rate(1, 8), error_rate(8, 4)], [0.0, 0.0, 12.5, 200.0]);
    }
}
