//! What ingest found of the commits that it verified, as it reports it in Redis.
//!
//! One field of the ingest state, written as a whole while ingest holds its lease. The operator and the dashboard read it; what
//! they cannot read is as good as none.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::settings::Verification;

/// The value of the field [`VERIFIED`](crate::live::state::VERIFIED) of the ingest state. It counts from `since` on: another
/// process, and one that starts again, begins at 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// `verify.mode` of this process.
    pub mode: Verification,
    /// `verify.signatures` of this process.
    pub signatures: Verification,
    /// When the counts began.
    pub since: Timestamp,
    /// Commits of which everything held that the modes ask for.
    #[serde(default)]
    pub verified: u64,
    /// Commits that proved wrong, by reason.
    #[serde(default)]
    pub failed: BTreeMap<String, u64>,
    /// Commits that were written although their account's key could not be had.
    #[serde(default)]
    pub unresolved: u64,
    /// Repos that were marked desynchronized, by reason.
    #[serde(default)]
    pub desynchronized: BTreeMap<String, u64>,
    /// The last commit that proved wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failed: Option<LastFailed>,
    /// When the last commit was unresolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_unresolved: Option<Timestamp>,
    /// Since when reading waits for a key, with `verify.unresolved: hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
}

/// A commit that proved wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailed {
    /// When it was looked at.
    pub at: Timestamp,
    /// The DID of the repo that it names.
    pub did: String,
    /// What was wrong with it, in a word.
    pub reason: String,
}

// === impl Verified ===

impl Verified {
    /// Starts to count.
    #[must_use]
    pub const fn new(mode: Verification, signatures: Verification, since: Timestamp) -> Self {
        Self {
            mode,
            signatures,
            since,
            verified: 0,
            failed: BTreeMap::new(),
            unresolved: 0,
            desynchronized: BTreeMap::new(),
            last_failed: None,
            last_unresolved: None,
            held_since: None,
        }
    }

    /// Reads what ingest wrote; that of another version may be none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Writes it.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How many commits proved wrong.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failed.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many commits were looked at.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.verified.saturating_add(self.failures()).saturating_add(self.unresolved)
    }

    /// How many repos were marked.
    #[must_use]
    pub fn marked(&self) -> u64 {
        self.desynchronized.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_pinned() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let whole = Verified {
            verified: 7,
            failed: BTreeMap::from([("signature".to_owned(), 2), ("inversion".to_owned(), 1)]),
            unresolved: 3,
            desynchronized: BTreeMap::from([("since".to_owned(), 4)]),
            last_failed: Some(LastFailed {
                at: time("2026-07-04T14:38:08Z"),
                did: "did:plc:a".to_owned(),
                reason: "signature".to_owned(),
            }),
            last_unresolved: Some(time("2026-07-04T14:38:09Z")),
            held_since: Some(time("2026-07-04T14:38:10Z")),
            ..Verified::new(Verification::Enforce, Verification::Count, time("2026-07-04T14:00:00Z"))
        };
        let text = concat!(
            r#"{"mode":"enforce","signatures":"count","since":"2026-07-04T14:00:00Z","verified":7,"#,
            r#""failed":{"inversion":1,"signature":2},"unresolved":3,"desynchronized":{"since":4},"#,
            r#""lastFailed":{"at":"2026-07-04T14:38:08Z","did":"did:plc:a","reason":"signature"},"#,
            r#""lastUnresolved":"2026-07-04T14:38:09Z","heldSince":"2026-07-04T14:38:10Z"}"#
        );
        assert_eq!(whole.write(), text);
        assert_eq!(Verified::read(text), Some(whole.clone()));
        assert_eq!((whole.failures(), whole.commits(), whole.marked()), (3, 13, 4));
    }

    #[test]
    fn what_another_version_wrote_is_read_as_far_as_possible() {
        let since = Timestamp::UNIX_EPOCH;
        let text = r#"{"mode":"off","signatures":"off","since":"1970-01-01T00:00:00Z","later":true}"#;
        assert_eq!(Verified::read(text), Some(Verified::new(Verification::Off, Verification::Off, since)));
        for none in ["", "null", "{}", r#"{"mode":"strict","signatures":"off","since":"1970-01-01T00:00:00Z"}"#] {
            assert_eq!(Verified::read(none), None, "{none}");
        }
    }
}
