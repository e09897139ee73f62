//! What `identity` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::help;

/// What is done with identities.
#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Seeds the table with an export of the directory of did:plc.
    Import(Import),
    /// Shows what the table, the directory, the host and the handle's owner say of an account. Changes nothing.
    Show(Show),
}

/// What `identity import` takes.
#[derive(Debug, Args)]
#[command(after_help = help::IDENTITY_IMPORT)]
pub(crate) struct Import {
    /// The export: JSON lines, plain or gzip; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Begins at the first line, whatever an earlier import had read.
    #[arg(long)]
    pub(crate) from_start: bool,
}

/// What `identity show` takes.
#[derive(Debug, Args)]
#[command(after_help = help::IDENTITY_SHOW)]
pub(crate) struct Show {
    /// The account's DID.
    #[arg(value_name = "DID")]
    pub(crate) did: String,
    /// Asks the table alone.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}
