//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the budgets of Penstock, each beside a limit or a peer in the same run.
///
/// Settings in the environment, such as PENSTOCK_INGEST_BATCH_EVENTS, reach the measured services.
#[derive(Debug, Parser)]
#[command(name = "penstock-bench", version)]
pub(crate) struct Cli {
    /// What to measure. Default: everything.
    #[arg(value_enum)]
    pub(crate) what: Option<What>,
    /// Events of one run. Default: 300,000 for ingest, 24,000 (12 s) for latency, 100,000 for the worker; for live, clients: 5,000.
    #[arg(long, value_name = "EVENTS")]
    pub(crate) events: Option<NonZeroU64>,
    /// Runs of each measurement, of which the median counts.
    #[arg(long, default_value = "3", value_name = "RUNS")]
    pub(crate) runs: NonZeroU64,
    /// What is replayed: repeated [u32 little-endian length][frame]. Default: the bundled recording.
    #[arg(long, value_name = "FILE")]
    pub(crate) recording: Option<PathBuf>,
    /// Serves so many replayed events on this address, prepared ahead, until stdin ends: the relay of the measurements.
    #[arg(long, hide = true, requires = "events")]
    pub(crate) serve: Option<SocketAddr>,
}

/// A group of measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Throughput, CPU and memory of ingest.
    Ingest,
    /// Time from a frame to its entry.
    Latency,
    /// One worker into PostgreSQL.
    Worker,
    /// What traces and metrics cost ingest.
    Tracing,
    /// Many live clients on one dashboard.
    Live,
}
