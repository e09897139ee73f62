//! What `backfill` and `audit` take.

use clap::{Args, ValueEnum};

use super::help;

/// What `backfill` takes.
#[derive(Debug, Args)]
#[command(after_help = help::BACKFILL)]
pub(crate) struct Backfill {
    /// Repos to read.
    #[arg(value_name = "DID", required_unless_present_any = ["collection", "all", "list"])]
    pub(crate) dids: Vec<String>,
    /// Reads all repos that have records of a collection, as the relay lists them.
    #[arg(long, value_name = "NSID", conflicts_with_all = ["dids", "all"])]
    pub(crate) collection: Option<String>,
    /// Reads all repos that the relay lists.
    #[arg(long, conflicts_with = "dids")]
    pub(crate) all: bool,
    /// The relay that lists repos. Default: the first of relay.urls.
    #[arg(long, value_name = "URL")]
    pub(crate) relay: Option<String>,
    /// Repos a second at most. Default: no limit but the hosts'.
    #[arg(long, value_name = "REPOS")]
    pub(crate) rate: Option<f64>,
    /// Repos at once at most. Default: heal.parallelism.
    #[arg(long, value_name = "REPOS", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parallelism: Option<u32>,
    /// Name to know it by. Default: made from what it covers.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Writes only what a signature proves: repos whose host offers no CAR are given up.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Only registers it: healers that run do it.
    #[arg(long)]
    pub(crate) to_healers: bool,
    /// Begins anew if it is complete already.
    #[arg(long)]
    pub(crate) again: bool,
    /// Prints how far backfills are, and does nothing.
    #[arg(long, conflicts_with_all = ["dids", "collection", "all"])]
    pub(crate) list: bool,
}

/// What `audit` takes.
#[derive(Debug, Args)]
#[command(after_help = help::AUDIT)]
pub(crate) struct Audit {
    /// Repos to compare.
    #[arg(value_name = "DID")]
    pub(crate) dids: Vec<String>,
    /// Compares this many repos, those that were compared longest ago first. Default: 10.
    #[arg(long, value_name = "REPOS", conflicts_with_all = ["dids", "all"])]
    pub(crate) repos: Option<u32>,
    /// Compares all repos that are known.
    #[arg(long, conflicts_with = "dids")]
    pub(crate) all: bool,
    /// Compares all records of each, where the root of its tree would prove it equal (worker.recordCids).
    #[arg(long)]
    pub(crate) full: bool,
    /// Lists what differs for healers to mend.
    #[arg(long)]
    pub(crate) repair: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}
