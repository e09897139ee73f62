//! Records of the Python producer, turned into lexicon JSON.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde_json::{Map, Value, json};

/// The Python SDK's name for the `$type` of a model.
const PY_TYPE: &str = "py_type";

/// Turns a record into lexicon JSON; a record that is lexicon JSON already is returned as it is.
///
/// The Python producer is known by `py_type` at the top. There keys are `snake_case`, unset fields null, nested types
/// under `py_type`, and a blob's link the hex of its CID. Bytes are hex as well, which nothing tells from a string: they
/// stay.
#[must_use]
pub fn normalise(record: Value) -> Value {
    match record {
        Value::Object(map) if map.contains_key(PY_TYPE) => object(map),
        other => other,
    }
}

/// Replaces each `\uD800`–`\uDFFF` escape that is not half of a pair by `\ufffd`; `None` where there is none.
#[must_use]
pub fn mend_lone_surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(offset) = json.get(at..)?.iter().position(|byte| *byte == b'\\') {
        let start = at + offset;
        at = match escaped_unit(json, start) {
            Some(0xD800..=0xDBFF) if matches!(escaped_unit(json, start + 6), Some(0xDC00..=0xDFFF)) => start + 12,
            Some(0xD800..=0xDFFF) => {
                out.get_or_insert_with(|| json.to_vec()).get_mut(start + 2..start + 6)?.copy_from_slice(b"fffd");
                start + 6
            }
            _ => start + 2,
        };
        if at > json.len() {
            break;
        }
    }
    out
}

/// Reads the UTF-16 unit of a `\uXXXX` escape that starts at `at`.
fn escaped_unit(json: &[u8], at: usize) -> Option<u16> {
    let escape = json.get(at..at + 6)?;
    let digits = escape.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

fn object(map: Map<String, Value>) -> Value {
    if map.get(PY_TYPE).is_some_and(|kind| kind == "blob") {
        return blob(map);
    }
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            PY_TYPE => {
                out.entry("$type").or_insert(value);
            }
            "$type" => {
                out.insert(key, value);
            }
            _ if value.is_null() => {}
            _ => {
                out.insert(camel(&key), nested(value));
            }
        }
    }
    Value::Object(out)
}

fn nested(value: Value) -> Value {
    match value {
        // Raw data that no model covered keeps its own keys: it is told by a $type without py_type.
        Value::Object(map) if map.contains_key("$type") && !map.contains_key(PY_TYPE) => Value::Object(map),
        Value::Object(map) => object(map),
        Value::Array(items) => Value::Array(items.into_iter().map(nested).collect()),
        other => other,
    }
}

fn blob(mut map: Map<String, Value>) -> Value {
    let link = match map.remove("ref") {
        Some(Value::String(hex)) => json!({ "$link": cid_of_hex(&hex).unwrap_or(hex) }),
        Some(other) => other,
        None => Value::Null,
    };
    json!({
        "$type": "blob",
        "ref": link,
        "mimeType": map.remove("mime_type").unwrap_or(Value::Null),
        "size": map.remove("size").unwrap_or(Value::Null),
    })
}

fn cid_of_hex(hex: &str) -> Option<String> {
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
    Some(format!("b{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
}

fn camel(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut up = false;
    for (index, character) in key.chars().enumerate() {
        match character {
            '_' if index > 0 => up = true,
            _ if up => {
                out.extend(character.to_uppercase());
                up = false;
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_facets_and_aspect_ratios_are_read() {
        let python = json!({
            "py_type": "app.bsky.feed.post", "$type": "app.bsky.feed.post", "created_at": "t", "text": "py_type",
            "embed": {"py_type": "app.bsky.embed.images", "images": [{
                "py_type": "app.bsky.embed.images#image", "alt": "", "aspect_ratio": {"height": 1, "width": 2, "py_type": "app.bsky.embed.defs#aspectRatio"},
                "image": {"mime_type": "image/jpeg", "size": 3, "py_type": "blob",
                    "ref": "01551220b5a3b90c9ae4ff3b4a0a0b2a3f4a5a6e7d8c9b0a1f2e3d4c5b6a79880a1b2c3d"},
            }]},
            "facets": [{"index": {"byte_start": 0, "byte_end": 4}, "features": [{"py_type": "app.bsky.richtext.facet#tag", "tag": "a_b"}]}],
            "langs": null,
        });
        let lexicon = normalise(python);
        assert_eq!(lexicon["embed"]["images"][0]["aspectRatio"]["width"], 2);
        let image = &lexicon["embed"]["images"][0]["image"];
        assert_eq!((&image["$type"], &image["mimeType"]), (&json!("blob"), &json!("image/jpeg")));
        assert!(image["ref"]["$link"].as_str().unwrap().starts_with("bafkrei"), "{image}");
        assert_eq!(lexicon["facets"][0]["index"], json!({"byteStart": 0, "byteEnd": 4}));
        assert_eq!(lexicon["facets"][0]["features"][0], json!({"$type": "app.bsky.richtext.facet#tag", "tag": "a_b"}));
        assert_eq!(lexicon["text"], "py_type");
        assert!(lexicon.get("langs").is_none() && lexicon.get("py_type").is_none());
    }

    #[test]
    fn lexicon_json_is_left_alone() {
        let lexicon = json!({"$type": "com.example.snake", "created_at": null, "a_b": {"c_d": 1}});
        assert_eq!(normalise(lexicon.clone()), lexicon);
    }

    #[test]
    fn escapes_that_are_characters_are_left_alone() {
        assert_eq!(mend_lone_surrogates(br#"{"a":"\ud83d\ude00 \\ud83d \n"}"#), None);
        assert_eq!(mend_lone_surrogates(br#""\udc00\"#).as_deref(), Some(&br#""\ufffd\"#[..]));
    }
}
