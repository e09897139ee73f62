//! Reading a record's fields.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::{Map, Value};
use unicode_segmentation::UnicodeSegmentation;

use super::misfit::Misfit;
use crate::store::micros::Micros;

/// A record's fields, by dotted path.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    record: &'a Map<String, Value>,
    /// Whether all that was read fits.
    whole: Cell<bool>,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn of(record: &'a Value) -> Result<Self, Misfit> {
        let record = record.as_object().ok_or(Misfit::NotAnObject)?;
        Ok(Self { record, whole: Cell::new(true) })
    }

    /// Returns whether whatever was read of them so far came out as the record says it.
    pub(super) fn are_whole(&self) -> bool {
        self.whole.get()
    }

    /// Notes that the row will say less than the record.
    pub(super) fn lose(&self) {
        self.whole.set(false);
    }

    /// Returns a value that is there and not null.
    pub(super) fn value(&self, path: &str) -> Option<&'a Value> {
        let mut parts = path.split('.');
        let mut value = self.record.get(parts.next()?)?;
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

    /// Returns a text that a row can do without, where there is one and it fits.
    pub(super) fn fitting(&self, path: &'static str, max: usize) -> Option<&'a str> {
        self.key_if_any(path, max).unwrap_or_else(|_| {
            self.lose();
            None
        })
    }

    /// Returns a text that is only shown, cut to so many characters.
    pub(super) fn shown(&self, path: &str, max: usize) -> Option<Cow<'a, str>> {
        let text = self.value(path)?.as_str()?;
        let shown = cut(text, max);
        if shown.len() < text.len() {
            self.lose();
        }
        Some(without_nul(shown))
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

/// Takes NUL out of texts. In a name something stands in for it: two that differ by it alone stay two.
fn strip(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "").into(),
        Value::Array(items) => items.iter().map(strip).collect(),
        Value::Object(map) => {
            let (odd, plain): (Vec<_>, Vec<_>) = map.iter().partition(|(name, _)| name.contains('\0'));
            let mut stripped: Map<_, _> = plain.into_iter().map(|(name, value)| (name.clone(), strip(value))).collect();
            for (name, value) in odd {
                let mut name = name.replace('\0', "\u{fffd}");
                while stripped.contains_key(&name) {
                    name.push('\u{fffd}');
                }
                stripped.insert(name, strip(value));
            }
            Value::Object(stripped)
        }
        other => other.clone(),
    }
}

fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

/// Cuts a text to so many characters, and never within what a reader takes for one.
fn cut(text: &str, max: usize) -> &str {
    let end = if text.len() > max { text.char_indices().nth(max) } else { None };
    let Some((end, _)) = end else { return text };
    let borders = text.grapheme_indices(true).map(|(at, _)| at);
    let border = borders.take_while(|at| *at <= end).last().unwrap_or_default();
    text.get(..border).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_cut_between_what_a_reader_takes_for_characters() {
        let family = "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}";
        for (text, max, shown) in [
            ("abc".to_owned(), 3, "abc".to_owned()),
            ("abcd".to_owned(), 3, "abc".to_owned()),
            ("ÄÖÜß".to_owned(), 3, "ÄÖÜ".to_owned()),
            // One more character than a column holds, the last one a mark of the one before.
            (format!("{}e\u{301}", "a".repeat(254)), 255, "a".repeat(254)),
            (format!("{}e\u{301}b", "a".repeat(253)), 255, format!("{}e\u{301}", "a".repeat(253))),
            (format!("{}{family}", "a".repeat(252)), 255, "a".repeat(252)),
            (family.repeat(60), 255, family.repeat(51)),
            ("\r\n".repeat(200), 255, "\r\n".repeat(127)),
            // A flag is two letters.
            (format!("a{}", "\u{1F1E9}\u{1F1EA}".repeat(200)), 255, format!("a{}", "\u{1F1E9}\u{1F1EA}".repeat(127))),
            (format!("e{}", "\u{301}".repeat(300)), 255, String::new()),
            (String::new(), 0, String::new()),
        ] {
            assert_eq!(cut(&text, max), shown);
        }
    }

    #[test]
    fn names_that_differ_by_a_nul_stay_apart() {
        let value = json!({"k": 1, "k\0": 2, "\0k": {"a\0": "x\0"}, "k\u{fffd}": 3, "plain": ["\0"]});
        assert_eq!(
            strip(&value),
            json!({"k": 1, "k\u{fffd}\u{fffd}": 2, "\u{fffd}k": {"a\u{fffd}": "x"}, "k\u{fffd}": 3, "plain": [""]})
        );
        let backslash = json!({"text": "\\u0000"});
        assert_eq!(json_text(&backslash), backslash.to_string(), "a backslash is no NUL");
    }
}
