//! What ingest found of the commits that it verified, as the API shows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use penstock_core::settings;
use penstock_core::verified::{LastFailed, Verified};
use schemars::JsonSchema;
use serde::Serialize;

/// The part `verification` of `/api/ingest`. Counts begin with the process of ingest.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verification<'r> {
    /// `verify.mode`.
    mode: Mode,
    /// `verify.signatures`.
    signatures: Mode,
    /// When the counts began, RFC 3339.
    since: String,
    /// Commits that proved right.
    verified: u64,
    /// Commits that proved wrong, by reason.
    failed: &'r BTreeMap<String, u64>,
    /// Commits written although their account's key could not be had.
    unresolved: u64,
    /// Repos marked desynchronized, by reason.
    desynchronized: &'r BTreeMap<String, u64>,
    /// The last commit that proved wrong; null if none did.
    last_failed: Option<Failure<'r>>,
    /// Since when reading waits for a key, RFC 3339; null if it does not.
    held_since: Option<String>,
}

/// Whether something is verified, and what becomes of what fails.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// It is not looked at.
    Off,
    /// Failures are counted.
    Count,
    /// What fails is refused.
    Enforce,
}

/// A commit that proved wrong.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Failure<'r> {
    /// When it was looked at, RFC 3339.
    at: String,
    /// The DID of its repo.
    did: &'r str,
    /// What was wrong with it, in a word.
    reason: &'r str,
}

// === impl Verification ===

impl<'r> Verification<'r> {
    pub(crate) fn of(found: &'r Verified) -> Self {
        let shown = |time: Timestamp| time.to_string();
        let failure = |LastFailed { at, did, reason }: &'r LastFailed| Failure { at: shown(*at), did, reason };
        Self {
            mode: Mode::of(found.mode),
            signatures: Mode::of(found.signatures),
            since: shown(found.since),
            verified: found.verified,
            failed: &found.failed,
            unresolved: found.unresolved,
            desynchronized: &found.desynchronized,
            last_failed: found.last_failed.as_ref().map(failure),
            held_since: found.held_since.map(shown),
        }
    }
}

// === impl Mode ===

impl Mode {
    fn of(mode: settings::Verification) -> Self {
        match mode {
            settings::Verification::Off => Self::Off,
            settings::Verification::Count => Self::Count,
            settings::Verification::Enforce => Self::Enforce,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shape_is_pinned() {
        let text = concat!(
            r#"{"mode":"enforce","signatures":"count","since":"2026-07-04T14:00:00Z","verified":7,"failed":{"signature":2},"#,
            r#""unresolved":3,"desynchronized":{"since":4},"lastFailed":{"at":"2026-07-04T14:38:08Z","did":"did:plc:a","reason":"signature"},"#,
            r#""heldSince":"2026-07-04T14:38:10Z"}"#
        );
        let found = Verified::read(text).unwrap();
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(Verification::of(&found)).unwrap(), expected);
        let off = Verified::new(settings::Verification::Off, settings::Verification::Off, Timestamp::UNIX_EPOCH);
        let expected = json!({
            "mode": "off", "signatures": "off", "since": "1970-01-01T00:00:00Z", "verified": 0, "failed": {}, "unresolved": 0,
            "desynchronized": {}, "lastFailed": null, "heldSince": null,
        });
        assert_eq!(serde_json::to_value(Verification::of(&off)).unwrap(), expected);
    }
}
