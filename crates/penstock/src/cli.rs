//! The command line.

mod console;
mod heal;
mod help;
mod host;
mod identity;
mod migrate;
mod repo;
mod run;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use jiff::Timestamp;
use penstock_autoscale::simulate::BuiltIn;
use penstock_core::settings::Value;

pub(crate) use console::{Plugin, PluginCommand, Reach, Status, Tail, Wanted};
pub(crate) use heal::{Audit, Backfill, Output};
pub(crate) use host::HostPort;
pub(crate) use identity::{Identity, Import, Show};
pub(crate) use migrate::Migrate;
pub(crate) use repo::{Repo, RepoOutput};
pub(crate) use run::{RECORDED, ReadFrom, Run};

/// Streams the AT Protocol firehose into PostgreSQL without losing or duplicating events.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, disable_help_subcommand = true, after_help = help::ALL)]
pub(crate) struct Cli {
    /// A YAML file with settings; `penstock settings` lists them.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, overriding environment and file; may be repeated.
    #[arg(long, global = true, value_name = "PATH=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads a relay and writes the Redis stream.
    #[command(after_help = help::INGEST)]
    Ingest,
    /// Reads the Redis stream and writes PostgreSQL.
    #[command(after_help = help::WORKER)]
    Worker,
    /// Reads repos from their hosts and brings the tables to what they hold: those known to be incomplete, and those of backfills.
    #[command(after_help = help::HEAL)]
    Heal,
    /// Reads whole repos from their hosts into PostgreSQL.
    Backfill(Backfill),
    /// Compares the tables with repos as their hosts have them, and names what is missing, too many or different.
    ///
    /// Exit codes: 0 equal, 1 something differs, 2 a repo could not be compared, 64 bad flags or settings.
    Audit(Audit),
    /// Serves the HTTP API, the live streams and the page.
    #[command(after_help = help::DASHBOARD)]
    Dashboard,
    /// Runs the Kubernetes operator for FirehosePipelines.
    #[command(after_help = help::OPERATOR)]
    Operator,
    /// Creates or migrates the tables in PostgreSQL.
    Migrate(Migrate),
    /// Removes from PostgreSQL what the filter leaves out, with every count.
    Prune(Prune),
    /// Seeds the table of accounts' keys, hosts and handles, and shows what is known of one account.
    #[command(subcommand, after_help = help::IDENTITY, disable_help_subcommand = true)]
    Identity(Identity),
    /// Says of a repo or a record what is held, what its host has, and why something is not there. Changes nothing.
    Repo(Repo),
    /// Checks Redis and PostgreSQL without changing anything, and prints what is wrong and what to do.
    ///
    /// Exit codes: 0 nothing wrong, 1 warnings, 2 failures, 64 bad settings.
    Doctor(Doctor),
    /// Runs everything on this machine, starting its own Redis and PostgreSQL unless given.
    Run(Run),
    /// Serves a recording the way a relay does.
    Replay(Replay),
    /// Simulates the autoscaler and KEDA's rule on the same arrival traces, and compares them.
    Simulate(Simulate),
    /// Prints the FirehosePipeline CustomResourceDefinition.
    #[command(after_help = help::CRD)]
    Crd,
    /// Prints the OpenAPI 3.1 description of the dashboard's HTTP API.
    #[command(after_help = help::OPENAPI)]
    Openapi,
    /// Checks the liveness of the process on an admin address.
    #[command(after_help = help::HEALTHCHECK)]
    Healthcheck {
        /// The admin address, by name or number. Default: as set for the services.
        address: Option<HostPort>,
    },
    /// Shows or changes a running process's log level, by its admin address on this host or pod; a change lasts until it exits.
    #[command(after_help = help::LOG_LEVEL)]
    LogLevel {
        /// The level, or a filter such as `info,penstock_ingest=debug`. Default: only show it.
        level: Option<String>,
        /// The admin address. Default: as set for the services.
        #[arg(long)]
        address: Option<HostPort>,
    },
    /// Draws the pipeline in this terminal: stages, lag, workers, tables, live events, dead letters.
    #[command(after_help = help::TOP)]
    Top(Reach),
    /// Prints how the pipeline is, on one screen or as JSON.
    ///
    /// Exit codes: 0 good, 1 degraded or not known, 2 down or not reached, 64 bad flags or settings.
    Status(Status),
    /// Prints live events, one JSON object a line.
    Tail(Tail),
    /// Lists every setting.
    #[command(after_help = help::SETTINGS)]
    Settings {
        /// For people, for Markdown documents, or for programs.
        #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
        format: SettingsFormat,
    },
    /// Prints completions for a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Writes the manual pages of all commands.
    #[command(after_help = help::MAN)]
    Man {
        /// The folder; it is created. Default: prints the page of the binary itself.
        folder: Option<PathBuf>,
    },
}

/// What `prune` takes.
#[derive(Debug, Args)]
#[command(after_help = help::PRUNE)]
pub(crate) struct Prune {
    /// Only counts what is outside the filter.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How the settings are listed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SettingsFormat {
    /// A line each, in columns.
    Table,
    /// A Markdown table.
    Md,
    /// A JSON array.
    Json,
}

