//! Reading a record's fields.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Misfit;
use crate::store::micros::Micros;

/// A record's fields, by dotted path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a Map<String, Value>);

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn of(record: &'a Value) -> Result<Self, Misfit> {
        record.as_object().map(Self).ok_or(Misfit::NotAnObject)
    }

    /// Returns a value that is there and not null.
    pub(super) fn value(&self, path: &str) -> Option<&'a Value> {
        let mut parts = path.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = value.as_object()?.get(part)?;
        }
        (!value.is_null()).then_some(value)
    }

    /// Returns a text that rows are found by.
    pub(super) fn key(&self, path: &'static str, max: usize) -> Result<&'a str, Misfit> {
        self.key_if_any(path, max)?.ok_or(Misfit::Missing(path))
    }

    /// Returns a text that rows are found by, where there is one.
    pub(super) fn key_if_any(&self, path: &'static str, max: usize) -> Result<Option<&'a str>, Misfit> {
        match self.value(path).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => key(text, path, max).map(Some),
            None => Ok(None),
        }
    }

    /// Returns a text that is only shown, cut to so many characters.
    pub(super) fn shown(&self, path: &str, max: usize) -> Option<Cow<'a, str>> {
        self.value(path).and_then(Value::as_str).map(|text| without_nul(cut(text, max)))
    }

    /// Returns a value as JSON text.
    pub(super) fn json(&self, path: &str) -> Option<String> {
        self.value(path).map(json_text)
    }

    pub(super) fn time(&self, path: &str) -> Option<Micros> {
        Micros::parse(self.value(path)?.as_str()?)
    }

    /// Returns the CID of a blob, in its present form or the one before 2023.
    pub(super) fn blob(&self, path: &str) -> Option<Cow<'a, str>> {
        let blob = self.value(path)?.as_object()?;
        let link = blob.get("ref").and_then(|link| link.get("$link").unwrap_or(link).as_str());
        link.or_else(|| blob.get("cid")?.as_str()).map(without_nul)
    }
}

/// Checks a text that rows are found by.
pub(crate) fn key<'a>(text: &'a str, field: &'static str, max: usize) -> Result<&'a str, Misfit> {
    if text.len() > max {
        Err(Misfit::TooLong { field, max })
    } else if text.contains('\0') {
        Err(Misfit::Nul(field))
    } else {
        Ok(text)
    }
}

/// Writes a value as JSON that PostgreSQL takes: `jsonb` refuses U+0000 wherever it stands.
pub(super) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    if text.contains("\\u0000") { strip(value).to_string() } else { text }
}

fn strip(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "").into(),
        Value::Array(items) => items.iter().map(strip).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.replace('\0', ""), strip(value))).collect(),
        other => other.clone(),
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

fn cut(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}
