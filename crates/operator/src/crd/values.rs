//! Values of fields that Kubernetes has no type for.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration such as `500ms`, `30s`, `5m`, `1h` or `3d`: the schema checks its form, the settings its range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub String);

/// An amount of memory such as `64Mi` or `1Gi`: the schema checks its form, the settings its range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(pub String);

// === impl Time ===

impl Time {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Time {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 20,
            "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$",
        })
    }
}

// === impl Memory ===

impl Memory {
    /// Returns the number of bytes; none where it is not one.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("", 1)];
        let (number, unit) = units.iter().find_map(|(name, unit)| Some((self.0.strip_suffix(name)?, *unit)))?;
        number.parse::<u64>().ok()?.checked_mul(unit)
    }
}

impl From<&str> for Memory {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl JsonSchema for Memory {
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 14,
            "pattern": "^[0-9]{1,11}(Ki|Mi|Gi)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bytes_in_binary_units() {
        for (text, bytes) in [
            ("64Ki", Some(65_536)),
            ("64Mi", Some(67_108_864)),
            ("16Gi", Some(17_179_869_184)),
            ("65536", Some(65_536)),
            ("0", Some(0)),
            ("64M", None),
            ("Mi", None),
            ("", None),
            ("1.5Gi", None),
            ("-1Mi", None),
            ("99999999999999Gi", None),
        ] {
            assert_eq!(Memory::from(text).bytes(), bytes, "{text}");
        }
    }
}
