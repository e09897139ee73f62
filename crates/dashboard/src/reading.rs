//! What the dashboard knows of the pipeline: one round trip to Redis, read into plain numbers.

use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, HashesInterface, KeysInterface, ListInterface, StreamsInterface};
use fred::types::Value;
use fred::types::config::Options;
use penstock_core::data::EventKind;
use penstock_core::filter::{LeftOut, Summary};
use penstock_core::keys::Keys;
use penstock_core::live::{RECORD_COUNTS, Status, cluster, state};
use penstock_core::verified::Verified;
use schemars::JsonSchema;
use serde::Serialize;

/// What one look at Redis found; what is absent counts as none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// Absent while nobody ingests.
    pub(crate) status: Option<Status>,
    /// The cursor key itself, which outlives the status.
    pub(crate) cursor: Option<String>,
    /// Events applied, and of which kind.
    pub(crate) total: u64,
    pub(crate) commits: u64,
    pub(crate) identities: u64,
    pub(crate) accounts: u64,
    /// Entries that failed for good.
    pub(crate) errors: u64,
    /// Rows, in the order of [`RECORD_COUNTS`].
    pub(crate) rows: [u64; RECORD_COUNTS.len()],
    /// Entries delivered to the group and not acknowledged; 0 while there is no group.
    pub(crate) pending: u64,
    pub(crate) stream_length: u64,
    /// Entries of repos that send more than their rate.
    pub(crate) bulk_length: u64,
    pub(crate) dead_letters: u64,
    /// Messages accepted and not yet taken.
    pub(crate) messages: u64,
    /// Absent where Redis does not tell.
    pub(crate) memory: Option<RedisMemory>,
    pub(crate) ingest: IngestState,
    /// What the users of this dashboard, or of ingest, lack in Redis.
    pub(crate) lacking: Option<String>,
}

/// The memory of a Redis server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisMemory {
    /// In use, in bytes.
    pub(crate) used_bytes: u64,
    /// `maxmemory`, in bytes. Null: no limit is set.
    pub(crate) max_bytes: Option<u64>,
}

/// What ingest says of itself beside the cursor.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct IngestState {
    /// Event time of the cursor, RFC 3339.
    pub(crate) event_time: Option<String>,
    pub(crate) paused: bool,
    pub(crate) gaps: u64,
    pub(crate) resets: u64,
    pub(crate) data_loss: u64,
    /// What its user lacks in Redis.
    pub(crate) lacking: Option<String>,
    /// What it found of the commits.
    pub(crate) verified: Option<Verified>,
    /// The rules by which the events up to the cursor were chosen; everything is carried where none stand there.
    pub(crate) filter: Summary,
    /// What its filter left out.
    pub(crate) left_out: Option<LeftOut>,
}

/// Asks Redis for everything in one pipeline.
///
/// # Errors
/// Redis is away, or one of the keys holds another type.
pub(crate) async fn read(client: &Client, keys: &Keys, timeout: Duration) -> Result<Reading, Error> {
    let pipeline = client.pipeline();
    let ask = pipeline.with_options(&options(timeout));
    let kinds = [EventKind::Commit, EventKind::Identity, EventKind::Account].map(cluster::kind);
    let counted = [cluster::TOTAL, cluster::ERRORS, kinds[0], kinds[1], kinds[2]];
    let told = [
        state::EVENT_TIME,
        state::PAUSED,
        state::GAPS,
        state::RESETS,
        state::DATA_LOSS,
        state::LACKING,
        state::VERIFIED,
        state::FILTER,
        state::LEFT_OUT,
    ];
    let () = ask.get(keys.status()).await?;
    let () = ask.get(keys.cursor()).await?;
    let () = ask.hmget(keys.cluster_metrics(), counted.to_vec()).await?;
    let () = ask.hmget(keys.record_counts(), RECORD_COUNTS.to_vec()).await?;
    let () = ask.xpending(keys.stream(), keys.group(), ()).await?;
    let () = ask.xlen(keys.stream()).await?;
    let () = ask.xlen(keys.bulk()).await?;
    let () = ask.xlen(keys.dead_letters()).await?;
    let () = ask.xlen(keys.raw_letters()).await?;
    let () = ask.llen(keys.pending_messages()).await?;
    let () = ask.hmget(keys.ingest_state(), told.to_vec()).await?;

    let mut answers = pipeline.try_all::<Value>().await.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Null));
    let status = text(next()?).and_then(|status| serde_json::from_str(&status).ok());
    let cursor = text(next()?);
    let [total, errors, commits, identities, accounts] = numbers(next()?);
    let rows = numbers(next()?);
    let pending = match next() {
        Ok(Value::Array(summary)) => summary.first().and_then(Value::as_u64).unwrap_or(0),
        // Before the first worker there is no group, and before the first event no stream.
        Err(error) if !error.details().contains("NOGROUP") => return Err(error),
        Ok(_) | Err(_) => 0,
    };
    let mut length = || next().map(|length| length.as_u64().unwrap_or(0));
    let (stream_length, bulk_length) = (length()?, length()?);
    let (dead_letters, messages) = (length()? + length()?, length()?);
    let ingest = IngestState::from(texts(next()?));
    Ok(Reading {
        status,
        cursor,
        total,
        commits,
        identities,
        accounts,
        errors,
        rows,
        pending,
        stream_length,
        bulk_length,
        dead_letters,
        messages,
        memory: None,
        ingest,
        lacking: None,
    })
}

/// Says how every command is sent: at once or not at all, so that an answer never waits for Redis to come back.
pub(crate) fn options(timeout: Duration) -> Options {
    Options { fail_fast: true, max_attempts: Some(1), timeout: Some(timeout), ..Options::default() }
}

// === impl Reading ===

impl Reading {
    /// Says whether the relay's socket is open.
    pub(crate) fn connected(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.connected)
    }
}

// === impl IngestState ===

impl From<[Option<String>; 9]> for IngestState {
    fn from(fields: [Option<String>; 9]) -> Self {
        let [event_time, paused, gaps, resets, data_loss, lacking, verified, filter, left_out] = fields;
        Self {
            event_time,
            paused: paused.as_deref() == Some("1"),
            gaps: number(gaps),
            resets: number(resets),
            data_loss: number(data_loss),
            lacking,
            verified: verified.and_then(|text| Verified::read(&text)),
            filter: filter.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
            left_out: left_out.and_then(|text| serde_json::from_str(&text).ok()),
        }
    }
}

fn text(value: Value) -> Option<String> {
    value.into_string()
}

fn texts<const N: usize>(value: Value) -> [Option<String>; N] {
    let mut fields = value.into_array().into_iter();
    std::array::from_fn(|_| fields.next().and_then(text))
}

/// Reads the counters of an HMGET.
pub(crate) fn numbers<const N: usize>(value: Value) -> [u64; N] {
    texts(value).map(number)
}

/// Reads a counter. Others write these hashes too: what is no number, or below zero, counts as none.
fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_is_no_count_is_none() {
        let field = |text: &str| Value::from(text);
        let values = Value::Array(vec![field("12"), Value::Null, field("-3"), field("x")]);
        assert_eq!(numbers::<5>(values), [12, 0, 0, 0, 0]);
        assert_eq!(numbers::<2>(Value::Null), [0, 0]);
    }
}
