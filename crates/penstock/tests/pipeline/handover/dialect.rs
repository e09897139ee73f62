//! The entries that the originals make of an event.

use std::io;

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, HEXLOWER};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::frames::Entry;

/// Keys that only ours writes into an entry's data.
const OURS: [&str; 5] = ["rev", "time", "commit", "since", "status"];

/// What each makes of a handle that is not known, and which entries carry a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Python,
    TypeScript,
}

/// The fields of a stream entry: type, data, seq.
pub(crate) type Fields = [String; 3];

/// JSON as Python prints it: with spaces, and nothing but ASCII.
struct Spaced;

// === impl Dialect ===

impl Dialect {
    /// Writes an event as this original does.
    pub(crate) fn fields(self, entry: &Entry) -> Fields {
        let mut data = entry.data.clone();
        let object = data.as_object_mut().unwrap();
        object.retain(|key, _| !OURS.contains(&key.as_str()));
        match (self, entry.kind.as_str()) {
            (Self::Python, "commit") => ops(object).retain_mut(|op| {
                // It leaves out what it cannot make a record of.
                if op["action"] == "delete" {
                    return true;
                }
                let Some(kind) = op["record"]["$type"].as_str().map(str::to_owned) else { return false };
                op["record"] = snake(&op["record"]);
                op["record"]["$type"] = json!(kind);
                true
            }),
            (Self::TypeScript, "commit") => {
                ops(object).retain(|op| op["action"] == "delete" || op["record"].is_object());
            }
            (Self::TypeScript, "identity") if object["handle"].is_null() => {
                object["handle"] = object["did"].clone();
            }
            _ => {}
        }
        let numbered = self == Self::Python || entry.kind == "commit";
        [entry.kind.clone(), self.print(&data), if numbered { entry.seq.to_string() } else { String::new() }]
    }

    /// Prints an object: whose it is, then the rest of it.
    fn print(self, data: &Value) -> String {
        let mut fields: Vec<_> = data.as_object().unwrap().iter().collect();
        fields.sort_by_key(|(key, _)| !matches!(key.as_str(), "repo" | "did"));
        let (colon, comma) = if self == Self::Python { (": ", ", ") } else { (":", ",") };
        let value = |value| if self == Self::Python { spaced(value) } else { Value::to_string(value) };
        let fields = fields.into_iter().map(|(key, field)| format!("\"{key}\"{colon}{}", value(field)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(comma))
    }
}

// === impl Spaced ===

impl Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, to: &mut W, first: bool) -> io::Result<()> {
        self.begin_array_value(to, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, to: &mut W, text: &str) -> io::Result<()> {
        for letter in text.chars() {
            if letter.is_ascii() {
                write!(to, "{letter}")?;
                continue;
            }
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(to, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

fn spaced(value: &Value) -> String {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)).unwrap();
    String::from_utf8(out).unwrap()
}

/// Says whether an entry's data was written by ours.
pub(crate) fn is_ours(data: &Value) -> bool {
    data.get("time").is_some()
}

fn ops(data: &mut Map<String, Value>) -> &mut Vec<Value> {
    data.get_mut("ops").and_then(Value::as_array_mut).unwrap()
}

/// A record as the Python consumer's models print it.
fn snake(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(snake).collect(),
        Value::Object(map) if map.len() == 1 && map.contains_key("$link") => {
            let cid = map["$link"].as_str().unwrap().to_ascii_uppercase();
            json!(BASE32_NOPAD.decode(&cid.as_bytes()[1..]).map_or_else(|_| cid.clone(), |cid| HEXLOWER.encode(&cid)))
        }
        Value::Object(map) if map.len() == 1 && map.contains_key("$bytes") => {
            let bytes = map["$bytes"].as_str().unwrap();
            json!(BASE64_NOPAD.decode(bytes.as_bytes()).map(|bytes| HEXLOWER.encode(&bytes)).unwrap())
        }
        Value::Object(map) => {
            let name = |key: &str| if key == "$type" { "py_type".to_owned() } else { snake_case(key) };
            Value::Object(map.iter().map(|(key, value)| (name(key), snake(value))).collect())
        }
        other => other.clone(),
    }
}

fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 2);
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
