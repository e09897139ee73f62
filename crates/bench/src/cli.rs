//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use penstock_replay::Signing;

/// Measures Penstock's performance budgets, each against a limit or a baseline in the same run.
///
/// Settings in the environment, such as PENSTOCK_INGEST_BATCH_EVENTS, apply to the measured services.
#[derive(Debug, Parser)]
#[command(name = "penstock-bench", version)]
pub(crate) struct Cli {
    /// What to measure. Default: everything.
    #[arg(value_enum)]
    pub(crate) what: Option<What>,
    /// Events per run. Default: 300,000 for ingest, 100,000 for signed, 24,000 (12 s) for latency, 100,000 for the worker, 500,000 for identity; for live, clients: 5,000; for backfill, records of each repo: 250; for big, records of the one repo: 1,000,000.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) events: Option<NonZeroU64>,
    /// Runs per measurement; the median is reported.
    #[arg(long, default_value = "3", value_name = "RUNS")]
    pub(crate) runs: NonZeroU64,
    /// Another build of penstock: its runs alternate with those of this one, and the ratio is reported.
    #[arg(long, value_name = "PENSTOCK")]
    pub(crate) against: Option<PathBuf>,
    /// Recording to replay: repeated [u32 little-endian length][frame]. Default: the bundled one.
    #[arg(long, value_name = "FILE")]
    pub(crate) recording: Option<PathBuf>,
    /// The program `tap` that backfill is measured beside: see docs/performance.md. Without it, that is left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) tap: Option<PathBuf>,
    /// Repos of a backfill.
    #[arg(long, default_value = "400", value_name = "REPOS")]
    pub(crate) repos: NonZeroU64,
    /// Serves pre-encoded replayed events on this address until stdin ends: the relay of the measurements.
    #[arg(long, hide = true, requires = "events")]
    pub(crate) serve: Option<SocketAddr>,
    /// Serves so many repos with so many records each on this address until stdin ends: the host of the measurements.
    #[arg(long, hide = true, requires = "events", conflicts_with = "serve")]
    pub(crate) host: Option<SocketAddr>,
    /// Signs the commits of these events, and answers as the directory of their accounts.
    #[arg(long, hide = true, requires = "serve")]
    pub(crate) sign: Option<Curve>,
}

/// What commits are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Curve {
    K256,
    P256,
}

impl Curve {
    pub(crate) fn signing(self) -> Signing {
        match self {
            Self::K256 => Signing::K256,
            Self::P256 => Signing::P256,
        }
    }
}

/// A group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Throughput, CPU and memory of ingest.
    Ingest,
    /// The proof of commits, with and without signatures.
    Proof,
    /// Ingest that checks who signed each commit.
    Signed,
    /// Time from a frame to its entry.
    Latency,
    /// One worker into PostgreSQL.
    Worker,
    /// The import of the directory's export.
    Identity,
    /// The cost of traces and metrics in ingest.
    Tracing,
    /// Many live clients on one dashboard.
    Live,
    /// Repos read from their host into PostgreSQL.
    Backfill,
    /// The memory that a repo of a million records takes.
    Big,
    /// Live events while a backfill runs.
    Beside,
}
