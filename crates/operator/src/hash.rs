//! Hashes that say whether something changed.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Returns 16 hexadecimal digits that change when any of the texts changes, or their order.
pub(crate) fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for text in texts {
        // With the length, what is moved from one text to the next is a change too.
        hasher.update(text.len().to_le_bytes());
        hasher.update(text.as_bytes());
    }
    HEXLOWER.encode(&hasher.finalize()[..8])
}
