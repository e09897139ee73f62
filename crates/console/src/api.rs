//! What is read of the dashboard's API; what another version does not send is unknown.

use serde::{Deserialize, Deserializer};

/// `/api/metrics`, also in the live stream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Events applied, ever.
    pub events_processed: u64,
    /// Rows of the tables that are counted.
    pub db_records: u64,
    /// The same by table.
    pub stats: Stats,
    /// Relay and stream.
    pub firehose_status: FirehoseStatus,
    /// Entries that failed for good, in percent.
    pub error_rate: f64,
    /// What the Redis user of the dashboard, or of ingest, may not do although it should.
    pub redis_lacking: Option<String>,
    /// When these figures were read.
    pub last_update: String,
    /// How far PostgreSQL is behind the relay, in seconds. `None`: this dashboard does not tell; `Some(None)`: it does not know.
    #[serde(deserialize_with = "told")]
    pub rows_age_seconds: Option<Option<f64>>,
    /// What waits, how fast it comes and goes, and who writes it. `None`: this dashboard does not tell.
    pub flow: Option<Flow>,
}

/// What waits for PostgreSQL, how fast it comes and goes, and who writes it. `None`: not known.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Flow {
    /// Entries that are not in PostgreSQL yet.
    pub waiting: Option<u64>,
    /// False: more may wait.
    pub waiting_exact: bool,
    /// For how long no event has come, in seconds.
    pub quiet_seconds: Option<f64>,
    /// For how long nothing was written although entries wait, in seconds.
    pub stalled_seconds: f64,
    /// Entries that come a second.
    pub incoming_per_second: Option<f64>,
    /// Entries that are written a second.
    pub written_per_second: Option<f64>,
    /// Time until nothing waits, in seconds.
    pub drain_seconds: Option<f64>,
    /// Time until ingest pauses because the stream is full, in seconds.
    pub stream_full_seconds: Option<f64>,
    /// Workers that are alive.
    pub workers_alive: Option<u64>,
    /// `writing`, `reachable`, `unreachable` or `unknown`.
    pub database: String,
}

/// Rows by table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Rows of `users`.
    pub total_users: u64,
    /// Rows of `posts`.
    pub total_posts: u64,
    /// Rows of `likes`.
    pub total_likes: u64,
    /// Rows of `reposts`.
    pub total_reposts: u64,
    /// Rows of `follows`.
    pub total_follows: u64,
    /// Rows of `blocks`.
    pub total_blocks: u64,
}

impl Stats {
    /// Returns the tables with their rows.
    #[must_use]
    pub fn tables(&self) -> [(&'static str, u64); 6] {
        [
            ("users", self.total_users),
            ("posts", self.total_posts),
            ("likes", self.total_likes),
            ("reposts", self.total_reposts),
            ("follows", self.total_follows),
            ("blocks", self.total_blocks),
        ]
    }
}

/// Relay and stream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FirehoseStatus {
    /// Whether ingest reads the relay.
    pub connected: bool,
    /// The relay; empty while nobody ingests.
    pub url: String,
    /// The relay's number of the last event in the stream.
    pub current_cursor: Option<String>,
    /// Entries read and not acknowledged.
    pub queue_depth: u64,
    /// Entries in the stream.
    pub stream_length: u64,
    /// Entries that failed for good.
    pub dead_letter_length: u64,
}

/// `/api/ingest`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingest {
    /// How old the newest event in the stream is, in seconds.
    pub lag_seconds: Option<f64>,
    /// Whether ingest waits because the stream is full.
    pub paused: bool,
    /// Gaps that were seen.
    pub gaps: u64,
    /// How often events were lost for good.
    pub data_loss: u64,
    /// Entries that wait in the stream of repos above their rate.
    pub bulk_length: u64,
    /// The cap of the stream, in entries.
    pub stream_cap: Option<u64>,
}

/// One of `/api/workers`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// Its name in the consumer group.
    pub name: String,
    /// For how long it has not asked for entries, in seconds.
    pub idle_seconds: f64,
    /// Entries that it has not acknowledged.
    pub pending: u64,
    /// Whether it has shown itself of late.
    pub alive: bool,
    /// Entries applied a second.
    pub entries_per_second: Option<f64>,
}

/// `/ready`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Ready {
    /// `ready` or `not ready`.
    pub status: String,
    /// By part.
    pub checks: Checks,
}

/// The parts of `/ready`, in words.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Checks {
    /// `connected` or `disconnected`.
    pub firehose: String,
    /// `healthy` or `unhealthy`.
    pub database: String,
    /// `ok` or `critical`.
    pub memory: String,
}

/// A live event.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `#commit`, `#identity` or `#account`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The collection.
    pub lexicon: String,
    /// Whose event it is.
    pub did: String,
    /// What happened.
    pub action: String,
    /// `HH:MM:SS`, UTC.
    pub timestamp: String,
}

/// A page of `/api/redis/dead-letters`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeadLetters {
    /// The newest first.
    pub items: Vec<DeadLetter>,
}

/// An entry that failed for good.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeadLetter {
    /// Its ID among the dead letters.
    pub id: String,
    /// `commit`, `identity`, `account`, `raw` or `message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whose it is.
    pub repo: Option<String>,
    /// The relay's number.
    pub seq: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// An error, as the API tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) detail: String,
}

fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_that_is_not_told_differs_from_one_that_is_not_known() {
        let read = |json: &str| serde_json::from_str::<Metrics>(json).unwrap().rows_age_seconds;
        assert_eq!(
            [read("{}"), read(r#"{"rowsAgeSeconds":null}"#), read(r#"{"rowsAgeSeconds":1.5}"#)],
            [None, Some(None), Some(Some(1.5))]
        );
    }
}
