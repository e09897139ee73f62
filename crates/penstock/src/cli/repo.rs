//! What `repo` takes.

use clap::{Args, ValueEnum};
use penstock_lookup::Asked;

use super::help;

/// What `repo` takes.
#[derive(Debug, Args)]
#[command(after_help = help::REPO)]
pub(crate) struct Repo {
    /// A DID, a handle, or the AT-URI of a record; the address of a post on bsky.app does too.
    #[arg(value_name = "DID|HANDLE|AT-URI", value_parser = Asked::read)]
    pub(crate) asked: Asked,
    /// Asks neither the directory nor the account's host.
    #[arg(long)]
    pub(crate) offline: bool,
    /// For people, or one JSON object for programs.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) output: RepoOutput,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RepoOutput {
    /// The answer first, then what it follows from.
    Text,
    /// A JSON object: the shape `RepoReport` of the HTTP API.
    Json,
}
