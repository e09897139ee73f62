//! What `run` takes.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// What each number of the status line means.
const STATUS_LINE: &str = "\
Status line, once a second:
  events/s  events written to Redis in the last second
  lag       age of the newest event in Redis
  waiting   entries in Redis not yet applied to the tables
  applied   entries this run has applied to the tables
  rows      rows in users, posts, likes, reposts, follows, blocks, feed_items and post_aggregations, including those of earlier runs
  letters   dead letters: entries and frames that could not be applied
  disk      size of the data folder, and its limit

Servers are chosen only by these flags, --set and --config. DATABASE_URL, REDIS_URL, RELAY_URL and similar variables are ignored, because
they may belong to another program.

Exit codes: 0 stopped by a signal, --total or --for; 1 failed, or data folder at its limit; 64 invalid settings.

Examples:
  penstock run                                          the bundled recording, for 10 minutes
  penstock run --relay wss://bsky.network               the live network, until Ctrl-C
  penstock run --relay wss://bsky.network --for 5m      the same for 5 minutes
  penstock run --total 2000 --rate 1000 --data /tmp/d   2,000 events, in a separate folder";

/// Events of the recording that a run reads by default: 10 minutes at the default rate.
pub(crate) const RECORDED: u64 = 300_000;

/// What `run` takes.
#[derive(Debug, Args)]
#[command(after_help = STATUS_LINE)]
pub(crate) struct Run {
    /// Folder for the servers' data; a later run in the same folder resumes where the last one stopped.
    #[arg(long, default_value = "data", value_name = "FOLDER")]
    pub(crate) data: PathBuf,
    /// A live relay to read instead of the bundled recording, such as wss://bsky.network.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// A Redis to use instead of a local one.
    #[arg(long, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// A PostgreSQL database to use instead of a local one; creates the tables it needs there.
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// Where to start reading a live relay, in a new data folder; `oldest` first prints what that will cost. Default: live.
    #[arg(long, value_enum, value_name = "WHERE", requires = "relay")]
    pub(crate) from: Option<ReadFrom>,
    /// Events per second of the bundled recording.
    #[arg(long, default_value = "500", value_name = "EVENTS")]
    pub(crate) rate: NonZeroU32,
    /// Stop after this many events; 0 for no limit. Default: 300000 of the bundled recording (10 minutes, about 1.5 GB), no limit for a live relay.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) total: Option<u64>,
    /// Stop after this time, such as 5m. Default: no limit.
    #[arg(long = "for", value_parser = duration, value_name = "TIME")]
    pub(crate) time: Option<Duration>,
    /// Stop when the data folder reaches this size, such as 500MB or 20GB.
    #[arg(long, default_value = "20GB", value_parser = size, value_name = "SIZE")]
    pub(crate) max_disk: u64,
}

/// Where to start reading a live relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadFrom {
    /// The next event.
    Live,
    /// The oldest event the relay retains.
    Oldest,
}

/// Reads a size in bytes.
fn size(text: &str) -> Result<u64, String> {
    let refused = || "a size such as 500MB or 20GB, at least 100MB".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit.to_ascii_uppercase().as_str() {
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(refused()),
    };
    let bytes: Option<u64> = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes >= 100_000_000).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_hold_a_database() {
        let read = ["100MB", "20GB", "2tb"].map(size);
        assert_eq!(read, [Ok(100_000_000), Ok(20_000_000_000), Ok(2_000_000_000_000)]);
        for text in ["", "20", "GB", "1MB", "0GB", "20 GB", "1.5GB", "99999999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
