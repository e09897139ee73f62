//! Why an export was not imported.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why an export was not imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("could not open {}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read on.
    #[error("could not read the export at byte {at}")]
    Read {
        /// How far it was read.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// No line is one of the directory's export.
    #[error("this is no export of the directory: none of its first {lines} lines is an operation")]
    NoExport {
        /// How many were read.
        lines: u64,
    },
    /// Standard input goes on where the export was never read to.
    #[error(
        "standard input is not the export of which {offset} bytes were imported before, though it begins like it: give --from-start to import all of it"
    )]
    OtherStream {
        /// How far the other one was read.
        offset: u64,
    },
    /// The table is missing.
    #[error("the database has no table penstock.identities: run penstock migrate first")]
    NoTable,
    /// The database gave no answer.
    #[error("the database gave no answer for {seconds} s; the same command goes on from here")]
    Silent {
        /// For how long.
        seconds: u64,
    },
    /// The database refused.
    #[error("could not write to the database; the same command goes on from here")]
    Database(#[source] sqlx::Error),
    /// The thread that reads ended by a panic.
    #[error("could not read the export to its end")]
    Thread(#[source] tokio::task::JoinError),
}
