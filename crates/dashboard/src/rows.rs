//! How far PostgreSQL is behind the relay, and where that leads: the age of rows, what waits, who writes.
//!
//! In comes what one look at Redis found ([`ask`]); out go the figures of `/api/metrics` ([`Flow`]). Called by the look
//! at Redis, once every interval.

mod age;
mod ask;
mod flow;
mod roster;

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use ask::ask;
pub(crate) use flow::Flow;

/// What is known of the rows after one look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    /// How far PostgreSQL is behind the relay, in seconds; none while unknown.
    pub(crate) age: Option<f64>,
    /// What `/api/metrics` shows besides.
    pub(crate) shown: FlowFigures,
    /// The consumers of the group that were seen and are not alive.
    pub(crate) gone: HashSet<String>,
}

/// What waits for PostgreSQL, how fast it comes and goes, and who writes it. Null: unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Flow")]
pub(crate) struct FlowFigures {
    /// Entries of both streams that are not in PostgreSQL yet; after a loss of unread entries possibly fewer.
    waiting: Option<u64>,
    /// False: more of them may wait, Redis does not know how many.
    waiting_exact: bool,
    /// For how long no event has been added to the streams, in seconds.
    quiet_seconds: Option<f64>,
    /// For how long nothing was written although entries wait, in seconds; 0 where nothing waits.
    stalled_seconds: f64,
    /// Entries ever added to both streams.
    entries_added: Option<u64>,
    /// Entries added to the streams per second, over the last 10 s.
    incoming_per_second: Option<f64>,
    /// Entries written to PostgreSQL, or set aside as dead letters, per second, over the last 10 s.
    written_per_second: Option<f64>,
    /// Time until nothing waits at these rates, in seconds; 0 where nothing waits for longer than 2 s, null while it grows.
    drain_seconds: Option<f64>,
    /// Time until ingest pauses because the streams are full, in seconds; null where they do not grow.
    stream_full_seconds: Option<f64>,
    /// Entries at which ingest pauses: `ingest.highWatermark` of `redis.maxStreamLen`.
    stream_cap: u64,
    /// Workers that showed in the last 2 s that they are alive.
    workers_alive: Option<u64>,
    /// Whether rows get into PostgreSQL.
    database: Writes,
}

/// Whether rows get into PostgreSQL, as far as this process can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Writes {
    /// Workers committed entries within the last 10 s.
    Writing,
    /// It answers, and nothing was written of late.
    Reachable,
    /// It does not answer.
    Unreachable,
    /// Nothing was written of late, and the dashboard has no address to ask.
    #[default]
    Unknown,
}
