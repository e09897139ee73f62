//! When services began: a short list in Redis, so that a chart can say what happened when its curve changed.

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ListInterface;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keys::Keys;

/// How many starts are kept, over all services.
pub const KEPT: i64 = 500;

/// The longest name that is kept, in characters.
const NAME: usize = 128;

/// One start, as it stands in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When, in milliseconds since the epoch, by the clock of the service.
    pub at: u64,
    /// `ingest` or `worker`.
    pub service: String,
    /// The name of the process: a worker's is its name in the consumer group.
    pub instance: String,
    /// Its version.
    pub version: String,
}

// === impl Started ===

impl Started {
    /// A service of this version begins now.
    #[must_use]
    pub fn now(service: &str, instance: &str) -> Self {
        Self {
            at: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            service: service.to_owned(),
            instance: instance.chars().take(NAME).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Returns the name of this machine, or of this pod.
#[must_use]
pub fn host_name() -> String {
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    std::env::var("HOSTNAME").ok().or_else(kernel).map_or_else(|| "host".to_owned(), |name| name.trim().to_owned())
}

/// Adds a start to the list, and drops the oldest ones.
///
/// # Errors
/// Redis is away, or refuses. Nothing depends on this list: go on without.
pub async fn note(client: &Client, keys: &Keys, started: &Started) -> Result<(), Error> {
    let entry = serde_json::to_string(started).unwrap_or_default();
    let pipeline = client.pipeline();
    let () = pipeline.lpush(keys.starts(), entry).await?;
    let () = pipeline.ltrim(keys.starts(), 0, KEPT - 1).await?;
    pipeline.all().await
}

/// Reads the list, the newest first; what is no start is skipped.
#[must_use]
pub fn read(entries: &[String]) -> Vec<Started> {
    entries.iter().filter_map(|entry| serde_json::from_str(entry).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_as_it_was_written_and_others_are_skipped() {
        let started = Started { instance: "w-0".into(), ..Started::now("worker", &"x".repeat(1_000)) };
        assert_eq!(Started::now("worker", &"x".repeat(1_000)).instance.len(), NAME);
        let entries = [serde_json::to_string(&started).unwrap(), "no start".into(), r#"{"at":"x"}"#.into()];
        assert_eq!(read(&entries), [started]);
    }
}
