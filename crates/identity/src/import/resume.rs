//! Up to where an export was read, so that the next import of it goes on from there.
//!
//! An export is known by its first line, and the place by the line before it. So a file that was downloaded on meanwhile is read on too.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A place in an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Bytes before it, after unpacking.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) lines: u64,
    /// The length of the last line before it, its line break included.
    pub(super) length: u64,
    /// That line's name.
    pub(super) line: String,
}

/// Names a line by its content.
pub(super) fn name(line: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(line)[..16])
}
