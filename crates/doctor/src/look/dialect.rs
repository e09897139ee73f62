//! Who wrote an entry, told by how it is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::IgnoredAny;

/// Who wrote an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    /// Our ingest.
    Penstock,
    /// The Python consumer.
    Python,
    /// The TypeScript ingestion.
    TypeScript,
    /// A producer that fills in history: no number.
    Backfill,
    /// An entry that stood there before, put back or replayed.
    Again,
    /// No known one.
    Unknown,
}

// === impl Dialect ===

impl Dialect {
    /// Tells who wrote an entry.
    ///
    /// Ours says when the event was (`time`). Python's JSON has a space after each colon, nobody else's has. The TypeScript
    /// ingestion numbers commits only.
    #[must_use]
    pub(crate) fn of(kind: &str, data: &str, seq: &str, again: bool) -> Self {
        if again {
            return Self::Again;
        }
        // Only the keys: the records may be large, and a tree of them far larger.
        let Ok(map) = serde_json::from_str::<HashMap<Cow<'_, str>, IgnoredAny>>(data) else { return Self::Unknown };
        if map.contains_key("time") {
            return Self::Penstock;
        }
        let spaced = data.contains("\": ") && (data.starts_with("{\"repo\": ") || data.starts_with("{\"did\": "));
        match (kind, seq.is_empty()) {
            ("commit" | "identity" | "account", _) if spaced => {
                if seq.is_empty() {
                    Self::Backfill
                } else {
                    Self::Python
                }
            }
            ("commit", true) => Self::Backfill,
            ("commit", false) | ("identity" | "account", true) => Self::TypeScript,
            _ => Self::Unknown,
        }
    }

    /// Says whether an entry of this kind is one that only one writer at a time may add.
    #[must_use]
    pub(crate) fn is_foreign_ingest(self) -> bool {
        matches!(self, Self::Python | Self::TypeScript | Self::Unknown)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Penstock => "penstock",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::Backfill => "backfill",
            Self::Again => "put back or replayed",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_writer_is_known_by_its_hand() {
        let cases = [
            (
                "commit",
                r#"{"repo":"did:plc:a","ops":[],"rev":"3m","time":"t","commit":"c","since":null}"#,
                "7",
                Dialect::Penstock,
            ),
            ("identity", r#"{"did":"did:plc:a","handle":null,"time":"t"}"#, "7", Dialect::Penstock),
            ("commit", r#"{"repo": "did:plc:a", "ops": [{"action": "delete", "path": "a/b"}]}"#, "7", Dialect::Python),
            ("account", r#"{"did": "did:plc:a", "active": true}"#, "7", Dialect::Python),
            ("commit", r#"{"repo":"did:plc:a","ops":[{"action":"delete","path":"a/b"}]}"#, "7", Dialect::TypeScript),
            ("identity", r#"{"did":"did:plc:a","handle":"did:plc:a"}"#, "", Dialect::TypeScript),
            ("commit", r#"{"repo":"did:plc:a","ops":[]}"#, "", Dialect::Backfill),
            ("commit", r#"{"repo": "did:plc:a", "ops": []}"#, "", Dialect::Backfill),
            ("commit", "{", "7", Dialect::Unknown),
            ("other", "{}", "7", Dialect::Unknown),
        ];
        for (kind, data, seq, wanted) in cases {
            assert_eq!(Dialect::of(kind, data, seq, false), wanted, "{data}");
            assert_eq!(Dialect::of(kind, data, seq, true), Dialect::Again, "{data}");
        }
    }
}
