//! Why a batch was not written.

use thiserror::Error;

/// Why a batch was not written.
#[derive(Debug, Error)]
pub(crate) enum PublishError {
    /// Another ingest holds the lease.
    #[error("the lease is held by another ingest")]
    Lease,
    /// The cursor is not what the previous batch left.
    #[error("the cursor is {found:?}, not {expected:?}")]
    Cursor {
        /// The text found.
        found: String,
        /// The text expected.
        expected: String,
    },
    /// Another program added an entry to the stream.
    #[error("another program wrote entry {id}")]
    Entry {
        /// Its ID.
        id: String,
    },
    /// More unnumbered entries were added since the previous batch than one script looks through.
    #[error("other programs wrote more entries than one script looks through")]
    Behind,
    /// The workers found that Redis lost its data, or another system set the incarnation.
    #[error("the incarnation is {found:?}")]
    Incarnation {
        /// The incarnation found.
        found: String,
    },
    /// Redis did not answer, or with an error: the batch may or may not be written.
    #[error(transparent)]
    Redis(fred::error::Error),
    /// The script's reply is not understood.
    #[error("unexpected reply from the script: {0:?}")]
    Answer(Vec<String>),
}
