//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use penstock_autoscale::simulate::BuiltIn;
use penstock_core::settings::Value;

/// Carries the AT Protocol firehose into PostgreSQL, losing and doubling nothing.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// A YAML file with settings; `penstock settings` lists them.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, over environment and file; may be repeated.
    #[arg(long, global = true, value_name = "PATH=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads a relay and writes the Redis stream.
    Ingest,
    /// Reads the Redis stream and writes PostgreSQL.
    Worker,
    /// Serves the HTTP API, the live streams and the page.
    Dashboard,
    /// Carries out the FirehosePipelines of a Kubernetes cluster.
    Operator,
    /// Makes or completes the tables in PostgreSQL.
    Migrate {
        /// Counts the aggregates anew, for a database that came with wrong ones.
        #[arg(long)]
        recount: bool,
        /// Makes notifications, thread contexts and viewer states anew from the rows, for a database whose workers did not write them.
        #[arg(long)]
        rebuild: bool,
    },
    /// Checks Redis and PostgreSQL without changing anything, and prints what is wrong and what to do.
    ///
    /// Exit codes: 0 nothing wrong, 1 warnings, 2 failures, 64 bad settings.
    Doctor(Doctor),
    /// Runs everything on this machine, with a Redis and a PostgreSQL of its own where none are given.
    Run(Run),
    /// Serves a recording as a relay does.
    Replay(Replay),
    /// Runs the autoscaler on traces of arrivals, beside KEDA's rule, and measures both.
    Simulate(Simulate),
    /// Prints the definition of FirehosePipeline for Kubernetes.
    Crd,
    /// Prints the description of the dashboard's HTTP API, as OpenAPI 3.1.
    Openapi,
    /// Asks the process on an admin address whether it is alive.
    Healthcheck {
        /// The admin address. Default: as set for the services.
        address: Option<SocketAddr>,
    },
    /// Tells the log level of the process on an admin address of this host or pod, or changes it until that process ends.
    LogLevel {
        /// The level, or a filter such as `info,penstock_ingest=debug`. Default: none, it is only told.
        level: Option<String>,
        /// The admin address. Default: as set for the services.
        #[arg(long)]
        address: Option<SocketAddr>,
    },
    /// Lists every setting.
    Settings,
}

/// What `doctor` takes.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// Time between the two samples of what changes, at most 60s.
    #[arg(long, default_value = "2s", value_parser = pause, value_name = "TIME")]
    pub(crate) pause: Duration,
}

/// What `run` takes.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The folder for the servers' data; a second start in the same folder goes on where the first ended.
    #[arg(long, default_value = "data", value_name = "FOLDER")]
    pub(crate) data: PathBuf,
    /// A live relay in the place of the bundled recording, such as wss://bsky.network.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// Events a second of the bundled recording.
    #[arg(long, default_value = "500", value_name = "EVENTS")]
    pub(crate) rate: NonZeroU32,
}

/// What `replay` takes.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:2470", value_name = "ADDRESS")]
    pub(crate) address: SocketAddr,
    /// A recording: repeated [u32 little-endian length][frame]. Default: the bundled one.
    #[arg(long, value_name = "FILE")]
    pub(crate) recording: Option<PathBuf>,
    /// Events there will ever be, the recording looping as often as needed. Default: endless.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) total: Option<u64>,
    /// Events a second, or `unlimited`.
    #[arg(long, default_value = "unlimited", value_parser = rate, value_name = "EVENTS")]
    pub(crate) rate: penstock_replay::Rate,
    /// Events that already lie in the past at the start.
    #[arg(long, default_value_t = 0, value_name = "EVENTS")]
    pub(crate) backlog: u64,
    /// Events before the head that a cursor may still reach. Default: all.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) window: Option<u64>,
    /// What a cursor beyond the head gets.
    #[arg(long, default_value = "error", value_enum)]
    pub(crate) future_cursor: FutureCursor,
    /// What a malformed cursor gets.
    #[arg(long, default_value = "http400", value_enum)]
    pub(crate) bad_cursor: BadCursor,
    /// Events a client may fall behind the live clock before it is closed.
    #[arg(long, default_value_t = 16_384, value_name = "EVENTS")]
    pub(crate) client_buffer: u64,
    /// Time between pings.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) ping_interval: Duration,
    /// The sequence number of the first event. Default: as recorded.
    #[arg(long, value_name = "SEQ")]
    pub(crate) start_seq: Option<u64>,
    /// The time of the first event, RFC 3339, or `now`. Default: as recorded.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) start_time: Option<Timestamp>,
}

