//! `penstock.records`: records for which the AppView's tables have no place, or too little.
//!
//! Its columns are narrower than what the protocol allows (docs/tables.md lists them). A record whose URI, or another
//! value that identifies its row, does not fit is stored here alone; one whose row says less than the record is stored here
//! as well. Both follow the order of events as rows do.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::micros::Micros;
use super::table::MAX_URI;

/// The table's name.
pub(crate) const TABLE: &str = "penstock.records";

/// A row of `penstock.records`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept<'a> {
    pub(crate) uri: String,
    pub(crate) did: &'a str,
    pub(crate) collection: Cow<'a, str>,
    pub(crate) cid: Option<Cow<'a, str>>,
    /// The record as JSON, serialized, without NUL.
    pub(crate) record: String,
    /// When it was made, or happened.
    pub(crate) created_at: Micros,
}

/// Returns whether a column takes a URI: 512 bytes at most, and no NUL.
pub(crate) fn is_plain(uri: &str) -> bool {
    uri.len() <= MAX_URI && !uri.contains('\0')
}

/// Returns the key by which guards name a record: its URI, or the digest of one that no column and no index takes.
pub(crate) fn key_of(uri: String) -> String {
    if is_plain(&uri) {
        return uri;
    }
    let digest = Sha256::digest(uri.as_bytes());
    format!("sha256:{}", HEXLOWER.encode(&digest))
}

/// Replaces NUL, which PostgreSQL does not store in text, by the replacement character.
pub(crate) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_fits_is_its_own_key_and_a_longer_one_has_a_short_key() {
        let uri = |len: usize| format!("at://did:plc:a/a.b.c/{}", "k".repeat(len - 21));
        assert_eq!(key_of(uri(512)), uri(512));
        let key = key_of(uri(513));
        assert_eq!((&key[..7], key.len()), ("sha256:", 71));
        assert_ne!(key, key_of(uri(514)));
        assert_ne!(key_of("at://did:plc:a/a.b.c/k\0".to_owned()), key_of("at://did:plc:a/a.b.c/k".to_owned()));
    }
}
