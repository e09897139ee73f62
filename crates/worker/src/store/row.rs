//! Records as rows of their tables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::micros::Micros;
use super::table::{Kind, Table};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    /// Text without NUL.
    Text(Option<Cow<'a, str>>),
    /// JSON, serialized, without NUL.
    Json(Option<String>),
    /// A time.
    Time(Option<Micros>),
    /// A truth.
    Bool(bool),
}

/// A record as a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row<'a> {
    /// Where it goes.
    pub(crate) table: Table,
    /// The values, in the order of the table's columns.
    pub(crate) cells: Vec<Cell<'a>>,
    /// What `feed_items` and `quotes` take from it besides.
    pub(crate) derived: Option<Box<Derived<'a>>>,
    /// The CID of a record whose table has no column for it: the notification of a like or a follow says it.
    pub(crate) cid: Option<Cow<'a, str>>,
}

/// What a post or a repost gives to `feed_items` and `quotes`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Derived<'a> {
    /// The record's CID.
    pub(crate) cid: Cow<'a, str>,
    /// The post that it shows: itself, or the one reposted.
    pub(crate) post: Cow<'a, str>,
    /// The repo.
    pub(crate) author: Cow<'a, str>,
    /// When it was made.
    pub(crate) created_at: Micros,
    /// Where feeds sort it.
    pub(crate) sort_at: Micros,
    /// The record that a post quotes: URI and CID.
    pub(crate) quote: Option<(Cow<'a, str>, Option<Cow<'a, str>>)>,
}

/// What may stand only once: a table, and the values of its unique columns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    /// The table.
    pub(crate) table: Table,
    /// The value of the first column; empty where the second is unique alone.
    pub(crate) a: String,
    /// The value of the second column.
    pub(crate) b: String,
}

// === impl Row ===

impl Row<'_> {
    /// Returns the text of a column; `None` where it is null or no text.
    fn text(&self, column: usize) -> Option<&str> {
        match self.cells.get(column) {
            Some(Cell::Text(text)) => text.as_deref(),
            _ => None,
        }
    }

    /// Returns the text of a column by its name; `None` where it is null or no text.
    pub(crate) fn column(&self, name: &str) -> Option<&str> {
        self.text(self.table.spec().columns.iter().position(|(column, _)| *column == name)?)
    }

    /// Returns the pair that it wants for itself.
    pub(crate) fn pair(&self) -> Option<Pair> {
        let (a, b) = self.table.spec().pair?;
        let a = a.map_or("", |column| self.text(column).unwrap_or_default());
        Some(Pair { table: self.table, a: a.to_owned(), b: self.text(b)?.to_owned() })
    }

    /// Returns the URI that it counts for.
    pub(crate) fn counted(&self) -> Option<&str> {
        self.text(self.table.spec().counted?.0)
    }

    /// Writes the row as `to_jsonb` would, to wait in `penstock.shadowed`.
    ///
    /// JSON goes in as it stands: it may be nested deeper than serde_json reads.
    pub(crate) fn to_json(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let mut columns: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for ((name, _), cell) in self.table.spec().columns.iter().zip(&self.cells) {
            let value = match cell {
                Cell::Text(value) => value.as_deref().map(text),
                Cell::Json(json) => json.clone(),
                Cell::Time(time) => time.map(|time| text(&time.to_text())),
                Cell::Bool(bool) => Some(bool.to_string()),
            };
            columns.insert(name, value);
        }
        let cid = self.cid.as_ref().filter(|_| matches!(self.table, Table::Likes | Table::Follows));
        if let Some(cid) = self.derived.as_ref().map(|derived| &derived.cid).or(cid) {
            columns.insert("cid", Some(text(cid)));
        }
        if let Some(derived) = &self.derived {
            columns.insert("sort_at", Some(text(&derived.sort_at.to_text())));
        }
        let columns =
            columns.into_iter().map(|(name, value)| format!("\"{name}\":{}", value.as_deref().unwrap_or("null")));
        format!("{{{}}}", columns.collect::<Vec<_>>().join(","))
    }
}

impl Row<'static> {
    /// Reads a row that waited in `penstock.shadowed`; JSON in it is taken as it stands.
    pub(crate) fn from_json(table: Table, json: &RawValue) -> Self {
        let columns: BTreeMap<String, &RawValue> = serde_json::from_str(json.get()).unwrap_or_default();
        let json = |name: &str| columns.get(name).map(|value| value.get()).filter(|value| *value != "null");
        let text = |name: &str| serde_json::from_str(json(name)?).ok().map(|text: String| Cow::Owned(text));
        let time = |name: &str| text(name).and_then(|text| Micros::from_row(&text));
        let cells = table.spec().columns.iter().map(|(name, kind)| match kind {
            Kind::Text => Cell::Text(text(name)),
            Kind::Json => Cell::Json(json(name).map(str::to_owned)),
            Kind::Time => Cell::Time(time(name)),
            Kind::Bool => Cell::Bool(json(name) == Some("true")),
        });
        let cells = cells.collect();
        // Of the tables with pairs, only reposts are shown in feeds.
        let derived = match (table, time("created_at")) {
            (Table::Reposts, Some(created_at)) => Some(Box::new(Derived {
                cid: text("cid").unwrap_or_default(),
                post: text("post_uri").unwrap_or_default(),
                author: text("user_did").unwrap_or_default(),
                created_at,
                // Those that began to wait before it was kept here.
                sort_at: time("sort_at").unwrap_or(created_at),
                quote: None,
            })),
            _ => None,
        };
        let cid = if derived.is_none() { text("cid") } else { None };
        Self { table, cells, derived, cid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_the_shadows() {
        let text = |text: &str| Cell::Text(Some(Cow::Owned(text.to_owned())));
        let at = Micros::parse("2026-07-04T14:38:08.999Z");
        let row = Row {
            table: Table::Reposts,
            cells: vec![
                text("did:plc:a"),
                text("at://did:plc:b/app.bsky.feed.post/p"),
                Cell::Text(None),
                Cell::Json(Some(r#"{"uri":"x"}"#.to_owned())),
                Cell::Time(at),
                Cell::Time(None),
            ],
            derived: Some(Box::new(Derived {
                cid: "bafy".into(),
                post: "at://did:plc:b/app.bsky.feed.post/p".into(),
                author: "did:plc:a".into(),
                created_at: at.unwrap(),
                sort_at: Micros::parse("2026-07-04T12:00:00Z").unwrap(),
                quote: None,
            })),
            cid: None,
        };
        let json = RawValue::from_string(row.to_json()).unwrap();
        assert_eq!(Row::from_json(Table::Reposts, &json), row);
        // However deep: serde_json's own values end at 127.
        let deep = Some(format!("{}{}", "[".repeat(500), "]".repeat(500)));
        let mut row = row;
        row.cells[3] = Cell::Json(deep);
        let json = RawValue::from_string(row.to_json()).unwrap();
        assert_eq!(Row::from_json(Table::Reposts, &json), row);
    }
}