/// What a cursor beyond the head gets.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FutureCursor {
    /// An error frame, then a close, as a PDS does.
    Error,
    /// Live events with lower numbers, and not a word, as indigo does.
    SilentLive,
}

/// What a malformed cursor gets.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BadCursor {
    /// HTTP 400 before the upgrade.
    Http400,
    /// An error frame, then a close.
    ErrorFrame,
}

/// What `simulate` takes.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// One built-in trace: day, spike, growth, outage, dead-consumers, nil-lag or trimmed-lag. Default: all of them.
    #[arg(long, value_name = "NAME", conflicts_with = "csv")]
    pub(crate) trace: Option<BuiltIn>,
    /// A file of lines `seconds,events_per_second`; the last line says when it ends.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// Where a picture of it is written.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// How long an event may wait before the objective is missed. Default: 30s.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) objective: Option<Duration>,
    /// The fewest workers. Default: as the trace has it.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) min_replicas: Option<u16>,
    /// The most workers. Default: 20.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_replicas: Option<u16>,
    /// In what time a backlog should be worked off.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) drain_target: Option<Duration>,
    /// How busy a worker should be, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(10..=100))]
    pub(crate) target_utilization: Option<u8>,
    /// Over how long the greatest recommendation counts before workers are taken away.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) stabilization_window: Option<Duration>,
    /// The most workers that are added at once.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_step_up: Option<u16>,
    /// The most workers that are taken away at once.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_step_down: Option<u16>,
    /// What one worker is taken to write before it has been measured, entries a second.
    #[arg(long, value_name = "ENTRIES")]
    pub(crate) capacity_per_worker: Option<u32>,
}

// === impl Replay ===

impl From<&Replay> for penstock_replay::Settings {
    fn from(args: &Replay) -> Self {
        Self {
            address: args.address,
            recording: args.recording.clone().map_or_else(Default::default, penstock_replay::Recording::File),
            total: args.total,
            rate: args.rate,
            backlog: args.backlog,
            window: args.window,
            future_cursor: match args.future_cursor {
                FutureCursor::Error => penstock_replay::FutureCursor::Error,
                FutureCursor::SilentLive => penstock_replay::FutureCursor::SilentLive,
            },
            bad_cursor: match args.bad_cursor {
                BadCursor::Http400 => penstock_replay::BadCursor::Http400,
                BadCursor::ErrorFrame => penstock_replay::BadCursor::ErrorFrame,
            },
            client_buffer: args.client_buffer,
            ping_interval: args.ping_interval,
            start_seq: args.start_seq,
            start_time: args.start_time,
            ..Self::default()
        }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(path, value)| (path.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "write path=value, such as redis.url=redis://localhost:6379".to_owned())
}

fn rate(text: &str) -> Result<penstock_replay::Rate, String> {
    if text == "unlimited" {
        return Ok(penstock_replay::Rate::Unlimited);
    }
    text.parse().map(penstock_replay::Rate::PerSecond).map_err(|_| "a whole number above 0, or unlimited".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).ok_or_else(|| Duration::ALLOWED.to_owned())
}

fn pause(text: &str) -> Result<Duration, String> {
    duration(text).and_then(
        |pause| {
            if pause <= Duration::from_secs(60) { Ok(pause) } else { Err("at most 60s".to_owned()) }
        },
    )
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(Timestamp::now());
    }
    penstock_core::time::parse(text).ok_or_else(|| "a time such as 2026-01-31T12:00:00Z, or now".to_owned())
}