/// What `doctor` takes.
#[derive(Debug, Args)]
#[command(after_help = help::DOCTOR)]
pub(crate) struct Doctor {
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// Time between the two samples of what changes, at most 60s.
    #[arg(long, default_value = "2s", value_parser = pause, value_name = "TIME")]
    pub(crate) pause: Duration,
}

/// What `replay` takes.
#[derive(Debug, Args)]
#[command(after_help = help::REPLAY)]
pub(crate) struct Replay {
    /// Listen address; port 0 picks a free port.
    #[arg(long, default_value = "127.0.0.1:2470", value_name = "ADDRESS")]
    pub(crate) address: SocketAddr,
    /// Recording file: repeated [u32 little-endian length][frame]. Default: the bundled one.
    #[arg(long, value_name = "FILE")]
    pub(crate) recording: Option<PathBuf>,
    /// Total number of events; the recording loops as often as needed. Default: endless.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) total: Option<u64>,
    /// Events per second, or `unlimited`.
    #[arg(long, default_value = "unlimited", value_parser = rate, value_name = "EVENTS")]
    pub(crate) rate: penstock_replay::Rate,
    /// Number of events already available at start.
    #[arg(long, default_value_t = 0, value_name = "EVENTS")]
    pub(crate) backlog: u64,
    /// How many events before the head a cursor may reach. Default: all.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) window: Option<u64>,
    /// Response to a cursor beyond the head.
    #[arg(long, default_value = "error", value_enum)]
    pub(crate) future_cursor: FutureCursor,
    /// Response to a malformed cursor.
    #[arg(long, default_value = "http400", value_enum)]
    pub(crate) bad_cursor: BadCursor,
    /// How many events a client may fall behind before it is disconnected.
    #[arg(long, default_value_t = 16_384, value_name = "EVENTS")]
    pub(crate) client_buffer: u64,
    /// Time between pings.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub(crate) ping_interval: Duration,
    /// Sequence number of the first event. Default: as recorded.
    #[arg(long, value_name = "SEQ")]
    pub(crate) start_seq: Option<u64>,
    /// Time of the first event, RFC 3339 or `now`. Default: as recorded.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) start_time: Option<Timestamp>,
    /// Signs every commit, the recorded ones too, with keys of its own. Default: signatures stay as recorded.
    #[arg(long, value_enum, value_name = "CURVE", num_args = 0..=1, default_missing_value = "both")]
    pub(crate) sign: Option<Curve>,
    /// Answers as the accounts' directory (identity.plcUrl) and host too; signs with both curves unless --sign says otherwise.
    #[arg(long)]
    pub(crate) plc: bool,
}

/// Which keys commits are signed with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Curve {
    /// Those of secp256k1, as nearly all of the network.
    K256,
    /// Those of NIST P-256.
    P256,
    /// Some accounts have one, some the other.
    Both,
}

/// Response to a cursor beyond the head.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FutureCursor {
    /// An error frame, then a close, like a PDS.
    Error,
    /// Live events with lower numbers and no error frame, like indigo.
    SilentLive,
}

/// Response to a malformed cursor.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BadCursor {
    /// HTTP 400 before the upgrade.
    Http400,
    /// An error frame, then a close.
    ErrorFrame,
}

/// What `simulate` takes.
#[derive(Debug, Args)]
#[command(after_help = help::SIMULATE)]
pub(crate) struct Simulate {
    /// A built-in trace: day, spike, growth, outage, dead-consumers, nil-lag or trimmed-lag. Default: all of them.
    #[arg(long, value_name = "NAME", conflicts_with = "csv")]
    pub(crate) trace: Option<BuiltIn>,
    /// CSV file with lines `seconds,events_per_second`; the last line marks the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// File to write a chart to.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Maximum time an event may wait (the objective). Default: 30s.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) objective: Option<Duration>,
    /// Minimum number of workers. Default: set by the trace.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) min_replicas: Option<u16>,
    /// Maximum number of workers. Default: 20.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_replicas: Option<u16>,
    /// Target time to clear a backlog.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) drain_target: Option<Duration>,
    /// Target worker utilization, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(10..=100))]
    pub(crate) target_utilization: Option<u8>,
    /// How long to look back before scaling down (the highest recommendation wins).
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) stabilization_window: Option<Duration>,
    /// Maximum number of workers added at once.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_step_up: Option<u16>,
    /// Maximum number of workers removed at once.
    #[arg(long, value_name = "WORKERS")]
    pub(crate) max_step_down: Option<u16>,
    /// Assumed throughput of a worker until measured, in entries per second.
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
            signing: args.sign.or(args.plc.then_some(Curve::Both)).map(|curve| match curve {
                Curve::K256 => penstock_replay::Signing::K256,
                Curve::P256 => penstock_replay::Signing::P256,
                Curve::Both => penstock_replay::Signing::Both,
            }),
            directory: args.plc,
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
    text.parse().map(penstock_replay::Rate::PerSecond).map_err(|_| "a positive integer, or unlimited".to_owned())
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
